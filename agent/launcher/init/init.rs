//! PID 1 of every container: reaps, passes signals on to the main process (always PID 2) and no other, writes how that one ended
//! into the status file (descriptor 3), which outlives launcher and agent, and exits; the kernel then kills the rest.
//!
//! A program of its own, so that a container keeps no copy of the launcher's memory: no libc, no heap, no data that is written,
//! two pages. It is compiled by build.rs and executed from a sealed memfd that nobody may read, which makes it non-dumpable from
//! its first instruction: nothing inside can trace it or open its descriptors. All signals are blocked by whoever executes it.
#![no_std]
#![no_main]

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const KILL: usize = 62;
    pub const WAIT4: usize = 61;
    pub const CAPSET: usize = 126;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const KILL: usize = 129;
    pub const WAIT4: usize = 260;
    pub const CAPSET: usize = 91;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
    pub const EXIT_GROUP: usize = 94;
}

/// The main process: the first that PID 1 forks.
const MAIN: usize = 2;
const STATUS_FILE: usize = 3;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
const PR_SET_DUMPABLE: usize = 4;
const PR_SET_NAME: usize = 15;
/// CAP_KILL: the main process may have become another user.
const CAP_KILL: u32 = 1 << 5;
/// _LINUX_CAPABILITY_VERSION_3.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the x86-64 system call convention; the kernel writes only to what the arguments point to.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the aarch64 system call convention; the kernel writes only to what the arguments point to.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
             options(nostack));
    }
    result
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit_group takes a number and does not return.
        unsafe { syscall(number::EXIT_GROUP, code, 0, 0, 0) };
    }
}

/// Reaps everything that ended; does not return if that includes the main process.
fn reap() {
    loop {
        let mut status: u32 = 0;
        // SAFETY: `status` lives across the call.
        let pid = unsafe { syscall(number::WAIT4, usize::MAX, &raw mut status as usize, WNOHANG, 0) };
        if pid == MAIN as isize {
            // The record: four bytes of the wait status, in the machine's order, written in one go.
            // SAFETY: four readable bytes.
            unsafe { syscall(number::WRITE, STATUS_FILE, &raw const status as usize, 4, 0) };
            let signal = (status & 0x7f) as usize;
            exit(if signal == 0 { (status >> 8 & 0xff) as usize } else { 128 + signal });
        }
        if pid <= 0 {
            return;
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn main_loop() -> ! {
    let header: [u32; 2] = [CAPABILITY_VERSION, 0];
    let keep: [u32; 6] = [CAP_KILL, CAP_KILL, 0, 0, 0, 0];
    let none: [u32; 6] = [0; 6];
    let all: u64 = !0;
    // SAFETY: every pointer leads to a live local of the size the kernel expects.
    unsafe {
        syscall(number::PRCTL, PR_SET_DUMPABLE, 0, 0, 0);
        syscall(number::PRCTL, PR_SET_NAME, c"init".as_ptr() as usize, 0, 0);
        // Keeps CAP_KILL if it has it, and nothing else in any case.
        if syscall(number::CAPSET, &raw const header as usize, &raw const keep as usize, 0, 0) < 0 {
            syscall(number::CAPSET, &raw const header as usize, &raw const none as usize, 0, 0);
        }
    }
    loop {
        reap();
        // SAFETY: a set of 8 bytes; neither siginfo nor a time limit is asked for.
        let signal = unsafe { syscall(number::RT_SIGTIMEDWAIT, &raw const all as usize, 0, 0, 8) };
        if signal > 0 && signal != SIGCHLD {
            // SAFETY: kill takes numbers.
            unsafe { syscall(number::KILL, MAIN, signal as usize, 0, 0) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call main_loop", "ud2");

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl main_loop", "brk 0");

/// The compiler may call it for the arrays above.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, value: i32, count: usize) -> *mut u8 {
    for offset in 0..count {
        // SAFETY: the caller owns `count` bytes from `target`; volatile, so that this loop does not become a call of itself.
        unsafe { target.add(offset).write_volatile(value as u8) };
    }
    target
}

/// The compiler may call it for the arrays above.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, count: usize) -> *mut u8 {
    for offset in 0..count {
        // SAFETY: the caller owns `count` bytes at both; volatile as above.
        unsafe { target.add(offset).write_volatile(source.add(offset).read()) };
    }
    target
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(255)
}
