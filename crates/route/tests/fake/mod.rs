//! Replicas of the tests, that answer as they are told, and a router before them; a client that says what it got.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse,
    routing::{any, get},
};
use futures::{StreamExt, stream};
use narthex_http::bind;
use narthex_route::{RouteOptions, serve};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a replica got.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// What replicas and tests share.
#[derive(Default)]
pub struct State_ {
    pub name: String,
    pub unready: AtomicBool,
    pub got: Mutex<Vec<Got>>,
    /// Answers that have begun and not ended.
    pub open: AtomicUsize,
    /// Lets held answers go on.
    pub go_on: Notify,
    /// Further lines of metrics.
    pub metrics: Mutex<String>,
    pub models: Mutex<Vec<String>>,
    /// What is kept there, by path.
    pub kept: Mutex<Vec<String>>,
    /// What the beginning of an answer of another kind is: `503` for one.
    pub refuses: AtomicBool,
}

/// A replica of its own port.
pub struct Replica {
    pub state: Arc<State_>,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    make_deaf: Mutex<Option<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

/// Listens until it is told not to; connections that there are go on.
struct Deafening {
    listener: Option<tokio::net::TcpListener>,
    deaf: oneshot::Receiver<()>,
}

impl axum::serve::Listener for Deafening {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Some(listener) = &mut self.listener else { return std::future::pending().await };
        tokio::select! {
            accepted = axum::serve::Listener::accept(listener) => return accepted,
            _ = &mut self.deaf => {}
        }
        self.listener = None;
        std::future::pending().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener
            .as_ref()
            .map_or_else(|| Err(std::io::Error::other("it is deaf")), |listener| listener.local_addr())
    }
}

impl Replica {
    pub fn start(name: &str) -> Self {
        Self::at(name, "127.0.0.1:0".parse().unwrap())
    }

    /// On this address, as one that comes back.
    pub fn at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State_ { name: name.into(), models: Mutex::new(vec!["m".into()]), ..State_::default() });
        let routes = Router::new()
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/v1/models", get(models))
            .route("/{*path}", any(answer))
            .with_state(state.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (make_deaf, deaf) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let listener = Deafening { listener: Some(listener), deaf };
                // Dropping all at once closes the connections as a process that dies does.
                tokio::select! {
                    _ = axum::serve(listener, routes) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { state, address, stop: Some(stop), make_deaf: Mutex::new(Some(make_deaf)), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.state.got.lock().unwrap().len()
    }

    pub fn last(&self) -> Got {
        self.state.got.lock().unwrap().last().unwrap().clone()
    }

    /// It takes no more connections, and keeps those that it has; its address, for another.
    pub fn deaf(&self) -> SocketAddr {
        drop(self.make_deaf.lock().unwrap().take());
        until("nobody listens", || TcpStream::connect(self.address).is_err());
        self.address
    }

    /// It is gone, with its connections.
    pub fn die(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.die();
    }
}

async fn ready(State(state): State<Arc<State_>>) -> StatusCode {
    if state.unready.load(SeqCst) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn metrics(State(state): State<Arc<State_>>) -> String {
    format!(
        "# TYPE asked_total counter\nasked_total {}\n{}",
        state.got.lock().unwrap().len(),
        state.metrics.lock().unwrap()
    )
}

async fn models(State(state): State<Arc<State_>>) -> Json<Value> {
    let models: Vec<Value> =
        state.models.lock().unwrap().iter().map(|id| json!({"id": id, "object": "model", "by": state.name})).collect();
    Json(json!({"object": "list", "data": models}))
}

/// Counts an answer until it is dropped.
struct Open(Arc<State_>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Does what the body's `act` says.
async fn answer(State(state): State<Arc<State_>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let act = serde_json::from_str::<Value>(&text).ok().and_then(|body| Some(body.get("act")?.as_str()?.to_string()));
    state.got.lock().unwrap().push(Got { path: path.clone(), headers: head.headers, body: text });
    state.open.fetch_add(1, SeqCst);
    let open = Open(state.clone());
    if state.refuses.load(SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "9")], "full").into_response();
    }
    if let Some(reply) = keep(&state, head.method.as_str(), &path) {
        return reply;
    }
    match act.as_deref() {
        // One event, then only when the test says so another, then the end.
        Some("stream") => {
            let second = {
                let state = state.clone();
                async move {
                    state.go_on.notified().await;
                    drop(open);
                    Ok::<_, std::io::Error>(Bytes::from("data: two\n\n"))
                }
            };
            let events = stream::once(async { Ok(Bytes::from("data: one\n\n")) }).chain(stream::once(second));
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
        }
        Some("break") => {
            let second = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("broken"))
            };
            let events = stream::once(async { Ok(Bytes::from("data: one\n\n")) }).chain(stream::once(second));
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
        }
        // A panic in a handler ends its connection without an answer.
        Some("die") => std::panic::resume_unwind(Box::new(())),
        Some("hold") => {
            state.go_on.notified().await;
            Json(json!({"by": state.name})).into_response()
        }
        _ => ([(header::CONNECTION, "x-hop"), ("x-hop".parse().unwrap(), "1")], Json(json!({"by": state.name})))
            .into_response(),
    }
}

