//! Releases over the public API, the real store and the real planner; only the host is made up.

use super::fleet::{Behaviour, Fleet};
use berth_wire::api::{App, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::report::InstanceState;
use berth_wire::spec::{Desired, Work};
use http::StatusCode;

const WEB: &[(&str, &str)] = &[("web", "gunicorn app:app")];

/// An app whose first release serves.
async fn serving() -> Fleet {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    assert_eq!(fleet.deploy("shop", "aaaaaaaa", WEB).await, 1);
    fleet.beats(5).await;
    assert_eq!(fleet.status("shop", 1).await, ReleaseStatus::Current);
    fleet
}

async fn patch(fleet: &Fleet, what: &str, body: &str) -> u64 {
    let (status, change) = fleet.call("PATCH", &format!("/v1/apps/shop/{what}"), body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{change}");
    change["release"].as_u64().unwrap()
}

fn fail_release(fleet: &Fleet, version: u64) {
    *fleet.behaviour.lock().unwrap() =
        Box::new(
            move |instance| {
                if instance.release == version { Behaviour::ExitsAtOnce } else { Behaviour::Well }
            },
        );
}

#[tokio::test]
async fn a_first_release_must_become_current_and_be_routed() {
    let fleet = serving().await;
    let app: App = fleet.get("/v1/apps/shop").await;
    assert_eq!((app.release, app.rolling), (Some(1), None));
    assert_eq!(app.web_url, "http://shop.localhost:8080/");
    let spec = fleet.spec().await;
    assert_eq!(spec.routes[0].domain.as_str(), "shop.localhost");
    assert_eq!(spec.routes[0].instances, [spec.instances[0].id]);
    let Work::Service(process) = &spec.instances[0].work else { panic!("{spec:?}") };
    assert_eq!(process.argv, ["/bin/sh", "-c", "exec gunicorn app:app"]);
    assert_eq!(process.env["PORT"], "8080");
    assert_eq!(process.env["BERTH_INSTANCE"], "web.1");
    assert_eq!(process.env["BERTH_COMMIT"], "aaaaaaaa");
}

#[tokio::test]
async fn a_new_release_must_come_up_beside_the_old_before_that_is_drained() {
    let fleet = serving().await;
    let old = fleet.instances("shop").await[0].id;
    fleet.deploy("shop", "bbbbbbbb", WEB).await;
    let mut together = false;
    for _ in 0..12 {
        fleet.beats(1).await;
        let spec = fleet.spec().await;
        let runs = |id| spec.instances.iter().any(|i| i.id == id && i.desired == Desired::Run);
        let instances = fleet.instances("shop").await;
        let healthy = instances.iter().filter(|i| i.state == Some(InstanceState::Healthy)).count();
        together |= instances.len() == 2 && runs(old);
        assert!(runs(old) || healthy >= 1, "{instances:?}");
        assert!(!spec.routes[0].instances.is_empty());
    }
    assert!(together);
    assert_eq!(fleet.status("shop", 1).await, ReleaseStatus::Superseded);
    assert_eq!(fleet.status("shop", 2).await, ReleaseStatus::Current);
    assert_eq!(fleet.instances("shop").await.len(), 1);
}

#[tokio::test]
async fn scaling_must_restart_nobody() {
    let fleet = serving().await;
    let first = fleet.instances("shop").await[0].id;
    let v2 = patch(&fleet, "formation", r#"[{"process":"web","count":3}]"#).await;
    fleet.beats(6).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    let all = fleet.instances("shop").await;
    assert_eq!(all.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["web.1", "web.2", "web.3"]);
    assert!(all.iter().any(|i| i.id == first) && all.iter().all(|i| i.release == v2));
    let v3 = patch(&fleet, "formation", r#"[{"process":"web","count":0}]"#).await;
    fleet.beats(6).await;
    assert_eq!(fleet.status("shop", v3).await, ReleaseStatus::Current);
    assert!(fleet.instances("shop").await.is_empty());
    assert_eq!(fleet.release("shop", v2).await.description, "Scale web to 3");
}

#[tokio::test]
async fn a_config_change_must_reach_new_instances_and_no_change_must_make_no_release() {
    let fleet = serving().await;
    let v2 = patch(&fleet, "config", r#"{"set":{"GREETING":"hello"}}"#).await;
    fleet.beats(8).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    let spec = fleet.spec().await;
    let Work::Service(process) = &spec.instances[0].work else { panic!() };
    assert_eq!(process.env["GREETING"], "hello");
    let (status, change) =
        fleet.call("PATCH", "/v1/apps/shop/config", r#"{"set":{"GREETING":"hello"}}"#).await;
    assert_eq!((status, change["release"].is_null()), (StatusCode::OK, true));
    let (status, problem) = fleet.call("PATCH", "/v1/apps/shop/config", r#"{"unset":["NOPE"]}"#).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("A13")));
}

#[tokio::test]
async fn a_release_that_exits_at_once_must_fail_and_leave_the_old_one_serving() {
    let fleet = serving().await;
    let old = fleet.instances("shop").await[0].id;
    let v2 = fleet.deploy("shop", "bbbbbbbb", WEB).await;
    fail_release(&fleet, v2);
    fleet.beats(8).await;
    let release = fleet.release("shop", v2).await;
    assert_eq!(release.status, ReleaseStatus::Failed);
    let trouble = release.trouble.unwrap();
    assert_eq!(trouble.code, Code::R16);
    assert!(trouble.log_tail.iter().any(|line| line.contains("ImportError")), "{trouble:?}");
    let left = fleet.instances("shop").await;
    assert_eq!(left.iter().map(|i| i.id).collect::<Vec<_>>(), [old]);
    assert_eq!(fleet.status("shop", 1).await, ReleaseStatus::Current);
    // What failed is undone with its config: the next change starts from what serves.
    let v3 = patch(&fleet, "config", r#"{"set":{"A":"1"}}"#).await;
    assert_eq!(fleet.release("shop", v3).await.commit.as_deref(), Some("aaaaaaaa"));
}

#[tokio::test]
async fn a_crash_in_the_watch_window_must_bring_the_old_release_back() {
    let fleet = serving().await;
    let v2 = fleet.deploy("shop", "bbbbbbbb", WEB).await;
    fleet.beats(8).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    fail_release(&fleet, v2);
    fleet.beats(14).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Failed);
    let v3 = fleet.release("shop", 3).await;
    assert_eq!((v3.status, v3.by.as_str()), (ReleaseStatus::Current, "berth"));
    assert_eq!((v3.description.as_str(), v3.commit.as_deref()), ("Rollback to v1", Some("aaaaaaaa")));
    assert_eq!(fleet.instances("shop").await.len(), 1);
}

#[tokio::test]
async fn a_rollback_must_run_the_old_image_in_the_present_formation() {
    let fleet = serving().await;
    fleet.deploy("shop", "bbbbbbbb", WEB).await;
    fleet.beats(8).await;
    patch(&fleet, "formation", r#"[{"process":"web","count":2}]"#).await;
    fleet.beats(8).await;
    let (status, change) = fleet.call("POST", "/v1/apps/shop/rollback", r#"{"version":1}"#).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{change}");
    fleet.beats(14).await;
    let release = fleet.release("shop", 4).await;
    assert_eq!((release.status, release.commit.as_deref()), (ReleaseStatus::Current, Some("aaaaaaaa")));
    assert_eq!(fleet.instances("shop").await.len(), 2);
    let (status, _) = fleet.call("POST", "/v1/apps/shop/rollback", r#"{"version":77}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_restart_must_replace_every_instance() {
    let fleet = serving().await;
    let old = fleet.instances("shop").await[0].id;
    let (status, _) = fleet.call("POST", "/v1/apps/shop/restart", "").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    fleet.beats(8).await;
    let all = fleet.instances("shop").await;
    assert!(all.len() == 1 && all[0].id != old, "{all:?}");
}

#[tokio::test]
async fn a_failing_release_command_must_switch_nothing() {
    let fleet = serving().await;
    *fleet.behaviour.lock().unwrap() = Box::new(|instance| {
        if instance.process.as_str() == "release" { Behaviour::ExitsAtOnce } else { Behaviour::Well }
    });
    let processes = &[("web", "run"), ("release", "migrate")];
    let v2 = fleet.deploy("shop", "bbbbbbbb", processes).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Releasing);
    fleet.beats(8).await;
    let release = fleet.release("shop", v2).await;
    assert_eq!(release.status, ReleaseStatus::Failed);
    let trouble = release.trouble.unwrap();
    assert!(
        trouble.code == Code::B21 && trouble.message.contains("`migrate` exited with status 1"),
        "{trouble:?}"
    );
    assert_eq!(fleet.status("shop", 1).await, ReleaseStatus::Current);
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Well);
    let v3 = fleet.deploy("shop", "cccccccc", processes).await;
    fleet.beats(12).await;
    assert_eq!(fleet.status("shop", v3).await, ReleaseStatus::Current);
    assert_eq!(fleet.instances("shop").await.len(), 1);
}

#[tokio::test]
async fn a_new_quota_must_reach_the_instance_that_runs() {
    let fleet = serving().await;
    let before = fleet.instances("shop").await;
    let v2 = patch(&fleet, "formation", r#"[{"process":"web","quota":{"pids":{"max":99}}}]"#).await;
    fleet.beats(6).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    let after = fleet.instances("shop").await;
    assert_eq!(
        after.iter().map(|i| i.id).collect::<Vec<_>>(),
        before.iter().map(|i| i.id).collect::<Vec<_>>()
    );
    assert_eq!(after[0].quota.pids.max, 99);
}

#[tokio::test]
async fn an_instance_that_cannot_have_a_new_quota_must_be_replaced_by_one_that_has_it() {
    let fleet = serving().await;
    let before = fleet.instances("shop").await;
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Stubborn);
    let v2 = patch(&fleet, "formation", r#"[{"process":"web","quota":{"pids":{"max":99}}}]"#).await;
    fleet.beats(12).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    let after = fleet.instances("shop").await;
    assert_eq!((after.len(), after[0].quota.pids.max), (1, 99));
    assert_ne!(after[0].id, before[0].id);
}

#[tokio::test]
async fn a_release_without_room_must_wait_and_say_why() {
    let fleet = serving().await;
    let big = r#"[{"process":"web","quota":{"memory_bytes":{"floor":2200000000,"max":2200000000}}}]"#;
    let v2 = patch(&fleet, "formation", big).await;
    fleet.beats(8).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    let (_, change) = fleet.call("POST", "/v1/apps/shop/restart", "").await;
    let v3 = change["release"].as_u64().unwrap();
    fleet.beats(5).await;
    let release = fleet.release("shop", v3).await;
    assert_eq!(release.status, ReleaseStatus::Rolling);
    let trouble = release.trouble.unwrap();
    assert_eq!(trouble.code, Code::R24);
    assert!(
        trouble.message.contains("waits: no host has 2098 MiB of memory free; nearest is h1"),
        "{trouble:?}"
    );
    let huge = r#"[{"process":"web","quota":{"memory_bytes":{"max":99000000000}}}]"#;
    let (_, problem) = fleet.call("PATCH", "/v1/apps/shop/formation", huge).await;
    assert_eq!(problem["code"], "A17");
}

#[tokio::test]
async fn a_killed_control_plane_must_go_on_where_it_was() {
    let mut fleet = serving().await;
    let v2 = fleet.deploy("shop", "bbbbbbbb", WEB).await;
    for _ in 0..10 {
        fleet.restart().await;
        fleet.beats(1).await;
    }
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
    assert_eq!(fleet.instances("shop").await.len(), 1);
}

#[tokio::test]
async fn a_deleted_app_must_leave_nothing_and_free_its_name() {
    let fleet = serving().await;
    let (status, _) = fleet.call("DELETE", "/v1/apps/shop", "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    fleet.create("shop").await;
    fleet.beats(6).await;
    let spec = fleet.spec().await;
    assert!(spec.instances.is_empty(), "{spec:?}");
    assert_eq!(spec.routes.len(), 1);
    assert!(fleet.instances("shop").await.is_empty());
}

#[tokio::test]
async fn a_newer_release_must_overtake_one_that_hangs() {
    let fleet = serving().await;
    *fleet.behaviour.lock().unwrap() =
        Box::new(|instance| if instance.release == 2 { Behaviour::Hangs } else { Behaviour::Well });
    fleet.deploy("shop", "bbbbbbbb", WEB).await;
    fleet.beats(4).await;
    assert_eq!(fleet.status("shop", 2).await, ReleaseStatus::Rolling);
    fleet.deploy("shop", "cccccccc", WEB).await;
    fleet.beats(8).await;
    assert_eq!(fleet.status("shop", 2).await, ReleaseStatus::Superseded);
    assert_eq!(fleet.status("shop", 3).await, ReleaseStatus::Current);
    assert_eq!(fleet.instances("shop").await.len(), 1);
}

#[tokio::test]
async fn a_first_release_that_failed_must_be_tried_again_with_other_config() {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    let v1 = fleet.deploy("shop", "aaaaaaaa", WEB).await;
    fail_release(&fleet, v1);
    fleet.beats(6).await;
    assert_eq!(fleet.status("shop", v1).await, ReleaseStatus::Failed);
    assert!(fleet.instances("shop").await.is_empty());
    let v2 = patch(&fleet, "config", r#"{"set":{"DATABASE_URL":"x"}}"#).await;
    fleet.beats(6).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
}

#[tokio::test]
async fn a_release_that_takes_over_one_on_its_way_must_fail_with_its_instances() {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Hangs);
    fleet.deploy("shop", "aaaaaaaa", WEB).await;
    fleet.beats(2).await;
    let v2 = patch(&fleet, "formation", r#"[{"process":"web","count":2}]"#).await;
    fleet.beats(2).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Rolling);
    *fleet.behaviour.lock().unwrap() =
        Box::new(|instance| if instance.index == 1 { Behaviour::ExitsAtOnce } else { Behaviour::Well });
    fleet.beats(4).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Failed);
}

#[tokio::test]
async fn a_release_whose_edge_is_away_must_wait_and_say_so() {
    let mut fleet = serving().await;
    fleet.edge_connected = false;
    let v2 = fleet.deploy("shop", "bbbbbbbb", WEB).await;
    fleet.beats(8).await;
    let release = fleet.release("shop", v2).await;
    assert_eq!(release.status, ReleaseStatus::Rolling);
    assert!(release.trouble.unwrap().message.contains("the edge on h1 is not connected"));
    fleet.edge_connected = true;
    fleet.beats(4).await;
    assert_eq!(fleet.status("shop", v2).await, ReleaseStatus::Current);
}

#[tokio::test]
async fn another_teams_app_must_not_exist() {
    let fleet = serving().await;
    let other = berth_wire::id::TeamId(uuid::Uuid::from_u128(77));
    let mut tx = fleet.app.store.begin().await.unwrap();
    crate::store::teams::insert(&mut tx, other, "other", fleet.app.clock.now()).await.unwrap();
    let token = crate::admin::token_make(&mut tx, other, "x", fleet.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    for (method, path) in [
        ("GET", "/v1/apps/shop"),
        ("DELETE", "/v1/apps/shop"),
        ("GET", "/v1/apps/shop/config"),
        ("GET", "/v1/apps/shop/formation"),
        ("GET", "/v1/apps/shop/instances"),
        ("GET", "/v1/apps/shop/releases"),
        ("GET", "/v1/apps/shop/releases/1"),
        ("GET", "/v1/apps/shop/builds"),
        ("GET", "/v1/apps/shop/events"),
        ("POST", "/v1/apps/shop/restart"),
    ] {
        let (status, _) = fleet.send(&token.secret, method, path, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
        let (status, _) = fleet.send("berth_wrong", method, path, "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    let (status, body) = fleet.send(&token.secret, "GET", "/v1/apps", "").await;
    assert_eq!((status, body.as_slice()), (StatusCode::OK, b"[]".as_slice()));
}
