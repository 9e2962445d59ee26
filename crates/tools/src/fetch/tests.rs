//! Pages of a local server, read through the tool.

use super::*;
use crate::listener::Listener;
use narthex_agent::{Call, Content};
use std::io::Write;

fn settings(listener: &Listener) -> FetchTool {
    toml::from_str(&format!("hosts = [\"docs.rs\"]\nallow_hosts = [\"{}\"]\nresult_bytes_max = 100", listener.host()))
        .unwrap()
}

async fn called(settings: &FetchTool, arguments: Value) -> Result<(bool, String), ToolFailure> {
    let tool = fetch("web", settings).unwrap().remove(0);
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let call = Call { id: "1".into(), run: "1".into(), tenant: "t".into(), arguments };
    let result = tool.call(call, Arc::new(|_, _, _| {})).await?;
    let [Content::Text { text }] = &result.content[..] else { panic!("one text: {result:?}") };
    Ok((result.is_error, text.clone()))
}

#[tokio::test]
async fn pages_become_text() {
    let html = "content-type: text/html; charset=utf-8\r\n";
    let long = "é".repeat(150);
    for (status, head, body, arguments, is_error, expected) in [
        ("200 OK", html, "<h1>A</h1><img src=/i><a href=/l>b</a>", json!({}), false, "# A\n\n[b](/l)"),
        ("200 OK", "content-type: text/plain\r\n", "<b>", json!({}), false, "<b>"),
        ("200 OK", "content-type: application/ld+json\r\n", "{}", json!({}), false, "{}"),
        ("200 OK", "", "x", json!({}), false, "x"),
        ("404 Not Found", html, "<p>none</p>", json!({}), true, "answered with status 404 Not Found\nnone"),
        ("200 OK", "content-type: image/png\r\n", "x", json!({}), true, "`image/png`, which is no text"),
        ("200 OK", "content-type: text/plain\r\n", "a\0b", json!({}), true, "is no text"),
        ("200 OK", "", &long, json!({}), false, "[cut: 200 bytes more; read on with `from` = 100]"),
        ("200 OK", "", &long, json!({"from": 200}), false, &"é".repeat(50)),
        ("200 OK", "", &long, json!({"from": 9000}), false, ""),
    ] {
        let listener = Listener::saying(status, head, body);
        let mut arguments = arguments;
        arguments["url"] = listener.url("/page").into();
        let (was_error, text) = called(&settings(&listener), arguments).await.unwrap();
        assert!(was_error == is_error && text.contains(expected), "{status} {head}: {text}");
        assert_eq!(listener.connects(), 1, "nothing on a page is followed");
    }
}

#[tokio::test]
async fn what_may_not_be_asked_is_not() {
    let listener = Listener::saying("302 Found", "location: http://169.254.169.254/\r\n", "");
    for (arguments, harmless, part) in [
        (json!({"url": "http://169.254.169.254/"}), true, "link-local"),
        (json!({"url": "https://example.org/"}), true, "none of the hosts that this tool may ask: docs.rs"),
        (json!({"url": "docs.rs"}), true, "write it whole"),
        (json!({"url": 5}), true, "as a string"),
        (json!({"url": "https://docs.rs/", "from": -1}), true, "whole number"),
        (json!({"url": listener.url("/")}), false, "link-local"),
    ] {
        let failure = called(&settings(&listener), arguments.clone()).await.unwrap_err();
        assert!(failure.harmless == harmless && failure.message.contains(part), "{arguments}: {failure:?}");
    }
    assert_eq!(listener.connects(), 1);
}

#[tokio::test]
async fn a_hundred_megabytes_are_cut() {
    let listener = Listener::at("127.0.0.1:0", |_, stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 104857600\r\n\r\n"));
        while stream.write_all(&[b'a'; 65536]).is_ok() {}
    });
    let (_, text) = called(&settings(&listener), json!({"url": listener.url("/")})).await.unwrap();
    assert!(text.contains("longer than what is read of one") && text.len() < 300, "{text}");
}

#[test]
fn settings_are_checked() {
    for (text, part) in [
        ("hosts = []", "may ask no host"),
        ("hosts = [\"https://a\"]", "cannot be made"),
        ("hosts = [\"*\"]\nwall_ms = 0", "`wall_ms`"),
        ("hosts = [\"*\"]\nresult_bytes_max = 5000000", "`result_bytes_max`"),
    ] {
        let error = fetch("web", &toml::from_str(text).unwrap()).err().unwrap();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!(toml::from_str::<FetchTool>("hosts = [\"*\"]\nhost = 1").is_err());
}
