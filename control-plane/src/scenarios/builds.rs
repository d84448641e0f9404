//! Builds from the queue to a release, with a host that is made up.

use super::fleet::{Behaviour, Fleet};
use berth_wire::api::{BuildStatus, Event, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::spec::Work;
use http::StatusCode;

async fn asked() -> Fleet {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    fleet
}

#[tokio::test]
async fn an_upload_that_builds_must_become_a_release() {
    let fleet = asked().await;
    let (status, _) = fleet.call("PATCH", "/v1/apps/shop/config", r#"{"set":{"PIP_X":"1"}}"#).await;
    assert_eq!(status, StatusCode::OK);
    let id = fleet.upload("shop").await;
    assert_eq!(fleet.build("shop", id).await.status, BuildStatus::Queued);
    fleet.beats(1).await;
    let spec = fleet.spec().await;
    let Work::Build(build) = &spec.instances[0].work else { panic!("{spec:?}") };
    assert_eq!((build.build, build.env["PIP_X"].as_str()), (id, "1"));
    assert_eq!(fleet.build("shop", id).await.status, BuildStatus::Running);
    assert!(fleet.instances("shop").await.is_empty());
    fleet.beats(10).await;
    let build = fleet.build("shop", id).await;
    assert_eq!((build.status, build.release), (BuildStatus::Succeeded, Some(1)));
    let release = fleet.release("shop", 1).await;
    assert_eq!((release.status, release.build), (ReleaseStatus::Current, Some(id)));
    assert!(fleet.spec().await.instances.iter().all(|i| matches!(i.work, Work::Service(_))));
}

#[tokio::test]
async fn a_failed_build_must_say_why_and_make_no_release() {
    let fleet = asked().await;
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::ExitsAtOnce);
    let id = fleet.upload("shop").await;
    fleet.beats(8).await;
    let build = fleet.build("shop", id).await;
    assert_eq!((build.status, build.release), (BuildStatus::Failed, None));
    assert!(!build.trouble.unwrap().log_tail.is_empty());
    assert!(fleet.spec().await.instances.is_empty());
    let events: Vec<Event> = fleet.get("/v1/apps/shop/events").await;
    assert!(events.iter().any(|e| e.message.starts_with("Build failed")), "{events:?}");
}

#[tokio::test]
async fn an_interrupted_build_must_begin_again_once() {
    let fleet = asked().await;
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Interrupted);
    let id = fleet.upload("shop").await;
    fleet.beats(2).await;
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Well);
    fleet.beats(8).await;
    assert_eq!(fleet.build("shop", id).await.status, BuildStatus::Succeeded);
    *fleet.behaviour.lock().unwrap() = Box::new(|_| Behaviour::Interrupted);
    let id = fleet.upload("shop").await;
    fleet.beats(10).await;
    let build = fleet.build("shop", id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert_eq!(build.trouble.unwrap().code, Code::B18);
}

#[tokio::test]
async fn a_build_without_a_host_must_wait_and_say_so() {
    let fleet = asked().await;
    fleet.pass(60);
    let id = fleet.upload("shop").await;
    crate::tasks::plan_hosts::plan_once(&fleet.app).await.unwrap();
    let build = fleet.build("shop", id).await;
    assert_eq!(build.status, BuildStatus::Queued);
    assert_eq!(build.trouble.unwrap().code, Code::A19);
    fleet.beats(6).await;
    assert_eq!(fleet.build("shop", id).await.status, BuildStatus::Succeeded);
}

#[tokio::test]
async fn builds_of_one_app_must_wait_for_each_other() {
    let fleet = asked().await;
    let (first, second) = (fleet.upload("shop").await, fleet.upload("shop").await);
    fleet.beats(1).await;
    let building = |spec: berth_wire::spec::Spec| {
        spec.instances.iter().filter(|i| matches!(i.work, Work::Build(_))).count()
    };
    assert_eq!(building(fleet.spec().await), 1);
    fleet.beats(16).await;
    for id in [first, second] {
        assert_eq!(fleet.build("shop", id).await.status, BuildStatus::Succeeded);
    }
}
