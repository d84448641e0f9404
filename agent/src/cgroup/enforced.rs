//! What of a quota this machine cannot enforce, or not wholly, and why: for reports, so that it is said where the quota is shown.

use std::collections::BTreeMap;
use std::fs;

use super::hierarchy::Hierarchy;
use super::{CgroupError, v1};

/// Fields of a quota, each with the reason. Egress is the network's to say.
///
/// # Errors
/// No usable control groups.
pub fn unenforced() -> Result<BTreeMap<String, String>, CgroupError> {
    let hierarchy = Hierarchy::find(None)?;
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut found = BTreeMap::new();
    let mut say = |field: &str, reason: &str| found.insert(field.to_owned(), reason.to_owned());
    if swaps.lines().count() < 2 {
        say("swap_bytes", "the host has no swap");
    }
    if let Some([_, memory, _, io]) = &hierarchy.legacy {
        say("memory_high_bytes", "control groups v1 have no memory.high");
        let throttles = io.join("blkio.throttle.read_bps_device").exists();
        let writes = if throttles {
            "control groups v1 do not slow down writes through the page cache"
        } else {
            "the kernel lacks CONFIG_BLK_DEV_THROTTLING"
        };
        say("io_bytes_per_second", writes);
        say("io_operations_per_second", writes);
        if !memory.join(v1::memory::LIMIT_WITH_SWAP).exists() {
            say("swap_bytes", "the kernel does not account swap (swapaccount=1 on its command line)");
        }
    }
    Ok(found)
}
