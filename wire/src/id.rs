//! Identifiers: one newtype per kind of object, so that an app's id cannot be passed where a build's is
//! meant. All are UUIDs; version 7 where Berth makes them, so that they sort by creation.
//! Names that people choose are in [`crate::name`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A team: owns apps, tokens and members. One exists from the first migration.
    TeamId
);
id!(
    /// An app, whatever it is called at the moment.
    AppId
);
id!(
    /// One build of one source tree.
    BuildId
);
id!(
    /// One running copy of a process type (Heroku's dyno). Never reused.
    InstanceId
);
id!(
    /// A machine that runs an agent.
    HostId
);
id!(
    /// An API token (not its secret).
    TokenId
);
id!(
    /// A rendezvous between somebody at the API and an agent: a log tail, an attached command.
    SessionId
);
id!(
    /// A command that was started in a running container.
    ExecId
);
