//! `/agents`: the agents, and `/agents/runs`: their runs.

use super::shown;
use crate::{
    app::{App, Tenant},
    key::key,
    params::Params,
    pending,
    refusal::refused,
    said,
    sse::{event_stream, last_event},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures::StreamExt;
use narthex_agent::{Ask, Page, RunFilter, RunStatus};
use narthex_base::chat::{Message, Role};
use narthex_http::{ApiError, JsonBody};
use serde_json::{Value, json};

/// Runs in one answer at most, and where nothing is said.
const PAGE_MAX: u64 = 100;
const PAGE: usize = 20;

/// The agents.
pub(crate) async fn agents(State(app): State<App>) -> Json<Value> {
    Json(json!({"agents": app.agents.list().iter().map(shown::agent).collect::<Vec<_>>()}))
}

/// Runs, the newest first: those of `agent`, `thread`, `status`, `changed_since_ms`; `limit` of them behind the run
/// `after`. `next` is what to give as `after` for more.
pub(crate) async fn list(State(app): State<App>, tenant: Tenant, params: Params) -> Result<Json<Value>, ApiError> {
    let filter = RunFilter {
        agent: params.text("agent"),
        thread: params.text("thread"),
        status: params.text("status").map(|word| status(&word)).transpose()?,
        changed_since_ms: params.number("changed_since_ms", 0..=u64::MAX)?,
    };
    let size = params.number("limit", 1..=PAGE_MAX)?.map_or(PAGE, |limit| limit as usize);
    let page = Page { after: params.text("after"), size };
    let runs = app.agents.runs(&tenant.0, filter, page).await.map_err(refused)?;
    let next = runs.last().filter(|_| runs.len() == size).map(|run| &run.id);
    Ok(Json(json!({"runs": runs.iter().map(shown::summary).collect::<Vec<_>>(), "next": next})))
}

fn status(word: &str) -> Result<RunStatus, ApiError> {
    serde_json::from_value(json!(word)).map_err(|_| {
        let what = "`status` must be running, waiting, done, failed, limited or cancelled";
        ApiError::field("status", what)
    })
}

/// Starts a run: `agent`, `messages` or `say`, and if wanted `thread`, `metadata`.
pub(crate) async fn start(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(mut fields): JsonBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Some(agent) = fields.string("agent")? else { return Err(fields.missing("agent")) };
    let messages = match (fields.take("messages"), fields.string("say")?) {
        (Some(list), None) => said::messages(list, "messages")?,
        (None, Some(text)) => vec![Message::new(Role::User, text)],
        _ => return Err(ApiError::field("messages", "give `messages`, or `say` with one text")),
    };
    let thread = fields.string("thread")?;
    let metadata = said::metadata(fields.take("metadata"), "metadata")?;
    fields.finish()?;
    let ask = Ask { agent, tenant: tenant.0.clone(), messages, thread, key: key(&headers)?, metadata };
    let run = app.agents.start(ask).await.map_err(refused)?;
    let view = app.agents.run(&tenant.0, &run).await.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(shown::whole(&view))))
}

/// A run.
pub(crate) async fn get(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.agents.run(&tenant.0, &id).await.map(|view| Json(shown::whole(&view))).map_err(refused)
}

/// What a run did and does, behind `Last-Event-ID` or `after`, until it ends or waits.
pub(crate) async fn events(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let after = params.number("after", 0..=u64::MAX)?.unwrap_or(0).max(last_event(&headers)?);
    app.agents.run(&tenant.0, &id).await.map_err(refused)?;
    let mut followed = app.agents.follow(&tenant.0, &id, after);
    Ok(event_stream(async move |events| {
        while let Some(event) = followed.next().await {
            match event {
                Ok(event) => {
                    let number = (event.number > 0).then_some(event.number);
                    events.send(number, None, &shown::event(&event)).await?;
                }
                Err(error) => {
                    let object = serde_json::to_value(refused(error).object()).unwrap_or_default();
                    return events.send(None, Some("error"), &object).await;
                }
            }
        }
        // Without a last word, a client cannot tell the end from a cut.
        events.send(None, Some("end"), &Value::Null).await
    }))
}

/// A run and those below it as spans: an OTLP request as JSON. What was said is in it with `content=true`.
pub(crate) async fn trace(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let with_content = params.flag("content")?;
    app.agents.run(&tenant.0, &id).await.map_err(refused)?;
    app.agents.spans(&tenant.0, &id, with_content).await.map(Json).map_err(refused)
}

/// Answers what a run waits for: `{"interrupt", "approve" | "edit" | "refuse" | "say", "by"}`.
pub(crate) async fn answer(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    JsonBody(fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let (interrupt, answer) = pending::answer(fields, |claimed| tenant.approver(claimed))?;
    app.agents.answer(&tenant.0, &id, &interrupt, answer).await.map_err(refused)?;
    let view = app.agents.run(&tenant.0, &id).await.map_err(refused)?;
    Ok(Json(shown::whole(&view)))
}

/// Stops a run for good.
pub(crate) async fn cancel(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.agents.cancel(&tenant.0, &id).await.map(|view| Json(shown::whole(&view))).map_err(refused)
}
