//! Runs inside a container: makes one attempt, named by its argument, and says by its exit status how it went: 0 it succeeded,
//! N the kernel refused with errno N. Compiled by the test with plain rustc, static, so that the image needs nothing else.

use std::ffi::CString;
use std::fs;
use std::io;

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn socket(family: i32, kind: i32, protocol: i32) -> i32;
    fn unshare(flags: i32) -> i32;
    fn getrlimit(resource: i32, limit: *mut [u64; 2]) -> i32;
    fn fork() -> i32;
    fn pause() -> i32;
    fn mount(source: *const i8, target: *const i8, kind: *const i8, flags: u64, data: *const u8) -> i32;
    fn mknod(path: *const i8, mode: u32, device: u64) -> i32;
    fn ptrace(request: i64, pid: i32, address: u64, data: u64) -> i64;
    fn kill(pid: i32, signal: i32) -> i32;
}

/// What is not an errno: the attempt was possible and what it found was as it should be.
const AS_IT_SHOULD_BE: i32 = 200;

/// An attempt that another function makes.
const NOT_MINE: i32 = 254;

fn main() {
    let attempt = std::env::args().nth(1).unwrap_or_default();
    let code = match outcome(&attempt) {
        Ok(()) => 0,
        Err(code) => code,
    };
    std::process::exit(code);
}

type Outcome = Result<(), i32>;

fn number(result: i64) -> Outcome {
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(1)) } else { Ok(()) }
}

fn io_result<T>(result: io::Result<T>) -> Outcome {
    result.map(drop).map_err(|error| error.raw_os_error().unwrap_or(1))
}

fn found(attack_found_something: bool) -> Outcome {
    if attack_found_something { Ok(()) } else { Err(AS_IT_SHOULD_BE) }
}

fn status_field(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

fn outcome(attempt: &str) -> Outcome {
    call(attempt)
        .or_else(|| fact(attempt))
        .or_else(|| file(attempt))
        .or_else(|| load(attempt))
        .unwrap_or(Err(255))
}

/// System calls that are to be refused.
fn call(attempt: &str) -> Option<Outcome> {
    let outcome = || unsafe {
        match attempt {
            "nested user namespace" => number(unshare(0x1000_0000).into()),
            "clone a user namespace" => number(syscall(56, 0x1000_0011_i64, 0, 0, 0, 0)),
            "clone3" => number(syscall(435, 0_i64, 0_i64)),
            "keyctl" => number(syscall(250, 0, -3, 1)),
            "io_uring" => number(syscall(425, 1, [0u8; 120].as_mut_ptr())),
            "userfaultfd" => number(syscall(323, 1)),
            "AF_ALG" => number(socket(38, 5, 0).into()),
            "AF_VSOCK" => number(socket(40, 1, 0).into()),
            "AF_PACKET" => number(socket(17, 3, 0).into()),
            "raw socket" => number(socket(2, 3, 1).into()),
            "32-bit ABI" => {
                #[cfg(target_arch = "x86_64")]
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => _);
                Ok(())
            }
            "make a device" => {
                let path = CString::new("/tmp/node").unwrap();
                number(mknod(path.as_ptr().cast(), 0o020666, 0x103).into())
            }
            "mount" => {
                let (kind, target) = (CString::new("tmpfs").unwrap(), CString::new("/tmp").unwrap());
                number(
                    mount(
                        kind.as_ptr().cast(),
                        target.as_ptr().cast(),
                        kind.as_ptr().cast(),
                        0,
                        std::ptr::null(),
                    )
                    .into(),
                )
            }
            "mount cgroup v1" => {
                let (kind, target) = (CString::new("cgroup").unwrap(), CString::new("/tmp").unwrap());
                let options = CString::new("memory").unwrap();
                number(
                    mount(
                        kind.as_ptr().cast(),
                        target.as_ptr().cast(),
                        kind.as_ptr().cast(),
                        0,
                        options.as_ptr().cast(),
                    )
                    .into(),
                )
            }
            "trace init" => number(ptrace(16, 1, 0, 0)),
            "kill init" => {
                kill(1, 9);
                // Still here: it was ignored.
                Err(AS_IT_SHOULD_BE)
            }
            _ => Err(NOT_MINE),
        }
    };
    Some(outcome()).filter(|outcome| *outcome != Err(NOT_MINE))
}

