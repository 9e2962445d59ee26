//! Begins a run, or goes on with the one that waits, as a request wants it.

use super::{
    assistants, find, human,
    request::{Given, RunRequest, Strategy},
};
use crate::{
    app::{App, Tenant},
    key::key,
    notes,
    opened::Empty,
    pieces::Stretch,
    refusal::in_conflict,
};
use axum::http::{HeaderMap, StatusCode};
use narthex_agent::{AgentError, Ask, Page, RunFilter, RunStatus, RunView};
use narthex_http::ApiError;
use serde_json::{Map, json};

/// Times that a thread is looked at again because another run came in between.
const TRIES_MAX: usize = 20;

/// A run, and the event behind which its story goes on.
pub(super) struct Begun {
    pub view: RunView,
    pub after: u64,
}

/// Begins. Without a thread, one is opened.
pub(super) async fn begin(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    thread: Option<String>,
    request: RunRequest,
) -> Result<Begun, ApiError> {
    let agent = assistants::find(app, &request.assistant)?.name;
    let thread = match thread {
        Some(thread) => known(app, tenant, thread, request.create_thread).await?,
        None => (app.options.new_id)(),
    };
    let messages = match request.given {
        Given::Resume(resume) => return go_on(app, tenant, &thread, &resume).await,
        Given::Messages(messages) => messages,
    };
    // A thread may have been noted again since its last run.
    let last = last_run(app, tenant, &thread).await?;
    let noted = app.opened.get(&tenant.0, &thread).map(|empty| empty.metadata);
    let noted = noted.or(last.as_ref().map(|run| find::metadata(run).1)).unwrap_or_default();
    let ours = json!({"thread_metadata": noted, "multitask_strategy": request.strategy.as_str()});
    let ask = Ask {
        agent,
        tenant: tenant.0.clone(),
        messages,
        thread: Some(thread.clone()),
        key: key(headers)?,
        metadata: notes::joined(request.metadata, ours),
    };
    for _ in 0..TRIES_MAX {
        match app.agents.start(ask.clone()).await {
            Err(AgentError::Busy(what)) if request.strategy != Strategy::Reject => {
                let Some(other) = last_run(app, tenant, &thread).await? else {
                    return Err(in_conflict(AgentError::Busy(what)));
                };
                clear(app, tenant, &other, request.strategy, what).await?;
            }
            Err(error) => return Err(in_conflict(error)),
            Ok(run) => {
                let view = app.agents.run(&tenant.0, &run).await.map_err(in_conflict)?;
                return Ok(Begun { view, after: 0 });
            }
        }
    }
    Err(in_conflict(AgentError::Busy(format!("the thread `{thread}` is used by others all the time: try again"))))
}

/// Opens a thread that is not known, if that is wanted.
async fn known(app: &App, tenant: &Tenant, thread: String, create: bool) -> Result<String, ApiError> {
    match find::thread(app, &tenant.0, &thread).await {
        Err(error) if error.status() == StatusCode::NOT_FOUND && create => {
            let at_ms = (app.options.now_ms)();
            app.opened.put(Empty { tenant: tenant.0.clone(), thread: thread.clone(), metadata: Map::new(), at_ms });
            Ok(thread)
        }
        found => found.map(|_| thread),
    }
}

async fn last_run(app: &App, tenant: &Tenant, thread: &str) -> Result<Option<RunView>, ApiError> {
    let filter = RunFilter { thread: Some(thread.into()), ..RunFilter::default() };
    let runs = app.agents.runs(&tenant.0, filter, Page { after: None, size: 1 }).await.map_err(in_conflict)?;
    Ok(runs.into_iter().next())
}

/// Waits until a run has ended, or ends it. One that waits for a person is waited for by nobody.
async fn clear(app: &App, tenant: &Tenant, other: &RunView, strategy: Strategy, what: String) -> Result<(), ApiError> {
    if other.status.is_final() {
        return Ok(());
    }
    if strategy == Strategy::Interrupt {
        return match app.agents.cancel(&tenant.0, &other.id).await {
            Ok(_) | Err(AgentError::Ended(_)) => Ok(()),
            Err(error) => Err(in_conflict(error)),
        };
    }
    if other.status == RunStatus::Waiting {
        let how = "resume it with `command`, or give `multitask_strategy` as `interrupt` to cancel it";
        return Err(in_conflict(AgentError::Busy(format!("{what} ({how})"))));
    }
    let mut stretch = Stretch::follow(&*app.agents, &tenant.0, &other.id, other.last_event);
    while stretch.next().await?.is_some() {}
    Ok(())
}

/// Answers what the thread's last run waits for.
async fn go_on(app: &App, tenant: &Tenant, thread: &str, resume: &serde_json::Value) -> Result<Begun, ApiError> {
    let Some(view) = last_run(app, tenant, thread).await?.filter(|run| run.status == RunStatus::Waiting) else {
        let what = format!("no run of the thread `{thread}` waits for anything: give `input`");
        return Err(ApiError::field("command.resume", what));
    };
    for (interrupt, answer) in human::answers(&view, resume, &tenant.approver(None))? {
        app.agents.answer(&tenant.0, &view.id, &interrupt, answer).await.map_err(in_conflict)?;
    }
    let after = view.last_event;
    Ok(Begun { view, after })
}
