//! Processes that begin in their maker's memory, on a stack of their own, instead of in a copy of it: until they execute a program, there
//! is nothing to copy and nothing to free. What they do is others' business.
//!
//! Both run at once in the same memory, libc's included: neither may allocate, and the one that is made makes no call of libc's (its
//! `errno` is shared). Descriptors, directory, mask of signals and credentials are each one's own.

use crate::kernel::{self, CloneArguments, Result};

/// More than the deepest chain of calls takes, of which only the pages that are touched exist.
const BYTES: usize = 256 * 1_024;
/// Below it: running out of stack ends the process instead of writing elsewhere. The largest page there is.
const GUARD: usize = 64 * 1_024;

/// A stack. It is never freed: it ends with the memory, once the last process in it has executed a program or ended.
pub struct Stack(usize);

impl Stack {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new() -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let (size, access) = (GUARD + BYTES, libc::PROT_READ | libc::PROT_WRITE);
        let base = kernel::call!(libc::SYS_mmap, 0, size, access, flags, -1, 0)? as usize;
        kernel::call!(libc::SYS_mprotect, base, GUARD, libc::PROT_NONE)?;
        Ok(Self(base + GUARD))
    }
}

/// Clones a child that runs `entry` in the same memory; returns its pid. By clone, which containers may call; clone3 they may not.
///
/// # Errors
/// The kernel's refusal.
///
/// # Safety
/// What `data` points to, and what `entry` uses, must neither move nor be freed before the child has executed a program or ended.
pub unsafe fn clone_onto<T>(
    stack: Stack,
    entry: extern "C" fn(*const T) -> !,
    data: *const T,
) -> Result<u32> {
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is nobody else's; the rest is the caller's promise.
    let made =
        unsafe { clone(libc::SYS_clone, flags as usize, stack.0 + BYTES, entry as usize, data as usize) };
    kernel::told(made).map(|pid| pid as u32)
}

/// The same by clone3, with what else the arguments say.
///
/// # Errors
/// The kernel's refusal.
///
/// # Safety
/// As for [`clone_onto`].
pub unsafe fn clone3_onto<T>(
    arguments: &mut CloneArguments,
    stack: Stack,
    entry: extern "C" fn(*const T) -> !,
    data: *const T,
) -> Result<u32> {
    arguments.flags |= libc::CLONE_VM as u64;
    (arguments.stack, arguments.stack_size) = (stack.0 as u64, BYTES as u64);
    let (arguments, size) = (&raw const *arguments as usize, size_of::<CloneArguments>());
    // SAFETY: as above, and the arguments are live.
    let made = unsafe { clone(libc::SYS_clone3, arguments, size, entry as usize, data as usize) };
    kernel::told(made).map(|pid| pid as u32)
}

/// One of the two calls with its first two arguments; clone's others are ignored without flags that need them. Zero comes back on the
/// new stack, where there is nobody to return to.
#[cfg(target_arch = "x86_64")]
unsafe fn clone(
    number: libc::c_long,
    first: usize,
    second: usize,
    entry: usize,
    data: usize,
) -> libc::c_long {
    let result;
    // SAFETY: the x86-64 system call convention keeps r12 and r13; the new stack is aligned as a call expects.
    unsafe {
        std::arch::asm!(
            "syscall", "test rax, rax", "jnz 2f",
            "xor ebp, ebp", "mov rdi, r13", "call r12", "ud2",
            "2:",
            inlateout("rax") number => result, in("rdi") first, in("rsi") second, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") entry, in("r13") data, lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone(
    number: libc::c_long,
    first: usize,
    second: usize,
    entry: usize,
    data: usize,
) -> libc::c_long {
    let result;
    // SAFETY: the aarch64 system call convention keeps x20 and x21.
    unsafe {
        std::arch::asm!(
            "svc 0", "cbnz x0, 2f",
            "mov x29, xzr", "mov x30, xzr", "mov x0, x21", "blr x20", "brk 0",
            "2:",
            in("x8") number, inlateout("x0") first => result, in("x1") second, in("x2") 0, in("x3") 0, in("x4") 0,
            in("x20") entry, in("x21") data,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    extern "C" fn write_and_exit(cell: *const AtomicI32) -> ! {
        // SAFETY: the test waits for this process before the cell ends.
        unsafe { &*cell }.store(7, Ordering::Release);
        loop {
            let _ = kernel::call!(libc::SYS_exit_group, 5);
        }
    }

    #[test]
    fn the_new_process_must_share_memory_and_end_by_itself() {
        let cell = AtomicI32::new(0);
        // SAFETY: the cell lives until the process was waited for.
        let pid = unsafe { clone_onto(Stack::new().unwrap(), write_and_exit, &raw const cell) };
        let mut status = 0;
        // SAFETY: our own child, waited for once.
        unsafe { libc::waitpid(pid.unwrap() as libc::pid_t, &raw mut status, 0) };
        assert_eq!((libc::WEXITSTATUS(status), cell.load(Ordering::Acquire)), (5, 7));
    }
}