/// What the process knows about itself and sees of others.
fn fact(attempt: &str) -> Option<Outcome> {
    let outcome = || unsafe {
        match attempt {
            "core dump" => {
                let mut limit = [0; 2];
                number(getrlimit(4, &mut limit).into())?;
                found(limit[1] != 0)
            }
            "spared when memory runs out" => {
                let score = fs::read_to_string("/proc/self/oom_score_adj").map_err(|_| 1)?;
                found(score.trim() != "500")
            }
            "no_new_privs is off" => found(status_field("NoNewPrivs:") == "0"),
            "bounding set" => found(status_field("CapBnd:").trim_start_matches('0') != ""),
            "effective set" => found(status_field("CapEff:").trim_start_matches('0') != ""),
            "inheritable and ambient sets" => found(
                ["CapInh:", "CapAmb:"].iter().any(|set| status_field(set).trim_start_matches('0') != ""),
            ),
            "no filter" => found(status_field("Seccomp:") == "0"),
            "root is root outside" => {
                let map = fs::read_to_string("/proc/self/uid_map").map_err(|_| 1)?;
                found(map.split_whitespace().nth(1) == Some("0"))
            }
            "host name" => found(
                !fs::read_to_string("/proc/sys/kernel/hostname").is_ok_and(|name| name.trim() == "inside"),
            ),
            "other interfaces" => {
                let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
                found(text.lines().skip(2).any(|line| !line.trim_start().starts_with("lo:")))
            }
            "cgroup path of the host" => {
                let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
                found(text.contains("berth-"))
            }
            "processes of the host" => {
                let processes = fs::read_dir("/proc").map_err(|_| 1)?;
                let numbers =
                    processes.flatten().filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok());
                found(numbers.count() > 2)
            }
            "open descriptors" => {
                // The directory's own descriptor is the fourth.
                let open = fs::read_dir("/proc/self/fd").map_err(|_| 1)?;
                found(open.flatten().count() > 4)
            }
            "devices beside the usual" => {
                let usual = [
                    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
                    "stdout", "stderr",
                ];
                let there = fs::read_dir("/dev").map_err(|_| 1)?;
                found(
                    there
                        .flatten()
                        .any(|entry| !usual.contains(&entry.file_name().to_string_lossy().as_ref())),
                )
            }
            _ => Err(NOT_MINE),
        }
    };
    Some(outcome()).filter(|outcome| *outcome != Err(NOT_MINE))
}

/// Files that are to be covered, read-only or not there.
fn file(attempt: &str) -> Option<Outcome> {
    let outcome = || {
        match attempt {
            "read /proc/interrupts" => found(!fs::read("/proc/interrupts").map_err(|_| 1)?.is_empty()),
            "list /sys/firmware" => match fs::read_dir("/sys/firmware") {
                Ok(mut list) => found(list.next().is_some()),
                Err(_) => Err(AS_IT_SHOULD_BE),
            },
            "write /proc/sys" => io_result(fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "80")),
            // Nothing of sysfs belongs to the container; that it is read-only as well is told by which refusal comes first.
            "write /sys" => {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                io_result(fs::set_permissions("/sys/kernel", mode))
            }
            "make a cgroup" => io_result(fs::create_dir("/sys/fs/cgroup/new")),
            "open a device of the image" => io_result(fs::File::open("/node")),
            "read init's memory" => io_result(fs::File::open("/proc/1/mem")),
            "init's program" => io_result(fs::File::open("/proc/1/exe")),
            "init's descriptors" => io_result(fs::read_dir("/proc/1/fd")),
            "write over the program" => io_result(fs::write("/bin/other", "overwritten")),
            _ => Err(NOT_MINE),
        }
    };
    Some(outcome()).filter(|outcome| *outcome != Err(NOT_MINE))
}

/// What uses something up, or goes outside.
fn load(attempt: &str) -> Option<Outcome> {
    let outcome = || unsafe {
        match attempt {
            "reach the host" => {
                let address = std::env::var("TARGET").map_err(|_| 1)?;
                let wait = std::time::Duration::from_millis(500);
                match std::net::TcpStream::connect_timeout(&address.parse().map_err(|_| 1)?, wait) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(AS_IT_SHOULD_BE),
                }
            }
            "fork without end" => {
                let mut made = 0;
                for _ in 0..200 {
                    match fork() {
                        0 => loop {
                            pause();
                        },
                        -1 => break,
                        _ => made += 1,
                    }
                }
                found(made >= 30)
            }
            "eat memory" => {
                let mut eaten: Vec<Vec<u8>> = Vec::new();
                for _ in 0..256 {
                    eaten.push(vec![1; 1 << 20]);
                }
                found(eaten.iter().map(|part| part[0] as usize).sum::<usize>() == 256)
            }
            "say" => {
                for line in 0..2_000 {
                    println!("line {line}");
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Ok(())
            }
            _ => Err(NOT_MINE),
        }
    };
    Some(outcome()).filter(|outcome| *outcome != Err(NOT_MINE))
}
