//! What a path under `/v2/` names. Berth has three kinds of repository and knows no other, so that no name from
//! outside ever becomes part of a file's path unchecked.

use std::fmt;

use berth_wire::digest::Digest;
use berth_wire::id::AppId;
use http::StatusCode;
use uuid::Uuid;

use super::error::{Refusal, RefusalCode};

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Repository {
    /// `apps/UUID`: an app's own images.
    App(AppId),
    /// `stacks/NAME`: a stack's image.
    Stack(String),
    /// `layers`: dependency layers shared by apps.
    Layers,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(id) => write!(f, "apps/{id}"),
            Self::Stack(name) => write!(f, "stacks/{name}"),
            Self::Layers => f.write_str("layers"),
        }
    }
}

impl Repository {
    /// The repository of that name, if it is one that can exist.
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once('/') {
            None if name == "layers" => Some(Self::Layers),
            Some(("apps", id)) => {
                let parsed: AppId = id.parse().ok()?;
                // One spelling per repository: no braces, no upper case.
                (parsed.to_string() == id).then_some(Self::App(parsed))
            }
            Some(("stacks", stack)) if is_component(stack) => Some(Self::Stack(stack.to_owned())),
            _ => None,
        }
    }
}

/// One component of a repository's name: `[a-z0-9]+([._-][a-z0-9]+)*` (distribution 1.1, Pulling manifests).
fn is_component(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 100
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || matches!(c, '.' | '_' | '-'))
        && !text.contains("..")
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By content.
    Digest(Digest),
    /// By name.
    Tag(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => f.write_str(tag),
        }
    }
}

impl Reference {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(digest) = text.parse() {
            return Some(Self::Digest(digest));
        }
        // [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let valid = text.len() <= 128
            && text.starts_with(first)
            && text.chars().all(|c| first(c) || c == '.' || c == '-');
        valid.then(|| Self::Tag(text.to_owned()))
    }
}

/// What in a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// end-2, end-10.
    Blob(Digest),
    /// end-3, end-7.
    Manifest(Reference),
    /// end-4, end-11.
    Uploads,
    /// end-5, end-6, end-13.
    Upload(Uuid),
    /// end-8.
    Tags,
}

/// Takes apart what follows `/v2/`.
pub fn parse(rest: &str) -> Result<(Repository, Target), Refusal> {
    let invalid = |code, what: &str| {
        Refusal::new(StatusCode::BAD_REQUEST, code, format!("{what} in /v2/{rest} is not valid"))
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let (name, target) = match parts.as_slice() {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => (name, Target::Uploads),
        [name @ .., "blobs", "uploads", id] => {
            let id = Uuid::parse_str(id).map_err(|_| {
                let message = format!("no upload {id:?}; begin one with POST");
                Refusal::new(StatusCode::NOT_FOUND, RefusalCode::BlobUploadUnknown, message)
            })?;
            (name, Target::Upload(id))
        }
        [name @ .., "blobs", digest] => {
            let digest = digest.parse().map_err(|_| invalid(RefusalCode::DigestInvalid, "the digest"))?;
            (name, Target::Blob(digest))
        }
        [name @ .., "manifests", reference] => {
            let reference = Reference::parse(reference)
                .ok_or_else(|| invalid(RefusalCode::ManifestInvalid, "the reference"))?;
            (name, Target::Manifest(reference))
        }
        [name @ .., "tags", "list"] => (name, Target::Tags),
        _ => {
            let message = format!("/v2/{rest} is not an endpoint of the registry");
            return Err(Refusal::new(StatusCode::NOT_FOUND, RefusalCode::Unsupported, message));
        }
    };
    let name = name.join("/");
    let repository = Repository::parse(&name).ok_or_else(|| {
        let message = format!("{name:?} is not a repository: there are apps/UUID, stacks/NAME and layers");
        Refusal::new(StatusCode::NOT_FOUND, RefusalCode::NameInvalid, message)
    })?;
    Ok((repository, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_kinds_of_repository_must_be_known() {
        let id = "0198c0de-0000-7000-8000-000000000001";
        assert!(Repository::parse(&format!("apps/{id}")).is_some());
        assert!(Repository::parse("stacks/berth-13").is_some());
        assert!(Repository::parse("layers").is_some());
        for bad in [
            "",
            "apps/..",
            "apps/",
            "stacks/..",
            "stacks/a/../b",
            "stacks/a..b",
            "layers/x",
            "../layers",
            "x",
        ] {
            assert!(Repository::parse(bad).is_none(), "{bad}");
        }
        assert!(Repository::parse(&format!("apps/{}", id.to_uppercase())).is_none());
    }

    #[test]
    fn a_path_must_be_taken_apart() {
        let digest = Digest::of(b"x");
        let (repository, target) = parse(&format!("stacks/berth-13/blobs/{digest}")).unwrap();
        assert_eq!((repository, target), (Repository::Stack("berth-13".into()), Target::Blob(digest)));
        assert_eq!(parse("layers/blobs/uploads/").unwrap().1, Target::Uploads);
        assert_eq!(
            parse("layers/manifests/key-1").unwrap().1,
            Target::Manifest(Reference::Tag("key-1".into()))
        );
        assert_eq!(parse("layers/tags/list").unwrap().1, Target::Tags);
        for bad in ["layers/manifests/a%2Fb", "layers/blobs/sha256:0", "layers", "", "layers/blobs/uploads/x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
