//! Push notifications, delivered to a receiver on 127.0.0.1.

use crate::scripted::{Script, Scripted, Step, agent, interrupt, said};
use axum::{extract::State, http::HeaderMap, http::StatusCode};
use narthex_a2a::{A2aOptions, PushLimits, Screen, Store, router};
use narthex_agent::{Agents, Answer, Ask};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// Takes notifications, after it has refused some.
#[derive(Clone)]
struct Receiver {
    base: String,
    refused: Arc<Mutex<Vec<u16>>>,
    asked: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<(HeaderMap, Value)>,
}

async fn receiver(refused: Vec<u16>) -> (Receiver, mpsc::UnboundedReceiver<(HeaderMap, Value)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, taken) = mpsc::unbounded_channel();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let receiver = Receiver { base, refused: Arc::new(Mutex::new(refused)), asked: Arc::default(), sender };
    let take = async |State(receiver): State<Receiver>, headers: HeaderMap, body: String| {
        receiver.asked.fetch_add(1, Ordering::SeqCst);
        let mut refused = receiver.refused.lock().unwrap();
        if !refused.is_empty() {
            return StatusCode::from_u16(refused.remove(0)).unwrap();
        }
        receiver.sender.send((headers, serde_json::from_str(&body).unwrap())).unwrap();
        StatusCode::NO_CONTENT
    };
    let routes = axum::Router::new().route("/hook", axum::routing::post(take)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (receiver, taken)
}

fn script(_: &Ask, answer: Option<&Answer>) -> Vec<Step> {
    match answer {
        None => vec![Step::Piece("Wh"), Step::Ask(interrupt("i1", "Which colour?", None))],
        Some(_) => vec![Step::Piece("Tha"), Step::Piece("nks"), Step::Done(said("Thanks"))],
    }
}

fn scripted() -> Scripted {
    let script: Script = Arc::new(script);
    Scripted::new(vec![agent("bard")], script)
}

/// A router that delivers quickly; asked without a network.
fn served(agents: &Scripted, store: &Store, warned: &Arc<Mutex<Vec<String>>>, allowed: &[&str]) -> axum::Router {
    let mut options = A2aOptions::new("http://127.0.0.1", store.clone());
    let push = PushLimits { attempts: 3, first_wait_ms: 1, wait_ms: 2, given_up: 2, ..PushLimits::default() };
    options.limits.push = push;
    options.screen = Screen::new(allowed.iter().copied());
    let warned = warned.clone();
    options.warn = Arc::new(move |what| warned.lock().unwrap().push(what.to_string()));
    let agents: Arc<dyn Agents> = Arc::new(agents.clone());
    router(agents, options)
}

