//! The server over real connections on 127.0.0.1, asked by a plain HTTP client.

use crate::scripted::{Script, Scripted, Step, agent, interrupt, said};
use narthex_a2a::{A2aOptions, CardSigner, Screen, Store, router};
use narthex_agent::{Agents, Answer, Ask, RunStatus};
use narthex_base::Caller;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// A server with what it stands on.
struct Served {
    base: String,
    agents: Scripted,
    folder: tempfile::TempDir,
    client: reqwest::Client,
}

/// `hello` is answered in pieces, `hold` waits, `ask` asks, `approve` wants an approval, `fail` fails.
fn script(ask: &Ask, answer: Option<&Answer>) -> Vec<Step> {
    let text = ask.messages.last().map(|message| message.text().to_string()).unwrap_or_default();
    match (text.as_str(), answer) {
        ("ask", None) => vec![Step::Ask(interrupt("i1", "Which colour?", None))],
        ("approve", None) => {
            let call = Some(("mail.send", json!({"to": "a@example.com"})));
            vec![Step::Call("I write a mail", "mail.send"), Step::Ask(interrupt("i1", "Send it?", call))]
        }
        ("hold", _) => vec![Step::Hold, Step::Done(said("held"))],
        ("fail", _) => vec![Step::Fail(RunStatus::Limited, "10 model calls are the limit")],
        ("data", _) => vec![Step::Structured(json!({"k": 1}))],
        (_, Some(Answer::Approve { .. })) => vec![Step::Progress(1.0, "sent"), Step::Done(said("The mail is sent"))],
        (_, Some(Answer::Refuse { .. })) => vec![Step::Done(said("No mail"))],
        (_, Some(_)) => vec![Step::Done(said("Thanks"))],
        _ => vec![Step::Piece("Hel"), Step::Piece("lo"), Step::Done(said("Hello"))],
    }
}

/// Serves two agents; who asks is who the header `x-user` says, as a layer that authenticates would.
async fn serve(change: impl FnOnce(&mut A2aOptions)) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
    let script: Script = Arc::new(script);
    let agents = Scripted::new(vec![agent("bard"), agent("other one")], script);
    let base = serve_again(&agents, &store, change).await;
    let client = reqwest::Client::builder().no_proxy();
    let client = client.tls_backend_preconfigured(tls()).build().unwrap();
    Served { base, agents, folder, client }
}

/// The client makes a TLS configuration even where none is used.
fn tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

async fn serve_again(agents: &Scripted, store: &Store, change: impl FnOnce(&mut A2aOptions)) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut options = A2aOptions::new(base.clone(), store.clone());
    options.limits.look_again_ms = 20;
    options.screen = Screen::new(["127.0.0.1"]);
    change(&mut options);
    let agents: Arc<dyn Agents> = Arc::new(agents.clone());
    let routes = router(agents, options).layer(axum::middleware::from_fn(
        async |mut request: axum::extract::Request, next: axum::middleware::Next| {
            let user = request.headers().get("x-user").and_then(|user| user.to_str().ok()).map(str::to_string);
            if let Some(user) = user {
                request.extensions_mut().insert(Caller(user));
            }
            next.run(request).await
        },
    ));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    base
}

impl Served {
    async fn ask(&self, method: Method, path: &str, user: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}/a2a/bard{path}", self.base));
        let request = request.header("a2a-version", "1.0").header("x-user", user);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn send(&self, user: &str, message: Value) -> Value {
        let (status, body) = self.ask(Method::POST, "/message:send", user, Some(json!({"message": message}))).await;
        assert!(status.is_success(), "{body}");
        body["task"].clone()
    }

    /// Sends a call of JSON-RPC to the root of the interface.
    async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let (status, answer) = self.ask(Method::POST, "/", "ann", Some(body)).await;
        assert_eq!((status, &answer["id"], &answer["jsonrpc"]), (StatusCode::OK, &json!(7), &json!("2.0")), "{answer}");
        answer
    }
}

