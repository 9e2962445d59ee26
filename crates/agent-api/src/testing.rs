//! What the tests of this crate share: scripted agents, and a client without a network.

pub mod fake;

use crate::{ApiOptions, needs_key, router};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request},
};
use fake::{BEGIN_MS, Fake};
use narthex_agent::{Interrupt, RunStatus, RunView};
use narthex_base::Caller;
use narthex_http::{HttpOptions, Observers, guarded};
use serde_json::{Map, Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tower::ServiceExt;

static IDS: AtomicU64 = AtomicU64::new(1);

fn new_id() -> String {
    format!("00000000-0000-8000-a000-{:012x}", IDS.fetch_add(1, Ordering::Relaxed))
}

/// Routes over these agents, as a server has them.
pub fn served(agents: &Arc<Fake>) -> Router {
    let options = ApiOptions { now_ms: || BEGIN_MS, new_id, ..ApiOptions::default() };
    guarded(router(agents.clone(), options), &HttpOptions::default(), needs_key, Observers::default())
}

/// New agents and routes over them.
pub fn fresh() -> (Arc<Fake>, Router) {
    let agents = Arc::new(Fake::new());
    let router = served(&agents);
    (agents, router)
}

/// An answer that has been read.
pub struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// An event of a stream: id, name and data.
pub type Told = (Option<String>, Option<String>, Value);

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.status, status, "{text}");
        text
    }

    pub fn json(self, status: u16) -> Value {
        let text = self.text(status);
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect(&text) }
    }

    /// The message of an error.
    pub fn error(self, status: u16) -> String {
        self.json(status)["error"]["message"].as_str().expect("an error has a message").to_string()
    }

    pub fn events(self) -> Vec<Told> {
        let text = self.text(200);
        let read = |block: &str| {
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                Some(line.strip_prefix(' ').unwrap_or(line).to_string())
            };
            let data = field("data")?;
            let data = if data == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(&data).expect(&data) };
            Some((field("id"), field("event"), data))
        };
        text.split("\n\n").filter_map(read).collect()
    }
}

/// Sends a request.
pub async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.expect("routes do not fail");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the body is complete");
    Reply { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub async fn post(router: &Router, path: &str, body: &Value) -> Reply {
    send(router, with("POST", path, body)).await
}

/// A request with JSON.
pub fn with(method: &str, path: &str, body: &Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(body.to_string().into()).unwrap()
}

/// The same request of another tenant.
pub fn of(tenant: &str, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Caller(tenant.into()));
    request
}

/// A run that waits for nothing.
pub fn view(id: &str) -> RunView {
    RunView {
        id: id.into(),
        thread: "t".into(),
        agent: "echo".into(),
        status: RunStatus::Waiting,
        interrupts: vec![],
        messages: vec![],
        output: None,
        reason: None,
        started_ms: BEGIN_MS,
        changed_ms: BEGIN_MS,
        last_event: 1,
        metadata: Map::new(),
    }
}

pub fn call_interrupt(id: &str, tool: &str, arguments: Value) -> Interrupt {
    Interrupt {
        id: id.into(),
        question: "may it?".into(),
        call: Some((tool.into(), arguments)),
        form: None,
        expires_ms: 0,
    }
}

pub fn form_interrupt(id: &str) -> Interrupt {
    Interrupt { id: id.into(), question: "which?".into(), call: None, form: Some(json!({})), expires_ms: 0 }
}
