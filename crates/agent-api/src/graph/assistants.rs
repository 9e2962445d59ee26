//! Assistants: the agents. They are made in the project's file, so that none can be made or changed here.

use super::time;
use crate::{app::App, params::Params, uuid::uuid_of};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use narthex_agent::AgentView;
use narthex_http::{ApiError, JsonBody};
use serde_json::{Value, json};

/// Assistants in one answer at most.
const PAGE_MAX: i64 = 1_000;

/// The UUID of an agent.
pub(super) fn id_of(agent: &str) -> String {
    uuid_of("assistant", agent)
}

/// An agent by its name or its UUID.
///
/// # Errors
/// If there is none.
pub(super) fn find(app: &App, id: &str) -> Result<AgentView, ApiError> {
    let agents = app.agents.list();
    let named = agents.iter().find(|agent| agent.name == id).or(agents.iter().find(|agent| id_of(&agent.name) == id));
    named.cloned().ok_or_else(|| {
        let what = format!("there is no assistant `{id}`: POST /assistants/search names all there are");
        ApiError::request(StatusCode::NOT_FOUND, what, Some("not_found"))
    })
}

fn shown(agent: &AgentView) -> Value {
    let then = time::written(0);
    json!({
        "assistant_id": id_of(&agent.name), "graph_id": agent.name, "name": agent.name,
        "description": agent.description, "config": {"configurable": {}}, "context": {}, "version": 1,
        "metadata": {"created_by": "system", "digest": agent.version, "tools": tools(agent)},
        "created_at": then, "updated_at": then,
    })
}

fn tools(agent: &AgentView) -> Vec<&str> {
    agent.tools.iter().map(|(name, _)| name.as_str()).collect()
}

/// Those that are asked for.
pub(crate) async fn search(State(app): State<App>, JsonBody(mut fields): JsonBody) -> Result<Json<Value>, ApiError> {
    let limit = fields.integer("limit", 1..=PAGE_MAX)?.unwrap_or(10) as usize;
    let offset = fields.integer("offset", 0..=i64::MAX)?.unwrap_or(0) as usize;
    let agents = wanted(&app, &mut fields)?;
    Ok(Json(agents.iter().skip(offset).take(limit).map(shown).collect()))
}

/// How many there are.
pub(crate) async fn count(State(app): State<App>, JsonBody(mut fields): JsonBody) -> Result<Json<Value>, ApiError> {
    wanted(&app, &mut fields).map(|agents| Json(json!(agents.len())))
}

fn wanted(app: &App, fields: &mut narthex_http::Fields) -> Result<Vec<AgentView>, ApiError> {
    let (graph, name) = (fields.string("graph_id")?, fields.string("name")?);
    let metadata = crate::said::metadata(fields.take("metadata"), "metadata")?;
    let mut agents = app.agents.list();
    agents.retain(|agent| {
        let known = shown(agent);
        graph.as_ref().is_none_or(|graph| *graph == agent.name)
            && name.as_ref().is_none_or(|name| agent.name.contains(name))
            && metadata.iter().all(|(field, value)| known["metadata"].get(field) == Some(value))
    });
    Ok(agents)
}

/// One of them.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    find(&app, &id).map(|agent| Json(shown(&agent)))
}

/// What goes in and comes out.
pub(crate) async fn schemas(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let agent = find(&app, &id)?;
    let messages = json!({"type": "array", "items": {"type": "object"}});
    let input = json!({"type": "object", "properties": {"messages": messages}, "required": ["messages"]});
    let mut state = input.clone();
    if let Some(output) = &agent.output {
        state["properties"]["structured_response"] = output.clone();
    }
    Ok(Json(json!({
        "graph_id": agent.name, "input_schema": input, "output_schema": state, "state_schema": state,
        "config_schema": {"type": "object", "properties": {}}, "context_schema": null,
    })))
}

/// The loop, as a picture of it needs it.
pub(crate) async fn graph(State(app): State<App>, Path(id): Path<String>, _: Params) -> Result<Json<Value>, ApiError> {
    let agent = find(&app, &id)?;
    let node = |id: &str| json!({"id": id, "type": "runnable", "data": {"id": [id], "name": id}});
    let end = |id: &str| json!({"id": id, "type": "schema", "data": id});
    let edge =
        |from: &str, to: &str, conditional: bool| json!({"source": from, "target": to, "conditional": conditional});
    let (start, stop) = ("__start__", "__end__");
    let (mut nodes, mut edges) = (vec![end(start), node("model")], vec![edge(start, "model", false)]);
    if !agent.tools.is_empty() {
        nodes.push(node("tools"));
        edges.extend([edge("model", "tools", true), edge("tools", "model", false)]);
    }
    nodes.push(end(stop));
    edges.push(edge("model", stop, true));
    Ok(Json(json!({"nodes": nodes, "edges": edges})))
}

/// Agents below others have runs of their own, which are not shown as graphs.
pub(crate) async fn subgraphs(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    find(&app, &id).map(|_| Json(json!({})))
}
