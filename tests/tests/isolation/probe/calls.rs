//! System calls that are to be refused.

use std::ffi::CString;

use super::{AS_IT_SHOULD_BE, MALFORMED, Outcome, number};

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn mount(source: *const i8, target: *const i8, kind: *const i8, flags: u64, data: *const i8) -> i32;
    fn mknod(path: *const i8, mode: u32, device: u64) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
}

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    Some(match name {
        "call" => call(arguments),
        "call with a page" => call_with_page(arguments),
        "call by the 32-bit ABI" => call_by_interrupt(arguments),
        // After a clone the child is here, too, and ends as the parent does.
        "mount" => mount_it(arguments),
        "make a device" => {
            let path = CString::new("/tmp/node").ok()?;
            // SAFETY: a NUL-terminated string and numbers.
            number(unsafe { mknod(path.as_ptr().cast(), 0o020_666, 0x103) }.into())
        }
        "kill init" => {
            // SAFETY: numbers.
            unsafe { kill(1, 9) };
            // Still here: it was ignored.
            Err(AS_IT_SHOULD_BE)
        }
        _ => return None,
    })
}

/// Decimal or, after 0x, hexadecimal; negative numbers in decimal.
fn numbers(arguments: &[&str]) -> Option<[i64; 7]> {
    let mut all = [0; 7];
    for (slot, text) in all.iter_mut().zip(arguments) {
        *slot = match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok()?,
            None => text.parse().ok()?,
        };
    }
    Some(all)
}

/// NUMBER ARGUMENT…
fn call(arguments: &[&str]) -> Outcome {
    let [n, a, b, c, d, e, f] = numbers(arguments).ok_or(MALFORMED)?;
    // SAFETY: the table's calls are given numbers and null pointers only; what they do ends with this process.
    number(unsafe { syscall(n, a, b, c, d, e, f) })
}

/// NUMBER POSITION ARGUMENT…: the argument at this position (from 1) is the address of a page of zeros.
fn call_with_page(arguments: &[&str]) -> Outcome {
    let (position, rest) = match arguments {
        [number, position, rest @ ..] => {
            (position.parse::<usize>().map_err(|_| MALFORMED)?, [&[*number], rest].concat())
        }
        _ => return Err(MALFORMED),
    };
    let mut page = vec![0_u64; 512];
    let mut all = numbers(&rest).ok_or(MALFORMED)?;
    all[position] = page.as_mut_ptr() as i64;
    let [n, a, b, c, d, e, f] = all;
    // SAFETY: as above, and the page outlives the call.
    number(unsafe { syscall(n, a, b, c, d, e, f) })
}

/// NUMBER A B C, as an i386 program would.
fn call_by_interrupt(arguments: &[&str]) -> Outcome {
    let [n, a, b, c, ..] = numbers(arguments).ok_or(MALFORMED)?;
    #[cfg(target_arch = "x86_64")]
    {
        let result: i64;
        // SAFETY: the i386 convention; rbx, which the compiler keeps to itself, is put back.
        unsafe {
            std::arch::asm!("xchg rbx, {a}", "int 0x80", "xchg rbx, {a}", a = inout(reg) a => _,
                inlateout("rax") n => result, in("rcx") b, in("rdx") c);
        }
        let result = i64::from(result as i32);
        if result < 0 { Err(-result as i32) } else { Ok(()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (n, a, b, c);
        Err(MALFORMED)
    }
}

/// KIND [OPTIONS], on /tmp.
fn mount_it(arguments: &[&str]) -> Outcome {
    let text = |index: usize| CString::new(arguments.get(index).copied().unwrap_or_default()).map_err(|_| MALFORMED);
    let (kind, options, target) = (text(0)?, text(1)?, CString::new("/tmp").map_err(|_| MALFORMED)?);
    // SAFETY: NUL-terminated strings that outlive the call.
    let done = unsafe {
        mount(kind.as_ptr().cast(), target.as_ptr().cast(), kind.as_ptr().cast(), 0, options.as_ptr().cast())
    };
    number(done.into())
}
