//! From what a container is to be to the plan that the launcher carries out: a fold of small rules, one per file, each of which
//! appends its steps. Pure: no file system, no clock, no kernel. The order of [`RULES`] is the order of the steps.

mod binds;
mod capabilities;
mod command;
mod devices;
mod identity;
pub mod inside;
mod kernel_files;
mod label;
mod limits;
mod masks;
mod namespaces;
mod read_only;
mod root;
pub mod seccomp;
mod streams;

use berth_wire::attach::TerminalSize;
use berth_wire::launch::{FdIndex, Plan, SecurityLabel, Stream};
use berth_wire::quota::Quota;

/// What the rules decide from. Descriptors are named by where they lie in the launch message.
#[derive(Debug, Clone)]
pub struct Input {
    /// Host name inside.
    pub hostname: String,
    /// The kernel's id that root inside is.
    pub uid_base: u32,
    /// User and group inside.
    pub user: (u32, u32),
    /// What it may use.
    pub quota: Quota,
    /// Capability numbers it keeps; none for an app.
    pub capabilities: Vec<u8>,
    /// The namespaces that it enters.
    pub user_namespace: FdIndex,
    /// The network namespace.
    pub network_namespace: FdIndex,
    /// The v1 groups' open `cgroup.procs`.
    pub legacy_cgroups: Vec<FdIndex>,
    /// The layers' trees, lowest first.
    pub layers: Vec<FdIndex>,
    /// The tree with `upper` and `work`.
    pub scratch: FdIndex,
    /// What else of the host it sees.
    pub binds: Vec<BindTree>,
    /// How many processors the host has (some masks are per processor).
    pub processors: u32,
    /// What it is called by the host's security module, if there is one.
    pub label: Option<SecurityLabel>,
    /// The compiled filter.
    pub seccomp: FdIndex,
    /// Standard input, output and error.
    pub standard: Standard,
    /// Working directory inside.
    pub cwd: String,
    /// The encoded command.
    pub command: FdIndex,
}

/// Where standard input, output and error lead.
#[derive(Debug, Clone, Copy)]
pub enum Standard {
    /// Each on its own.
    Streams([Stream; 3]),
    /// All to one terminal.
    Terminal {
        /// Where its master is sent.
        socket: FdIndex,
        /// Its size.
        size: TerminalSize,
    },
}

impl Input {
    /// For a further command in a running container: nothing of what makes a container.
    pub fn inside(uid_base: u32) -> Self {
        let none = FdIndex(0);
        Self {
            hostname: String::new(),
            uid_base,
            user: (0, 0),
            quota: Quota::default(),
            capabilities: Vec::new(),
            user_namespace: none,
            network_namespace: none,
            legacy_cgroups: Vec::new(),
            layers: Vec::new(),
            scratch: none,
            binds: Vec::new(),
            processors: 0,
            label: None,
            seccomp: none,
            standard: Standard::Streams([Stream::Null; 3]),
            cwd: String::new(),
            command: none,
        }
    }
}

/// Something of the host that a container sees.
#[derive(Debug, Clone)]
pub struct BindTree {
    /// Its detached mount.
    pub tree: FdIndex,
    /// Where, inside.
    pub path: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// A rule: appends its steps.
type Rule = fn(&Input, &mut Plan);

/// All rules, in the order of their steps.
///
/// Cgroups come first, so that all that follows is charged to the container; the user namespace as late as possible, because
/// everything before it needs privilege on the host; capabilities after it; the filter last, because it denies what the others do.
const RULES: &[Rule] = &[
    namespaces::rule,
    root::rule,
    kernel_files::rule,
    devices::rule,
    binds::rule,
    masks::rule,
    read_only::rule,
    limits::rule,
    identity::pivot,
    label::rule,
    identity::rule,
    capabilities::rule,
    seccomp::rule,
    streams::rule,
    command::rule,
];

/// The plan for a container.
pub fn plan(input: &Input) -> Plan {
    let mut plan = Plan { steps: Vec::new(), main: Vec::new() };
    for rule in RULES {
        rule(input, &mut plan);
    }
    plan
}

/// CRI-O's nine, for build steps: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE
/// (linux/capability.h).
pub const BUILD_CAPABILITIES: [u8; 9] = [0, 1, 3, 4, 5, 6, 7, 8, 10];

#[cfg(test)]
pub(crate) fn example() -> Input {
    Input {
        hostname: "shop-web-1".into(),
        uid_base: 1 << 20,
        user: (1_000, 1_000),
        quota: Quota::default(),
        capabilities: vec![],
        user_namespace: FdIndex(0),
        network_namespace: FdIndex(1),
        legacy_cgroups: vec![FdIndex(2)],
        layers: vec![FdIndex(3), FdIndex(4)],
        scratch: FdIndex(5),
        binds: vec![BindTree { tree: FdIndex(6), path: "/cache".into(), read_only: true }],
        processors: 2,
        label: Some(SecurityLabel::AppArmor { profile: "berth-container".into() }),
        seccomp: FdIndex(7),
        standard: Standard::Streams([Stream::Null, Stream::Output, Stream::Output]),
        cwd: "/app".into(),
        command: FdIndex(8),
    }
}

#[cfg(test)]
mod tests {
    use berth_wire::launch::Step;

    use super::*;

    /// Where the step that a predicate finds is.
    fn position(plan: &Plan, found: impl Fn(&Step) -> bool) -> usize {
        plan.steps.iter().position(found).unwrap()
    }

    #[test]
    fn privilege_must_be_given_up_after_the_mounts_and_before_the_command() {
        let plan = plan(&example());
        let pivot = position(&plan, |step| matches!(step, Step::PivotRoot));
        let user = position(&plan, |step| matches!(step, Step::EnterUser { .. }));
        let bounding = position(&plan, |step| matches!(step, Step::Bounding { .. }));
        let identity = position(&plan, |step| matches!(step, Step::Identity { .. }));
        let dropped = position(&plan, |step| matches!(step, Step::Capabilities { .. }));
        let no_new = position(&plan, |step| matches!(step, Step::NoNewPrivileges));
        let filter = position(&plan, |step| matches!(step, Step::Seccomp { .. }));
        let order = [pivot, user, bounding, identity, dropped, no_new, filter];
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(filter, plan.steps.len() - 1);
        assert!(matches!(plan.main.last(), Some(Step::Execute { .. })));
    }

    #[test]
    fn everything_must_be_charged_to_the_container() {
        let plan = plan(&example());
        assert!(matches!(plan.steps[0], Step::JoinLegacyCgroup { .. }));
        assert!(matches!(plan.steps[1], Step::UnshareCgroup));
    }
}