fn message(id: &str, text: &str) -> Value {
    json!({"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]})
}

fn to(task: &Value, id: &str, text: &str) -> Value {
    json!({"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}], "taskId": task["id"]})
}

/// The reason in an error of HTTP+JSON.
fn reason(body: &Value) -> &str {
    let details = body["error"]["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn a_message_becomes_a_task_with_its_answer() {
    let served = serve(|_| {}).await;
    let task = served.send("ann", message("m1", "hello")).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED");
    assert_eq!(task["artifacts"][0]["parts"], json!([{"text": "Hello"}]));
    assert_eq!((&task["history"][0]["messageId"], task["history"].as_array().unwrap().len()), (&json!("m1"), 1));
    // The same message again is the same task; with other words, or from another caller, it is another.
    assert_eq!(served.send("ann", message("m1", "hello")).await["id"], task["id"]);
    assert_ne!(served.send("ann", message("m1", "hello there")).await["id"], task["id"]);
    assert_ne!(served.send("bob", message("m1", "hello")).await["id"], task["id"]);
    assert_eq!(served.agents.asked().len(), 3);
    let data = served.send("ann", message("m2", "data")).await;
    assert_eq!(data["artifacts"][0]["parts"][0]["data"], json!({"k": 1.0}));
    let failed = served.send("ann", message("m3", "fail")).await;
    assert_eq!(failed["status"]["message"]["parts"][0]["text"], "10 model calls are the limit");
    let (_, left) =
        served.ask(Method::GET, &format!("/tasks/{}?historyLength=0", task["id"].as_str().unwrap()), "ann", None).await;
    assert_eq!((&left["id"], left.get("history")), (&task["id"], None));
}

#[tokio::test]
async fn a_conversation_goes_on_under_the_name_that_it_has() {
    let served = serve(|_| {}).await;
    let first = served.send("ann", message("m1", "hello")).await;
    let with = |id: &str, context: &Value| {
        let mut message = message(id, "hello");
        message["contextId"] = context.clone();
        message
    };
    let second = served.send("ann", with("m2", &first["contextId"])).await;
    assert_eq!(second["contextId"], first["contextId"]);
    assert_eq!(served.agents.asked()[1].thread.as_deref(), first["contextId"].as_str());
    // A name of the caller's own; another caller's is another conversation.
    let own = served.send("ann", with("m3", &json!("mine"))).await;
    let again = served.send("ann", with("m4", &json!("mine"))).await;
    let other = served.send("bob", with("m5", &json!("mine"))).await;
    assert_eq!([&own["contextId"], &again["contextId"], &other["contextId"]], [&json!("mine"); 3]);
    let threads: Vec<_> = served.agents.asked()[2..].iter().map(|ask| ask.thread.clone()).collect();
    assert!(threads[0].is_none() && threads[1].is_some() && threads[2].is_none(), "{threads:?}");
    let (_, listed) = served.ask(Method::GET, "/tasks?contextId=mine", "ann", None).await;
    assert_eq!((listed["tasks"].as_array().unwrap().len(), &listed["tasks"][0]["contextId"]), (2, &json!("mine")));
}

#[tokio::test]
async fn what_a_task_asks_is_answered_by_a_message() {
    let served = serve(|_| {}).await;
    let task = served.send("ann", message("m1", "approve")).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_INPUT_REQUIRED");
    let asked = &task["status"]["message"]["parts"];
    assert_eq!(asked[0]["text"], "Send it?");
    assert_eq!(asked[1]["data"]["interrupts"][0]["call"]["arguments"], json!({"to": "a@example.com"}));
    let run = task["id"].as_str().unwrap();
    for wrong in ["maybe", "approve everything"] {
        let body = Some(json!({"message": to(&task, "m2", wrong)}));
        let (status, error) = served.ask(Method::POST, "/message:send", "ann", body).await;
        assert_eq!((status, reason(&error)), (StatusCode::BAD_REQUEST, "INVALID_PARAMS"));
    }
    assert_eq!(served.agents.answers(run), []);
    let mut mismatched = to(&task, "m2", "yes");
    mismatched["contextId"] = json!("other");
    let (_, error) = served.ask(Method::POST, "/message:send", "ann", Some(json!({"message": mismatched}))).await;
    assert_eq!(reason(&error), "INVALID_PARAMS");
    let done = served.send("ann", to(&task, "m2", "yes")).await;
    assert_eq!(done["artifacts"][0]["parts"][0]["text"], "The mail is sent");
    let texts: Vec<_> =
        done["history"].as_array().unwrap().iter().map(|message| message["parts"][0]["text"].clone()).collect();
    assert_eq!(texts, ["approve", "I write a mail", "Send it?", "yes"]);
    // Who approves is who asked, whatever the message says; the answer that comes twice is given once.
    assert_eq!(served.agents.answers(run), [Answer::Approve { by: "ann".into() }]);
    assert_eq!(served.send("ann", to(&task, "m2", "yes")).await["id"], task["id"]);
    assert_eq!(served.agents.answers(run).len(), 1);
    let late = Some(json!({"message": to(&task, "m3", "yes")}));
    let (_, error) = served.ask(Method::POST, "/message:send", "ann", late).await;
    assert_eq!(reason(&error), "UNSUPPORTED_OPERATION");
    let question = served.send("ann", message("m4", "ask")).await;
    served.send("ann", to(&question, "m5", "blue")).await;
    assert_eq!(served.agents.answers(question["id"].as_str().unwrap()), [Answer::Say { value: json!("blue") }]);
}

#[tokio::test]
async fn approvals_can_be_kept_from_callers() {
    let served = serve(|options| options.approvals = false).await;
    let task = served.send("ann", message("m1", "approve")).await;
    let body = Some(json!({"message": to(&task, "m2", "yes")}));
    let (_, error) = served.ask(Method::POST, "/message:send", "ann", body).await;
    assert_eq!(reason(&error), "UNSUPPORTED_OPERATION");
    let run = task["id"].as_str().unwrap();
    // Someone else approves: a stream sees it.
    let response = stream(&served, Method::POST, &format!("/tasks/{run}:subscribe"), None).await;
    let answer = Answer::Approve { by: "boss".into() };
    served.agents.answer("ann", run, "i1", answer).await.unwrap();
    let events = events(response).await;
    assert_eq!(events[0]["task"]["status"]["state"], "TASK_STATE_INPUT_REQUIRED");
    assert_eq!(events.last().unwrap()["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
}

#[tokio::test]
async fn a_task_of_another_caller_is_unknown() {
    let served = serve(|_| {}).await;
    let task = served.send("ann", message("m1", "ask")).await;
    let run = task["id"].as_str().unwrap();
    let config = Some(json!({"id": "c", "url": "http://127.0.0.1:1/"}));
    let (status, _) =
        served.ask(Method::POST, &format!("/tasks/{run}/pushNotificationConfigs"), "ann", config.clone()).await;
    assert!(status.is_success());
    let answer = Some(json!({"message": to(&task, "m2", "blue")}));
    for (method, path, body) in [
        (Method::GET, format!("/tasks/{run}"), None),
        (Method::POST, format!("/tasks/{run}:cancel"), Some(json!({}))),
        (Method::POST, format!("/tasks/{run}:subscribe"), None),
        (Method::POST, "/message:send".into(), answer.clone()),
        (Method::POST, "/message:stream".into(), answer),
        (Method::POST, format!("/tasks/{run}/pushNotificationConfigs"), config),
        (Method::GET, format!("/tasks/{run}/pushNotificationConfigs"), None),
        (Method::GET, format!("/tasks/{run}/pushNotificationConfigs/c"), None),
        (Method::DELETE, format!("/tasks/{run}/pushNotificationConfigs/c"), None),
    ] {
        let (status, of_bob) = served.ask(method.clone(), &path, "bob", body.clone()).await;
        assert_eq!((status, reason(&of_bob)), (StatusCode::NOT_FOUND, "TASK_NOT_FOUND"), "{method} {path}");
        // And no other answer than for a task that never was.
        let missing = path.replace(run, "run-999999");
        let body = body.map(|body| serde_json::from_str(&body.to_string().replace(run, "run-999999")).unwrap());
        let (_, of_none) = served.ask(method, &missing, "bob", body).await;
        let shown = |body: &Value| body["error"]["message"].as_str().unwrap().replace("run-999999", run);
        assert_eq!(shown(&of_none), shown(&of_bob));
    }
    let (_, listed) = served.ask(Method::GET, "/tasks", "bob", None).await;
    assert_eq!((&listed["tasks"], &listed["totalSize"]), (&json!([]), &json!(0)));
    // Nor is it one of the other agent's.
    let url = format!("{}/a2a/other%20one/tasks/{run}", served.base);
    let response = served.client.get(url).header("a2a-version", "1.0").header("x-user", "ann").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(served.agents.status(run), RunStatus::Waiting);
    // A header does not say who asks.
    let (status, _) = served.ask(Method::GET, &format!("/tasks/{run}"), "local", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn stream(served: &Served, method: Method, path: &str, body: Option<Value>) -> reqwest::Response {
    let request = served.client.request(method, format!("{}/a2a/bard{path}", served.base));
    let request = request.header("a2a-version", "1.0").header("x-user", "ann").header("accept", "text/event-stream");
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream", "{}", response.status());
    response
}

async fn events(response: reqwest::Response) -> Vec<Value> {
    let text = response.text().await.unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn streams_begin_with_the_task_and_end_with_it() {
    let served = serve(|_| {}).await;
    let response =
        stream(&served, Method::POST, "/message:stream", Some(json!({"message": message("m1", "hello")}))).await;
    let told = events(response).await;
    assert_eq!(told[0]["task"]["status"]["state"], "TASK_STATE_WORKING");
    let artifacts: Vec<_> = told.iter().filter_map(|event| event.get("artifactUpdate")).collect();
    assert_eq!(artifacts[0]["artifact"]["parts"][0]["text"], "Hel");
    assert_eq!(
        (&artifacts[1]["artifact"]["parts"][0]["text"], &artifacts[1]["append"], &artifacts[1]["lastChunk"]),
        (&json!("lo"), &json!(true), &json!(true))
    );
    assert_eq!(told.last().unwrap()["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
    // A stream of a message ends where the task asks; the answer's stream goes on from there.
    let response =
        stream(&served, Method::POST, "/message:stream", Some(json!({"message": message("m2", "approve")}))).await;
    let asked = events(response).await;
    let task = asked[0]["task"].clone();
    let last = asked.last().unwrap()["statusUpdate"]["status"].clone();
    assert_eq!(
        (&last["state"], &last["message"]["parts"][0]["text"]),
        (&json!("TASK_STATE_INPUT_REQUIRED"), &json!("Send it?"))
    );
    let response =
        stream(&served, Method::POST, "/message:stream", Some(json!({"message": to(&task, "m3", "approve")}))).await;
    let told = events(response).await;
    assert_eq!(
        (&told[0]["task"]["id"], &told[0]["task"]["status"]["state"]),
        (&task["id"], &json!("TASK_STATE_WORKING"))
    );
    assert!(told.iter().any(|event| event["statusUpdate"]["status"]["message"]["parts"][0]["text"] == "sent"));
    assert_eq!(told.last().unwrap()["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
}

#[tokio::test]
async fn two_readers_see_the_same_and_a_cancelled_task_ends_both() {
    let served = serve(|_| {}).await;
    let body = json!({"message": message("m1", "hold"), "configuration": {"returnImmediately": true}});
    let (_, sent) = served.ask(Method::POST, "/message:send", "ann", Some(body)).await;
    let run = sent["task"]["id"].as_str().unwrap();
    assert_eq!(sent["task"]["status"]["state"], "TASK_STATE_WORKING");
    let path = format!("/tasks/{run}:subscribe");
    let (one, two) =
        (stream(&served, Method::POST, &path, None).await, stream(&served, Method::POST, &path, None).await);
    drop(stream(&served, Method::POST, &path, None).await);
    let (status, cancelled) = served.ask(Method::POST, &format!("/tasks/{run}:cancel"), "ann", Some(json!({}))).await;
    assert_eq!((status, &cancelled["status"]["state"]), (StatusCode::OK, &json!("TASK_STATE_CANCELED")));
    let (one, two) = (events(one).await, events(two).await);
    assert_eq!(one, two);
    assert_eq!(one.last().unwrap()["statusUpdate"]["status"]["state"], "TASK_STATE_CANCELED");
    let (status, _) = served.ask(Method::POST, &format!("/tasks/{run}:cancel"), "ann", Some(json!({}))).await;
    assert_eq!(status, StatusCode::OK, "twice is the same as once");
    let (_, error) = served.ask(Method::POST, &path, "ann", None).await;
    assert_eq!(reason(&error), "UNSUPPORTED_OPERATION");
    let done = served.send("ann", message("m2", "hello")).await;
    let (_, error) =
        served.ask(Method::POST, &format!("/tasks/{}:cancel", done["id"].as_str().unwrap()), "ann", None).await;
    assert_eq!(reason(&error), "TASK_NOT_CANCELABLE");
}

#[tokio::test]
async fn streams_have_a_limit_and_give_their_place_back() {
    let served = serve(|options| options.limits.streams = 1).await;
    let body = json!({"message": message("m1", "hold"), "configuration": {"returnImmediately": true}});
    let (_, sent) = served.ask(Method::POST, "/message:send", "ann", Some(body)).await;
    let path = format!("/tasks/{}:subscribe", sent["task"]["id"].as_str().unwrap());
    let first = stream(&served, Method::POST, &path, None).await;
    let (status, error) = served.ask(Method::POST, &path, "ann", None).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(error["error"]["message"].as_str().unwrap().contains("too many streams"));
    drop(first);
    loop {
        // The server hears that the reader has gone when it next looks.
        let (status, _) = served.ask(Method::GET, &path.replace(":subscribe", ""), "ann", None).await;
        assert_eq!(status, StatusCode::OK);
        let request = served.client.post(format!("{}/a2a/bard{path}", served.base));
        let response = request.header("a2a-version", "1.0").header("x-user", "ann").send().await.unwrap();
        if response.status() == StatusCode::OK {
            break;
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let served = serve(|_| {}).await;
    for number in 0..5 {
        served.send("ann", message(&format!("m{number}"), if number == 2 { "ask" } else { "hello" })).await;
    }
    let (mut found, mut token) = (vec![], String::new());
    loop {
        let (_, page) = served.ask(Method::GET, &format!("/tasks?pageSize=2&pageToken={token}"), "ann", None).await;
        assert_eq!((&page["totalSize"], &page["pageSize"]), (&json!(5), &json!(2)));
        for task in page["tasks"].as_array().unwrap() {
            assert_eq!(task.get("artifacts"), None);
            found.push(task["id"].as_str().unwrap().to_string());
        }
        token = page["nextPageToken"].as_str().unwrap().to_string();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["run-000005", "run-000004", "run-000003", "run-000002", "run-000001"]);
    for (query, expected) in [
        ("status=TASK_STATE_INPUT_REQUIRED", 1),
        ("status=TASK_STATE_COMPLETED", 4),
        ("status=TASK_STATE_REJECTED", 0),
        ("statusTimestampAfter=2020-01-01T00:00:00Z", 5),
        ("statusTimestampAfter=2099-01-01T00:00:00Z", 0),
        ("contextId=thread-run-000001", 1),
        ("contextId=nowhere", 0),
    ] {
        let (_, page) = served.ask(Method::GET, &format!("/tasks?{query}"), "ann", None).await;
        assert_eq!(
            (page["tasks"].as_array().map(Vec::len), &page["nextPageToken"]),
            (Some(expected), &json!("")),
            "{query}"
        );
    }
    let (_, with) = served.ask(Method::GET, "/tasks?includeArtifacts=true&historyLength=0", "ann", None).await;
    assert_eq!((&with["tasks"][0]["artifacts"][0]["name"], with["tasks"][0].get("history")), (&json!("answer"), None));
    for wrong in ["pageSize=0", "pageSize=101", "pageSize=-1", "pageToken=bard", "historyLength=-1", "status=BARD"] {
        let (status, error) = served.ask(Method::GET, &format!("/tasks?{wrong}"), "ann", None).await;
        assert_eq!((status, reason(&error)), (StatusCode::BAD_REQUEST, "INVALID_PARAMS"), "{wrong}");
    }
}

#[tokio::test]
async fn json_rpc_is_at_the_root_with_and_without_a_slash() {
    let served = serve(|_| {}).await;
    let sent = served.rpc("SendMessage", json!({"message": message("m1", "hello")})).await;
    assert_eq!(sent["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED");
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": {"id": sent["result"]["task"]["id"]}});
    let (_, same) = served.ask(Method::POST, "", "ann", Some(body)).await;
    assert_eq!(same["result"]["id"], sent["result"]["task"]["id"]);
    for (method, params, code) in [
        ("GetTask", json!({"id": "none"}), -32001),
        ("GetTask", json!({"id": ""}), -32001),
        ("CancelTask", json!({"id": sent["result"]["task"]["id"]}), -32002),
        ("SubscribeToTask", json!({"id": sent["result"]["task"]["id"]}), -32004),
        ("GetExtendedAgentCard", json!({}), -32004),
        ("SendMessage", json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}), -32602),
        ("SendMessage", json!({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "a"}]}}), -32602),
        (
            "SendMessage",
            json!({"message": {"role": "ROLE_USER", "parts": [{"raw": "AA==", "mediaType": "image/png"}]}}),
            -32005,
        ),
        ("SendMessage", json!({"message": to(&json!({"id": "none"}), "m", "a")}), -32001),
        ("Sing", json!({}), -32601),
        ("SendMessage", json!([1]), -32602),
    ] {
        let answer = served.rpc(method, params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
        assert_eq!(answer["error"]["data"][0]["domain"], "a2a-protocol.org");
    }
    // Left out by some, and no reason to fail.
    let without =
        served.rpc("SendMessage", json!({"message": {"role": "ROLE_USER", "parts": [{"text": "hello"}]}})).await;
    assert_eq!(without["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED");
}

#[tokio::test]
async fn versions_sizes_and_types_are_checked_in_front() {
    let served = serve(|options| options.limits.body_bytes = 1_000).await;
    let url = |path: &str| format!("{}/a2a/bard{path}", served.base);
    for (version, expected) in
        [(None, 400), (Some("0.3"), 400), (Some("1.7"), 400), (Some("1.0"), 404), (Some("1.0.1"), 404)]
    {
        let mut request = served.client.get(url("/tasks/none"));
        let rpc = json!({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "none"}}).to_string();
        let mut call = served.client.post(url("")).header("content-type", "application/json").body(rpc);
        if let Some(version) = version {
            request = request.header("a2a-version", version);
            call = call.header("a2a-version", version);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), expected, "{version:?}");
        let answer: Value = serde_json::from_str(&call.send().await.unwrap().text().await.unwrap()).unwrap();
        let code = if expected == 400 { -32009 } else { -32001 };
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &json!(1)), "{version:?}");
    }
    let by_query = served.client.get(url("/tasks/none?A2A-Version=1.0")).send().await.unwrap();
    assert_eq!(by_query.status(), StatusCode::NOT_FOUND);
    let large = json!({"message": message("m1", &"x".repeat(2_000))});
    let (status, error) = served.ask(Method::POST, "/message:send", "ann", Some(large.clone())).await;
    assert_eq!((status, reason(&error)), (StatusCode::PAYLOAD_TOO_LARGE, "INVALID_REQUEST"));
    // Without a length, it is cut off on the way.
    let pieces = futures::stream::iter(vec![Ok::<_, std::io::Error>(large.to_string())]);
    let request = served.client.post(url("/message:send")).header("a2a-version", "1.0");
    let request = request.header("content-type", "application/json").body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(served.agents.asked().len(), 0);
    for (method, path, expected) in
        [(Method::GET, "/nowhere", 404), (Method::PUT, "/message:send", 405), (Method::GET, "/message:send", 405)]
    {
        let (status, error) = served.ask(method.clone(), path, "ann", None).await;
        assert_eq!((status.as_u16(), reason(&error)), (expected, "METHOD_NOT_FOUND"), "{method} {path}");
    }
    let worded =
        served.client.post(url("/message:send")).header("a2a-version", "1.0").header("content-type", "text/plain");
    assert_eq!(worded.body("{}").send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for (accept, expected) in [("*/*", "application/a2a+json"), ("application/json", "application/json")] {
        let request = served.client.get(url("/tasks")).header("a2a-version", "1.0").header("accept", accept);
        assert_eq!(request.send().await.unwrap().headers()["content-type"], expected);
    }
}

#[tokio::test]
async fn cards_are_signed_and_cached() {
    let signer = CardSigner::from_pem(include_str!("keys/key.pem"), Path::new("key.pem")).unwrap();
    let served = serve(|options| {
        (options.signer, options.default_agent, options.bearer) =
            (Some(signer.clone()), Some("other one".into()), true);
    })
    .await;
    for (path, name) in [("", "other one"), ("/a2a/bard", "bard"), ("/a2a/other%20one", "other one")] {
        let url = format!("{}{path}/.well-known/agent-card.json", served.base);
        let response = served.client.get(&url).send().await.unwrap();
        let headers = response.headers().clone();
        let card: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(card["name"], name);
        let at = format!("{}/a2a/{}", served.base, name.replace(' ', "%20"));
        assert_eq!(
            (&card["supportedInterfaces"][0]["url"], &card["supportedInterfaces"][1]["url"]),
            (&json!(at), &json!(at))
        );
        assert_eq!(card["signatures"].as_array().map(Vec::len), Some(1));
        assert_eq!(card["securityRequirements"], json!([{"schemes": {"bearer": {}}}]));
        assert!(headers["cache-control"].to_str().unwrap().contains("max-age"));
        let again = served.client.get(&url).header("if-none-match", &headers["etag"]).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
    let keys = served.client.get(format!("{}/.well-known/a2a-keys.json", served.base)).send().await.unwrap();
    let keys: Value = serde_json::from_str(&keys.text().await.unwrap()).unwrap();
    assert_eq!(keys["keys"][0]["kid"], signer.card_key().id());
}

#[tokio::test]
async fn another_server_on_the_same_store_goes_on() {
    let served = serve(|_| {}).await;
    let task = served.send("ann", message("m1", "approve")).await;
    let config = Some(json!({"id": "c", "url": "http://127.0.0.1:1/"}));
    let path = format!("/tasks/{}/pushNotificationConfigs", task["id"].as_str().unwrap());
    served.ask(Method::POST, &path, "ann", config).await;
    // As after a crash: nothing is left of the first server but what is on disk, and the runs.
    let store = Store::open(&served.folder.path().join("a2a.db")).await.unwrap();
    let second = Served { base: serve_again(&served.agents, &store, |_| {}).await, ..served };
    let (_, kept) = second.ask(Method::GET, &format!("{path}/c"), "ann", None).await;
    assert_eq!(kept["url"], "http://127.0.0.1:1/");
    let done = second.send("ann", to(&task, "m2", "no")).await;
    assert_eq!(
        (&done["artifacts"][0]["parts"][0]["text"], &done["history"][0]["messageId"]),
        (&json!("No mail"), &json!("m1"))
    );
    assert_eq!(second.send("ann", message("m1", "approve")).await["id"], task["id"]);
}
