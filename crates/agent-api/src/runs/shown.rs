//! Runs and events as our own routes show them: the contract's own names. Knows no request.

use narthex_agent::{AgentView, RunEvent, RunView};
use serde_json::{Value, json};

/// Characters of what was asked first that a list shows.
const TITLE_MAX: usize = 120;

/// An agent.
pub(super) fn agent(agent: &AgentView) -> Value {
    let tool = |(name, description): &(String, String)| json!({"name": name, "description": description});
    json!({
        "name": agent.name, "description": agent.description, "version": agent.version, "output": agent.output,
        "tools": agent.tools.iter().map(tool).collect::<Vec<_>>(),
    })
}

/// A run in a list: without its messages, of which there may be many.
pub(super) fn summary(view: &RunView) -> Value {
    let asked = view.messages.first().map(|message| message.text().into_owned()).unwrap_or_default();
    let mut title: String = asked.chars().take(TITLE_MAX).collect();
    if title.len() < asked.len() {
        title.push('…');
    }
    json!({
        "id": view.id, "thread": view.thread, "agent": view.agent, "status": view.status, "title": title,
        "interrupts": view.interrupts, "reason": view.reason, "started_ms": view.started_ms,
        "changed_ms": view.changed_ms, "last_event": view.last_event,
    })
}

/// A whole run.
pub(super) fn whole(view: &RunView) -> Value {
    let mut whole = summary(view);
    whole["messages"] = json!(view.messages);
    whole["output"] = json!(view.output);
    whole["metadata"] = json!(view.metadata);
    whole
}

/// An event: its number and time, and its kind's own fields beside them.
pub(super) fn event(event: &RunEvent) -> Value {
    let mut shown = json!(event.kind);
    shown["number"] = json!(event.number);
    shown["at_ms"] = json!(event.at_ms);
    shown
}
