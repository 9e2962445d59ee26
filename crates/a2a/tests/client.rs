//! Our client against our server, and against agents that mean harm, on 127.0.0.1.

use crate::scripted::{Script, Scripted, Step, agent, interrupt, said, with_files};
use futures::StreamExt;
use narthex_a2a::{A2aOptions, CardKey, CardSigner, ClientOptions, Screen, Store, connect, router};
use narthex_agent::{Agents, Answer, Ask, Call, Content, RunStatus, Tool, ToolFailure, ToolResult};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

fn script(ask: &Ask, answer: Option<&Answer>) -> Vec<Step> {
    let text = ask.messages.last().map(|message| message.text().to_string()).unwrap_or_default();
    match (text.as_str(), answer) {
        ("ask", None) => vec![Step::Ask(interrupt("i1", "Which colour?", None))],
        ("hold", _) => vec![Step::Hold, Step::Done(said("held"))],
        ("fail", _) => vec![Step::Fail(RunStatus::Failed, "out of ideas")],
        ("data", _) => vec![Step::Structured(json!({"k": "v"}))],
        ("long", _) => vec![Step::Done(said(Box::leak("x".repeat(5_000).into_boxed_str())))],
        ("files", _) => vec![Step::Done(with_files(json!([
            {"type": "image", "data": "AAA=", "mime_type": "image/png"},
            {"type": "link", "uri": "https://example.com/x.csv", "name": "x.csv", "mime_type": "text/csv"},
        ])))],
        ("call", _) => vec![Step::Call("I look", "look"), Step::Progress(1.0, "half"), Step::Done(said("seen"))],
        (_, Some(_)) => vec![Step::Done(said("Thanks"))],
        _ => vec![Step::Piece("Hel"), Step::Piece("lo"), Step::Done(said("Hello"))],
    }
}

