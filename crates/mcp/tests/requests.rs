//! Requests to our server that no honest client sends, and what one user may do with another's.

use crate::support::{Echo, Script, offered, options};
use narthex_agent::Answer;
use narthex_mcp::{Access, Offer, ServerLimits, ServerOptions, StaticKeys};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

const ACCEPT: &str = "application/json, text/event-stream";

fn keys() -> Option<Access> {
    let keys = [("key of ann".into(), "ann".into()), ("key of bob".into(), "bob".into())];
    Some(Access {
        tokens: Arc::new(StaticKeys::new(keys)),
        resource: "https://agents.example/mcp".into(),
        authorization_servers: vec!["https://login.example".into()],
        scopes: vec!["agents".into()],
    })
}

/// A request of the newest revision, with what the client can do.
fn request(method: &str, mut params: Value, capabilities: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities
    });
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// Sends a request of the newest revision as a user, and returns the status and the answer.
async fn send(url: &str, key: &str, body: &Value) -> (u16, Value) {
    let method = body["method"].as_str().unwrap();
    let mut request =
        narthex_mcp::client_builder().build().unwrap().post(url).header("accept", ACCEPT).bearer_auth(key).json(body);
    request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    let name = body["params"].get("name").or_else(|| body["params"].get("taskId")).and_then(Value::as_str);
    if let Some(name) = name {
        request = request.header("mcp-name", name);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, message(&response.text().await.unwrap()))
}

/// The last message of an answer, alone or in a stream.
fn message(text: &str) -> Value {
    let last = text.lines().filter_map(|line| line.strip_prefix("data:")).rfind(|data| !data.trim().is_empty());
    serde_json::from_str(last.unwrap_or(text)).unwrap_or(Value::Null)
}

