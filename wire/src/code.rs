//! Stable codes: every failure that a person meets carries one. `berth explain CODE` and `docs/errors/CODE.md`
//! say what it means and what to do; a test holds the three together. Where Heroku has a code for the same thing, ours is the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $title:literal,)*) => {
        /// A stable code. New ones are added; none changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code { $( #[doc = $title] $(#[$doc])* $name, )* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// What happened, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title),* }
            }

            /// The code itself.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),* }
            }
        }
    };
}

codes! {
    // H: HTTP, answered by the edge. Heroku's numbers.
    H10 "App crashed",
    H12 "Request timeout: no byte from the app within 30 seconds",
    H13 "Connection closed without response",
    H14 "No web instances running",
    H15 "Idle connection: no byte for 55 seconds",
    H20 "App boot timeout",
    H21 "Backend connection refused",
    H40 "Unknown domain",
    H41 "Bad request: not well-formed HTTP/1.1",
    H99 "Platform error",
    // R: what happens to a running instance. R10, R12, R14 and R15 are Heroku's.
    R10 "Boot timeout: nothing bound $PORT in time",
    R11 "Bound to loopback only",
    R12 "Exit timeout: killed after ignoring SIGTERM",
    R13 "Bound another port than $PORT",
    R14 "Out of memory",
    R16 "Exited at once",
    R17 "Health check failed",
    R18 "Crashed",
    R19 "Command not found or not executable in the image",
    R20 "Container could not be launched",
    R21 "Disk quota reached",
    R22 "Log rate reached, lines discarded",
    R23 "One-off ran longer than it may",
    R24 "No host has room",
    R25 "The instance is not running",
    R26 "Quota cannot be applied to the running container",
    R27 "The connection to the command was lost",
    R28 "Process limit reached",
    R29 "CPU limit reached for long",
    R30 "Memory limit reached, page cache given up",
    R31 "Open files limit reached",
    R32 "Inotify limit reached",
    R33 "Too many name lookups",
    R34 "Network buffers at their limit",
    // B: builds.
    B10 "No pack matches this source",
    B11 "Source is empty",
    B12 "Procfile is malformed",
    B13 "A version that cannot be had was asked for",
    B14 "Dependencies could not be installed",
    B15 "Build ran out of memory",
    B16 "Build ran out of disk",
    B17 "Build ran out of time",
    B18 "Build was interrupted",
    B19 "berth.toml is malformed",
    B20 "A build step failed",
    B21 "Release command failed",
    B22 "Source is too large",
    B23 "The image could not be stored",
    // G: git push.
    G10 "Not the deploy branch",
    G11 "Another push to this app is under way",
    G12 "Push is too large",
    G13 "Too many refs in one push",
    G14 "The deploy branch cannot be deleted",
    // A: the API.
    A10 "Not signed in",
    A11 "Not allowed",
    A12 "Not found",
    A13 "Invalid input",
    A14 "Already exists",
    A15 "Conflict: somebody else changed it",
    A16 "Nothing to do that to yet",
    A17 "Quota is more than any host has",
    A18 "Too large",
    A19 "No host is connected",
    A20 "No stack image has been imported",
    A21 "A query parameter that cannot be",
    A22 "Not a method of this address",
    A99 "Internal error",
    // D: what the machine lacks; `berth doctor`.
    D10 "Not root",
    D11 "Kernel feature missing",
    D12 "Port is taken",
    D13 "Disk is full",
    D14 "Control plane is not reachable",
    D15 "A program is missing",
    D16 "Address block is in use",
    D17 "Kernel limit is too low",
}

/// The text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a code Berth uses; codes look like R10 or H14")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = text.trim().to_ascii_uppercase();
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == wanted)
            .ok_or_else(|| UnknownCode(text.chars().take(20).collect()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
