//! What tests of files and batches share: a folder, a store, the routes over it, and a model that does as it is told.

use crate::{
    api::keeping::FilesState,
    batches::{FilesOptions, Runner, Store},
    router::files_routes as routes,
};
use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// What the model was asked, and what it waits for.
pub(crate) struct Model {
    asked: Mutex<Vec<String>>,
    under_way: Mutex<(usize, usize)>,
    pub gate: Semaphore,
}

impl Model {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { asked: Mutex::default(), under_way: Mutex::default(), gate: Semaphore::new(0) })
    }

    /// The names of all requests so far.
    pub fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap()
    }

    /// The most requests that were under way at once.
    pub fn most(&self) -> usize {
        self.under_way.lock().unwrap().1
    }

    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new().route("/v1/chat/completions", post(answer)).with_state(self.clone())
    }

    /// Waits until so many requests have come.
    pub async fn has_been_asked(&self, times: usize) {
        until("the model is asked", || self.asked().len() >= times).await;
    }
}

/// Does what the request's fields say: `busy` times without room, `gate` waits, `status` answers so, and so on.
async fn answer(State(model): State<Arc<Model>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&body).unwrap();
    let name = body["name"].as_str().unwrap_or_default().to_string();
    let tries = {
        let mut asked = model.asked();
        asked.push(name.clone());
        asked.iter().filter(|known| **known == name).count() as u64
    };
    {
        let mut under_way = model.under_way.lock().unwrap();
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
    }
    if body["gate"] == true {
        model.gate.acquire().await.unwrap().forget();
    }
    model.under_way.lock().unwrap().0 -= 1;
    if body["busy"].as_u64().is_some_and(|busy| tries <= busy) {
        let status = StatusCode::from_u16(body["busy_status"].as_u64().unwrap_or(503) as u16).unwrap();
        return (status, [("retry-after", "0")], Json(json!({"error": {"code": "queue_full"}}))).into_response();
    }
    assert!(body["panics"] != true, "as it was told");
    if body["text"] == true {
        return "no JSON".into_response();
    }
    let status = StatusCode::from_u16(body["status"].as_u64().unwrap_or(200) as u16).unwrap();
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5});
    let filler = "x".repeat(body["filler"].as_u64().unwrap_or(0) as usize);
    let answer = json!({"id": format!("chatcmpl-{name}"), "echo": body, "usage": usage, "filler": filler});
    (status, [("x-request-id", format!("req-{name}"))], Json(answer)).into_response()
}

/// A server over a folder of its own.
pub(crate) struct Server {
    pub folder: TempDir,
    pub model: Arc<Model>,
    running: Option<(Router, Arc<Store>, Option<Runner>)>,
    change: fn(&mut FilesOptions),
}

impl Server {
    /// With these changes to the usual options, and somebody who works on batches.
    pub fn new(change: fn(&mut FilesOptions)) -> Self {
        let mut server = Self { folder: tempfile::tempdir().unwrap(), model: Model::new(), running: None, change };
        server.start();
        server
    }

    /// Ends it as a server that is stopped ends.
    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn start(&mut self) {
        let mut options = FilesOptions::new(self.folder.path().join("kept"));
        (self.change)(&mut options);
        let store = Store::open(options).unwrap();
        let runner = Runner::start(store.clone(), self.model.routes()).unwrap();
        let state = FilesState(Some(store.clone()));
        let routes = routes::<FilesState>(&state).with_state(state);
        self.running = Some((routes, store, Some(runner)));
    }

    /// Nobody works on batches from now on.
    pub fn rest(&mut self) {
        self.running.as_mut().unwrap().2 = None;
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.running.as_ref().unwrap().1
    }

    pub async fn send(&self, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Reply {
        send(&self.running.as_ref().unwrap().0, method, path, kind, body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    /// Sends a file; its id.
    pub async fn upload(&self, name: &str, purpose: &str, text: impl AsRef<[u8]>) -> String {
        let (kind, body) = form(&[("purpose", None, purpose.as_bytes()), ("file", Some(name), text.as_ref())]);
        let reply = self.send("POST", "/v1/files", &kind, body).await.json(200);
        reply["id"].as_str().unwrap().to_string()
    }

    /// Makes a batch of these bodies, whose names are `r0`, `r1` and so on; its id.
    pub async fn batch(&self, bodies: &[Value]) -> String {
        let line = |(index, body): (usize, &Value)| line(&format!("r{index}"), body);
        let text: String = bodies.iter().enumerate().map(line).collect();
        self.batch_of(text).await
    }

    pub async fn batch_of(&self, text: impl AsRef<[u8]>) -> String {
        let file = self.upload("in.jsonl", "batch", text).await;
        let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        let made = self.post("/v1/batches", &body).await.json(200);
        made["id"].as_str().unwrap().to_string()
    }

    pub async fn show(&self, batch: &str) -> Value {
        self.get(&format!("/v1/batches/{batch}")).await.json(200)
    }

    /// Waits until a batch has a status; the batch.
    pub async fn wait(&self, batch: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let shown = self.show(batch).await;
            if shown["status"] == status {
                return shown;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "not {status}: {shown}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The lines of a file of answers by their `custom_id`, in the order of these.
    pub async fn lines(&self, file: &Value) -> Vec<(String, Value)> {
        let reply = self.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).await;
        assert_eq!(reply.status, 200);
        let text = String::from_utf8(reply.body).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines: Vec<_> = lines.map(|line| (line["custom_id"].as_str().unwrap().to_string(), line)).collect();
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        lines
    }

    pub fn path(&self, folder: &str, id: &str, end: &str) -> PathBuf {
        self.folder.path().join("kept").join(folder).join(format!("{id}.{end}"))
    }

    /// The names of all files on disk.
    pub fn names(&self, folder: &str) -> Vec<String> {
        names(&self.folder.path().join("kept").join(folder))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A line of a batch's file; the model gets `name`.
pub(crate) fn line(custom_id: &str, body: &Value) -> String {
    let mut body = body.clone();
    body["name"] = json!(custom_id);
    format!("{}\n", json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A form of fields, with a file's name where they are files: its type and its bytes.
pub(crate) fn form(fields: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = vec![];
    for (name, file, value) in fields {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head = format!("--BOUND\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--BOUND--\r\n");
    ("multipart/form-data; boundary=BOUND".into(), body)
}

pub(crate) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Status, field, code and message of an error.
    pub fn error(&self) -> String {
        let error = &self.json(self.status)["error"];
        let [param, code] = ["param", "code"].map(|name| error[name].as_str().unwrap_or("-"));
        format!("{} {param} {code}: {}", self.status, error["message"].as_str().unwrap())
    }
}

pub(crate) async fn send(router: &Router, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let reply = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = reply.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}