async fn serve(routes: impl FnOnce(String) -> axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let routes = routes(base.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    base
}

/// An agent of ours, with a signed card.
async fn ours() -> (String, Scripted, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
    let script: Script = Arc::new(script);
    let agents = Scripted::new(vec![agent("bard")], script);
    let served: Arc<dyn Agents> = Arc::new(agents.clone());
    let base = serve(|base| {
        let mut options = A2aOptions::new(base, store);
        options.signer = Some(CardSigner::from_pem(include_str!("keys/key.pem"), Path::new("key.pem")).unwrap());
        options.limits.look_again_ms = 20;
        router(served, options)
    })
    .await;
    (base, agents, folder)
}

fn options() -> ClientOptions {
    ClientOptions { screen: Screen::new(["127.0.0.1"]), ..ClientOptions::default() }
}

fn call(id: &str, arguments: Value) -> Call {
    let arguments = arguments.as_object().unwrap().clone();
    Call { id: id.into(), run: "r1".into(), tenant: "local".into(), arguments }
}

async fn asked(tool: &Arc<dyn Tool>, id: &str, arguments: Value) -> Result<ToolResult, ToolFailure> {
    tool.call(call(id, arguments), Arc::new(|_, _, _| {})).await
}

fn text(result: &ToolResult) -> &str {
    match &result.content[0] {
        Content::Text { text } => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_is_a_tool() {
    let (base, agents, _folder) = ours().await;
    let keys = vec![CardKey::from_pem(include_str!("keys/public.pem"), Path::new("public.pem")).unwrap()];
    let remote = connect(&base, ClientOptions { keys, ..options() }).await.unwrap();
    assert_eq!((remote.name(), remote.version(), remote.is_signed()), ("bard", "1", true));
    let tool = remote.tool();
    assert_eq!(
        (tool.definition().name.as_str(), &tool.definition().input_schema["required"]),
        ("bard", &json!(["message"]))
    );
    let words: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = words.clone();
    let progress = Arc::new(move |_: f64, _: Option<f64>, word: Option<&str>| {
        heard.lock().unwrap().extend(word.map(str::to_string))
    });
    let called = tool.call(call("c1", json!({"message": "call"})), progress).await.unwrap();
    assert_eq!((text(&called), called.is_error), ("seen", false));
    assert_eq!(*words.lock().unwrap(), ["I look", "half"]);
    let hello = asked(&tool, "c2", json!({"message": "hello"})).await.unwrap();
    assert_eq!(text(&hello), "Hello", "the pieces are put together");
    let structured = hello.structured.clone().unwrap();
    assert_eq!(structured["state"], "TASK_STATE_COMPLETED");
    // The same call again, as after a crash, is the same run; a context goes on.
    asked(&tool, "c2", json!({"message": "hello"})).await.unwrap();
    asked(&tool, "c3", json!({"message": "hello", "context": structured["context"]})).await.unwrap();
    let runs = agents.asked();
    assert_eq!((runs.len(), runs[2].thread.as_deref()), (3, structured["context"].as_str()));
    let data = asked(&tool, "c4", json!({"message": "data"})).await.unwrap();
    assert_eq!((text(&data), &data.structured.as_ref().unwrap()["data"]), ("{\"k\":\"v\"}", &json!({"k": "v"})));
    let failed = asked(&tool, "c5", json!({"message": "fail"})).await.unwrap();
    assert!(failed.is_error && text(&failed).contains("out of ideas"));
    let files = asked(&tool, "c6", json!({"message": "files"})).await.unwrap();
    assert!(
        matches!(&files.content[..], [Content::Image { .. }, Content::Link { name, .. }] if name == "x.csv"),
        "{files:?}"
    );
}

#[tokio::test]
async fn what_the_agent_asks_is_answered_by_another_call() {
    let (base, agents, _folder) = ours().await;
    let tool = connect(&base, options()).await.unwrap().tool();
    let asks = asked(&tool, "c1", json!({"message": "ask"})).await.unwrap();
    assert!(!asks.is_error && text(&asks).contains("Which colour?"));
    let task = asks.structured.unwrap()["task"].as_str().unwrap().to_string();
    assert_eq!(agents.status(&task), RunStatus::Waiting, "not cancelled");
    let thanks = asked(&tool, "c2", json!({"message": "blue", "task": task})).await.unwrap();
    assert_eq!(text(&thanks), "Thanks");
    let refused = asked(&tool, "c3", json!({"message": "blue", "task": task})).await.unwrap();
    assert!(refused.is_error && text(&refused).contains("refuses"), "{refused:?}");
}

#[tokio::test]
async fn a_dropped_call_cancels_the_task() {
    let (base, agents, _folder) = ours().await;
    let tool = connect(&base, options()).await.unwrap().tool();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let progress = Arc::new(move |_: f64, _: Option<f64>, _: Option<&str>| _ = sender.send(()));
    let called = tool.call(call("c1", json!({"message": "hold"})), progress);
    tokio::select! {
        _ = called => panic!("it holds"),
        Some(()) = receiver.recv() => {}
    }
    let mut events = agents.follow("local", "run-000001", 0);
    while events.next().await.is_some() {}
    assert_eq!(agents.status("run-000001"), RunStatus::Cancelled);
}

#[tokio::test]
async fn cards_are_checked() {
    let (base, _agents, _folder) = ours().await;
    let other = vec![CardKey::from_pem(include_str!("keys/other-public.pem"), Path::new("o.pem")).unwrap()];
    let refused = connect(&base, ClientOptions { keys: other, ..options() }).await.unwrap_err();
    assert!(refused.causes()[0].contains("not signed"), "{refused:?}");
    let screened = connect(&base, ClientOptions::default()).await.unwrap_err();
    assert!(screened.causes()[0].contains("must not be asked"), "{screened:?}");
    let card = format!("{base}/a2a/bard/.well-known/agent-card.json");
    assert!(connect(&card, options()).await.is_ok() && connect(&format!("{base}/a2a/bard"), options()).await.is_ok());
    let served = serve(|base| {
        let card = |url: String, binding: &str, version: &str| {
            json!({"name": "x", "version": "1", "capabilities": {},
                "supportedInterfaces": [{"url": url, "protocolBinding": binding, "protocolVersion": version}]})
        };
        let cards = [
            ("/inside", card("http://10.0.0.1/".into(), "JSONRPC", "1.0")),
            ("/old", card(base.clone(), "JSONRPC", "0.3")),
            ("/grpc", card(base.clone(), "GRPC", "1.0")),
            ("/none", json!({"name": "x"})),
            ("/large", json!("x".repeat(2 << 20))),
        ];
        cards.into_iter().fold(axum::Router::new(), |routes, (path, card)| {
            let path = format!("{path}/.well-known/agent-card.json");
            routes.route(&path, axum::routing::get(async move || card.to_string()))
        })
    })
    .await;
    for (path, why) in [
        ("/inside", "private network"),
        ("/old", "none that is spoken"),
        ("/grpc", "none that is spoken"),
        ("/none", "no agent card"),
        ("/large", "more than"),
        ("/missing", "404"),
    ] {
        let error = connect(&format!("{served}{path}"), options()).await.unwrap_err();
        assert!(error.causes()[0].contains(why), "{path}: {error:?}");
    }
}

/// An agent that answers every call with this stream.
async fn hostile(
    body: impl Fn() -> axum::body::Body + Clone + Send + Sync + 'static,
    seen: Arc<Mutex<Vec<String>>>,
) -> String {
    serve(move |base| {
        let card = json!({"name": "x", "version": "1", "capabilities": {"streaming": true},
            "supportedInterfaces": [{"url": base, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]});
        let answer = move |headers: axum::http::HeaderMap| {
            let token = headers.get("authorization").and_then(|token| token.to_str().ok()).unwrap_or("none");
            seen.lock().unwrap().push(token.to_string());
            let response = ([("content-type", "text/event-stream")], body());
            async { response }
        };
        axum::Router::new()
            .route("/.well-known/agent-card.json", axum::routing::get(async move || card.to_string()))
            .route("/message:stream", axum::routing::post(answer))
    })
    .await
}

#[tokio::test]
async fn agents_that_send_too_much_are_cut_off() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    // Endless, without an event ever ending.
    let endless = move || {
        let counted = counted.clone();
        let chunk = "data: ".to_string() + &"x".repeat(10_000);
        axum::body::Body::from_stream(futures::stream::repeat_with(move || {
            counted.fetch_add(chunk.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(chunk.clone())
        }))
    };
    let base = hostile(endless, seen.clone()).await;
    let token = Some("word".to_string());
    let small = ClientOptions { event_bytes: 50_000, token, ..options() };
    let failure = asked(&connect(&base, small).await.unwrap().tool(), "c1", json!({"message": "a"})).await.unwrap_err();
    assert!(failure.message.contains("more than 50000 bytes") && !failure.harmless, "{failure:?}");
    assert!(sent.load(Ordering::SeqCst) < 50_000_000);
    assert_eq!(*seen.lock().unwrap(), ["Bearer word"], "its home gets the token");
    let updates = |text: &str| {
        let task = json!({"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}});
        let update = json!({"artifactUpdate": {"taskId": text, "contextId": "c", "append": true,
            "artifact": {"artifactId": "a", "parts": [{"text": "x".repeat(1_000)}]}}});
        let text = format!("data: {task}\n\n{}", format!("data: {update}\n\n").repeat(100));
        move || axum::body::Body::from(text.clone())
    };
    for (task, options, why) in [
        ("t", ClientOptions { result_bytes: 5_000, ..options() }, "more than 5000 bytes"),
        ("t", ClientOptions { stream_bytes: 5_000, ..options() }, "more than 5000 bytes"),
        ("other", options(), "another task"),
    ] {
        let base = hostile(updates(task), Arc::default()).await;
        let tool = connect(&base, ClientOptions { call_ms: 5_000, ..options }).await.unwrap().tool();
        let found = asked(&tool, "c1", json!({"message": "a"})).await;
        assert!(matches!(&found, Err(failure) if failure.message.contains(why)), "{task}: {found:?}");
    }
    let (base, _agents, _folder) = ours().await;
    let tool = connect(&base, ClientOptions { result_bytes: 1_000, ..options() }).await.unwrap().tool();
    assert!(asked(&tool, "c1", json!({"message": "long"})).await.unwrap_err().message.contains("more than 1000 bytes"));
}

#[tokio::test]
async fn a_token_stays_at_home() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = json!({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hi"}]}});
    let away = hostile(move || axum::body::Body::from(format!("data: {told}\n\n")), seen.clone()).await;
    let home = serve(|_| {
        let card = json!({"name": "x", "version": "1", "capabilities": {"streaming": true},
            "supportedInterfaces": [{"url": away, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]});
        axum::Router::new().route("/.well-known/agent-card.json", axum::routing::get(async move || card.to_string()))
    })
    .await;
    let remote = connect(&home, ClientOptions { token: Some("word".into()), ..options() }).await.unwrap();
    let result = asked(&remote.tool(), "c1", json!({"message": "a"})).await.unwrap();
    assert_eq!((text(&result), seen.lock().unwrap().as_slice()), ("hi", ["none".to_string()].as_slice()));
    // Nobody there: certainly nothing was done.
    let gone = serve(|_| {
        let card = json!({"name": "x", "version": "1", "capabilities": {},
        "supportedInterfaces": [
            {"url": "http://127.0.0.1:1", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        ]});
        axum::Router::new().route("/.well-known/agent-card.json", axum::routing::get(async move || card.to_string()))
    })
    .await;
    let failure =
        asked(&connect(&gone, options()).await.unwrap().tool(), "c1", json!({"message": "a"})).await.unwrap_err();
    assert!(failure.harmless, "{failure:?}");
}
