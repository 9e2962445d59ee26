//! Runs of agents as tasks: a client that wants it gets a task at once, and asks for it until it is done. A task is a
//! run and nothing more, so it outlives this process. Knows agents by their seam only.

use super::{
    agent::{answer, outcome, questions, refusal},
    asking::{answered, failed, requests},
    catalog::Catalog,
    seal::Purpose,
};
use crate::{convert, cut::cut, offer::Refusal};
use chrono::{DateTime, SecondsFormat};
use narthex_agent::{AgentError, Agents, RunStatus, RunView};
use rmcp::{
    ErrorData,
    model::{CreateTaskResult, DetailedTask, GetTaskResult, InputResponses, Task, TaskPayload, TaskStatus},
};
use serde_json::Value;
use std::sync::Arc;

/// Milliseconds that a client should wait before it asks again.
const POLL_MS: u64 = 1000;

/// The task of a run that has begun.
pub(crate) async fn created(
    catalog: &Catalog,
    agents: &Arc<dyn Agents>,
    tenant: &str,
    run: &str,
) -> Result<CreateTaskResult, ErrorData> {
    let view = agents.run(tenant, run).await.map_err(|error| failed(refusal(error)))?;
    // The run's id is not enough: on a server without tokens, all are one tenant, and whoever knows a task may read it.
    let id = catalog.seals.seal(&run, &Purpose::task(tenant), None);
    let id = id.map_err(|why| ErrorData::internal_error(why, None))?;
    Ok(CreateTaskResult::new(task(id, &view)))
}

/// A task as it is now.
pub(crate) async fn get(catalog: &Catalog, tenant: &str, id: &str) -> Result<GetTaskResult, ErrorData> {
    let (agents, run) = opened(catalog, tenant, id)?;
    let view = agents.run(tenant, &run).await.map_err(|error| failed(refusal(error)))?;
    let payload = match view.status {
        RunStatus::Running => TaskPayload::Working,
        RunStatus::Waiting => {
            TaskPayload::InputRequired { input_requests: requests(&questions(&view)).map_err(failed)? }
        }
        RunStatus::Cancelled => TaskPayload::Cancelled,
        // A run that could not go on is a result that says so: the model reads it.
        RunStatus::Done | RunStatus::Failed | RunStatus::Limited => {
            let result = convert::result(cut(outcome(&view), catalog.limits.result_bytes_max));
            match serde_json::to_value(result) {
                Ok(Value::Object(result)) => TaskPayload::Completed { result },
                _ => return Err(ErrorData::internal_error("the result cannot be written", None)),
            }
        }
    };
    Ok(GetTaskResult::new(DetailedTask::new(task(id.into(), &view), payload)))
}

/// Takes answers to what a task waits for. What it does not wait for is passed over.
pub(crate) async fn update(catalog: &Catalog, tenant: &str, id: &str, given: InputResponses) -> Result<(), ErrorData> {
    let (agents, run) = opened(catalog, tenant, id)?;
    let view = agents.run(tenant, &run).await.map_err(|error| failed(refusal(error)))?;
    let questions = questions(&view);
    for interrupt in &view.interrupts {
        let (Some(question), Some(value)) = (questions.get(&interrupt.id), given.get(&interrupt.id)) else { continue };
        let Some(answered) = answered(question, value) else {
            let what = format!("the answer to `{}` does not fit what was asked", interrupt.id);
            return Err(ErrorData::invalid_params(what, None));
        };
        let answer = answer(tenant, interrupt, answered);
        agents.answer(tenant, &run, &interrupt.id, answer).await.map_err(|error| failed(refusal(error)))?;
    }
    Ok(())
}

/// Cancels a task. One that has ended stays as it is.
pub(crate) async fn cancel(catalog: &Catalog, tenant: &str, id: &str) -> Result<(), ErrorData> {
    let (agents, run) = opened(catalog, tenant, id)?;
    match agents.cancel(tenant, &run).await {
        Ok(_) | Err(AgentError::Ended(_)) => Ok(()),
        Err(error) => Err(failed(refusal(error))),
    }
}

/// The run that a task's id stands for.
fn opened(catalog: &Catalog, tenant: &str, id: &str) -> Result<(Arc<dyn Agents>, String), ErrorData> {
    let unknown = || failed(Refusal::Unknown("there is no such task".into()));
    let agents = catalog.offer.agents.clone().ok_or_else(unknown)?;
    let run: String = catalog.seals.open(id, &Purpose::task(tenant), (catalog.clock)()).map_err(|_| unknown())?;
    Ok((agents, run))
}

fn task(id: String, view: &RunView) -> Task {
    let status = match view.status {
        RunStatus::Running => TaskStatus::Working,
        RunStatus::Waiting => TaskStatus::InputRequired,
        RunStatus::Cancelled => TaskStatus::Cancelled,
        RunStatus::Done | RunStatus::Failed | RunStatus::Limited => TaskStatus::Completed,
    };
    let task = Task::new(id, status, written(view.started_ms), written(view.changed_ms)).with_poll_interval_ms(POLL_MS);
    match &view.reason {
        Some(reason) => task.with_status_message(reason.clone()),
        None => task,
    }
}

/// A time as ISO 8601 writes it.
fn written(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (at_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_785_196_800_001, "2026-07-28T00:00:00.001Z"),
            (u64::MAX, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(written(at_ms), expected, "{at_ms}");
        }
    }
}