async fn ask(routes: &axum::Router, path: &str, body: Value) -> (u16, Value) {
    let request = axum::http::Request::post(format!("/a2a/bard{path}"))
        .header("a2a-version", "1.0")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_string()))
        .unwrap();
    let response = tower::ServiceExt::oneshot(routes.clone(), request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn message(id: &str, task: Option<&Value>, config: Option<Value>) -> Value {
    let mut message = json!({"messageId": id, "role": "ROLE_USER", "parts": [{"text": "blue"}]});
    if let Some(task) = task {
        message["taskId"] = task["id"].clone();
    }
    match config {
        Some(config) => json!({"message": message, "configuration": {"taskPushNotificationConfig": config}}),
        None => json!({"message": message}),
    }
}

/// What a notification is about, in short.
fn short(update: &Value) -> String {
    if let Some(state) = update["statusUpdate"]["status"]["state"].as_str() {
        return state.replace("TASK_STATE_", "");
    }
    update["artifactUpdate"]["artifact"]["parts"][0]["text"].as_str().unwrap_or("?").to_string()
}

#[tokio::test]
async fn every_update_is_delivered_in_order_with_its_secrets() {
    let (receiver, mut taken) = receiver(vec![503, 429]).await;
    let (agents, warned) = (scripted(), Arc::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a2a.db");
    let store = Store::open(&path).await.unwrap();
    let first = served(&agents, &store, &warned, &["127.0.0.1"]);
    let config = json!({"id": "c", "url": format!("{}/hook", receiver.base), "token": "word",
        "authentication": {"scheme": "Bearer", "credentials": "secret"}});
    let (_, sent) = ask(&first, "/message:send", message("m1", None, Some(config))).await;
    let (headers, update) = taken.recv().await.unwrap();
    assert_eq!(
        (&headers["authorization"], &headers["x-a2a-notification-token"]),
        (&"Bearer secret".parse().unwrap(), &"word".parse().unwrap())
    );
    assert_eq!((short(&update), &update["statusUpdate"]["taskId"]), ("WORKING".into(), &sent["task"]["id"]));
    assert_eq!(receiver.asked.load(Ordering::SeqCst), 3, "refused twice");
    assert_eq!(short(&taken.recv().await.unwrap().1), "INPUT_REQUIRED");
    // The server is gone; another one goes on where it stood, with what its callers do.
    drop(first);
    let second = served(&agents, &Store::open(&path).await.unwrap(), &warned, &["127.0.0.1"]);
    let (_, done) = ask(&second, "/message:send", message("m2", Some(&sent["task"]), None)).await;
    assert_eq!(done["task"]["status"]["state"], "TASK_STATE_COMPLETED");
    let mut told = vec![];
    while told.last().map(String::as_str) != Some("COMPLETED") {
        told.push(short(&taken.recv().await.unwrap().1));
    }
    // At least once: the wait may be told again. No pieces of the answer.
    told.dedup();
    told.retain(|update| update != "INPUT_REQUIRED");
    assert_eq!(told, ["WORKING", "Thanks", "COMPLETED"]);
    assert_eq!(*warned.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_place_that_refuses_too_often_gets_no_more() {
    let (receiver, mut taken) = receiver(vec![500, 500, 500, 404]).await;
    let (agents, warned) = (scripted(), Arc::new(Mutex::new(vec![])));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
    let routes = served(&agents, &store, &warned, &["127.0.0.1"]);
    let config = |id: &str| json!({"id": id, "url": format!("{}/hook", receiver.base)});
    let (_, sent) = ask(&routes, "/message:send", message("m1", None, Some(config("c")))).await;
    while warned.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    // Three attempts, then one that is no use to repeat: two were given up.
    assert_eq!(receiver.asked.load(Ordering::SeqCst), 4);
    let warnings = warned.lock().unwrap().clone();
    assert!(warnings[0].contains("500") && warnings[1].contains("404"), "{warnings:?}");
    assert!(!warnings.concat().contains(&receiver.base), "a URL may hold a secret");
    // Another place gets its own, from where the task stood when it was added.
    let path = format!("/tasks/{}/pushNotificationConfigs", sent["task"]["id"].as_str().unwrap());
    ask(&routes, &path, config("d")).await;
    ask(&routes, "/message:send", message("m2", Some(&sent["task"]), None)).await;
    let mut told = vec![];
    while told.last().map(String::as_str) != Some("COMPLETED") {
        told.push(short(&taken.recv().await.unwrap().1));
    }
    told.retain(|update| update != "INPUT_REQUIRED");
    assert_eq!(told, ["WORKING", "Thanks", "COMPLETED"]);
    assert_eq!(receiver.asked.load(Ordering::SeqCst), 4 + told.len() + 1, "the first place got no more");
}

#[tokio::test]
async fn addresses_that_must_not_be_reached_are_refused_before_anything_happens() {
    let (receiver, _taken) = receiver(vec![]).await;
    let port = receiver.base.rsplit(':').next().unwrap().to_string();
    let (agents, warned) = (scripted(), Arc::default());
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
    let routes = served(&agents, &store, &warned, &[]);
    let (_, sent) = ask(&routes, "/message:send", message("m1", None, None)).await;
    let path = format!("/tasks/{}/pushNotificationConfigs", sent["task"]["id"].as_str().unwrap());
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "240.0.0.1",
        "localhost.",
        "127.0.0.1.",
        "user@127.0.0.1",
    ];
    for host in hosts {
        let config = json!({"id": "c", "url": format!("http://{host}:{port}/hook")});
        let (status, error) = ask(&routes, &path, config.clone()).await;
        assert_eq!(status, 400, "{host}: {error}");
        let (status, _) = ask(&routes, "/message:send", message("m2", None, Some(config))).await;
        assert_eq!(status, 400, "{host}");
    }
    assert_eq!(
        (receiver.asked.load(Ordering::SeqCst), agents.asked().len()),
        (0, 1),
        "nothing was asked, no run began"
    );
}
