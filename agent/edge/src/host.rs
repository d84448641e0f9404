//! From what a client says it wants (`Host`, or the authority of an absolute request target) to a key of the route
//! table: lower case, no port, no trailing dot. Nothing else about requests belongs here.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The text names no host (RFC 9110 7.2, RFC 3986 3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Host header names no host; it must be a host name or an address, with an optional port")]
pub struct NotAHost;

/// The table's key for a host with an optional port. An IPv6 literal keeps its brackets.
///
/// # Errors
/// When it is empty, longer than a host name may be, or has characters that no host name has.
pub fn key(authority: &str) -> Result<Cow<'_, str>, NotAHost> {
    let (name, port) = split(authority)?;
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.len() > 5 {
        return Err(NotAHost);
    }
    if name.starts_with('[') {
        return Ok(Cow::Borrowed(name));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty()
        || name.len() > 253
        || name.starts_with('.')
        || name.ends_with('.')
        || !name.bytes().all(allowed)
    {
        return Err(NotAHost);
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Ok(Cow::Borrowed(name))
    }
}

/// Host and port; the port is empty without one.
fn split(authority: &str) -> Result<(&str, &str), NotAHost> {
    let Some(literal) = authority.strip_prefix('[') else {
        return Ok(authority.split_once(':').unwrap_or((authority, "")));
    };
    let (address, rest) = literal.split_once(']').ok_or(NotAHost)?;
    address.parse::<Ipv6Addr>().map_err(|_| NotAHost)?;
    let port = match rest {
        "" => "",
        _ => rest.strip_prefix(':').ok_or(NotAHost)?,
    };
    Ok((&authority[..address.len() + 2], port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_must_lose_port_case_and_trailing_dot() {
        for (given, wanted) in [
            ("shop.localhost", "shop.localhost"),
            ("shop.localhost:8080", "shop.localhost"),
            ("Shop.LOCALHOST.", "shop.localhost"),
            ("shop.localhost.:80", "shop.localhost"),
            ("shop.localhost:", "shop.localhost"),
            ("127.0.0.1:9", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(key(given).as_deref(), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_is_no_host_must_be_refused() {
        let long = "a".repeat(254);
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a..",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "user@shop.localhost",
            "[::1",
            "[::1]x",
            "[zz]",
            "[]",
            "a:b",
            "a:80:80",
            "a:-1",
            "a:999999",
            "::1",
            "a\\b",
            "a,b",
            "ä",
            "a%00",
            "a?b",
            "a#b",
            &long,
        ] {
            assert_eq!(key(bad), Err(NotAHost), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_must_be_refused_or_give_a_clean_key(text in "\\PC{0,300}") {
            if let Ok(key) = key(&text) {
                prop_assert!(!key.is_empty() && key.len() <= 255);
                prop_assert!(!key.bytes().any(|b| b.is_ascii_uppercase() && !text.starts_with('[')));
                prop_assert!(!key.contains(['/', '@', ' ', '\\', '?', '#']));
            }
        }

        #[test]
        fn every_way_to_write_a_host_must_give_one_key(
            name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,10}){0,4}",
            port in proptest::option::of(0u16..),
            dot: bool,
            upper: bool,
        ) {
            let mut written = if upper { name.to_ascii_uppercase() } else { name.clone() };
            if dot { written.push('.'); }
            if let Some(port) = port { written.push_str(&format!(":{port}")); }
            prop_assert_eq!(key(&written).unwrap(), name);
        }
    }
}
