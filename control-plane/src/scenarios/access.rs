//! Who reaches what: every documented route with every method, asked by nobody, by a stranger's token, by a host, by
//! another team and by the team itself. The routes are the router's own list, so a new one is in here by itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use berth_wire::api::Token;
use berth_wire::id::TeamId;
use http::{Method, StatusCode};
use utoipa::openapi::path::PathItem;
use uuid::Uuid;

use super::fleet::Fleet;
use crate::admin::token_make;
use crate::router::document;
use crate::store::{hosts, teams};

const METHODS: [Method; 5] = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];

/// What belongs to no team: every team may see it. All else is found through the caller's team.
const SHARED: [&str; 2] = ["/v1/stacks", "/v1/hosts"];

/// A team with an app that serves, a second team, and a host.
struct Teams {
    fleet: Fleet,
    foreign: String,
    /// What stands for each part of a path.
    names: BTreeMap<&'static str, String>,
}

impl Teams {
    async fn new() -> Self {
        let fleet = Fleet::new().await;
        fleet.create("shop").await;
        fleet.deploy("shop", "aaaaaaaa", &[("web", "run")]).await;
        let build = fleet.upload("shop").await;
        fleet.beats(6).await;
        let mut tx = fleet.app.store.begin().await.unwrap();
        let (team, now) = (TeamId(Uuid::from_u128(7)), fleet.app.clock.now());
        teams::insert(&mut tx, team, "rivals", now).await.unwrap();
        let foreign = token_make(&mut tx, team, "rival", now).await.unwrap().secret;
        let host = hosts::list(&mut tx).await.unwrap().remove(0).id;
        tx.commit().await.unwrap();
        let token = fleet.get::<Vec<Token>>("/v1/tokens").await.remove(0).id;
        let names = [
            ("/v1/apps/{app}/builds/{id}", build.to_string()),
            ("/v1/tokens/{id}", token.to_string()),
            ("/v1/hosts/{id}", host.to_string()),
        ];
        Self { fleet, foreign, names: names.into() }
    }

    fn fill(&self, pattern: &str) -> String {
        let id = self.names.iter().find(|(prefix, _)| pattern.starts_with(**prefix));
        pattern
            .replace("{app}", "shop")
            .replace("{version}", "1")
            .replace("{name}", "berth-13")
            .replace("{id}", id.map_or("", |(_, id)| id))
    }

    async fn ask(&self, token: &str, method: &Method, pattern: &str) -> (StatusCode, serde_json::Value) {
        let answer =
            self.fleet.send(token, method.as_str(), &self.fill(pattern), body_of(method, pattern)).await;
        (answer.0, serde_json::from_slice(&answer.1).unwrap_or_default())
    }
}

/// A body that would be taken, so that only the caller can be the reason for a refusal.
fn body_of(method: &Method, pattern: &str) -> &'static str {
    match (method, pattern) {
        (&Method::GET | &Method::DELETE, _) => "",
        (_, "/v1/apps") => r#"{"name":"theirs"}"#,
        (_, "/v1/tokens") => r#"{"name":"theirs"}"#,
        (_, "/v1/apps/{app}/config") => r#"{"set":{"STOLEN":"1"}}"#,
        (_, "/v1/apps/{app}/run") => r#"{"argv":["true"],"detach":true}"#,
        (_, "/v1/apps/{app}/exec") => r#"{"argv":["true"]}"#,
        (_, "/v1/apps/{app}/formation") => r#"[{"process":"web","count":9}]"#,
        _ => "{}",
    }
}

fn has(item: &PathItem, method: &Method) -> bool {
    match *method {
        Method::GET => item.get.is_some(),
        Method::PUT => item.put.is_some(),
        Method::POST => item.post.is_some(),
        Method::PATCH => item.patch.is_some(),
        _ => item.delete.is_some(),
    }
}

