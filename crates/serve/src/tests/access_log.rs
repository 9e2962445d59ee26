//! The access log of a server with a model.

use crate::{
    ServeOptions,
    testing::{self, answer, get, send},
};
use axum::{body::Body, http::Request};
use futures::StreamExt;
use narthex_http::HttpOptions;
use serde_json::{Value, json};
use std::path::Path;
use tower::ServiceExt;

fn with_log(path: &Path) -> ServeOptions {
    let http = HttpOptions { access_log: Some(path.into()), ..HttpOptions::default() };
    ServeOptions { http, ..ServeOptions::default() }
}

#[tokio::test]
async fn a_line_for_each_request_and_none_of_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = with_log(&path);
    let router = testing::router_with(answer("secret answer"), &options);
    let body = json!({"model": "m", "prompt": "secret prompt", "max_tokens": 6, "n": 2, "user": "secret user"});
    let request = Request::post("/v1/completions?secret=query")
        .header("content-type", "application/json")
        .header("authorization", "Bearer secret")
        .header("x-request-id", "mine-1");
    let reply = send(&router, request.body(body.to_string().into()).unwrap()).await;
    assert_eq!(reply.header("x-request-id"), "mine-1");
    let reply = get(&router, "/nowhere").await;
    let id = reply.header("x-request-id").to_string();
    assert!(id.starts_with("req-") && id.len() == 36, "{id}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown = |line: &Value, names: &[&str]| names.iter().map(|name| line[name].clone()).collect::<Value>();
    let names = ["request_id", "method", "path", "status", "complete", "model", "prompt_tokens", "completion_tokens"];
    assert_eq!(shown(&lines[0], &names), json!(["mine-1", "POST", "/v1/completions", 200, true, "m", 13, 12]));
    assert_eq!(lines[0]["finish_reasons"], json!(["length", "length"]));
    assert!(lines[0]["seconds"].as_f64().unwrap() >= lines[0]["first_token_seconds"].as_f64().unwrap());
    assert_eq!(shown(&lines[1], &names), json!([id, "GET", "/nowhere", 404, true, null, null, null]));
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = with_log(&path);
    let router = testing::router_with(answer("some"), &options);
    let body = json!({"model": "m", "prompt": "x", "stream": true}).to_string();
    let request = Request::post("/v1/completions").header("content-type", "application/json");
    let reply = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let mut pieces = reply.into_body().into_data_stream();
    assert!(pieces.next().await.unwrap().unwrap().starts_with(b"data: "));
    drop(pieces);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&line["status"], &line["complete"]), (&json!(200), &json!(false)));
    assert!(line["completion_tokens"].as_u64().unwrap() >= 1, "{line}");
}
