//! What the API promises about every request that cannot be: a problem document with a code that names what was wrong.

use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt as _;

use super::fleet::Fleet;
use crate::router::{document, router};

#[tokio::test]
async fn a_field_that_there_is_not_must_be_refused_and_named() {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    for (method, path, body) in [
        ("POST", "/v1/apps", r#"{"name":"other","nmae":"x"}"#),
        ("PATCH", "/v1/apps/shop/config", r#"{"set":{"A":"1"},"nmae":{}}"#),
        ("PATCH", "/v1/apps/shop/formation", r#"[{"process":"web","nmae":2}]"#),
        ("PATCH", "/v1/apps/shop/formation", r#"[{"process":"web","quota":{"nmae":{"max":1}}}]"#),
        ("PATCH", "/v1/apps/shop/formation", r#"[{"process":"web","quota":{"pids":{"nmae":1}}}]"#),
        ("POST", "/v1/apps/shop/rollback", r#"{"nmae":1}"#),
        ("POST", "/v1/apps/shop/run", r#"{"argv":["true"],"nmae":1}"#),
        ("POST", "/v1/apps/shop/exec", r#"{"argv":["true"],"nmae":1}"#),
        ("POST", "/v1/tokens", r#"{"name":"ci","nmae":1}"#),
        ("PUT", "/v1/stacks/berth-13", r#"{"nmae":1}"#),
    ] {
        let (status, problem) = fleet.call(method, path, body).await;
        let said = (status, problem["code"].as_str());
        assert_eq!(
            said,
            (StatusCode::UNPROCESSABLE_ENTITY, Some("A13")),
            "{method} {path} {body}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains("nmae"), "{problem}");
    }
    assert_eq!(fleet.call("GET", "/v1/apps/shop/config", "").await.1, serde_json::json!({}));
}

#[tokio::test]
async fn a_query_that_cannot_be_must_be_refused_and_its_parameter_named() {
    let fleet = Fleet::new().await;
    fleet.create("shop").await;
    for (path, named) in [
        ("apps?nmae=1", "nmae"),
        ("apps/shop/releases?limt=1", "limt"),
        ("apps/shop/releases?limit=many", "limit"),
        ("apps/shop/releases?before=-1", "before"),
        ("apps/shop/releases?limit=1&limit=2", "limit"),
        ("apps/shop/releases/1?wait=long", "wait"),
        ("apps/shop/events?limit=", "limit"),
        ("apps/shop/logs?follow=yes", "follow"),
        ("apps/shop/logs?n=1.5", "n: "),
        ("apps/shop/builds?follow=true", "follow"),
        ("hosts?%6emae", "nmae"),
    ] {
        let (status, problem) = fleet.call("GET", &format!("/v1/{path}"), "").await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("A21")),
            "{path}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(named), "{path}: {problem}");
    }
    assert_eq!(fleet.call("GET", "/v1/apps/shop/releases?limit=5&before=9", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_method_or_address_must_be_answered_with_a_problem() {
    let fleet = Fleet::new().await;
    let request = Request::builder().method("PUT").uri("/v1/apps");
    let request = request.header("authorization", format!("Bearer {}", fleet.api_token()));
    let answer = router(fleet.app.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["allow"], "GET,HEAD,POST");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let (_, problem) = fleet.call("PUT", "/v1/apps", "").await;
    assert_eq!((&problem["code"], &problem["status"]), (&"A22".into(), &405.into()));
    for path in ["/v1", "/v1/", "/v1/nothing", "/v1/apps/shop/nothing", "/v1/apps/No_Name"] {
        let (status, problem) = fleet.call("GET", path, "").await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (StatusCode::NOT_FOUND, Some("A12")),
            "{path}: {problem}"
        );
    }
}

#[test]
fn the_document_must_say_so() {
    let document = serde_json::to_value(document()).unwrap();
    let schemas = &document["components"]["schemas"];
    for body in [
        "NewApp",
        "ConfigChange",
        "FormationChange",
        "QuotaChange",
        "BoundsChange",
        "Rollback",
        "NewToken",
        "StackImage",
        "RunRequest",
        "ExecRequest",
    ] {
        assert_eq!(schemas[body]["additionalProperties"], false, "{body}");
    }
    assert!(schemas["App"]["additionalProperties"].is_null(), "answers may grow");
    let releases = &document["paths"]["/v1/apps/{app}/releases"]["get"]["responses"];
    assert!(releases["400"]["content"]["application/problem+json"].is_object(), "{releases}");
}
