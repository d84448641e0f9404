//! How images are named between the processes. The bytes themselves are OCI (image spec 1.1) and travel over
//! the registry's distribution endpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::ProcessType;

/// An image in the control plane's registry, by the digest of its manifest: immutable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageRef {
    /// The repository, e.g. `apps/0198…` or `stacks/berth-13`.
    pub repository: String,
    /// The manifest's digest.
    pub digest: Digest,
}

/// How a process type's instances are found to be well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct HealthCheck {
    /// After a TCP connection to `$PORT` succeeds, GET this path and want a status below 400; TCP alone if absent.
    pub http_path: Option<String>,
    /// How long an instance may take until it is healthy for the first time.
    pub boot_timeout_seconds: u32,
    /// Pause between two checks once healthy.
    pub interval_seconds: u32,
    /// How long one check may take.
    pub timeout_seconds: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { http_path: None, boot_timeout_seconds: 60, interval_seconds: 5, timeout_seconds: 5 }
    }
}

/// What an image says about the app inside, as a build found it (Procfile, pack, `berth.toml`). It is stored with
/// the image (OCI config label `dev.berth.app`) and is data only: it configures nothing on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AppManifest {
    /// The pack that built it: `python`, `node`, `static`, `procfile`.
    pub pack: String,
    /// Command line of each process type, as written in the Procfile; run by `/bin/sh -c` *inside* the container.
    pub processes: BTreeMap<ProcessType, String>,
    /// Environment the pack wants (PATH and the like); config vars override it.
    pub env: BTreeMap<String, String>,
    /// Health check of `web`.
    pub health: HealthCheck,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_grace_seconds: Option<u32>,
    /// Warnings for the person who pushed, e.g. "Procfile has no web: the app gets no HTTP traffic".
    pub notes: Vec<String>,
}