/// All routes of the document with all methods, and whether there is such an operation.
fn every_request() -> Vec<(String, Method, bool)> {
    let document = document();
    let all = document.paths.paths.iter();
    all.flat_map(|(path, item)| METHODS.map(|method| (path.clone(), method.clone(), has(item, &method))))
        .collect()
}

#[tokio::test]
async fn nobody_without_a_teams_token_must_reach_anything() {
    let teams = Teams::new().await;
    let host_token = teams.fleet.host_token().to_owned();
    for (path, method, _) in every_request() {
        for token in ["", "berth_unknown", &host_token] {
            let (status, problem) = teams.ask(token, &method, &path).await;
            let said = (status, problem["code"].as_str());
            assert_eq!(said, (StatusCode::UNAUTHORIZED, Some("A10")), "{method} {path} by {token:?}");
        }
    }
    for path in ["/metrics", "/agent/v1/spec", "/agent/v1/sessions", "/v2/", "/git/shop.git/info/refs"] {
        let (status, _) = teams.fleet.send("berth_unknown", "GET", path, "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn another_teams_token_must_find_nothing_and_change_nothing() {
    let teams = Teams::new().await;
    let look = async || {
        let mut seen = Vec::new();
        for path in ["", "/config", "/formation", "/releases", "/builds"] {
            seen.push(teams.fleet.get::<serde_json::Value>(&format!("/v1/apps/shop{path}")).await);
        }
        let tokens = teams.fleet.get::<Vec<Token>>("/v1/tokens").await;
        (seen, tokens.into_iter().map(|token| token.id).collect::<Vec<_>>())
    };
    let before = look().await;
    for (path, method, exists) in every_request() {
        if SHARED.iter().any(|shared| path.starts_with(shared)) && exists {
            continue;
        }
        let (status, answer) = teams.ask(&teams.foreign, &method, &path).await;
        let what = format!("{method} {path}: {status} {answer}");
        let is_ours = path.contains('{');
        match (exists, is_ours) {
            (false, _) => assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}"),
            (true, true) => {
                assert_eq!((status, answer["code"].as_str()), (StatusCode::NOT_FOUND, Some("A12")), "{what}")
            }
            // Its own apps and tokens.
            (true, false) => {
                assert!(status.is_success(), "{what}");
                assert!(
                    !answer.to_string().contains("shop") && !answer.to_string().contains("tester"),
                    "{what}"
                );
            }
        }
    }
    assert!(look().await == before, "something of ours was changed");
}

#[tokio::test]
async fn another_teams_token_must_neither_clone_nor_push_nor_pull_an_image() {
    let teams = Teams::new().await;
    let app: berth_wire::api::App = teams.fleet.get("/v1/apps/shop").await;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("berth:{}", teams.foreign));
    for service in ["git-upload-pack", "git-receive-pack"] {
        let path = format!("/git/shop.git/info/refs?service={service}");
        let (status, body) = teams.fleet.send_as(&format!("Basic {basic}"), "GET", &path, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(String::from_utf8_lossy(&body).contains("A12"));
    }
    for path in ["layers", &format!("apps/{}", app.id)] {
        for (method, what) in [("GET", "tags/list"), ("GET", "manifests/latest"), ("POST", "blobs/uploads/")]
        {
            let (status, _) =
                teams.fleet.send(&teams.foreign, method, &format!("/v2/{path}/{what}"), "").await;
            assert!(matches!(status.as_u16(), 403 | 404), "{method} {path}/{what}: {status}");
        }
    }
}

#[tokio::test]
async fn an_api_token_must_not_pass_for_a_host() {
    let teams = Teams::new().await;
    let id = Uuid::nil();
    for (method, path) in [
        ("GET", "spec".to_owned()),
        ("POST", "report".to_owned()),
        ("GET", "sessions".to_owned()),
        ("POST", format!("sessions/{id}")),
        ("GET", format!("sources/sha256:{}", "0".repeat(64))),
        ("POST", format!("builds/{id}/log")),
    ] {
        let (status, _) = teams.fleet.send(&teams.foreign, method, &format!("/agent/v1/{path}"), "{}").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}
