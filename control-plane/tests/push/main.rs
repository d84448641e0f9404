//! `git push` with real git against the real router. What hosts and the planner do (builds, releases) is done to the
//! store by a stand-in, so that each test decides how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use berth_control_plane::git;
use berth_control_plane::store::builds;
use berth_wire::api::ReleaseStatus;
use berth_wire::code::Code;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::timeout;
use world::{PATIENCE, ended, noise, trouble, world, world_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_must_build_and_release_and_show_it() {
    let world = world().await;
    std::fs::write(world.work.join(".gitattributes"), "app.py export-ignore\n").unwrap();
    let commit = world.commit("app.py", "print(1)\n").await;
    let push = world.push("main");
    let build = world.open_build().await;
    assert_eq!(
        (build.commit.as_deref(), build.by.as_str(), build.releases),
        (Some(commit.as_str()), "ann", false)
    );
    let tar = world.app.blobs.read(&build.source).await.unwrap().unwrap();
    assert!(tar.windows(6).any(|part| part == b"app.py"), "the source must be whole");
    assert_eq!(world.branch().await, None, "the ref must not move before the build has succeeded");
    world.build_says(&build, "-----> Python app detected\n10%\r100%\n").await;
    world.end_build(build, None).await;
    world.end_release(1, ReleaseStatus::Current, None).await;
    let (success, words) = ended(push).await;
    assert!(success, "{words}");
    let expected =
        ["remote: -----> Python app detected", "100%", "Release v1", "http://shop.localhost:8080/"];
    for part in expected {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
    assert!(!words.contains("10%\r"), "{words}");
    assert_eq!(world.branch().await, Some(("main".into(), commit.clone())));
    assert_eq!(world.release(1).await.unwrap().content.commit, Some(commit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_must_leave_the_ref_where_it_was() {
    let world = world().await;
    let first = world.commit("a", "1").await;
    world.deploy("main", 1).await;
    let second = world.commit("a", "2").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world.build_says(&build, "no such package\n").await;
    world.end_build(build, trouble(Code::B14, "pip failed")).await;
    let (success, words) = ended(push).await;
    assert!(!success);
    for part in
        ["no such package", "[B14]: pip failed", "berth explain B14", &format!("stays at {}", &first[..7])]
    {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
    assert_eq!(world.branch().await, Some(("main".into(), first)));
    assert!(world.release(2).await.is_none());
    // A failed build is not gone on from: the same commit is built again.
    let push = world.push("main");
    let again = world.open_build().await;
    assert_eq!(again.commit, Some(second));
    world.end_build(again, None).await;
    world.end_release(2, ReleaseStatus::Current, None).await;
    assert!(ended(push).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_come_up_must_be_told_and_keep_the_ref() {
    let world = world().await;
    world.commit("a", "1").await;
    world.deploy("main", 1).await;
    let second = world.commit("a", "2").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world.end_build(build, None).await;
    world.end_release(2, ReleaseStatus::Failed, trouble(Code::R10, "nothing bound port 5000")).await;
    let (success, words) = ended(push).await;
    assert!(success, "the commit was accepted: {words}");
    for part in ["v2 did not come up [R10]: nothing bound port 5000", "Traceback", "v1 serves on"] {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
    assert_eq!(world.branch().await, Some(("main".into(), second)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_push_of_the_deploy_branch_must_be_refused_with_a_sentence() {
    let world = world().await;
    world.commit("a", "1").await;
    world.git(&["branch", "feature"]).await;
    world.git(&["tag", "v1"]).await;
    let refused = async |refspec: &str, code: &str| {
        let (success, words) = ended(world.push(refspec)).await;
        assert!(!success && words.contains(code), "{refspec}: {words}");
    };
    refused("feature", "[G10] only main (or master) deploys").await;
    refused("v1", "[G10] the tag v1").await;
    world.deploy("main", 1).await;
    refused(":main", "[G14]").await;
    for n in 0..101 {
        world.git(&["branch", &format!("b{n}")]).await;
    }
    refused("refs/heads/b*", "[G13]").await;
    // Master deploys as well, and is then the one branch.
    world.git(&["branch", "master"]).await;
    let (success, words) = ended(world.push("master")).await;
    assert!(success && words.contains("v1 runs already"), "{words}");
    assert_eq!(world.branch().await.unwrap().0, "master");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pushes_at_once_the_second_must_be_refused() {
    let world = world().await;
    world.commit("a", "1").await;
    let first = world.push("main");
    let build = world.open_build().await;
    world.commit("a", "2").await;
    let (success, words) = ended(world.push("main")).await;
    assert!(!success && words.contains("[G11] another push to shop is under way (by ann"), "{words}");
    world.end_build(build, None).await;
    world.end_release(1, ReleaseStatus::Current, None).await;
    assert!(ended(first).await.0);
    world.deploy("main", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_must_outlive_its_push_and_be_found_by_the_next() {
    let world = world().await;
    let commit = world.commit("a", "1").await;
    let mut push = world.push("main");
    let build = world.open_build().await;
    // As Ctrl-C does: git and its transport helper both.
    let group = Pid::from_raw(i32::try_from(push.id().unwrap()).unwrap());
    killpg(group, Signal::SIGKILL).unwrap();
    push.wait().await.unwrap();
    // The server sees it in its own time; until then the app is owned.
    timeout(PATIENCE, async {
        while world.app.git.pushes.is_owned(world.row.id) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the broken push goes on");
    let again = world.push("main");
    world.build_says(&build, "halfway\n").await;
    world.end_build(build.clone(), None).await;
    world.end_release(1, ReleaseStatus::Current, None).await;
    let (success, words) = ended(again).await;
    assert!(success && words.contains("going on from there") && words.contains("halfway"), "{words}");
    assert_eq!(world.release(1).await.unwrap().content.build, Some(build.id));
    assert!(
        world.app.git.repositories.quarantines(world.row.id).unwrap().is_empty(),
        "something was left behind"
    );
    assert_eq!(world.branch().await, Some(("main".into(), commit)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_moved_without_its_release_must_be_taken_back() {
    let world = world().await;
    let first = world.commit("a", "1").await;
    world.deploy("main", 1).await;
    let second = world.commit("a", "2").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world.end_build(build, None).await;
    world.end_release(2, ReleaseStatus::Current, None).await;
    assert!(ended(push).await.0);
    // As if the control plane had died between the ref's move and the release.
    let mut tx = world.app.store.begin().await.unwrap();
    let mut row = builds::find_by_commit(&mut tx, world.row.id, &second).await.unwrap().unwrap();
    row.release = None;
    builds::update(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    git::reconcile_all(&world.app).await;
    assert_eq!(world.branch().await, Some(("main".into(), first)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_push_must_be_told_why() {
    let world = world().await;
    world.commit("a", "1").await;
    let to = async |url: String| {
        let output = world.git(&["push", &url, "main"]).await;
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let missing = to(world.url.replace("shop.git", "nothing.git")).await;
    assert!(
        missing.contains("[A12] there is no app nothing") && missing.contains("berth apps create"),
        "{missing}"
    );
    let wrong = to(world.url.replace("berth:berth_", "berth:wrong_")).await;
    assert!(wrong.contains("Authentication failed"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_prints_must_do_nothing_to_the_pushers_terminal() {
    let world = world().await;
    world.commit("a", "1").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world
        .build_says(
            &build,
            "\u{1b}]52;c;ZXZpbA==\u{7}copy \u{1b}[2Jclear \u{9b}31mred \u{1b}[1mbold\u{1b}[0m\n",
        )
        .await;
    let mut told = trouble(Code::B20, "a step\u{1b}[2J failed").unwrap();
    told.log_tail = vec!["\u{1b}]0;title\u{7}".into()];
    world.end_build(build, Some(told)).await;
    let (success, words) = ended(push).await;
    assert!(
        !success && words.contains("remote: ^[]52;c;ZXZpbA==^Gcopy ^[[2Jclear \\u{9b}31mred bold"),
        "{words:?}"
    );
    // Git itself ends each line that came from afar with an escape to clear what is left of it, on a terminal alone.
    assert!(!words.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_the_build_gave_must_not_be_given_again() {
    let world = world().await;
    world.commit("a", "1").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world.build_says(&build, " !     B13 python 2.6 cannot be had; there is 3.13\n").await;
    world.end_build(build, trouble(Code::B13, "Python 2.6 cannot be had; there is 3.13")).await;
    let (success, words) = ended(push).await;
    assert!(!success && words.contains("The build failed, for the reason above [B13]"), "{words}");
    assert_eq!(words.matches("cannot be had").count(), 1, "{words}");
    assert!(words.contains("berth explain B13") && words.contains("Nothing was changed"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_must_not_wait_for_ever_for_a_build() {
    let world = world_with(|config| config.build_seconds_max = 1).await;
    world.commit("a", "1").await;
    let (success, words) = ended(world.push("main")).await;
    assert!(!success && words.contains("has not ended after 2 s; it goes on"), "{words}");
    assert_eq!(world.branch().await, None);
    let again = world.push("main");
    let build = world.open_build().await;
    world.end_build(build, None).await;
    world.end_release(1, ReleaseStatus::Current, None).await;
    let (success, words) = ended(again).await;
    assert!(success && words.contains("going on from there"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_web_must_not_be_told_an_address() {
    let world = world().await;
    world.commit("a", "1").await;
    let push = world.push("main");
    let build = world.open_build().await;
    world.end_build_with(build, &["worker"]).await;
    world.end_release(1, ReleaseStatus::Current, None).await;
    let (success, words) = ended(push).await;
    assert!(success && words.contains("-----> v1 runs: worker=1"), "{words}");
    assert!(!words.contains("serves") && !words.contains("shop.localhost"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_commit_must_be_refused() {
    let world = world().await;
    world.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]).await;
    let (success, words) = ended(world.push("main")).await;
    assert!(!success && words.contains("[B11]"), "{words}");
    assert_eq!(world.branch().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_unfolds_without_end_must_be_refused() {
    let world = world().await;
    world.commit("a", "x").await;
    // Ten levels of ten names for the level below: ten thousand million files in a few objects.
    let mut tree =
        String::from_utf8(world.git(&["rev-parse", "HEAD^{tree}"]).await.stdout).unwrap().trim().to_owned();
    for _ in 0..10 {
        let listing: String = (0..10).map(|n| format!("040000 tree {tree}\td{n}\n")).collect();
        std::fs::write(world.work.join("listing"), listing).unwrap();
        let mut make = world.command(&["mktree"]);
        make.stdin(std::fs::File::open(world.work.join("listing")).unwrap());
        tree = String::from_utf8(make.output().await.unwrap().stdout).unwrap().trim().to_owned();
    }
    let commit = String::from_utf8(world.git(&["commit-tree", "-m", "bomb", &tree]).await.stdout).unwrap();
    let (success, words) = ended(world.push(&format!("{}:refs/heads/main", commit.trim()))).await;
    assert!(!success && words.contains("[B22]"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_above_the_limit_must_be_refused_with_its_code() {
    let world = world_with(|config| config.push_bytes_max = 2 << 20).await;
    std::fs::write(world.work.join("large"), noise()).unwrap();
    world.commit("a", "1").await;
    let (success, words) = ended(world.push("main")).await;
    assert!(!success && words.contains("[G12] the push is larger than 2 MiB"), "{words}");
    assert_eq!(world.branch().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_must_stream_and_be_cloned_again() {
    let world = world().await;
    std::fs::write(world.work.join("large"), noise()).unwrap();
    world.commit("a", "1").await;
    world.deploy("main", 1).await;
    let clone = world.git(&["clone", "-q", &world.url, "copy"]).await;
    assert!(clone.status.success(), "{}", String::from_utf8_lossy(&clone.stderr));
    assert!(world.work.join("copy/large").exists());
}
