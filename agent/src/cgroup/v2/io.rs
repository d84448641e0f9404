//! The v2 io controller (cgroup-v2.rst, IO Interface Files). Writeback belongs to whoever dirtied the page, so that what is written through
//! the page cache is slowed down, too.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::IoDevice;
use super::super::control::{CgroupError, Kept, Setting};

/// Optional, as kernels may lack CONFIG_BLK_DEV_THROTTLING.
pub(in super::super) fn limits(quota: &Quota, device: IoDevice) -> Vec<Setting> {
    let (bytes, operations) = (quota.io_bytes_per_second, quota.io_operations_per_second);
    let value = format!("{device} rbps={bytes} wbps={bytes} riops={operations} wiops={operations}");
    vec![Setting::optional("io.max", value)]
}

/// Bytes moved.
#[derive(Debug)]
pub(in super::super) struct Counters {
    stat: Option<Kept>,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Self {
        Self { stat: Kept::open(group, "io.stat").ok() }
    }

    /// Bytes read from and written to the device.
    pub(in super::super) fn bytes(&self, device: IoDevice) -> Result<(u64, u64), CgroupError> {
        let Some(stat) = &self.stat else { return Ok((0, 0)) };
        Ok(parse(&stat.read()?, device))
    }
}

fn parse(content: &str, device: IoDevice) -> (u64, u64) {
    let device = device.to_string();
    let line = content.lines().find_map(|line| line.strip_prefix(device.as_str())?.strip_prefix(' '));
    let of = |key: &str| {
        let value = line?.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        value?.parse().ok()
    };
    (of("rbytes").unwrap_or(0), of("wbytes").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_device_s_own_line_must_count() {
        let content =
            "254:0 rbytes=1 wbytes=2 rios=1\n7:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n";
        assert_eq!(parse(content, IoDevice { major: 7, minor: 0 }), (4_096, 8_192));
        assert_eq!(parse("7:0\n", IoDevice { major: 7, minor: 0 }), (0, 0));
    }
}
