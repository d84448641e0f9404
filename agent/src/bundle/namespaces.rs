//! Cgroups, the cgroup namespace (whose root is the groups just joined), network, host name, mounts.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    plan.steps.extend(input.legacy_cgroups.iter().map(|procs| Step::JoinLegacyCgroup { procs: *procs }));
    plan.steps.extend([
        Step::UnshareCgroup,
        Step::EnterNetwork { namespace: input.network_namespace },
        Step::Hostname { name: input.hostname.clone() },
        Step::UnshareMounts,
    ]);
}
