//! A further command in a running container: it joins what the container has and gets, by the same rules, the same limits,
//! user, capabilities and filter as the container's own command.

use berth_wire::launch::{FdIndex, Plan, Step};

use super::{Input, capabilities, command, identity, kernel_files, label, limits, seccomp, streams};

/// The plan for it. `process` is the pidfd of the container's init; of the input, what says how the container is made (root,
/// host name, network) is not looked at.
pub fn plan(input: &Input, process: FdIndex) -> Plan {
    let input = Input { user_namespace: process, ..input.clone() };
    let mut plan = Plan { steps: Vec::new(), main: Vec::new() };
    plan.steps.extend(input.legacy_cgroups.iter().map(|procs| Step::JoinLegacyCgroup { procs: *procs }));
    plan.steps.extend([kernel_files::SCORE, Step::EnterContainer { process }]);
    for rule in [
        limits::rule,
        label::rule,
        identity::rule,
        capabilities::rule,
        seccomp::rule,
        streams::rule,
        command::rule,
    ] {
        rule(&input, &mut plan);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_command_must_be_confined_as_the_first_one_is() {
        let input = crate::bundle::example();
        let (first, further) = (crate::bundle::plan(&input), plan(&input, input.user_namespace));
        let confines = |step: &&Step| {
            matches!(
                step,
                Step::Limit { .. }
                    | Step::OomScoreAdjust { .. }
                    | Step::JoinLegacyCgroup { .. }
                    | Step::Label { .. }
                    | Step::EnterUser { .. }
                    | Step::Bounding { .. }
                    | Step::Identity { .. }
                    | Step::Capabilities { .. }
                    | Step::NoNewPrivileges
                    | Step::Seccomp { .. }
            )
        };
        let of = |plan: &Plan| plan.steps.iter().filter(confines).cloned().collect::<Vec<_>>();
        assert_eq!(of(&first), of(&further));
        assert_eq!(first.main, further.main);
    }

    #[test]
    fn privilege_must_be_given_up_after_the_namespaces_are_entered() {
        let plan = plan(&crate::bundle::example(), FdIndex(9));
        let position = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
        let enter = position(|step| matches!(step, Step::EnterContainer { .. }));
        let user = position(|step| matches!(step, Step::EnterUser { namespace: FdIndex(9) }));
        assert!(enter < user);
        assert!(matches!(plan.steps.last(), Some(Step::Seccomp { .. })));
    }
}
