//! The seccomp filter: an allow-list no wider than moby's default profile for a container without capabilities, and narrower where a
//! PaaS app needs nothing of it. What is on the list is in `allowed`; how arguments are looked at is here. Compiled once
//! per process: the program is the same for every container.
//!
//! | call | answer |
//! |---|---|
//! | of a foreign ABI (32-bit, x32) | the process is killed |
//! | clone3, and calls newer than the list | ENOSYS, so that libc falls back |
//! | clone with any CLONE_NEW*, sockets of other families, TIOCSTI, anything else | EPERM |

mod allowed;
mod search;

use std::collections::BTreeMap;

use berth_wire::launch::{Plan, Step};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Input;

/// Every CLONE_NEW* that clone(2) takes: NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET (linux/sched.h).
const CLONE_NEW_ANY: u64 = 0x7E02_0000;
/// unix, inet, inet6, netlink. What is left out has had exploits (AF_ALG, AF_VSOCK, AF_PACKET) or no use here.
const SOCKET_FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// Linux, UNAME26, both, and "tell me": what moby allows of personality(2).
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Puts characters into the input of a terminal (ioctl_tty(2)); and the console's counterpart.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541C;
/// The newest call this list was made with (listns): later ones get ENOSYS rather than EPERM.
const NEWEST: u32 = 470;
/// Calls with a number of their own for x32 have this bit (asm/unistd.h).
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    plan.steps.push(Step::Seccomp { program: input.seccomp });
}

/// Compiles the filter.
///
/// # Errors
/// Only if the lists contradict each other; a test compiles them.
pub fn compile() -> Result<BpfProgram, BackendError> {
    let rules = looked_at()?;
    let whatever = allowed::CALLS.iter().filter(|number| !rules.contains_key(number));
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut program = preamble();
    program.extend(search::allow(whatever.filter_map(|number| u32::try_from(*number).ok())));
    let rest: BpfProgram = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)?.try_into()?;
    program.extend(rest);
    Ok(program)
}

/// Calls whose arguments decide.
fn looked_at() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules = BTreeMap::new();
    rules.insert(
        libc::SYS_clone,
        vec![rule_of(vec![condition(0, SeccompCmpOp::MaskedEq(CLONE_NEW_ANY), 0)?])?],
    );
    rules.insert(libc::SYS_socket, any_of(0, &SOCKET_FAMILIES)?);
    rules.insert(libc::SYS_personality, any_of(0, &PERSONALITIES)?);
    let not = |value| condition(1, SeccompCmpOp::Ne, value);
    rules.insert(libc::SYS_ioctl, vec![rule_of(vec![not(TIOCSTI)?, not(TIOCLINUX)?])?]);
    Ok(rules)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    // The kernel takes these arguments as 32-bit numbers; upper bits that it ignores must not make a difference here either.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

fn rule_of(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

fn any_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| rule_of(vec![condition(argument, SeccompCmpOp::Eq, *value)?])).collect()
}

/// What goes before the list and cannot be said in it. The list itself begins by killing foreign architectures, but numbers mean
/// something only once the architecture is known, so that is asked first here too.
fn preamble() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(JUMP_EQUAL, AUDIT_ARCH, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([
        jump(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
    ]);
    program.extend([
        jump(JUMP_EQUAL, libc::SYS_clone3 as u32, 1, 0),
        jump(JUMP_GREATER_OR_EQUAL, NEWEST + 1, 0, 1),
        statement(RETURN, no_such_call),
    ]);
    program
}

/// linux/audit.h.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
/// linux/audit.h.
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// The program as bytes (struct sock_filter, back to back), as the launcher reads it.
pub fn encode(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_must_compile_and_fit_the_kernel() {
        let program = compile().unwrap();
        // The kernel takes 4,096. More than this is a search that has become a chain.
        assert!(program.len() <= 600, "{} instructions", program.len());
        assert_eq!(encode(&program).len(), program.len() * 8);
    }

    /// What the program answers; seccomp's subset of classic BPF (linux/filter.h).
    fn answer(program: &BpfProgram, number: u32, arguments: [u64; 6]) -> u32 {
        let data = |offset: u32| match offset {
            0 => number,
            4 => AUDIT_ARCH,
            offset => {
                let argument = arguments[(offset as usize - 16) / 8];
                (if offset % 8 == 0 { argument } else { argument >> 32 }) as u32
            }
        };
        let (mut at, mut word) = (0, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1 + match code {
                0x20 => {
                    word = data(k);
                    0
                }
                0x54 => {
                    word &= k;
                    0
                }
                0x05 => k as usize,
                0x15 => jump(word == k),
                0x25 => jump(word > k),
                0x35 => jump(word >= k),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn exactly_the_listed_calls_must_be_allowed() {
        let (program, looked_at) = (compile().unwrap(), looked_at().unwrap());
        for number in 0..=NEWEST + 10 {
            let listed = allowed::CALLS.contains(&i64::from(number));
            let looked_at = looked_at.contains_key(&i64::from(number));
            let got = answer(&program, number, [0; 6]);
            let expected = match i64::from(number) {
                libc::SYS_clone3 => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
                _ if number > NEWEST => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
                // With zeros: no CLONE_NEW*, no family, the usual personality, no TIOCSTI.
                libc::SYS_socket => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
                _ if listed || looked_at => libc::SECCOMP_RET_ALLOW,
                _ => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            };
            assert_eq!(got, expected, "call {number}");
        }
    }

    #[test]
    fn arguments_must_decide_where_they_are_looked_at() {
        let program = compile().unwrap();
        let allows = |number: i64, at: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            answer(&program, number as u32, arguments) == libc::SECCOMP_RET_ALLOW
        };
        assert!(allows(libc::SYS_clone, 0, 0x11) && !allows(libc::SYS_clone, 0, 0x1000_0011));
        assert!(allows(libc::SYS_socket, 0, 2) && !allows(libc::SYS_socket, 0, 38));
        assert!(allows(libc::SYS_personality, 0, 8) && !allows(libc::SYS_personality, 0, 4));
        assert!(allows(libc::SYS_ioctl, 1, 0x5401) && !allows(libc::SYS_ioctl, 1, TIOCSTI));
        assert!(!allows(libc::SYS_ioctl, 1, 1 << 32 | TIOCSTI), "upper bits must make no difference");
    }

    #[test]
    fn what_attacks_begin_with_must_not_be_on_the_list() {
        let denied = [
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_mount_setattr,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_clone3,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_syslog,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_quotactl,
            libc::SYS_acct,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
        ];
        for number in denied {
            assert!(!allowed::CALLS.contains(&number), "{number}");
        }
    }
}
