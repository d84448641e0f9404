//! What people see: logs, metrics that a real Prometheus takes, the API's document, errors.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_tests::installation::{Installation, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::get;

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("logs_must_be_stamped_and_followed_without_loss", logs),
    ("requests_must_appear_in_the_log_of_their_app_only", requests),
    ("metrics_must_pass_promtool_and_name_the_app", metrics),
    ("a_real_prometheus_must_scrape_agent_and_control_plane", prometheus),
    ("the_openapi_document_must_name_every_v1_path", openapi),
    ("unknown_domains_must_be_told_so_at_the_edge", unknown_domain),
];

fn logs(berth: &Installation) {
    let app = "e2e-logs";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    let mut follow = berth
        .command("berth")
        .args(["logs", "-f", "-n", "1", "-a", app])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("berth logs -f: {e}"));
    let mut lines = BufReader::new(follow.stdout.take().unwrap_or_else(|| panic!("no output"))).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(first.contains("]: "), "{first}");
    assert_eq!(get(berth, app, "/log?lines=300&text=tick").status, 200);
    let mut next = 0;
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some((head, text)) = line.split_once("app[web.1]: ")
            && text == format!("tick {next}")
        {
            assert!(head.ends_with("+00:00 ") && head.len() == 33, "stamp: {head:?}");
            next += 1;
        }
        if next == 300 {
            break;
        }
    }
    assert_eq!(next, 300, "lines were lost or out of order");
    follow.kill().and_then(|()| follow.wait().map(drop)).unwrap_or_else(|e| panic!("ending berth logs: {e}"));
    let all = berth.berth_ok(&["logs", "-n", "1000", "-a", app]);
    assert!(all.contains("berth[web.1]: ") && all.contains("tick 299"), "{all}");
    let only = berth.berth_ok(&["logs", "-n", "5", "--process", "web.1", "-a", app]);
    assert!(only.lines().count() <= 5 && only.contains("web.1"), "{only}");
}

fn requests(berth: &Installation) {
    let (app, other) = ("e2e-requests", "e2e-requests-other");
    for app in [app, other] {
        Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    }
    let mut follow = berth
        .command("berth")
        .args(["logs", "-f", "-n", "0", "--process", "router", "-a", app])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("berth logs -f: {e}"));
    let mut lines = BufReader::new(follow.stdout.take().unwrap_or_else(|| panic!("no output"))).lines();
    // Asked until the follower has seen one: it is there a while after its process.
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            eventually(Duration::from_secs(30), || {
                assert_eq!(get(berth, other, "/slow?seconds=0").status, 200);
                assert_eq!(get(berth, app, "/?token=secret").status, 200);
                done.load(std::sync::atomic::Ordering::Relaxed)
            })
        });
        let seen = lines.next().and_then(Result::ok).unwrap_or_default();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asking.join().unwrap_or_default(), "no request was followed");
        seen
    });
    follow.kill().and_then(|()| follow.wait().map(drop)).unwrap_or_else(|e| panic!("ending berth logs: {e}"));
    let wanted = format!("router[web.1]: at=info method=GET path=\"/\" host={app}.localhost ");
    assert!(
        seen.contains(&wanted) && seen.contains(" dyno=web.1 ") && seen.contains(" status=200 "),
        "{seen}"
    );
    let history = || berth.berth_ok(&["logs", "-n", "1000", "-a", app]);
    assert!(eventually(Duration::from_secs(5), || history().contains(&wanted)), "{}", history());
    assert!(!history().contains("/slow") && !history().contains("secret"), "{}", history());
    let theirs = berth.berth_ok(&["logs", "-n", "1000", "-a", other]);
    assert!(theirs.contains("path=\"/slow\"") && !theirs.contains(&format!("host={app}.")), "{theirs}");
    let instances = berth.berth_ok(&["logs", "-n", "1000", "--process", "web", "-a", app]);
    assert!(!instances.contains(" router["), "{instances}");
}

fn promtool(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("promtool: {e}"));
    let mut input = promtool.stdin.take().unwrap_or_else(|| panic!("no input"));
    input.write_all(text.as_bytes()).unwrap_or_else(|e| panic!("promtool's input: {e}"));
    drop(input);
    let output = promtool.wait_with_output().unwrap_or_else(|e| panic!("promtool: {e}"));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        berth_tests::installation::both(&output)
    );
}

fn metrics(berth: &Installation) {
    let app = "e2e-metrics";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    for _ in 0..20 {
        assert_eq!(get(berth, app, "/").status, 200);
    }
    let scrape = |url: &str| {
        let client = reqwest::blocking::Client::new();
        let answer =
            client.get(url).bearer_auth(&berth.token).send().and_then(|r| r.error_for_status()?.text());
        answer.unwrap_or_else(|e| panic!("{url}: {e}"))
    };
    let agent = scrape(&berth.agent_metrics_url());
    promtool(&agent);
    promtool(&scrape(&format!("{}/metrics", berth.url)));
    for name in [
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_fs_usage_bytes",
    ] {
        let has = |l: &str| l.starts_with(name) && l.contains(&format!("app=\"{app}\""));
        assert!(agent.lines().any(has), "no {name} of {app}");
    }
    // The edge's counters reach the agent within seconds, not with the answer.
    let counted = || {
        let page = scrape(&berth.agent_metrics_url());
        let of_app =
            |l: &&str| l.starts_with("berth_http_requests_total") && l.contains(&format!("app=\"{app}\""));
        let value = |l: &str| l.rsplit_once(' ').and_then(|(_, n)| n.parse::<f64>().ok());
        page.lines().filter(of_app).filter_map(value).sum::<f64>()
    };
    assert!(eventually(Duration::from_secs(30), || counted() >= 20.0), "{} requests counted", counted());
}

fn prometheus(berth: &Installation) {
    let dir = berth.data.join("prometheus");
    let agent = berth.agent_metrics_url().replace("http://", "").replace("/metrics", "");
    let control_plane = berth.url.replace("http://", "");
    let port = berth_tests::installation::free_port();
    let config = format!(
        "scrape_configs:\n- job_name: agent\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{agent}']}}]\n\
         - job_name: berthd\n  scrape_interval: 1s\n  authorization: {{credentials: {}}}\n  static_configs: [{{targets: ['{control_plane}']}}]\n",
        berth.token
    );
    let written =
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("prometheus.yml"), config));
    written.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut server = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("prometheus: {e}"));
    let up = || {
        let url = format!("http://127.0.0.1:{port}/api/v1/query?query=sum(up)");
        let answer = reqwest::blocking::get(url).and_then(|r| r.json::<serde_json::Value>());
        answer.is_ok_and(|a| a["data"]["result"][0]["value"][1] == "2")
    };
    let both_up = eventually(Duration::from_secs(60), up);
    server.kill().and_then(|()| server.wait().map(drop)).unwrap_or_else(|e| panic!("ending prometheus: {e}"));
    assert!(both_up, "prometheus never saw both targets up");
}

fn openapi(berth: &Installation) {
    let text = reqwest::blocking::get(format!("{}/v1/openapi.json", berth.url)).and_then(|r| r.text());
    let document: serde_json::Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    for path in [
        "/v1/apps",
        "/v1/apps/{app}/config",
        "/v1/apps/{app}/releases",
        "/v1/apps/{app}/logs",
        "/v1/hosts",
        "/v1/tokens",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not in the document");
    }
}

fn unknown_domain(berth: &Installation) {
    let answer = get(berth, "nobody-has-this", "/");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("H40"), "{}", answer.body);
}
