//! Which device nodes a container may open: null zero full random urandom tty ptmx and the ptys; nothing else, whatever
//! nodes it finds. One BPF program on the parent's unified group covers all children (v2, and hybrid where the kernel has
//! CONFIG_CGROUP_BPF); else the v1 devices controller's list on the parent, which children inherit.
//!
//! The program is assembled here: 25 instructions need no compiler (bpf(2); cgroup-v2.rst, Device controller).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use super::control::{CgroupError, io_error, write};

/// Major and minor numbers (admin-guide/devices.txt); no minor means all of them.
const ALLOWED: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// Puts the program on the group unless it is there.
pub(super) fn attach(group: &Path) -> Result<(), CgroupError> {
    let error = |source| CgroupError::DeviceRule { path: group.to_owned(), source };
    let dir = File::open(group).map_err(error)?;
    if attached(dir.as_raw_fd()).map_err(error)? {
        return Ok(());
    }
    let program = load(&program()).map_err(error)?;
    let attributes = AttachAttributes {
        target: dir.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop).map_err(error)
}

/// Sets the v1 list on the (childless) group unless it is set.
pub(super) fn set_legacy(group: &Path) -> Result<(), CgroupError> {
    let list = group.join("devices.list");
    let present = fs::read_to_string(&list).map_err(io_error("read", &list))?;
    let wanted = ALLOWED.map(|(major, minor)| {
        format!("c {major}:{} rwm", minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string()))
    });
    if present.lines().count() == wanted.len()
        && wanted.iter().all(|line| present.lines().any(|has| has == line))
    {
        return Ok(());
    }
    write(&group.join("devices.deny"), "a")?;
    wanted.iter().try_for_each(|line| write(&group.join("devices.allow"), line))
}

// linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const DEVICE_KIND_CHARACTER: i32 = 2;

#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are a live, properly sized prefix of `union bpf_attr`; the kernel zero-extends it, and
    // writes at most within the size it is given (only BPF_PROG_QUERY does, into a value the caller owns).
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as libc::c_uint)
    };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

fn attached(group: RawFd) -> io::Result<bool> {
    let query = std::cell::UnsafeCell::new(QueryAttributes {
        target: group.cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: 0,
        count: 0,
        padding: 0,
    });
    bpf(BPF_PROG_QUERY, &query)?;
    Ok(query.into_inner().count > 0)
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One instruction (bpf/standardization/instruction-set.rst): opcode 8 bits, destination and source registers 4 each,
/// jump offset 16, immediate 32; little endian, as on both architectures Berth runs on.
const fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    opcode as u64
        | (destination as u64) << 8
        | (source as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const MOVE: u8 = 0xb7;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The program: r2 = type, r3 = major, r4 = minor of `struct bpf_cgroup_dev_ctx`; returns 1 to allow.
fn program() -> Vec<u64> {
    let rule_instructions =
        ALLOWED.iter().map(|(_, minor)| if minor.is_some() { 2 } else { 1 }).sum::<usize>();
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 4, 0),
        instruction(LOAD_WORD, 4, 1, 8, 0),
        // Not a character device: over all the rules, to "deny".
        instruction(JUMP_NOT_EQUAL, 2, 0, rule_instructions as i16, DEVICE_KIND_CHARACTER),
    ];
    let deny = code.len() + rule_instructions;
    let allow = deny + 2;
    for (major, minor) in ALLOWED {
        // A jump's offset counts from the instruction after it.
        if let Some(minor) = minor {
            code.push(instruction(JUMP_NOT_EQUAL, 3, 0, 1, major.cast_signed()));
            let offset = (allow - code.len() - 1) as i16;
            code.push(instruction(JUMP_EQUAL, 4, 0, offset, minor.cast_signed()));
        } else {
            let offset = (allow - code.len() - 1) as i16;
            code.push(instruction(JUMP_EQUAL, 3, 0, offset, major.cast_signed()));
        }
    }
    for verdict in [0, 1] {
        code.push(instruction(MOVE, 0, 0, 0, verdict));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code
}