#[tokio::test]
async fn tokens_decide() {
    let echo = Arc::new(Echo::new("echo"));
    let offer = Offer { tools: vec![echo.clone()], ..Offer::default() };
    let url = offered(offer, ServerOptions { access: keys(), ..options() }).await;
    let call = request("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}}), json!({}));
    for (key, expected) in [("key of ann", 200), ("key of bob", 200), ("key of eve", 401), ("", 401)] {
        assert_eq!(send(&url, key, &call).await.0, expected, "{key}");
    }
    let tenants: Vec<String> = echo.calls.lock().unwrap().iter().map(|call| call.tenant.clone()).collect();
    assert_eq!(tenants, ["ann", "bob"]);
    let base = url.trim_end_matches("/mcp");
    let client = narthex_mcp::client_builder().build().unwrap();
    for (path, expected) in [
        ("/.well-known/oauth-protected-resource", 200),
        ("/.well-known/oauth-protected-resource/mcp", 200),
        ("/.well-known/oauth-protected-resource/other", 401),
        ("/mcp", 401),
    ] {
        let response = client.get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{path}");
        if expected == 200 {
            let metadata: Value = response.json().await.unwrap();
            assert_eq!(metadata["resource"], "https://agents.example/mcp");
            assert_eq!(metadata["authorization_servers"], json!(["https://login.example"]));
        } else {
            let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_string();
            assert!(challenge.contains("resource_metadata=\"https://agents.example/.well-known/"), "{challenge}");
        }
    }
}

#[tokio::test]
async fn requests_are_bounded() {
    let offer = Offer { tools: vec![Arc::new(Echo::new("echo"))], ..Offer::default() };
    let limits = ServerLimits { body_bytes_max: 2000, ..ServerLimits::default() };
    let url = offered(offer, ServerOptions { limits, ..options() }).await;
    let list = request("tools/list", json!({}), json!({}));
    let long = |bytes: usize| request("tools/list", json!({"cursor": "x".repeat(bytes)}), json!({}));
    let client = narthex_mcp::client_builder().build().unwrap();
    for (name, value, body, expected) in [
        ("x-nothing", "", list.clone(), 200),
        ("origin", "https://evil.example", list.clone(), 403),
        ("origin", "null", list.clone(), 403),
        ("host", "evil.example", list.clone(), 403),
        ("host", "localhost", list.clone(), 200),
        ("mcp-method", "tools/call", list.clone(), 400),
        ("mcp-protocol-version", "2025-11-25", list.clone(), 400),
        ("accept", "text/html", list.clone(), 406),
        ("x-nothing", "", long(500), 200),
        ("x-nothing", "", long(2000), 413),
        ("x-nothing", "", request("no/such", json!({}), json!({})), 400),
    ] {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("accept", ACCEPT.parse().unwrap());
        headers.insert("mcp-protocol-version", "2026-07-28".parse().unwrap());
        headers.insert("mcp-method", "tools/list".parse().unwrap());
        headers.insert(reqwest::header::HeaderName::from_static(name), value.parse().unwrap());
        let response = client.post(&url).headers(headers).json(&body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{name}: {value}, {} bytes", body.to_string().len());
    }
}

#[tokio::test]
async fn state_is_for_one_call_of_one_user() {
    let script = Script::default();
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = now.clone();
    let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
    let limits = ServerLimits { answer_s: 60, ..ServerLimits::default() };
    let clock: narthex_mcp::Clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let url = offered(offer, ServerOptions { access: keys(), clock, limits, ..options() }).await;
    let can = json!({"elicitation": {"form": {}}});
    let first = request("tools/call", json!({"name": "helper", "arguments": {"message": "Write to Bob"}}), can.clone());
    let (status, answer) = send(&url, "key of ann", &first).await;
    let result = &answer["result"];
    assert_eq!((status, &result["resultType"]), (200, &json!("input_required")), "{answer}");
    assert!(result["inputRequests"]["i1"]["params"]["message"].as_str().unwrap().contains("mail.send"), "{answer}");
    let state = result["requestState"].as_str().unwrap().to_string();
    let again = |state: &str, message: &str, content: Value| {
        let answers = json!({"i1": {"action": "accept", "content": content}});
        let arguments = json!({"message": message});
        let params =
            json!({"name": "helper", "arguments": arguments, "inputResponses": answers, "requestState": state});
        request("tools/call", params, can.clone())
    };
    let yes = json!({"approve": true});
    for (key, body, at_ms, expected) in [
        ("key of bob", again(&state, "Write to Bob", yes.clone()), 0, "the state is not one"),
        ("key of ann", again(&state, "Write to Eve", yes.clone()), 0, "the state is not one"),
        ("key of ann", again(&format!("{state}A"), "Write to Bob", yes.clone()), 0, "the state is not one"),
        ("key of ann", again(&state.replace("rs1.", "rs1.A"), "Write to Bob", yes.clone()), 0, "the state is not one"),
        ("key of ann", again("rs1.e30.e30", "Write to Bob", yes.clone()), 0, "the state is not one"),
        ("key of ann", again(&state, "Write to Bob", yes.clone()), 60_000, "the state is not one"),
        // Whoever answers something else is asked again.
        ("key of ann", again(&state, "Write to Bob", json!({"approve": "yes"})), 0, "input_required"),
        ("key of ann", again(&state, "Write to Bob", yes.clone()), 59_999, "sent, as ann said"),
        // Used once: the run waits for nothing any more.
        ("key of ann", again(&state, "Write to Bob", yes.clone()), 0, "answered already"),
    ] {
        now.store(1_000_000 + at_ms, Ordering::Relaxed);
        let answer = send(&url, key, &body).await.1.to_string();
        assert!(answer.contains(expected), "{key}, {at_ms} ms, {body}: {answer}");
    }
    let runs = script.look();
    assert_eq!((runs.asked.len(), &runs.answers[..]), (1, &[("r1".into(), Answer::Approve { by: "ann".into() })][..]));
}

#[tokio::test]
async fn runs_are_tasks_of_their_user() {
    let script = Script::default();
    let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
    let url = offered(offer, ServerOptions { access: keys(), ..options() }).await;
    let can = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ask =
        async |key: &str, method: &str, params: Value| send(&url, key, &request(method, params, can.clone())).await.1;
    let call = json!({"name": "helper", "arguments": {"message": "Write to Bob"}});
    let created = ask("key of ann", "tools/call", call.clone()).await["result"].clone();
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("input_required")), "{created}");
    assert_eq!(created["createdAt"], "2026-07-28T00:00:00.000Z");
    let id = created["taskId"].clone();
    let get = json!({"taskId": id});
    for (key, params) in [("key of bob", get.clone()), ("key of ann", json!({"taskId": "r1"}))] {
        let answer = ask(key, "tasks/get", params.clone()).await;
        assert_eq!(answer["error"]["code"], -32602, "{key} {params}: {answer}");
    }
    let waiting = ask("key of ann", "tasks/get", get.clone()).await["result"].clone();
    assert_eq!(waiting["status"], "input_required", "{waiting}");
    assert!(waiting["inputRequests"]["i1"].is_object(), "{waiting}");
    let answers = |approve: Value| {
        let answer = json!({"action": "accept", "content": {"approve": approve}});
        json!({"taskId": id, "inputResponses": {"i1": answer}})
    };
    for (key, params, expected) in [
        ("key of bob", answers(json!(true)), false),
        ("key of ann", answers(json!("yes")), false),
        ("key of ann", answers(json!(true)), true),
        ("key of ann", answers(json!(false)), true),
    ] {
        let answer = ask(key, "tasks/update", params.clone()).await;
        assert_eq!(answer.get("result").is_some(), expected, "{key} {params}: {answer}");
    }
    let done = ask("key of ann", "tasks/get", get.clone()).await["result"].clone();
    assert_eq!((&done["status"], &done["result"]["isError"]), (&json!("completed"), &json!(false)), "{done}");
    assert_eq!(done["result"]["content"][0]["text"], "sent, as ann said");
    assert_eq!(script.look().answers.len(), 1);
    // One that has ended stays as it is; another one is cancelled, by its user only.
    ask("key of ann", "tasks/cancel", get.clone()).await;
    assert!(script.look().cancelled.is_empty());
    let second = ask("key of ann", "tools/call", call).await["result"]["taskId"].clone();
    assert!(ask("key of bob", "tasks/cancel", json!({"taskId": second})).await.get("error").is_some());
    assert!(ask("key of ann", "tasks/cancel", json!({"taskId": second})).await.get("result").is_some());
    assert_eq!(script.look().cancelled, ["r2"]);
    let cancelled = ask("key of ann", "tasks/get", json!({"taskId": second})).await;
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
}

