//! What uses something up.

use std::fs;
use std::io::Write as _;

use super::{MALFORMED, Outcome, found, io_result};

unsafe extern "C" {
    fn fork() -> i32;
    fn pause() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn geteuid() -> u32;
}

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    let first = arguments.first().copied().unwrap_or_default();
    let amount = |index: usize| arguments.get(index).and_then(|text| text.parse::<usize>().ok());
    Some(match name {
        "fork without end" => forks(),
        "eat memory" => amount(0).map_or(Err(MALFORMED), eat),
        "eat memory in a child and wait" => match amount(0) {
            Some(mib) => {
                in_a_child(|| eat(mib));
                wait()
            }
            None => Err(MALFORMED),
        },
        // DIRECTORY MIB
        "fill" => amount(1).map_or(Err(MALFORMED), |mib| fill(first, mib)),
        // DIRECTORY MIB MIB: files, then memory.
        "fill and eat" => match (amount(1), amount(2)) {
            (Some(files), Some(memory)) => fill(first, files).and_then(|()| eat(memory)),
            _ => Err(MALFORMED),
        },
        "say" => {
            for line in 0..2_000 {
                println!("line {line}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        }
        // SAFETY: no arguments.
        "who" => found(unsafe { geteuid() } == 0),
        "wait" => wait(),
        _ => return None,
    })
}

fn wait() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { pause() };
    }
}

fn forks() -> Outcome {
    let mut made = 0;
    for _ in 0..200 {
        // SAFETY: one thread; the child only pauses.
        match unsafe { fork() } {
            0 => wait(),
            -1 => break,
            _ => made += 1,
        }
    }
    found(made >= 30)
}

fn in_a_child(work: impl FnOnce() -> Outcome) {
    // SAFETY: one thread; the child does its work and ends.
    let child = unsafe { fork() };
    if child == 0 {
        let _ = work();
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: a number that the kernel fills.
    unsafe { waitpid(child, &mut status, 0) };
}

fn eat(mib: usize) -> Outcome {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        eaten.push(vec![1; 1 << 20]);
    }
    found(eaten.iter().map(|part| usize::from(part[0])).sum::<usize>() == mib)
}

/// Content that does not compress, a MiB at a time, each in a file of its own.
fn fill(directory: &str, mib: usize) -> Outcome {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..mib {
        let mut part = Vec::with_capacity(1 << 20);
        while part.len() < 1 << 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            part.extend(state.to_le_bytes());
        }
        let mut file =
            fs::File::create(format!("{directory}/part-{number}")).map_err(|e| e.raw_os_error().unwrap_or(1))?;
        io_result(file.write_all(&part).and_then(|()| file.sync_all()))?;
    }
    Ok(())
}
