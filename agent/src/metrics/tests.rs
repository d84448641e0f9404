//! The whole of `/metrics` as text: names, labels, bounds, and what promtool says to it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use berth_wire::digest::Digest;
use berth_wire::edge::RequestStats;
use berth_wire::id::{AppId, InstanceId, TeamId};
use berth_wire::image::{HealthCheck, ImageRef};
use berth_wire::quota::Quota;
use berth_wire::report::{InstanceReport, InstanceState};
use berth_wire::spec::{Desired, Generation, InstanceSpec, ProcessSpec, Work};
use uuid::Uuid;

use super::*;
use crate::reconcile::Seen;

fn seen(n: u128) -> Seen {
    let id = InstanceId(Uuid::from_u128(n));
    let process = ProcessSpec {
        image: ImageRef { repository: "apps/a".into(), digest: Digest::of(b"") },
        argv: vec![],
        env: BTreeMap::new(),
        port: Some(5000),
        health: HealthCheck::default(),
        stop_grace_seconds: 30,
        run_seconds_max: 60,
        attached: None,
    };
    let spec = InstanceSpec {
        id,
        team: TeamId(Uuid::nil()),
        app: AppId(Uuid::nil()),
        app_name: "shop".parse().unwrap(),
        process: "web".parse().unwrap(),
        index: u32::try_from(n).unwrap(),
        release: 5,
        desired: Desired::Run,
        work: Work::Service(process),
        quota: Quota::default(),
    };
    let report = InstanceReport {
        id,
        state: InstanceState::Healthy,
        since: jiff::Timestamp::UNIX_EPOCH,
        restarts: 2,
        last_exit: None,
        trouble: None,
        built: None,
        quota: None,
        refused: None,
    };
    Seen { spec: Some(Arc::new(spec)), report, out_of_memory: 1, address: None, alive: true }
}

fn text() -> String {
    let generation = Some(Generation { epoch: 1, number: 7 });
    let snapshot = Snapshot { generation, instances: vec![seen(1), seen(2)] };
    let sample = |n| InstanceSample {
        instance: Some(InstanceId(Uuid::from_u128(n))),
        cpu_usage_us: 1_500_000,
        memory_working_set_bytes: 4_096,
        ..InstanceSample::default()
    };
    let stats = RequestStats {
        by_class: BTreeMap::from([("2xx".to_owned(), 3), ("5xx".to_owned(), 1)]),
        latency_buckets: [1; 12],
        latency_sum_seconds: 30.0,
        in_flight: 1,
    };
    let edge = EdgeStats {
        instances: BTreeMap::from([(InstanceId(Uuid::from_u128(1)), stats)]),
        errors: BTreeMap::from([("H40".to_owned(), 9)]),
        connections: 4,
    };
    render(&snapshot, &[sample(1), sample(2)], &HostFacts::default(), &edge, true)
}

#[test]
fn series_must_have_cadvisors_names_and_the_four_labels() {
    let text = text();
    let labels =
        r#"{app="shop",process="web.1",instance="00000000-0000-0000-0000-000000000001",release="v5"}"#;
    for line in [
        format!("container_cpu_usage_seconds_total{labels} 1.5"),
        format!("container_memory_working_set_bytes{labels} 4096"),
        format!("container_spec_memory_limit_bytes{labels} 536870912"),
        format!("container_spec_cpu_quota{labels} 100000"),
        format!("berth_instance_restarts_total{labels} 2"),
        format!("berth_http_requests_total{} 1", labels.replace('}', r#",class="5xx"}"#)),
        format!("berth_http_request_duration_seconds_count{labels} 12"),
        r#"berth_edge_errors_total{code="H40"} 9"#.to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_number_of_series_per_instance_must_stay_within_its_bound() {
    let text = text();
    let of_one = text.lines().filter(|l| l.contains(r#"process="web.1""#)).count();
    assert!(of_one <= 45, "{of_one}");
}

#[test]
fn promtool_must_have_nothing_to_say() {
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("not run: promtool is not installed (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text().as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}
