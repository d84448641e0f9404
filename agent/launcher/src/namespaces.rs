//! A user namespace with its id mapping and a network namespace that it owns, made by a short-lived child. Who uses them, and
//! that each pair is used once, is the agent's business.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use berth_wire::launch::Namespaces;

use crate::kernel::{self, Errno};

/// Makes the pair: user namespace first.
///
/// # Errors
/// What the kernel refused.
pub fn make(wanted: Namespaces) -> io::Result<[OwnedFd; 2]> {
    let (mut made_end, made) = pipe()?;
    let (go, mut go_end) = pipe()?;
    let nested = kernel::Decimal::new(u64::from(wanted.nested_max));
    // SAFETY: a plain fork of a process with one thread; the child makes system calls only.
    let pid = match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: these two ends are the parent's; closing them here makes its death an end of file.
            unsafe {
                libc::close(made_end.as_raw_fd());
                libc::close(go_end.as_raw_fd());
            }
            let code =
                child(wanted.uid_base, &nested, made.as_raw_fd(), go.as_raw_fd()).err().map_or(0, |e| e.0);
            // SAFETY: _exit takes a number.
            unsafe { libc::_exit(code & 0xff) }
        }
        pid => pid as libc::pid_t,
    };
    drop((made, go));
    let pair = collect(pid, wanted, &mut made_end, &mut go_end);
    drop((made_end, go_end));
    let mut status = 0;
    // SAFETY: our own child, reaped once; it ends now that its pipes are closed.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    match pair {
        Err(_) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 => {
            Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status)))
        }
        other => other,
    }
}

/// The child becomes the range's first id before it makes the namespace, so that it, not root, is the creator: limits counted
/// per creator (fs.inotify.max_user_instances and the like) are then counted per container.
fn child(uid_base: u32, nested: &kernel::Decimal, made: i32, go: i32) -> kernel::Result<()> {
    kernel::call!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0)?;
    kernel::call!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0)?;
    let none = std::ptr::null::<libc::gid_t>();
    kernel::call!(libc::SYS_setgroups, 0, none)?;
    kernel::call!(libc::SYS_setresgid, uid_base, uid_base, uid_base)?;
    kernel::call!(libc::SYS_setresuid, uid_base, uid_base, uid_base)?;
    // Effective again what is still permitted: some distributions let only the privileged make user namespaces.
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets: [u32; 6] = [1 << 21, 1 << 21, 0, 0, 0, 0];
    kernel::call!(libc::SYS_capset, header.as_ptr(), sets.as_ptr())?;
    kernel::call!(libc::SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
    let mut byte = 0u8;
    kernel::call!(libc::SYS_write, made, c"m".as_ptr(), 1)?;
    if kernel::call!(libc::SYS_read, go, &raw mut byte, 1)? != 1 {
        return Err(Errno(libc::EPIPE));
    }
    kernel::call!(libc::SYS_setresgid, 0, 0, 0)?;
    kernel::call!(libc::SYS_setresuid, 0, 0, 0)?;
    set(c"/proc/sys/user/max_user_namespaces", nested.as_c_str())?;
    // Before there is an interface: switching IPv6 off on one that has it costs a walk through all its tables.
    match set(c"/proc/sys/net/ipv6/conf/default/disable_ipv6", c"1") {
        // A kernel without IPv6.
        Err(Errno(libc::ENOENT)) => {}
        other => other?,
    }
    loopback_up()?;
    kernel::call!(libc::SYS_write, made, c"r".as_ptr(), 1)?;
    // The namespaces live in this process until the parent has opened them and closes its ends.
    kernel::call!(libc::SYS_read, go, &raw mut byte, 1).map(drop)
}

/// A sysctl of the namespaces that this process is in.
fn set(path: &CStr, value: &CStr) -> kernel::Result<()> {
    let file = kernel::open_own(path, libc::O_WRONLY)?;
    let written = kernel::call!(libc::SYS_write, file, value.as_ptr(), value.count_bytes());
    kernel::close(file);
    written.map(drop)
}

fn loopback_up() -> kernel::Result<()> {
    let socket = kernel::call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
    // SAFETY: ifreq is plain data; the kernel reads name and flags of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    kernel::call!(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request).map(drop)
}

fn collect(pid: i32, wanted: Namespaces, made: &mut File, go: &mut File) -> io::Result<[OwnedFd; 2]> {
    let mut byte = [0];
    made.read_exact(&mut byte)?;
    let mapping = format!("0 {} {}\n", wanted.uid_base, wanted.uid_count);
    std::fs::write(format!("/proc/{pid}/gid_map"), &mapping)?;
    std::fs::write(format!("/proc/{pid}/uid_map"), &mapping)?;
    go.write_all(b"g")?;
    made.read_exact(&mut byte)?;
    let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
    Ok([open("user")?, open("net")?])
}

/// Read end, write end.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the array takes the two descriptors, which are ours.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])))
    }
}
