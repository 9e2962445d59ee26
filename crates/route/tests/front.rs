//! What clients see: streams as they come, headers, keys, limits, one page of metrics.

use crate::fake::{Replica, read_until, router, router_with};
use narthex_http::ApiKey;
use serde_json::json;

#[test]
fn streams_pass_piece_by_piece() {
    let a = Replica::start("a");
    let running = router(&[&a]);
    let mut stream = running.begin("/v1/chat/completions", &json!({"messages": [], "act": "stream"}));
    // The second piece is not there before the client has had the first.
    let first = read_until(&mut stream, "data: one\n\n");
    assert!(first.contains("content-type: text/event-stream") && !first.contains("data: two"), "{first}");
    a.state.go_on.notify_one();
    read_until(&mut stream, "data: two\n\n");
}

#[test]
fn headers_go_on_but_for_those_of_a_connection() {
    let a = Replica::start("a");
    let running = router(&[&a]);
    let sent = [
        ("content-type", "application/json"),
        ("x-request-id", "editor-7"),
        ("connection", "keep-alive, x-mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("x-other", "2"),
        ("authorization", "Bearer own"),
    ];
    let reply = running.send("POST", "/v1/completions?a=b", &sent, "{\"prompt\": \"x\"}");
    assert_eq!((reply.by().as_str(), reply.header("x-request-id"), reply.header("x-hop")), ("a", "editor-7", ""));
    let got = a.last();
    let header = |name: &str| got.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!((got.path.as_str(), got.body.as_str()), ("/v1/completions?a=b", "{\"prompt\": \"x\"}"));
    for (name, expected) in [
        ("host", a.address.to_string().as_str()),
        ("x-request-id", "editor-7"),
        ("x-mine", ""),
        ("te", ""),
        ("x-other", "2"),
        ("authorization", "Bearer own"),
        ("x-forwarded-for", "127.0.0.1"),
        ("content-length", "15"),
    ] {
        assert_eq!(header(name), expected, "{name}");
    }
    let reply = running.prompt("x");
    assert_eq!(a.last().headers["x-request-id"], reply.header("x-request-id"), "a new one goes both ways");
}

#[test]
fn no_server_is_told_by_chance_what_to_serve() {
    let a = Replica::start("a");
    let running = router(&[&a]);
    for method in ["GET", "POST", "DELETE"] {
        let reply = running.send(method, "/admin/model", &[], "{\"reference\": \"x\"}");
        assert_eq!(reply.status, 404, "{method}");
    }
    assert_eq!(a.count(), 0);
}

#[test]
fn one_key_for_all() {
    let a = Replica::start("a");
    let running = router_with(&[&a], |options| {
        options.http.api_keys = vec![ApiKey::new("front")];
        options.replica_key = Some("back".into());
    });
    let body = "{\"prompt\": \"x\"}";
    for (header, status) in [
        (None, 401),
        (Some(("authorization", "Bearer wrong")), 401),
        (Some(("authorization", "Bearer front")), 200),
        (Some(("x-api-key", "front")), 200),
    ] {
        let reply = running.send("POST", "/v1/completions", header.as_slice(), body);
        assert_eq!(reply.status, status, "{header:?}");
    }
    assert_eq!(a.count(), 2);
    let got = a.last();
    assert_eq!((got.headers["authorization"].to_str().unwrap(), got.headers.get("x-api-key")), ("Bearer back", None));
    assert_eq!(
        (running.get("/v1/models").status, running.get("/metrics").status, running.get("/page.js").status),
        (401, 200, 200)
    );
}

#[test]
fn bodies_have_a_limit() {
    let a = Replica::start("a");
    let running = router_with(&[&a], |options| {
        options.http.limits.body_bytes_max = 1000;
        options.upload_bytes_max = 5000;
    });
    let long = format!("{{\"prompt\": \"{}\"}}", "x".repeat(2000));
    let reply = running.send("POST", "/v1/completions", &[], &long);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!("request_too_large")));
    assert_eq!(running.send("POST", "/v1/files", &[], &long).status, 200);
    assert_eq!(running.send("POST", "/v1/files", &[], &long.repeat(3)).status, 413);
    // Without a length, what comes is counted.
    let mut chunked = std::net::TcpStream::connect(running.address).unwrap();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", running.address);
    use std::io::Write;
    write!(chunked, "{head}7d0\r\n{}\r\n", "x".repeat(2000)).unwrap();
    assert!(read_until(&mut chunked, "\r\n\r\n").starts_with("HTTP/1.1 413 "));
    assert_eq!(a.count(), 1);
}

#[test]
fn one_page_of_metrics() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    *b.state.metrics.lock().unwrap() = "vllm:num_requests_waiting{model_name=\"m\"} 3\n".into();
    let running = router(&[&a, &b]);
    running.post("/v1/embeddings", &json!({"input": "x"}));
    let reply = running.get("/metrics");
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        format!("narthex_route_ready{{replica=\"{}\"}} 1", a.url()),
        format!("narthex_route_requests_total{{replica=\"{}\"}} {}", a.url(), a.count()),
        format!("asked_total{{replica=\"{}\"}} {}", b.url(), b.count()),
        format!("vllm:num_requests_waiting{{replica=\"{}\",model_name=\"m\"}} 3", b.url()),
    ] {
        assert!(reply.text.lines().any(|found| found == line), "no line {line} in\n{}", reply.text);
    }
    assert_eq!(reply.text.matches("# TYPE asked_total counter").count(), 1);
}

#[test]
fn other_sites_are_refused_at_the_front() {
    let a = Replica::start("a");
    let running = router(&[&a]);
    let reply = running.send("POST", "/v1/completions", &[("origin", "http://evil.example")], "{}");
    assert_eq!((reply.status, a.count()), (403, 0));
}
