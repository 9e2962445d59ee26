//! Runs that are made for a call of another run: the other is told when they wait, go on, and end.

use super::inner::Inner;
use crate::{
    agents::{AgentError, RunStatus},
    event::{Event, Parent},
    state::{Phase, State},
    tool::{Content, ToolResult},
};
use narthex_base::chat::Role;
use std::sync::Arc;

impl Inner {
    /// Tells the run above how this one stands, if there is one and it does not know.
    pub(super) async fn report(self: &Arc<Self>, child: &State) -> Result<(), AgentError> {
        let Some(Parent { run: parent, .. }) = &child.created.parent else { return Ok(()) };
        let told = self.append_outside(&child.tenant, parent, |parent| Ok(news(parent, child))).await?;
        self.wake(&child.tenant, parent);
        // The one above may wait itself by now, or wait no more.
        Box::pin(self.report(&told)).await
    }
}

/// The event that a run gets from how one below it stands; nothing if it knows.
pub(super) fn news(parent: &State, child: &State) -> Option<Event> {
    if parent.outcome.is_some() {
        return None;
    }
    let (call, known) = parent.calls.iter().find_map(|call| match &call.phase {
        Phase::Delegated { child: below, interrupts } if *below == child.run => Some((call, interrupts)),
        _ => None,
    })?;
    let call = call.judged.id.clone();
    if child.outcome.is_some() {
        return Some(Event::Done { call, result: result(child) });
    }
    let interrupts = child.interrupts();
    let interrupts = if child.status() == RunStatus::Waiting { interrupts } else { vec![] };
    (interrupts != *known).then_some(Event::ChildWaits { call, interrupts })
}

/// What a run that has ended gave, for whoever asked for it.
fn result(child: &State) -> ToolResult {
    let Some(outcome) = &child.outcome else { return ToolResult::error("it has not ended") };
    if outcome.status != RunStatus::Done {
        let reason = outcome.reason.as_deref().unwrap_or("without a reason");
        return ToolResult::error(format!("the agent {} gave no answer: {reason}", child.created.agent));
    }
    if let Some(output) = &outcome.output {
        let text = Content::Text { text: output.to_string() };
        return ToolResult { content: vec![text], structured: Some(output.clone()), is_error: false };
    }
    let last = child.messages.iter().rev().find(|message| message.role == Role::Assistant);
    ToolResult::text(last.map(|message| message.text().into_owned()).unwrap_or_default())
}