#[tokio::test]
async fn sessions_are_few_and_their_users() {
    let offer = Offer { tools: vec![Arc::new(Echo::new("echo"))], ..Offer::default() };
    let limits = ServerLimits { sessions_max: 2, ..ServerLimits::default() };
    let url = offered(offer, ServerOptions { access: keys(), limits, ..options() }).await;
    let client = narthex_mcp::client_builder().build().unwrap();
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}
    }});
    let open = async |key: &str| {
        let sent = client.post(&url).header("accept", ACCEPT).bearer_auth(key).json(&initialize).send().await;
        let response = sent.unwrap();
        let session = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_string());
        (response.status().as_u16(), session)
    };
    let (status, session) = open("key of ann").await;
    assert_eq!(status, 200);
    let session = session.unwrap();
    assert_eq!(open("key of bob").await.0, 200);
    assert_eq!(open("key of ann").await.0, 503, "two are open");
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
    for (key, method, expected) in [
        ("key of bob", reqwest::Method::POST, 404),
        ("key of bob", reqwest::Method::GET, 404),
        ("key of eve", reqwest::Method::POST, 401),
        ("key of ann", reqwest::Method::POST, 200),
        // Another's session is not closed: to whom it is not, it is none.
        ("key of bob", reqwest::Method::DELETE, 204),
        ("key of ann", reqwest::Method::POST, 200),
        ("key of ann", reqwest::Method::DELETE, 204),
        ("key of ann", reqwest::Method::POST, 404),
    ] {
        let mut request = client.request(method.clone(), &url).header("accept", ACCEPT).bearer_auth(key);
        request = request.header("mcp-session-id", &session).header("mcp-protocol-version", "2025-11-25");
        if method == reqwest::Method::POST {
            request = request.json(&list);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), expected, "{key} {method}");
    }
    assert_eq!(open("key of ann").await.0, 200, "one was closed");
}
