//! Names that people choose, validated once where they are parsed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused: what was tried, and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not allowed: {rule}")]
pub struct InvalidName {
    /// What the name would have been for, e.g. "app name".
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The rule, as a sentence that tells how to do it right.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, given: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// An app's name: a DNS label, because it becomes one (RFC 1123 2.1, RFC 1035 2.3.1), at most 40 characters.
    AppName,
    "app name",
    "use 1 to 40 of a-z, 0-9 and -, starting with a letter and not ending with -",
    |s| s.len() <= 40
        && s.starts_with(|c: char| c.is_ascii_lowercase())
        && !s.ends_with('-')
        && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
);
name!(
    /// A process type of a Procfile: `web`, `worker`, `release`.
    ProcessType,
    "process type",
    "use 1 to 32 of a-z, 0-9, - and _, starting with a letter",
    |s| s.len() <= 32
        && s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
);
name!(
    /// The key of a config var: what POSIX allows for an environment variable's name
    /// (The Open Group Base Specifications, 8.1), not `PORT` and not `BERTH_…`, which Berth sets.
    ConfigKey,
    "config var",
    "use 1 to 128 of A-Z, a-z, 0-9 and _, not starting with a digit; PORT and BERTH_* are set by Berth",
    |s| s.len() <= 128
        && s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && s != "PORT"
        && !s.starts_with("BERTH_")
);
name!(
    /// A host name that requests are routed by, lower case, without port (RFC 1123 2.1).
    Domain,
    "domain",
    "use a host name: labels of a-z, 0-9 and - joined by dots, at most 253 characters",
    |s| s.len() <= 253
        && s.split('.').all(|l| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
);

impl ProcessType {
    /// The process type that gets HTTP traffic.
    pub fn web() -> Self {
        Self("web".to_owned())
    }

    /// The process type that runs once before a release is switched to.
    pub fn release() -> Self {
        Self("release".to_owned())
    }

    /// Whether HTTP is routed to it.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_must_be_dns_labels() {
        for good in ["a", "shop", "shop-2", "a234567890123456789012345678901234567890"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "A", "2a", "a_b", "a.b", "ä", "a23456789012345678901234567890123456789012"]
        {
            assert!(bad.parse::<AppName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_berth_sets_must_be_refused() {
        assert!("PORT".parse::<ConfigKey>().is_err());
        assert!("BERTH_APP".parse::<ConfigKey>().is_err());
        assert!("DATABASE_URL".parse::<ConfigKey>().is_ok());
        assert!("1A".parse::<ConfigKey>().is_err());
    }

    #[test]
    fn a_refusal_must_name_the_rule() {
        let refused = "Bad_Name".parse::<AppName>().unwrap_err().to_string();
        assert!(refused.contains("Bad_Name") && refused.contains("a-z"), "{refused}");
    }
}
