//! Traces of a server with a model.

use crate::{
    ServeOptions,
    testing::{self, answer, send},
};
use axum::http::Request;
use narthex_http::HttpOptions;
use serde_json::{Value as Json, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};

/// A collector that takes one batch: its path and its spans.
fn collector() -> (String, thread::JoinHandle<(String, Json)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
        (first.trim_end().into(), serde_json::from_slice(&body).unwrap())
    });
    (address, thread)
}

#[test]
fn a_generation_becomes_a_span_without_its_content() {
    let (address, collected) = collector();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let http = HttpOptions { otlp_traces_endpoint: Some(address), ..HttpOptions::default() };
        let options = ServeOptions { http, ..ServeOptions::default() };
        let router = testing::router_with(answer("secret answer"), &options);
        let body = json!({
            "model": "m", "max_tokens": 6, "temperature": 0.5, "seed": 7,
            "messages": [{"role": "user", "content": "secret prompt"}],
        });
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .header("x-request-id", "mine-1");
        send(&router, request.body(body.to_string().into()).unwrap()).await.json(200);
        testing::get(&router, "/v1/models").await.json(200);
    });
    let (line, sent) = collected.join().unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1");
    assert!(!sent.to_string().contains("secret"), "{sent}");
    let spans = sent["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 1, "{sent}");
    let span = &spans[0];
    assert_eq!((&span["name"], &span["kind"]), (&json!("chat m"), &json!(2)));
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    let attribute = |name: &str| {
        let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == name);
        found.map_or(Json::Null, |attribute| attribute["value"].clone())
    };
    for (name, value) in [
        ("gen_ai.operation.name", json!({"stringValue": "chat"})),
        ("gen_ai.request.model", json!({"stringValue": "m"})),
        ("gen_ai.request.temperature", json!({"doubleValue": 0.5})),
        ("gen_ai.request.seed", json!({"intValue": "7"})),
        ("gen_ai.usage.output_tokens", json!({"intValue": "6"})),
        ("gen_ai.response.finish_reasons", json!({"arrayValue": {"values": [{"stringValue": "length"}]}})),
        ("http.response.status_code", json!({"intValue": "200"})),
        ("narthex.request.id", json!({"stringValue": "mine-1"})),
        ("error.type", Json::Null),
    ] {
        assert_eq!(attribute(name), value, "{name}");
    }
}
