//! `GET /agents/events`: every run of the tenant as it changes, for a page that shows them all. Runs are asked for what
//! has changed; nothing tells it by itself.

use super::shown;
use crate::{
    app::{App, Tenant},
    refusal::refused,
    sse::{Events, event_stream},
};
use axum::{extract::State, response::Response};
use narthex_agent::{Page, RunFilter, RunView};
use narthex_http::ApiError;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Milliseconds between two looks.
const LOOK_MS: u64 = 1_000;

/// Runs that are told of at first, and of one look at most.
const RUNS_MAX: usize = 100;

/// A run's marks: when it changed, and its last event.
type Marks = BTreeMap<String, (u64, u64)>;

/// The last runs, then those that change.
pub(crate) async fn events(State(app): State<App>, tenant: Tenant) -> Result<Response, ApiError> {
    let first = look(&app, &tenant, None).await?;
    Ok(event_stream(async move |events| {
        let mut marks = Marks::new();
        let mut runs = first;
        loop {
            tell(&mut marks, &runs, &events).await?;
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            let since = marks.values().map(|(changed_ms, _)| *changed_ms).max();
            runs = look(&app, &tenant, since).await?;
        }
    }))
}

async fn look(app: &App, tenant: &Tenant, since: Option<u64>) -> Result<Vec<RunView>, ApiError> {
    let filter = RunFilter { changed_since_ms: since, ..RunFilter::default() };
    app.agents.runs(&tenant.0, filter, Page { after: None, size: RUNS_MAX }).await.map_err(refused)
}

/// Tells of those that are not as they were told.
async fn tell(marks: &mut Marks, runs: &[RunView], events: &Events) -> Result<(), ApiError> {
    let newest = runs.iter().map(|run| run.changed_ms).max();
    for run in runs.iter().rev() {
        let mark = (run.changed_ms, run.last_event);
        if marks.insert(run.id.clone(), mark) != Some(mark) {
            events.send(None, Some("run"), &json!(shown::summary(run))).await?;
        }
    }
    // Runs are asked for from the newest change on: older marks are not needed any more.
    if let Some(newest) = newest {
        marks.retain(|_, (changed_ms, _)| *changed_ms >= newest);
    }
    Ok(())
}
