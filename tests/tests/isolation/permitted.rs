//! The set of permitted system calls and capabilities, found by asking the compiled filter itself about every call, and compared
//! with Docker's default.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use berth_agent::bundle::{BUILD_CAPABILITIES, seccomp};

use crate::docker::{self, Condition};

/// What the filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Errno(u32),
    Kill,
}

/// linux/seccomp.h.
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
/// linux/audit.h; and i386, which is foreign everywhere that Berth runs.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
const ARCHITECTURE_I386: u32 = 0x4000_0003;

/// Executes the classic BPF program on one call (linux/filter.h; only what seccomp allows and this filter uses).
fn ask(program: &[u8], architecture: u32, number: u32, arguments: [u64; 6]) -> Result<Verdict, String> {
    let mut data = Vec::with_capacity(64);
    data.extend(number.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let word = |at: u32| {
        let at = at as usize;
        data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
    };
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let [code_low, code_high, if_true, if_false, k @ ..] =
            *program.as_chunks::<8>().0.get(at).ok_or("the program runs out")?;
        let k = u32::from_ne_bytes(k);
        let mut jump = |holds: bool| at += usize::from(if holds { if_true } else { if_false });
        match u16::from_ne_bytes([code_low, code_high]) {
            0x20 => accumulator = word(k).ok_or("a load from beyond")?,
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x54 => accumulator &= k,
            0x06 => {
                return match k & 0xffff_0000 {
                    RET_KILL_PROCESS => Ok(Verdict::Kill),
                    RET_ALLOW => Ok(Verdict::Allow),
                    RET_ERRNO => Ok(Verdict::Errno(k & 0xffff)),
                    other => Err(format!("the answer {other:#x}")),
                };
            }
            other => return Err(format!("the instruction {other:#x}")),
        }
        at += 1;
    }
}

/// Numbers newer than the headers of a stable distribution: the same on every architecture.
const NEWER: [(&str, u32); 16] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
];

/// The names of all calls, from the headers that a C library is built with.
fn names() -> Result<BTreeMap<u32, String>, String> {
    let places = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"];
    let path = if cfg!(target_arch = "x86_64") { places[0] } else { places[1] };
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}; install linux-libc-dev"))?;
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("#define __NR")) {
        let Some((name, number)) = line.split_once(char::is_whitespace) else { continue };
        if let Ok(number) = number.trim().parse() {
            names.insert(number, name.trim_start_matches("3264").trim_start_matches('_').to_owned());
        }
    }
    names.extend(NEWER.map(|(name, number)| (number, name.to_owned())));
    Ok(names)
}

/// Arguments that could make a difference: each is tried as the first and as the second one.
fn interesting() -> Vec<u64> {
    let mut all: Vec<u64> = (0..64).collect();
    all.extend((6..64).map(|bit| 1 << bit));
    all.extend([0x2_0008, 0x2_0000, 0xffff_ffff, 0x5412, 0x541C, 0x7E02_0000, 0x1_0000_0000 + 38, u64::MAX]);
    all
}

/// Asks about everything; says what is permitted, or where that is more than Docker permits.
fn permitted(program: &[u8]) -> Result<BTreeSet<String>, String> {
    let (names, docker) = (names()?, docker::calls());
    let mut permitted = BTreeSet::new();
    for number in 0..1_024 {
        for value in interesting() {
            for position in [0, 1] {
                let mut arguments = [0; 6];
                arguments[position] = value;
                if ask(program, ARCHITECTURE, number, arguments)? != Verdict::Allow {
                    continue;
                }
                let name = names.get(&number).ok_or_else(|| format!("call {number} has no name here"))?;
                let conditions = docker.get(name).map(Vec::as_slice).unwrap_or_default();
                if !conditions.iter().any(|condition| condition.holds(arguments)) {
                    return Err(format!("{name} with {arguments:x?} is permitted, and not by Docker"));
                }
                permitted.insert(name.clone());
            }
        }
    }
    Ok(permitted)
}

/// Permitted calls are a strict subset, and none of a foreign ABI is answered.
pub fn calls() -> Result<(), String> {
    let program = seccomp::encode(&seccomp::compile().map_err(|error| error.to_string())?);
    let permitted = permitted(&program)?;
    let docker: BTreeSet<String> = docker::calls().into_keys().collect();
    let missing: Vec<&String> = docker.difference(&permitted).collect();
    println!("permitted calls ({} of Docker's {}): {permitted:?}", permitted.len(), docker.len());
    println!("permitted by Docker only: {missing:?}");
    if missing.is_empty() {
        return Err("Docker permits nothing that is refused here".into());
    }
    for number in 0..1_024 {
        let foreign = ask(&program, ARCHITECTURE_I386, number, [0; 6])?;
        let x32 = ask(&program, ARCHITECTURE, number | 0x4000_0000, [0; 6])?;
        if foreign != Verdict::Kill || (cfg!(target_arch = "x86_64") && x32 != Verdict::Kill) {
            return Err(format!("call {number}: {foreign:?} for i386, {x32:?} for x32"));
        }
    }
    let no_such_call = Verdict::Errno(libc::ENOSYS as u32);
    for number in [libc::SYS_clone3 as u32, 471, 1_023] {
        let answer = ask(&program, ARCHITECTURE, number, [0; 6])?;
        if answer != no_such_call {
            return Err(format!("call {number}: {answer:?}"));
        }
    }
    Ok(())
}

/// Every socket family is asked for; only four exist here.
pub fn socket_families() -> Result<(), String> {
    let program = seccomp::encode(&seccomp::compile().map_err(|error| error.to_string())?);
    for family in 0..=64 {
        let answer = ask(&program, ARCHITECTURE, libc::SYS_socket as u32, [family, 1, 0, 0, 0, 0])?;
        if (answer == Verdict::Allow) != [1, 2, 10, 16].contains(&family) {
            return Err(format!("family {family}: {answer:?}"));
        }
    }
    Ok(())
}

/// What the largest set of capabilities is, beside Docker's.
pub fn capabilities() -> Result<(), String> {
    let docker = docker::capabilities();
    let ours: BTreeSet<u8> = BUILD_CAPABILITIES.into();
    let named: Vec<&str> =
        docker.iter().filter(|(number, _)| ours.contains(number)).map(|(_, name)| name.as_str()).collect();
    println!(
        "capabilities of a build ({} of Docker's {}; an app has none): {named:?}",
        ours.len(),
        docker.len()
    );
    if named.len() == ours.len() && ours.len() < docker.len() {
        Ok(())
    } else {
        Err(format!("{ours:?} is no strict subset of {docker:?}"))
    }
}

impl Condition {
    fn holds(&self, arguments: [u64; 6]) -> bool {
        match self {
            Self::Always => true,
            Self::In(index, values) => values.contains(&(arguments[*index] & 0xffff_ffff)),
            Self::Without(index, mask) => arguments[*index] & mask == 0,
        }
    }
}
