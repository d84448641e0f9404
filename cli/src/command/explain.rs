//! `berth explain CODE`: the page of `docs/errors`, from inside the binary.

use berth_wire::code::Code;

use crate::failure::{Exit, Failure};
use crate::screen::{Screen, left};

/// Every page by its code, put here by `build.rs`.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The code, e.g. R10; every code there is if left out
    code: Option<String>,
}

/// Runs it.
///
/// # Errors
/// There is no such code.
pub fn run(screen: &Screen, arguments: &Arguments) -> Result<(), Failure> {
    let Some(text) = &arguments.code else {
        let all: Vec<_> =
            Code::ALL.iter().map(|code| serde_json::json!({ "code": code, "title": code.title() })).collect();
        return screen.answer(&all, |screen| {
            let rows = Code::ALL.iter().map(|code| vec![code.to_string(), code.title().to_owned()]);
            screen.table(&[left("CODE"), left("WHAT HAPPENED")], rows);
        });
    };
    let code: Code = text.parse().map_err(|error| {
        Failure::new(Exit::NotFound, format!("{error}; `berth explain` lists every code"))
    })?;
    let page = page(code).unwrap_or_default();
    screen.answer(&serde_json::json!({ "code": code, "title": code.title(), "page": page }), |screen| {
        screen.raw(page);
    })
}

fn page(code: Code) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == code.as_str()).map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_must_have_a_page_and_every_page_a_code() {
        for &code in Code::ALL {
            let page = page(code).unwrap_or_else(|| panic!("docs/errors/{code}.md is missing"));
            let heading = format!("# {code}: {}\n", code.title());
            assert!(page.starts_with(&heading), "docs/errors/{code}.md must begin with {heading:?}");
            for part in ["\n## Likely causes\n", "\n## What to do\n"] {
                assert!(page.contains(part), "docs/errors/{code}.md has no {part:?}");
            }
        }
        for (name, _) in PAGES {
            assert!(name.parse::<Code>().is_ok(), "docs/errors/{name}.md is about no code of wire::code");
        }
    }
}
