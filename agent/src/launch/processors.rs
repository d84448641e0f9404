//! What the plan needs to know of the machine.

/// Processors that the kernel knows, online or not.
pub fn processors() -> u32 {
    // SAFETY: a number in, a number out.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    u32::try_from(count).unwrap_or(1).max(1)
}