/// Files and responses.
fn keep(state: &State_, method: &str, path: &str) -> Option<Response<Body>> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut kept = state.kept.lock().unwrap();
    match (method, path) {
        ("POST", "/v1/files" | "/v1/batches" | "/v1/responses") => {
            let id = format!("{}-{}", state.name, kept.len());
            kept.push(format!("{path}/{id}"));
            Some(Json(json!({"id": id, "by": state.name})).into_response())
        }
        ("GET", "/v1/files") => {
            // Two at a time.
            let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
            let ids: Vec<&str> = kept.iter().filter_map(|path| path.strip_prefix("/v1/files/")).collect();
            let from = after.map_or(0, |after| ids.iter().position(|id| *id == after).unwrap() + 1);
            let data: Vec<Value> =
                ids.iter().skip(from).take(2).map(|id| json!({"id": id, "created_at": id.len() + from})).collect();
            let more = from + data.len() < ids.len();
            Some(Json(json!({"object": "list", "data": data, "has_more": more})).into_response())
        }
        ("GET", path) if path.starts_with("/v1/files/") || path.starts_with("/v1/responses/") => {
            let known = kept.iter().any(|known| path.starts_with(known.as_str()));
            let status = if known { StatusCode::OK } else { StatusCode::NOT_FOUND };
            Some((status, Json(json!({"by": state.name}))).into_response())
        }
        _ => None,
    }
}

/// A router, until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A router before these, with other options.
pub fn router_with(replicas: &[&Replica], change: impl FnOnce(&mut RouteOptions)) -> Running {
    let mut options = RouteOptions {
        replicas: replicas.iter().map(|replica| replica.url()).collect(),
        check_interval: Duration::from_millis(50),
        ..RouteOptions::default()
    };
    options.http.port = 0;
    change(&mut options);
    let bound = bind(&options.http).unwrap();
    let address = bound.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        serve(bound, &options, async {
            _ = stopped.await;
        })
        .unwrap();
    });
    Running { address, stop: Some(stop), thread: Some(thread) }
}

/// A router before these.
pub fn router(replicas: &[&Replica]) -> Running {
    router_with(replicas, |_| {})
}

/// What a client got.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The replica that answered.
    #[track_caller]
    pub fn by(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["by"].as_str().unwrap().to_string()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Running {
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = agent.run(request.body(body.to_string()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap_or_else(|error| format!("broken: {error}"));
        Reply { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// A completion.
    pub fn prompt(&self, text: &str) -> Reply {
        self.post("/v1/completions", &json!({"model": "m", "prompt": text}))
    }

    /// A connection on which a request was sent.
    pub fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        let (host, length) = (self.address, body.len());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        stream
    }

    pub fn ready(&self) -> bool {
        self.get("/ready").status == 200
    }

    /// Waits until so many replicas are ready.
    #[track_caller]
    pub fn until_ready(&self, count: usize) {
        until("replicas are ready", || self.get("/ready").json()["replicas_ready"] == count);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Reads until a text has come; all that came.
#[track_caller]
pub fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let (mut all, mut buffer) = (String::new(), [0; 1024]);
    while !all.contains(text) {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => all.push_str(&String::from_utf8_lossy(&buffer[..count])),
            other => panic!("{text:?} did not come ({other:?}): {all}"),
        }
    }
    all
}
