//! Hosts and stacks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::HostId;
use crate::image::ImageRef;
use crate::report::HostFacts;

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// Which.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Whether it reported within the last 30 s.
    pub up: bool,
    /// When it last did.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub seen_at: Option<Timestamp>,
    /// What it is and has.
    pub facts: HostFacts,
    /// Sum of the floors placed on it, CPU.
    pub cpu_millis_reserved: u64,
    /// Sum of the floors placed on it, memory.
    pub memory_bytes_reserved: u64,
    /// Instances placed on it.
    pub instances: u64,
}

/// The image of a stack, already pushed to the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StackImage {
    /// Which image.
    pub image: ImageRef,
}

/// A stack: the base image apps are built and run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stack {
    /// Its name, `berth-13`.
    pub name: String,
    /// Its image.
    pub image: ImageRef,
    /// When it was imported.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub imported_at: Timestamp,
}
