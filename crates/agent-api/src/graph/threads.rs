//! Threads: opened, listed, their states read. Nothing is erased or written over.

use super::{
    find::{self, THREAD_RUNS_MAX, Thread},
    state,
};
use crate::{
    app::{App, Tenant},
    opened::Empty,
    params::Params,
    refusal::not_here,
    said,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use narthex_agent::{RunFilter, RunView};
use narthex_http::{ApiError, Fields, JsonBody};
use serde_json::{Map, Value, json};

/// Bytes of a thread's name at most.
const NAME_BYTES_MAX: usize = 256;
/// Threads or states in one answer at most.
const PAGE_MAX: i64 = 1_000;
/// The newest runs that a search looks through.
const SEARCHED_RUNS_MAX: usize = 2_000;

/// Opens a thread.
pub(crate) async fn create(
    State(app): State<App>,
    tenant: Tenant,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let metadata = said::metadata(fields.take("metadata"), "metadata")?;
    let given = fields.string("thread_id")?;
    let keep = match fields.string("if_exists")?.as_deref() {
        None | Some("raise") => false,
        Some("do_nothing") => true,
        Some(_) => return Err(ApiError::field("if_exists", "`if_exists` must be raise or do_nothing")),
    };
    if fields.take("supersteps").is_some_and(|steps| steps != json!([])) {
        return Err(not_here("a thread begins empty: say what came before as the `input` of its first run"));
    }
    // Nothing is erased, also not later.
    fields.take("ttl");
    fields.finish()?;
    let id = match given {
        None => (app.options.new_id)(),
        Some(id) if (1..=NAME_BYTES_MAX).contains(&id.len()) => id,
        Some(_) => {
            let what = format!("`thread_id` must have 1 to {NAME_BYTES_MAX} bytes");
            return Err(ApiError::field("thread_id", what));
        }
    };
    if let Ok(known) = find::thread(&app, &tenant.0, &id).await {
        if keep {
            return Ok(Json(state::thread_shown(&known)));
        }
        let what = format!("there is a thread `{id}` already: give `if_exists` as `do_nothing` to take it");
        return Err(ApiError::request(StatusCode::CONFLICT, what, Some("conflict")));
    }
    let empty = Empty { tenant: tenant.0, thread: id.clone(), metadata, at_ms: (app.options.now_ms)() };
    app.opened.put(empty.clone());
    Ok(Json(state::thread_shown(&Thread { id, runs: vec![], empty: Some(empty) })))
}

/// A thread.
pub(crate) async fn get(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    find::thread(&app, &tenant.0, &id).await.map(|thread| Json(state::thread_shown(&thread)))
}

/// Notes more with a thread. What is noted goes with its next runs, which are kept; until then it is in memory only.
pub(crate) async fn update(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let more = said::metadata(fields.take("metadata"), "metadata")?;
    fields.take("ttl");
    fields.finish()?;
    let mut thread = find::thread(&app, &tenant.0, &id).await?;
    let mut metadata = state::metadata(&thread);
    metadata.extend(more);
    let at_ms = thread.empty.as_ref().map(|empty| empty.at_ms).or(thread.runs.first().map(|run| run.started_ms));
    let at_ms = at_ms.unwrap_or_else(app.options.now_ms);
    let empty = Empty { tenant: tenant.0, thread: id, metadata, at_ms };
    app.opened.put(empty.clone());
    thread.empty = Some(empty);
    Ok(Json(state::thread_shown(&thread)))
}

/// Forgets a thread that is empty.
pub(crate) async fn delete(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let thread = find::thread(&app, &tenant.0, &id).await?;
    if !thread.runs.is_empty() {
        return Err(not_here("a thread with runs is not erased here: what its agents did stays on record"));
    }
    app.opened.remove(&tenant.0, &id);
    Ok(StatusCode::NO_CONTENT)
}

/// The thread's last state.
pub(crate) async fn state(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let thread = find::thread(&app, &tenant.0, &id).await?;
    Ok(Json(state::state(&thread, thread.runs.len())))
}

/// One of the thread's states.
pub(crate) async fn state_at(
    State(app): State<App>,
    tenant: Tenant,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    at(&app, &tenant, &id, Some(checkpoint)).await
}

/// The same, with the checkpoint in the body.
pub(crate) async fn state_of(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let checkpoint = fields.take("checkpoint").unwrap_or_default();
    at(&app, &tenant, &id, checkpoint["checkpoint_id"].as_str().map(str::to_string)).await
}

async fn at(app: &App, tenant: &Tenant, id: &str, checkpoint: Option<String>) -> Result<Json<Value>, ApiError> {
    let thread = find::thread(app, &tenant.0, id).await?;
    let Some(checkpoint) = checkpoint else { return Ok(Json(state::state(&thread, thread.runs.len()))) };
    let place = thread.runs.iter().position(|run| state::checkpoint_id(run) == checkpoint);
    let unknown = || {
        let what = format!("the thread `{id}` has no checkpoint `{checkpoint}`");
        ApiError::request(StatusCode::NOT_FOUND, what, Some("not_found"))
    };
    place.map(|place| Json(state::state(&thread, place + 1))).ok_or_else(unknown)
}

/// A state is what agents did: it is not written from outside.
pub(crate) async fn write_state(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    find::thread(&app, &tenant.0, &id).await?;
    Err(not_here("a thread's state is what was said and done in it: say more with a run"))
}

/// A thread is not copied: a run would belong to two.
pub(crate) async fn copy(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    find::thread(&app, &tenant.0, &id).await?;
    Err(not_here("a thread is not copied here: open one, and give its messages as the `input` of the first run"))
}

/// The thread's states, the newest first.
pub(crate) async fn history(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let limit = fields.integer("limit", 1..=PAGE_MAX)?.unwrap_or(10) as usize;
    let before = fields.take("before").unwrap_or_default();
    let before = before["checkpoint_id"].as_str().or(before.as_str());
    listed(&app, &tenant, &id, limit, before).await
}

/// The same, with what is wanted in the query.
pub(crate) async fn history_of(
    State(app): State<App>,
    tenant: Tenant,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let limit = params.number("limit", 1..=PAGE_MAX as u64)?.unwrap_or(10) as usize;
    listed(&app, &tenant, &id, limit, params.text("before").as_deref()).await
}

async fn listed(
    app: &App,
    tenant: &Tenant,
    id: &str,
    limit: usize,
    before: Option<&str>,
) -> Result<Json<Value>, ApiError> {
    let thread = find::thread(app, &tenant.0, id).await?;
    let end = match before {
        None => thread.runs.len(),
        Some(before) => thread.runs.iter().position(|run| state::checkpoint_id(run) == before).unwrap_or(0),
    };
    Ok(Json((1..=end).rev().take(limit).map(|count| state::state(&thread, count)).collect()))
}

/// Threads that are asked for.
pub(crate) async fn search(
    State(app): State<App>,
    tenant: Tenant,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let limit = fields.integer("limit", 1..=PAGE_MAX)?.unwrap_or(10) as usize;
    let offset = fields.integer("offset", 0..=i64::MAX)?.unwrap_or(0) as usize;
    let threads = wanted(&app, &tenant, &mut fields).await?;
    Ok(Json(threads.into_iter().skip(offset).take(limit).collect()))
}

/// How many there are.
pub(crate) async fn count(
    State(app): State<App>,
    tenant: Tenant,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    wanted(&app, &tenant, &mut fields).await.map(|threads| Json(json!(threads.len())))
}

async fn wanted(app: &App, tenant: &Tenant, fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let metadata = said::metadata(fields.take("metadata"), "metadata")?;
    let status = fields.string("status")?;
    let ids: Option<Vec<Value>> = fields.take("ids").and_then(|ids| ids.as_array().cloned());
    let by = fields.string("sort_by")?.unwrap_or_else(|| "updated_at".into());
    let ascends = fields.string("sort_order")?.is_some_and(|order| order.eq_ignore_ascii_case("asc"));
    for field in ["values", "extract"] {
        fields.unsupported(field, &[])?;
    }
    if !["thread_id", "status", "created_at", "updated_at", "state_updated_at"].contains(&by.as_str()) {
        return Err(ApiError::field("sort_by", format!("threads are not sorted by `{by}`")));
    }
    let fits = |known: &Map<String, Value>| metadata.iter().all(|(field, value)| known.get(field) == Some(value));
    let mut shown: Vec<Value> = vec![];
    for thread in all(app, tenant).await? {
        let thread = state::thread_shown(&thread);
        let is_status = status.as_ref().is_none_or(|status| thread["status"] == **status);
        let is_named = ids.as_ref().is_none_or(|ids| ids.contains(&thread["thread_id"]));
        if is_status && is_named && thread["metadata"].as_object().is_some_and(fits) {
            shown.push(thread);
        }
    }
    shown.sort_by(|a, b| a[&by].as_str().cmp(&b[&by].as_str()));
    if !ascends {
        shown.reverse();
    }
    Ok(shown)
}

/// All threads that are known, as far back as is looked.
async fn all(app: &App, tenant: &Tenant) -> Result<Vec<Thread>, ApiError> {
    let mut threads: Vec<Thread> = vec![];
    let runs: Vec<RunView> = find::collect(app, &tenant.0, &RunFilter::default(), SEARCHED_RUNS_MAX).await?;
    for run in runs {
        match threads.iter_mut().find(|thread| thread.id == run.thread) {
            Some(thread) if thread.runs.len() < THREAD_RUNS_MAX => thread.runs.push(run),
            Some(_) => {}
            None => {
                let empty = app.opened.get(&tenant.0, &run.thread);
                threads.push(Thread { id: run.thread.clone(), runs: vec![run], empty });
            }
        }
    }
    threads.iter_mut().for_each(|thread| thread.runs.reverse());
    for empty in app.opened.of(&tenant.0) {
        if !threads.iter().any(|thread| thread.id == empty.thread) {
            threads.push(Thread { id: empty.thread.clone(), runs: vec![], empty: Some(empty) });
        }
    }
    Ok(threads)
}
