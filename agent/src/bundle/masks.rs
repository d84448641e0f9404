//! What of proc and sysfs is covered: what tells about the host or its other tenants.

use berth_wire::launch::{Plan, Step};

use super::Input;

const PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    plan.steps.extend(PATHS.iter().map(|path| Step::Mask { path: (*path).to_owned() }));
    plan.steps.extend(
        (0..input.processors).map(|number| Step::Mask {
            path: format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle"),
        }),
    );
}
