//! A thread and its states: one where each of its runs ended or waits. Knows no request.

use super::{
    find::{self, Thread, id_of},
    human::{self, Shown},
    messages, time,
};
use crate::uuid::uuid_of;
use narthex_agent::{RunStatus, RunView};
use serde_json::{Map, Value, json};

/// The id of a message of a run, by its place.
pub(super) fn message_id(run: &str, place: usize) -> String {
    format!("{run}-{place}")
}

/// The messages of runs, in their order.
pub(super) fn messages_of(runs: &[RunView]) -> Vec<Value> {
    let of_run = |run: &RunView| -> Vec<Value> {
        let written = |(place, message)| messages::written(message, &message_id(&run.id, place));
        run.messages.iter().enumerate().map(written).collect()
    };
    runs.iter().flat_map(of_run).collect()
}

/// The values behind these runs.
pub(super) fn values(runs: &[RunView]) -> Value {
    let mut values = json!({"messages": messages_of(runs)});
    if let Some(output) = runs.last().and_then(|run| run.output.as_ref()) {
        values["structured_response"] = output.clone();
    }
    values
}

/// What the last run waits for.
pub(super) fn waiting(run: &RunView) -> Vec<Shown> {
    if run.status == RunStatus::Waiting { human::shown(&run.id, &run.interrupts) } else { vec![] }
}

fn task_id(run: &RunView) -> String {
    uuid_of("task", &format!("{}\0{}", run.id, run.last_event))
}

/// A thread as clients read it.
pub(super) fn thread_shown(thread: &Thread) -> Value {
    let last = thread.runs.last();
    let status = match last.map(|run| run.status) {
        Some(RunStatus::Running) => "busy",
        Some(RunStatus::Waiting) => "interrupted",
        Some(RunStatus::Failed | RunStatus::Limited) => "error",
        Some(RunStatus::Done | RunStatus::Cancelled) | None => "idle",
    };
    let created = thread.empty.as_ref().map(|empty| empty.at_ms).or(thread.runs.first().map(|run| run.started_ms));
    let changed = last.map(|run| run.changed_ms).or(created).unwrap_or_default();
    let mut interrupts = Map::new();
    if let Some(run) = last.filter(|run| run.status == RunStatus::Waiting) {
        interrupts.insert(task_id(run), human::written(&waiting(run)));
    }
    let values = if thread.runs.is_empty() { Value::Null } else { values(&thread.runs) };
    json!({
        "thread_id": thread.id, "created_at": time::written(created.unwrap_or_default()),
        "updated_at": time::written(changed), "state_updated_at": time::written(changed), "metadata": metadata(thread),
        "status": status, "values": values, "interrupts": interrupts, "config": {},
    })
}

/// What the client noted with a thread; its last agent as LangGraph notes it.
pub(super) fn metadata(thread: &Thread) -> Map<String, Value> {
    let mut metadata = match (&thread.empty, thread.runs.last()) {
        (Some(empty), _) => empty.metadata.clone(),
        (None, Some(run)) => find::metadata(run).1,
        (None, None) => Map::new(),
    };
    if let Some(run) = thread.runs.last() {
        metadata.insert("graph_id".into(), json!(run.agent));
        metadata.insert("assistant_id".into(), json!(super::assistants::id_of(&run.agent)));
    }
    metadata
}

/// The id of the state behind a run.
pub(super) fn checkpoint_id(run: &RunView) -> String {
    uuid_of("checkpoint", &format!("{}\0{}", run.id, run.last_event))
}

fn checkpoint(thread: &str, run: Option<&RunView>) -> Value {
    json!({
        "thread_id": thread, "checkpoint_ns": "", "checkpoint_id": run.map(checkpoint_id), "checkpoint_map": {},
    })
}

/// The state behind so many of a thread's runs.
pub(super) fn state(thread: &Thread, count: usize) -> Value {
    let runs = &thread.runs[..count.min(thread.runs.len())];
    let Some(last) = runs.last() else {
        let created = thread.empty.as_ref().map(|empty| time::written(empty.at_ms));
        return json!({
            "values": {}, "next": [], "checkpoint": checkpoint(&thread.id, None), "metadata": {}, "created_at": created,
            "parent_checkpoint": null, "tasks": [], "interrupts": [],
        });
    };
    let interrupts = human::written(&waiting(last));
    let next = match last.status {
        RunStatus::Waiting => json!(["tools"]),
        RunStatus::Running => json!(["model"]),
        _ => json!([]),
    };
    let error = matches!(last.status, RunStatus::Failed | RunStatus::Limited).then_some(&last.reason);
    let mut tasks = vec![];
    if next != json!([]) || error.is_some() {
        let name = next[0].as_str().unwrap_or("model");
        tasks.push(json!({
            "id": task_id(last), "name": name, "path": ["__pregel_pull", name], "error": error,
            "interrupts": interrupts, "checkpoint": null, "state": null, "result": null,
        }));
    }
    let parent = runs.len().checked_sub(2).map(|parent| checkpoint(&thread.id, Some(&runs[parent])));
    json!({
        "values": values(runs), "next": next, "checkpoint": checkpoint(&thread.id, Some(last)),
        "metadata": {"source": "loop", "step": last.last_event, "run_id": id_of(&last.id), "thread_id": thread.id},
        "created_at": time::written(last.changed_ms), "parent_checkpoint": parent, "tasks": tasks,
        "interrupts": interrupts,
    })
}
