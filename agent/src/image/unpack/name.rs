//! Names in archives: taken apart into components that cannot lead anywhere but down.

use super::refusal::Refusal;

/// linux/limits.h.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4_095;

/// What an entry's name asks for (OCI image spec, layer.md, Whiteouts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// The root itself.
    Root,
    /// This name in that directory.
    Entry { parent: Vec<Vec<u8>>, name: Vec<u8> },
    /// Hides this name of the layers below.
    Whiteout { parent: Vec<Vec<u8>>, name: Vec<u8> },
    /// Hides everything the layers below have in this directory.
    Opaque { directory: Vec<Vec<u8>> },
    /// Bookkeeping of aufs (`.wh..wh.plnk` and the like), which nobody reads any more.
    Ignored,
}

/// The components of a path; a leading `/` and any `.` mean nothing, `..` is refused wherever it is.
pub(super) fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let refuse = |why| Refusal::Name(shown(path), why);
    if path.len() > PATH_BYTES_MAX {
        return Err(refuse("is too long"));
    }
    if path.contains(&0) {
        return Err(refuse("has a NUL in it"));
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(refuse("leads upwards")),
            long if long.len() > NAME_BYTES_MAX => return Err(refuse("is too long")),
            plain => components.push(plain.to_vec()),
        }
    }
    Ok(components)
}

impl Name {
    pub(super) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        let mut parent = components(path)?;
        let Some(name) = parent.pop() else { return Ok(Self::Root) };
        // In the middle of a path it is not a marker, and what it would make is a directory that hides nothing.
        if parent.iter().any(|component| component.starts_with(b".wh.")) {
            return Err(Refusal::Name(shown(path), "has a whiteout for a directory"));
        }
        match name.strip_prefix(b".wh.") {
            None => Ok(Self::Entry { parent, name }),
            Some(b".wh..opq") => Ok(Self::Opaque { directory: parent }),
            Some(hidden) if hidden.starts_with(b".wh.") => Ok(Self::Ignored),
            Some(b"" | b"." | b"..") => Err(Refusal::Name(shown(path), "hides no name")),
            Some(hidden) => Ok(Self::Whiteout { parent, name: hidden.to_vec() }),
        }
    }
}

/// A name as it may be printed: bounded, and with nothing in it that a terminal would act on.
pub(super) fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(parent: &[&str], name: &str) -> Name {
        let parent = parent.iter().map(|component| component.as_bytes().to_vec()).collect();
        Name::Entry { parent, name: name.as_bytes().to_vec() }
    }

    #[test]
    fn a_name_must_lead_down_only() {
        assert_eq!(Name::parse(b"./usr//bin/./sh/").unwrap(), entry(&["usr", "bin"], "sh"));
        assert_eq!(Name::parse(b"/etc/passwd").unwrap(), entry(&["etc"], "passwd"));
        assert_eq!(Name::parse(b"./").unwrap(), Name::Root);
        for path in [&b"../x"[..], b"a/../../x", b"a/..", b"a\0b", &[b'a'; 256], &b"a/".repeat(3_000)] {
            assert!(Name::parse(path).is_err(), "{}", shown(path));
        }
    }

    #[test]
    fn whiteouts_must_be_told_from_files() {
        assert_eq!(
            Name::parse(b"a/.wh.b").unwrap(),
            Name::Whiteout { parent: vec![b"a".to_vec()], name: b"b".to_vec() }
        );
        assert_eq!(Name::parse(b"a/.wh..wh..opq").unwrap(), Name::Opaque { directory: vec![b"a".to_vec()] });
        assert_eq!(Name::parse(b".wh..wh.plnk").unwrap(), Name::Ignored);
        for path in [&b".wh."[..], b".wh...", b".wh..", b".wh.a/b"] {
            assert!(Name::parse(path).is_err(), "{}", shown(path));
        }
    }

    proptest! {
        #[test]
        fn no_component_must_ever_be_special(path in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(components) = components(&path) {
                for component in components {
                    prop_assert!(!component.is_empty() && component != b"." && component != b"..");
                    prop_assert!(!component.contains(&b'/') && !component.contains(&0));
                }
            }
        }
    }
}
