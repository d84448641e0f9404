//! Which changes of refs a push may make. Pure.

use berth_wire::code::Code;

use super::protocol::{REFS_MAX, Update};

/// The branches that deploy.
pub const DEPLOY_BRANCHES: [&str; 2] = ["main", "master"];

/// A push that is allowed: one deploy branch gets one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// `main` or `master`.
    pub branch: String,
    /// What it points to; none if the branch is new.
    pub old: Option<String>,
    /// What it will point to.
    pub new: String,
}

/// Why a push is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// To be looked up.
    pub code: Code,
    /// What was tried and what to do.
    pub sentence: String,
}

/// Judges a whole push: git accepts or refuses all of it.
pub fn judge(updates: &[Update]) -> Result<Accepted, Refused> {
    let refused = |code, sentence: String| Err(Refused { code, sentence });
    if updates.len() > REFS_MAX {
        let sentence =
            format!("one push may change at most {REFS_MAX} refs; push only main: git push berth main");
        return refused(Code::G13, sentence);
    }
    for update in updates {
        let name = &update.reference;
        let Some(branch) = name.strip_prefix("refs/heads/") else {
            let what = name
                .strip_prefix("refs/tags/")
                .map_or(format!("{name} is"), |tag| format!("the tag {tag} is"));
            let sentence = format!("{what} not a branch; only main (or master) deploys: git push berth main");
            return refused(Code::G10, sentence);
        };
        if !DEPLOY_BRANCHES.contains(&branch) {
            let sentence = format!(
                "only main (or master) deploys, and this is {branch}; to deploy it: git push berth {branch}:main"
            );
            return refused(Code::G10, sentence);
        }
        if is_zero(&update.new) {
            let sentence = format!("{branch} is what runs; to remove the app: berth apps delete");
            return refused(Code::G14, sentence);
        }
    }
    match updates {
        [update] => Ok(Accepted {
            branch: update.reference.trim_start_matches("refs/heads/").to_owned(),
            old: Some(update.old.clone()).filter(|old| !is_zero(old)),
            new: update.new.clone(),
        }),
        _ => refused(Code::G10, "push main or master, not both: only one can be what runs".to_owned()),
    }
}

fn is_zero(object: &str) -> bool {
    object.bytes().all(|b| b == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000000000000000000000000000";
    const ONE: &str = "1111111111111111111111111111111111111111";

    fn update(old: &str, new: &str, reference: &str) -> Update {
        Update { old: old.into(), new: new.into(), reference: reference.into() }
    }

    #[test]
    fn a_deploy_branch_must_be_accepted() {
        let accepted = judge(&[update(ZERO, ONE, "refs/heads/master")]).unwrap();
        assert_eq!(accepted, Accepted { branch: "master".into(), old: None, new: ONE.into() });
        assert_eq!(judge(&[update(ONE, ONE, "refs/heads/main")]).unwrap().old, Some(ONE.into()));
    }

    #[test]
    fn anything_else_must_be_refused_with_its_code() {
        let code = |updates: &[Update]| judge(updates).unwrap_err().code;
        assert_eq!(code(&[update(ZERO, ONE, "refs/heads/feature")]), Code::G10);
        assert_eq!(code(&[update(ZERO, ONE, "refs/tags/v1")]), Code::G10);
        assert_eq!(code(&[update(ONE, ZERO, "refs/heads/main")]), Code::G14);
        let both = [update(ZERO, ONE, "refs/heads/main"), update(ZERO, ONE, "refs/heads/master")];
        assert_eq!(code(&both), Code::G10);
        assert_eq!(code(&vec![update(ZERO, ONE, "refs/heads/main"); REFS_MAX + 1]), Code::G13);
    }

    #[test]
    fn a_refusal_must_say_how_to_do_it_right() {
        let refused = judge(&[update(ZERO, ONE, "refs/heads/feature")]).unwrap_err();
        assert!(refused.sentence.contains("git push berth feature:main"), "{}", refused.sentence);
    }
}
