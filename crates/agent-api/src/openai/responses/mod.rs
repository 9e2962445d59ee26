//! `POST /v1/responses` and what belongs to it (<https://platform.openai.com/docs/api-reference/responses>).
//!
//! A response is a stretch of a run: from its beginning, or from an answer, to where it ends or waits. Its name says
//! which one (`resp_RUN_EVENT`), so that nothing is kept besides the run. What the agent says are `message` items; what
//! its tools did are `mcp_call` items, which clients show and never carry out themselves, as they would a
//! `function_call`; what waits for approval are `mcp_approval_request` items, answered by `mcp_approval_response` with
//! `previous_response_id`.

mod items;
mod request;
mod writing;

use super::models;
use crate::{
    app::{App, Tenant},
    key::key,
    notes,
    pieces::Stretch,
    refusal::{not_here, refused},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use narthex_agent::{Ask, RunView};
use narthex_http::{ApiError, Events, JsonBody, plain_event_stream};
use request::{Given, ResponseRequest};
use serde_json::{Value, json};
use writing::{Event, Frame, Writing};

/// Answers.
pub(crate) async fn create(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    let request = ResponseRequest::read(fields, tenant.approver(None))?;
    let agent = models::find(&app, &request.model)?;
    let (stream, background) = (request.stream, request.background);
    let (run, after) = begin(&app, &tenant, &headers, request).await?;
    let view = app.agents.run(&tenant.0, &run).await.map_err(refused)?;
    let frame = frame(&view, after, agent.output.is_some());
    if stream {
        return Ok(plain_event_stream(async move |events| told(&app, &tenant, frame, &run, after, &events).await));
    }
    if background {
        return Ok(Json(frame.shown("in_progress")).into_response());
    }
    let stretch = Stretch::follow(&*app.agents, &tenant.0, &run, after);
    Ok(Json(whole(&app, &tenant, frame, &run, stretch).await?).into_response())
}

/// A response that was begun earlier.
pub(crate) async fn get(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    params: crate::params::Params,
) -> Result<Json<Value>, ApiError> {
    if params.flag("stream")? {
        return Err(not_here("a response that was begun earlier is given whole: leave out `stream`"));
    }
    let (view, after) = find(&app, &tenant, &id).await?;
    shown(&app, &tenant, &view, after).await.map(Json)
}

/// Stops the run.
pub(crate) async fn cancel(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (view, after) = find(&app, &tenant, &id).await?;
    let view = app.agents.cancel(&tenant.0, &view.id).await.map_err(refused)?;
    shown(&app, &tenant, &view, after).await.map(Json)
}

/// A name for a conversation. Nothing is kept: it is there as soon as something was said in it.
pub(crate) async fn open(State(app): State<App>, JsonBody(mut fields): JsonBody) -> Result<Json<Value>, ApiError> {
    let metadata = crate::said::metadata(fields.take("metadata"), "metadata")?;
    if fields.take("items").is_some_and(|items| items != json!([])) {
        return Err(not_here("a conversation begins empty: give `items` as the `input` of its first response"));
    }
    let id = format!("conv_{}", (app.options.new_id)().replace('-', ""));
    let created = (app.options.now_ms)() / 1000;
    Ok(Json(json!({"id": id, "object": "conversation", "created_at": created, "metadata": metadata})))
}

/// Starts a run, or answers what one waits for: the run, and the event behind which the response begins.
async fn begin(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    request: ResponseRequest,
) -> Result<(String, u64), ApiError> {
    let previous = match &request.previous {
        Some(id) => Some(find(app, tenant, id).await?.0),
        None => None,
    };
    let messages = match (request.given, &previous) {
        (Given::Answers(answers), Some(view)) => {
            for (interrupt, answer) in answers {
                app.agents.answer(&tenant.0, &view.id, &interrupt, answer).await.map_err(refused)?;
            }
            return Ok((view.id.clone(), view.last_event));
        }
        (Given::Answers(_), None) => {
            let what = "an approval needs `previous_response_id`: the response that asked for it";
            return Err(ApiError::field("previous_response_id", what));
        }
        (Given::Messages(messages), _) => messages,
    };
    let ask = Ask {
        agent: request.model,
        tenant: tenant.0.clone(),
        messages,
        thread: request.conversation.or(previous.map(|view| view.thread)),
        key: key(headers)?,
        metadata: notes::joined(request.metadata, json!({"previous_response_id": request.previous})),
    };
    Ok((app.agents.start(ask).await.map_err(refused)?, 0))
}

/// The run of a response, and the event behind which it begins.
async fn find(app: &App, tenant: &Tenant, id: &str) -> Result<(RunView, u64), ApiError> {
    let unknown = || {
        let what = format!("there is no response `{id}`");
        ApiError::request(StatusCode::NOT_FOUND, what, Some("not_found"))
    };
    let (run, after) = id.strip_prefix("resp_").and_then(|rest| rest.rsplit_once('_')).ok_or_else(unknown)?;
    let after: u64 = after.parse().map_err(|_| unknown())?;
    let view = app.agents.run(&tenant.0, run).await.map_err(|_| unknown())?;
    if after > view.last_event { Err(unknown()) } else { Ok((view, after)) }
}

/// A response as far as it has come.
async fn shown(app: &App, tenant: &Tenant, view: &RunView, after: u64) -> Result<Value, ApiError> {
    let agents = app.agents.list();
    let is_data = agents.iter().any(|agent| agent.name == view.agent && agent.output.is_some());
    let stretch = Stretch::known(&*app.agents, &tenant.0, &view.id, after, view.last_event);
    whole(app, tenant, frame(view, after, is_data), &view.id, stretch).await
}

fn frame(view: &RunView, after: u64, is_data: bool) -> Frame {
    let (metadata, ours) = notes::parted(&view.metadata);
    let previous = if after == 0 { ours["previous_response_id"].clone() } else { json!(format!("resp_{}_0", view.id)) };
    let id = format!("{}_{after}", view.id);
    Frame { id, model: view.agent.clone(), created: view.started_ms / 1000, previous, metadata, is_data }
}

/// The whole response.
async fn whole(app: &App, tenant: &Tenant, frame: Frame, run: &str, mut stretch: Stretch) -> Result<Value, ApiError> {
    let mut writing = Writing::new(frame);
    let mut last = None;
    while let Some(told) = stretch.next().await? {
        last = Some(told.number).filter(|number| *number > 0).or(last);
        writing.piece(told.piece);
    }
    let view = app.agents.run(&tenant.0, run).await.map_err(refused)?;
    writing.end(&view, last);
    Ok(writing.response)
}

/// The response as it comes.
async fn told(
    app: &App,
    tenant: &Tenant,
    frame: Frame,
    run: &str,
    after: u64,
    events: &Events,
) -> Result<(), ApiError> {
    let mut writing = Writing::new(frame);
    put(events, writing.begin()).await?;
    let mut stretch = Stretch::follow(&*app.agents, &tenant.0, run, after);
    let mut last = None;
    loop {
        match stretch.next().await {
            Ok(Some(told)) => {
                last = Some(told.number).filter(|number| *number > 0).or(last);
                put(events, writing.piece(told.piece)).await?;
            }
            Ok(None) => break,
            Err(error) => return put(events, writing.broken(&error)).await,
        }
    }
    match app.agents.run(&tenant.0, run).await {
        Ok(view) => put(events, writing.end(&view, last)).await,
        Err(error) => put(events, writing.broken(&refused(error))).await,
    }
}

async fn put(events: &Events, list: Vec<Event>) -> Result<(), ApiError> {
    for Event { name, data } in list {
        events.send_named(Some(name), &data).await?;
    }
    Ok(())
}
