//! Apps and their config vars.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::AppId;
use crate::name::AppName;
use crate::name::ConfigKey;
use crate::name::Domain;

/// An app to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    /// Its name.
    pub name: AppName,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct App {
    /// Its id, for ever.
    pub id: AppId,
    /// Its name.
    pub name: AppName,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Where to push: `http://HOST:PORT/git/NAME.git`.
    pub git_url: String,
    /// Where it answers: `http://NAME.localhost:PORT/`.
    pub web_url: String,
    /// Every domain routed to it.
    pub domains: Vec<Domain>,
    /// The release that serves; none before the first.
    pub release: Option<u64>,
    /// The release that is on its way, if any.
    pub rolling: Option<u64>,
}

/// Config vars to be set and unset, in one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ConfigChange {
    /// To be set. A value is at most 32 KiB, all of an app's together at most 256 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub set: BTreeMap<ConfigKey, String>,
    /// To be unset. Unknown keys are an error.
    pub unset: Vec<ConfigKey>,
}
