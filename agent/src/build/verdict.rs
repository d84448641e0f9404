//! Why a step failed, as the person who pushed is told. Pure.

use berth_wire::code::Code;
use berth_wire::quota::MIB;
use berth_wire::report::{Exit, Trouble};

use super::plan::one_line;

/// What is known about a step that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Its name.
    pub step: &'a str,
    /// How its main process ended.
    pub exit: Exit,
    /// Whether its disk quota was used up.
    pub disk_full: bool,
    /// That quota in bytes.
    pub disk_bytes_max: u64,
    /// The quota of its memory in bytes.
    pub memory_bytes_max: u64,
}

/// Codes that a pack may give a failure. Whatever runs in a step can print such a line, so no other code is believed.
const PACK_CODES: [Code; 4] = [Code::B10, Code::B13, Code::B14, Code::B20];

/// The verdict; `tail` are the log's last lines.
pub fn of(failed: &Failed<'_>, tail: Vec<String>) -> Trouble {
    let step = failed.step;
    let (code, message) = match failed.exit {
        Exit::OutOfMemory => {
            let most = failed.memory_bytes_max / MIB;
            (Code::B15, format!("The build ran out of memory in the step {step}: it may use {most} MiB"))
        }
        _ if failed.disk_full => {
            let most = failed.disk_bytes_max / MIB;
            (Code::B16, format!("The build ran out of disk in the step {step}: it may write {most} MiB"))
        }
        exit => stated(&tail).unwrap_or_else(|| {
            let code = if step.starts_with("dependencies") { Code::B14 } else { Code::B20 };
            (code, format!("The build step {step} {}; the last lines say why", how(exit)))
        }),
    };
    Trouble { code, message, log_tail: tail }
}

/// The code and sentence of the last line such as ` !     B13 Python 2.7 cannot be had`.
fn stated(tail: &[String]) -> Option<(Code, String)> {
    tail.iter().rev().find_map(|line| {
        let (code, message) = line.trim_start().strip_prefix('!')?.trim_start().split_once(' ')?;
        let code = code.parse().ok().filter(|code| PACK_CODES.contains(code))?;
        let mut message = one_line(message);
        if let Some(first) = message.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Some((code, message))
    })
}

/// Whether the last lines of the log say what the trouble says.
pub fn is_stated(trouble: &Trouble, tail: &[String]) -> bool {
    stated(tail).is_some_and(|(code, message)| code == trouble.code && message == trouble.message)
}

fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("ended with status {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
        Exit::OutOfMemory => "ran out of memory".to_owned(),
        Exit::TimedOut => "took too long".to_owned(),
        Exit::Unknown => "ended while nobody watched".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(step: &str, exit: Exit, disk_full: bool) -> Failed<'_> {
        Failed { step, exit, disk_full, disk_bytes_max: 100 * MIB, memory_bytes_max: 50 * MIB }
    }

    fn code(step: &str, exit: Exit, disk_full: bool, tail: &[&str]) -> Code {
        of(&failed(step, exit, disk_full), tail.iter().map(|line| (*line).to_owned()).collect()).code
    }

    #[test]
    fn each_way_to_fail_must_have_its_code() {
        assert_eq!(code("build", Exit::OutOfMemory, true, &[]), Code::B15);
        assert_eq!(code("dependencies", Exit::Code(1), true, &[" !     B14 x"]), Code::B16);
        assert_eq!(code("dependencies-all", Exit::Code(1), false, &[]), Code::B14);
        assert_eq!(code("collectstatic", Exit::Signal(11), false, &[]), Code::B20);
    }

    #[test]
    fn what_a_pack_states_must_be_passed_on() {
        let trouble = of(
            &failed("toolchain", Exit::Code(1), false),
            vec![" !     B13 node \"99\" cannot be had; there are 22.x".into(), "more".into()],
        );
        assert_eq!(
            (trouble.code, trouble.message.as_str()),
            (Code::B13, "Node \"99\" cannot be had; there are 22.x")
        );
        assert_eq!(trouble.log_tail.len(), 2);
        assert!(is_stated(&trouble, &trouble.log_tail), "it would be said twice");
        assert!(!is_stated(&trouble, &["more".into()]));
    }

    #[test]
    fn a_code_that_no_pack_gives_must_not_be_believed() {
        assert_eq!(code("build", Exit::Code(1), false, &[" !     A11 not allowed"]), Code::B20);
    }

    #[test]
    fn a_spent_quota_must_be_named_with_its_size() {
        let trouble = of(&failed("build", Exit::OutOfMemory, false), vec![]);
        assert!(trouble.message.contains("50 MiB"), "{}", trouble.message);
    }
}
