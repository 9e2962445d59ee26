//! Runs: begun, streamed, waited for, listed, cancelled.

use super::{
    find,
    modes::Modes,
    request::RunRequest,
    start::{Begun, begin},
    state,
    telling::{Telling, failure},
};
use crate::{
    app::{App, Tenant},
    params::Params,
    pieces::Stretch,
    refusal::{in_conflict, not_here, refused},
    sse::{Events, event_stream, last_event, slow_json},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use narthex_agent::{Agents, RunView};
use narthex_http::{ApiError, JsonBody};
use serde_json::{Value, json};
use std::sync::Arc;

/// Runs in one answer at most.
const PAGE_MAX: u64 = 1_000;

/// Begins a run in a thread and streams it.
pub(crate) async fn stream(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path(thread): Path<String>,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    streamed(app, tenant, headers, Some(thread), RunRequest::read(fields)?).await
}

/// The same in a thread of its own.
pub(crate) async fn stream_alone(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    streamed(app, tenant, headers, None, RunRequest::read(fields)?).await
}

/// Begins a run in a thread and gives the state where it ends or waits.
pub(crate) async fn wait(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path(thread): Path<String>,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    waited(app, tenant, headers, Some(thread), RunRequest::read(fields)?).await
}

/// The same in a thread of its own.
pub(crate) async fn wait_alone(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    waited(app, tenant, headers, None, RunRequest::read(fields)?).await
}

/// Begins a run in a thread.
pub(crate) async fn create(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path(thread): Path<String>,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    created(app, tenant, headers, Some(thread), RunRequest::read(fields)?).await
}

/// The same in a thread of its own.
pub(crate) async fn create_alone(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    created(app, tenant, headers, None, RunRequest::read(fields)?).await
}

async fn created(
    app: App,
    tenant: Tenant,
    headers: HeaderMap,
    thread: Option<String>,
    request: RunRequest,
) -> Result<Response, ApiError> {
    let Begun { view, .. } = begin(&app, &tenant, &headers, thread, request).await?;
    // After an answer it is another run than it was.
    let view = app.agents.run(&tenant.0, &view.id).await.map_err(in_conflict)?;
    Ok(located(Json(find::run_shown(&view)).into_response(), &view, None))
}

async fn streamed(
    app: App,
    tenant: Tenant,
    headers: HeaderMap,
    thread: Option<String>,
    request: RunRequest,
) -> Result<Response, ApiError> {
    let (modes, cancels) = (request.modes, request.cancel_on_disconnect);
    let Begun { view, after } = begin(&app, &tenant, &headers, thread, request).await?;
    Ok(told(app, tenant, view, after, modes, cancels))
}

async fn waited(
    app: App,
    tenant: Tenant,
    headers: HeaderMap,
    thread: Option<String>,
    request: RunRequest,
) -> Result<Response, ApiError> {
    let cancels = request.cancel_on_disconnect;
    let Begun { view, after } = begin(&app, &tenant, &headers, thread, request).await?;
    Ok(joined(app, tenant, view, after, cancels))
}

/// The state where a run ends or waits.
pub(crate) async fn join(
    State(app): State<App>,
    tenant: Tenant,
    Path((thread, id)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = find::run(&app, &tenant.0, &thread, &id).await?;
    let after = view.last_event;
    Ok(joined(app, tenant, view, after, params.flag("cancel_on_disconnect")?))
}

/// A run from its beginning, or from the event that the client saw last.
pub(crate) async fn join_stream(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path((thread, id)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    let names = params.all("stream_mode");
    let modes = if names.is_empty() { Modes::JOINED } else { Modes::of(&names)? };
    let after = last_event(&headers)?;
    let view = find::run(&app, &tenant.0, &thread, &id).await?;
    Ok(told(app, tenant, view, after, modes, params.flag("cancel_on_disconnect")?))
}

/// A thread's runs, the newest first.
pub(crate) async fn list(
    State(app): State<App>,
    tenant: Tenant,
    Path(thread): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(10) as usize;
    let offset = params.number("offset", 0..=u64::MAX)?.unwrap_or(0) as usize;
    let status = params.text("status");
    let thread = find::thread(&app, &tenant.0, &thread).await?;
    let fits = |view: &&RunView| status.as_deref().is_none_or(|status| status == find::status_word(view.status));
    Ok(Json(thread.runs.iter().rev().filter(fits).skip(offset).take(limit).map(find::run_shown).collect()))
}

/// A run.
pub(crate) async fn get(
    State(app): State<App>,
    tenant: Tenant,
    Path((thread, id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    find::run(&app, &tenant.0, &thread, &id).await.map(|view| Json(find::run_shown(&view)))
}

/// Stops a run for good.
pub(crate) async fn cancel(
    State(app): State<App>,
    tenant: Tenant,
    Path((thread, id)): Path<(String, String)>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    if params.text("action").is_some_and(|action| action != "interrupt") {
        return Err(not_here("runs are never erased: give `action` as `interrupt`").param("action"));
    }
    let view = find::run(&app, &tenant.0, &thread, &id).await?;
    // What it waits for in `wait` has come to pass with the answer.
    app.agents.cancel(&tenant.0, &view.id).await.map_err(in_conflict)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What agents did stays on record.
pub(crate) async fn delete(
    State(app): State<App>,
    tenant: Tenant,
    Path((thread, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    find::run(&app, &tenant.0, &thread, &id).await?;
    Err(not_here("a run is not erased here: what an agent did stays on record; `cancel` stops it"))
}

/// Names the run in headers, and where its stream goes on after a cut.
fn located(mut response: Response, view: &RunView, modes: Option<Modes>) -> Response {
    let path = format!("/threads/{}/runs/{}", view.thread, find::id_of(&view.id));
    let mut put = |name: HeaderName, value: String| {
        // A thread's name that no header takes is not named.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    if let Some(modes) = modes {
        put(header::LOCATION, format!("{path}/stream?{}", modes.query()));
    }
    put(header::CONTENT_LOCATION, path);
    response
}

/// The messages of a thread before a run of it.
async fn earlier(app: &App, tenant: &str, view: &RunView) -> Result<Vec<Value>, ApiError> {
    let runs = find::runs_of(app, tenant, &view.thread).await?;
    let before = runs.iter().position(|run| run.id == view.id).unwrap_or(runs.len());
    Ok(state::messages_of(&runs[..before]))
}

/// Streams what a run did and does after an event.
fn told(app: App, tenant: Tenant, view: RunView, after: u64, modes: Modes, cancels: bool) -> Response {
    let shown = view.clone();
    let response = event_stream(async move |events| {
        let mut guard = Cancels::new(&app, &tenant, &view, cancels);
        let sent = tell(&app, &tenant.0, &view, after, modes, &events).await;
        if let Err(error) = &sent {
            let object = serde_json::to_value(error.object()).unwrap_or_default();
            let data = json!({"error": "Failed", "message": object["error"]["message"]});
            // Whoever has gone is told nothing.
            if events.send(None, Some("error"), &data).await.is_err() {
                return sent;
            }
        }
        guard.over();
        Ok(())
    });
    located(response, &shown, Some(modes))
}

async fn tell(
    app: &App,
    tenant: &str,
    view: &RunView,
    after: u64,
    modes: Modes,
    events: &Events,
) -> Result<(), ApiError> {
    let mut telling = Telling::new(modes, view, earlier(app, tenant, view).await?);
    let first = telling.begin();
    events.send(None, Some(first.name), &first.data).await?;
    // All of the run is read, for the state holds all of it; what the client saw already is not told again.
    let mut stretch = Stretch::follow(&*app.agents, tenant, &view.id, 0);
    stretch.through_waiting();
    let (mut number, mut seen) = (after, after > 0);
    while let Some(told) = stretch.next().await? {
        let list = telling.piece(told.piece);
        seen &= told.number <= after;
        if seen {
            seen = told.number < after || !told.last;
            continue;
        }
        number = number.max(told.number);
        let count = list.len();
        for (index, event) in list.into_iter().enumerate() {
            // Only the last event of a number has its id: whoever is cut off before it sees all of them again.
            let id = (told.number > 0 && told.last && index + 1 == count).then_some(told.number);
            events.send(id, Some(event.name), &event.data).await?;
        }
    }
    let view = app.agents.run(tenant, &view.id).await.map_err(refused)?;
    let list = telling.end(&view);
    let count = list.len();
    for (index, event) in list.into_iter().enumerate() {
        events.send((index + 1 == count).then_some(number), Some(event.name), &event.data).await?;
    }
    Ok(())
}

/// The state where a run ends or waits after an event.
fn joined(app: App, tenant: Tenant, view: RunView, after: u64, cancels: bool) -> Response {
    let shown = view.clone();
    let response = slow_json(async move {
        let mut guard = Cancels::new(&app, &tenant, &view, cancels);
        let value = last_values(&app, &tenant.0, &view, after).await;
        guard.over();
        value.unwrap_or_else(|error| {
            let object = serde_json::to_value(error.object()).unwrap_or_default();
            json!({"__error__": {"error": "Failed", "message": object["error"]["message"]}})
        })
    });
    located(response, &shown, None)
}

async fn last_values(app: &App, tenant: &str, view: &RunView, after: u64) -> Result<Value, ApiError> {
    let mut stretch = Stretch::follow(&*app.agents, tenant, &view.id, after);
    while stretch.next().await?.is_some() {}
    let earlier = earlier(app, tenant, view).await?;
    let view = app.agents.run(tenant, &view.id).await.map_err(refused)?;
    let mut telling = Telling::new(Modes::default(), &view, earlier);
    telling.end(&view);
    let mut values = telling.last_values(&view);
    if let Some(failure) = failure(&view) {
        values["__error__"] = failure;
    }
    Ok(values)
}

/// Cancels a run when it is dropped before the run is over, if the client wants that.
struct Cancels {
    run: Option<(Arc<dyn Agents>, String, String)>,
}

impl Cancels {
    fn new(app: &App, tenant: &Tenant, view: &RunView, cancels: bool) -> Self {
        Self { run: cancels.then(|| (app.agents.clone(), tenant.0.clone(), view.id.clone())) }
    }

    fn over(&mut self) {
        self.run = None;
    }
}

impl Drop for Cancels {
    fn drop(&mut self) {
        if let Some((agents, tenant, run)) = self.run.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Nobody is there to be told whether it worked; the run's own record says it.
            runtime.spawn(async move { agents.cancel(&tenant, &run).await });
        }
    }
}
