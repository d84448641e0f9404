//! The v1 blkio controller's throttling (cgroup-v1/blkio-controller.rst). It sees what a process reads, and what it writes itself (direct
//! or synchronous); what the kernel writes back from the page cache later belongs to nobody there and is not slowed down.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::IoDevice;
use super::super::control::{CgroupError, Kept, Setting};

/// Optional, as kernels may lack CONFIG_BLK_DEV_THROTTLING.
pub(in super::super) fn limits(quota: &Quota, device: IoDevice) -> Vec<Setting> {
    let of = |amount: u64| format!("{device} {amount}");
    vec![
        Setting::optional("blkio.throttle.read_bps_device", of(quota.io_bytes_per_second)),
        Setting::optional("blkio.throttle.write_bps_device", of(quota.io_bytes_per_second)),
        Setting::optional("blkio.throttle.read_iops_device", of(quota.io_operations_per_second)),
        Setting::optional("blkio.throttle.write_iops_device", of(quota.io_operations_per_second)),
    ]
}

/// Bytes moved.
#[derive(Debug)]
pub(in super::super) struct Counters {
    bytes: Option<Kept>,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Self {
        Self { bytes: Kept::open(group, "blkio.throttle.io_service_bytes").ok() }
    }

    /// Bytes read from and written to the device.
    pub(in super::super) fn bytes(&self, device: IoDevice) -> Result<(u64, u64), CgroupError> {
        let Some(bytes) = &self.bytes else { return Ok((0, 0)) };
        Ok(parse(&bytes.read()?, device))
    }
}

fn parse(content: &str, device: IoDevice) -> (u64, u64) {
    let device = device.to_string();
    let of = |operation: &str| {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next()? == device && words.next()? == operation).then(|| words.next()?.parse().ok())?
        };
        content.lines().find_map(line).unwrap_or(0)
    };
    (of("Read"), of("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_device_s_own_lines_must_count() {
        let content = "7:0 Read 4096\n7:0 Write 8192\n7:0 Sync 8192\n254:0 Read 1\n254:0 Write 2\nTotal 3\n";
        assert_eq!(parse(content, IoDevice { major: 7, minor: 0 }), (4_096, 8_192));
        assert_eq!(parse(content, IoDevice { major: 7, minor: 1 }), (0, 0));
    }
}
