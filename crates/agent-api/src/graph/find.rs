//! Runs and threads by the names that clients know them by. A run's UUID is made of its name, so that a run is found by
//! looking through those of its thread.

use super::{assistants, time};
use crate::{
    app::App,
    notes,
    opened::Empty,
    refusal::{in_conflict, refused},
    uuid::{is_uuid, uuid_of},
};
use axum::http::StatusCode;
use narthex_agent::{Page, RunFilter, RunStatus, RunView};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// Runs that are asked for at once.
const PAGE: usize = 100;

/// Runs of a thread that are looked at: an id further back is not found.
pub(super) const THREAD_RUNS_MAX: usize = 1_000;

/// A thread's runs, the oldest first.
pub(super) async fn runs_of(app: &App, tenant: &str, thread: &str) -> Result<Vec<RunView>, ApiError> {
    let filter = RunFilter { thread: Some(thread.into()), ..RunFilter::default() };
    let mut runs = collect(app, tenant, &filter, THREAD_RUNS_MAX).await?;
    runs.reverse();
    Ok(runs)
}

/// Runs, those first that changed last, so many at most.
pub(super) async fn collect(
    app: &App,
    tenant: &str,
    filter: &RunFilter,
    count_max: usize,
) -> Result<Vec<RunView>, ApiError> {
    let mut runs: Vec<RunView> = vec![];
    while runs.len() < count_max {
        let after = runs.last().map(RunView::cursor);
        let page = Page { after, size: PAGE.min(count_max - runs.len()) };
        let wanted = page.size;
        let more = app.agents.runs(tenant, filter.clone(), page).await.map_err(refused)?;
        let count = more.len();
        runs.extend(more);
        if count < wanted {
            break;
        }
    }
    Ok(runs)
}

/// A thread as it is known: its runs, or that it is open.
pub(super) struct Thread {
    pub id: String,
    /// The oldest first.
    pub runs: Vec<RunView>,
    pub empty: Option<Empty>,
}

/// A thread.
///
/// # Errors
/// If there is none of this name.
pub(super) async fn thread(app: &App, tenant: &str, id: &str) -> Result<Thread, ApiError> {
    let runs = runs_of(app, tenant, id).await?;
    let empty = app.opened.get(tenant, id);
    if runs.is_empty() && empty.is_none() {
        let what = format!("there is no thread `{id}`: POST /threads opens one");
        return Err(ApiError::request(StatusCode::NOT_FOUND, what, Some("not_found")));
    }
    Ok(Thread { id: id.into(), runs, empty })
}

/// The UUID of a run.
pub(super) fn id_of(run: &str) -> String {
    if is_uuid(run) { run.into() } else { uuid_of("run", run) }
}

/// A run of a thread.
///
/// # Errors
/// If there is none of this id.
pub(super) async fn run(app: &App, tenant: &str, thread: &str, id: &str) -> Result<RunView, ApiError> {
    let unknown = || {
        let what = format!("there is no run `{id}` in the thread `{thread}`");
        ApiError::request(StatusCode::NOT_FOUND, what, Some("not_found"))
    };
    if !is_uuid(id) {
        let view = app.agents.run(tenant, id).await.map_err(in_conflict)?;
        return Some(view).filter(|view| view.thread == thread).ok_or_else(unknown);
    }
    let runs = runs_of(app, tenant, thread).await?;
    runs.into_iter().rev().find(|run| id_of(&run.id) == id).ok_or_else(unknown)
}

/// LangGraph's word for how a run stands.
pub(super) fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Waiting | RunStatus::Cancelled => "interrupted",
        RunStatus::Done => "success",
        RunStatus::Failed | RunStatus::Limited => "error",
    }
}

/// What came with a run: the caller's, and the thread's.
pub(super) fn metadata(view: &RunView) -> (Map<String, Value>, Map<String, Value>) {
    let (callers, mut ours) = notes::parted(&view.metadata);
    let threads = match ours["thread_metadata"].take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    (callers, threads)
}

/// A run as clients read it.
pub(super) fn run_shown(view: &RunView) -> Value {
    let (callers, _) = metadata(view);
    let (_, ours) = notes::parted(&view.metadata);
    let strategy = ours["multitask_strategy"].as_str().unwrap_or("enqueue");
    json!({
        "run_id": id_of(&view.id), "thread_id": view.thread, "assistant_id": assistants::id_of(&view.agent),
        "created_at": time::written(view.started_ms), "updated_at": time::written(view.changed_ms),
        "status": status_word(view.status), "metadata": callers, "multitask_strategy": strategy, "kwargs": {},
        "cancel_reason": (view.status == RunStatus::Cancelled).then_some(&view.reason),
        "narthex": {"run": view.id, "status": view.status, "reason": view.reason},
    })
}
