//! The routes: what the router answers itself, and everything else, which goes on.

use crate::{check::Checks, client::Connector, listed, options::RouteOptions, relay::relay, shared::Shared};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::{any, get},
};
use narthex_base::Result;
use narthex_http::Bound;
use serde_json::json;
use std::{future::Future, sync::Arc};

/// Paths that ask for no key, where keys are set, besides those of the replicas' page.
const OPEN: [&str; 8] = ["/", "/health", "/ready", "/ping", "/version", "/metrics", "/openapi.json", "/api/version"];

/// Files of a page: they hold nothing of anybody.
const PAGE_ENDINGS: [&str; 4] = [".js", ".css", ".svg", ".ico"];

/// Looks at the replicas, then answers until `shutdown` is ready, and lets answers under way end within a limit.
/// Blocks.
///
/// # Errors
/// If there are no replicas, an address or the file that names them is wrong, or the runtime does not start.
pub fn serve(bound: Bound, options: &RouteOptions, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let connector = Connector::new()?;
    let shared = Arc::new(Shared::new(options, connector.clone(), bound.stopping())?);
    let checks = Checks::start(shared.clone(), options, &connector)?;
    let served = narthex_http::serve(bound, routes(shared), &options.http, needs_key, shutdown);
    drop(checks);
    served
}

/// Whether requests to a path must carry a key.
fn needs_key(path: &str) -> bool {
    let is_page = path.matches('/').count() == 1 && PAGE_ENDINGS.iter().any(|ending| path.ends_with(ending));
    !is_page && !OPEN.contains(&path)
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(listed::metrics))
        .route("/v1/models", get(listed::models))
        .route("/", any(relay))
        .route("/{*path}", any(relay))
        .with_state(shared)
}

/// Whether the router runs.
async fn health() -> Response<Body> {
    Json(json!({"status": "ok"})).into_response()
}

/// Whether requests should come here: at least one replica takes them, and the router is not about to stop.
async fn ready(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let (all, ready) = (shared.fleet.all().len(), shared.fleet.ready().len());
    let status = match ready {
        _ if shared.stopping.has_begun() => "stopping",
        0 => "no replica is ready",
        _ => "ready",
    };
    let mut answer = Json(json!({"status": status, "replicas": all, "replicas_ready": ready})).into_response();
    if status != "ready" {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_asked_for() {
        for (path, expected) in [
            ("/v1/chat/completions", true),
            ("/v1/files/x.js", true),
            ("/api/tags", true),
            ("/", false),
            ("/page.js", false),
            ("/metrics", false),
            ("//metrics", true),
            ("/%2e/metrics", true),
        ] {
            assert_eq!(needs_key(path), expected, "{path}");
        }
    }
}
