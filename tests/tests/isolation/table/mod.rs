//! The table: what is tried, as whom, how the kernel must refuse, which step's removal lets it succeed, and how runc with Docker's
//! defaults fares. One row drives all three runs. Rows by subject: `calls`, `identity`, `files`.

mod calls;
mod files;
mod identity;

use std::sync::Arc;

use berth_agent::launch::security_label;
use berth_wire::launch::Step;
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};

/// The probe found nothing to complain of.
pub const FINE: i32 = 200;
const EPERM: i32 = libc::EPERM;
const APP: u32 = 1_000;
const ROOT: u32 = 0;

pub type Chosen = Arc<dyn Fn(&Step) -> bool + Send + Sync>;

/// One row.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub attempt: &'static str,
    pub arguments: Vec<String>,
    pub user: u32,
    /// How it ends as shipped.
    pub refusal: Exit,
    /// Which steps protect; none where it is the order of things rather than a step.
    pub step: Option<Chosen>,
    /// How it ends without that step, where a second fence stands behind it.
    behind: Option<Exit>,
    pub peer: Peer,
}

/// How the same attempt ends in a container of runc's with Docker's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It is refused, in whichever way.
    Held,
    /// It succeeds: Docker's default is wider.
    Succeeds,
    /// It means nothing there, for this reason.
    Not(&'static str),
}

/// A row whose attempt needs no arguments and is named like it.
fn case(attempt: &'static str, user: u32, errno: i32) -> Case {
    Case {
        name: attempt.to_owned(),
        attempt,
        arguments: vec![],
        user,
        refusal: Exit::Code(errno as u8),
        step: None,
        behind: None,
        peer: Peer::Held,
    }
}

impl Case {
    /// Whether this is how it ends as shipped. The host's security module may refuse before the protection in question would: it is
    /// taken out together with that, or nothing would be seen.
    pub fn is_refusal(&self, exit: &Exit) -> bool {
        *exit == self.refusal || (security_label().is_some() && *exit == Exit::Code(libc::EACCES as u8))
    }

    fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn with<T: ToString>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments = arguments.into_iter().map(|argument| argument.to_string()).collect();
        self
    }

    /// Killed by SIGSYS instead of refused.
    fn killed(mut self) -> Self {
        self.refusal = Exit::Signal(libc::SIGSYS as u8);
        self
    }

    fn by(mut self, step: impl Fn(&Step) -> bool + Send + Sync + 'static) -> Self {
        self.step = Some(Arc::new(step));
        self
    }

    fn behind(mut self, errno: i32) -> Self {
        self.behind = Some(Exit::Code(errno as u8));
        self
    }

    fn peer(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }
}

fn filter(step: &Step) -> bool {
    matches!(step, Step::Seccomp { .. })
}

fn capabilities(step: &Step) -> bool {
    filter(step) || matches!(step, Step::Bounding { .. } | Step::Capabilities { .. } | Step::NoNewPrivileges)
}

pub fn label(step: &Step) -> bool {
    matches!(step, Step::Label { .. })
}

/// Everything that makes root inside less than root outside.
fn privilege(step: &Step) -> bool {
    capabilities(step) || matches!(step, Step::EnterUser { .. })
}

/// All rows.
pub fn cases() -> Vec<Case> {
    [calls::cases(), identity::cases(), files::cases()].concat()
}

/// Attacks twice.
pub async fn check(stage: &Stage, case: &Case) -> Result<(), String> {
    let attempt = Attempt::new(case.attempt, case.user).with(&case.arguments);
    let shipped = stage.attempt(&attempt, |plan| plan).await.map_err(|error| error.to_string())?;
    if !case.is_refusal(&shipped) {
        return Err(format!("as shipped: {shipped:?}, not {:?}", case.refusal));
    }
    let Some(step) = case.step.clone() else { return Ok(()) };
    let open = stage
        .attempt(&attempt, |plan| plan.without(|s| step(s) || label(s)))
        .await
        .map_err(|e| e.to_string())?;
    match &case.behind {
        Some(behind) if open != *behind => {
            Err(format!("without its step it is {open:?}, and the fence behind it says {behind:?}"))
        }
        // Another errno means that the attempt got past this protection and met the kernel behind it (a family that is not built
        // in, an argument that is invalid): what mattered is that the removed step made the difference.
        _ if open == case.refusal => Err(format!("without its step it is still {open:?}")),
        _ => Ok(()),
    }
}
