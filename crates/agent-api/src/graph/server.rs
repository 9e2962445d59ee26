//! `GET /ok` and `GET /info`: whether the server is there, and what it can do.

use axum::Json;
use serde_json::{Value, json};

/// It is.
pub(crate) async fn ok() -> Json<Value> {
    Json(json!({"ok": true}))
}

/// What it can do.
pub(crate) async fn info() -> Json<Value> {
    let flags = json!({"assistants": true, "crons": false, "langsmith": false});
    Json(json!({"name": "narthex", "version": env!("CARGO_PKG_VERSION"), "flags": flags}))
}
