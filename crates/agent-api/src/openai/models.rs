//! `GET /v1/models`: the agents, as models.

use crate::app::App;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use narthex_agent::AgentView;
use narthex_base::error::nearest;
use narthex_http::ApiError;
use serde_json::{Value, json};

/// All of them.
pub(crate) async fn list(State(app): State<App>) -> Json<Value> {
    Json(json!({"object": "list", "data": app.agents.list().iter().map(model).collect::<Vec<_>>()}))
}

/// One of them.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    find(&app, &id).map(|agent| Json(model(&agent)))
}

/// An agent by its name.
///
/// # Errors
/// If there is none.
pub(super) fn find(app: &App, name: &str) -> Result<AgentView, ApiError> {
    let agents = app.agents.list();
    if let Some(agent) = agents.iter().find(|agent| agent.name == name) {
        return Ok(agent.clone());
    }
    let near = nearest(name, agents.iter().map(|agent| agent.name.as_str()));
    let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
    let what = format!("there is no agent `{name}`{hint}");
    Err(ApiError::request(StatusCode::NOT_FOUND, what, Some("model_not_found")).param("model"))
}

fn model(agent: &AgentView) -> Value {
    json!({
        "id": agent.name, "object": "model", "created": 0, "owned_by": "narthex",
        "description": agent.description, "version": agent.version,
    })
}
