//! Begins runs as copies of others.

use super::inner::{Inner, standing};
use crate::{
    agents::AgentError,
    event::{Edit, Event, Stamped},
    load::earlier,
    state::State,
    step::fold,
    store::NewRun,
};
use std::sync::Arc;

impl Inner {
    pub(super) async fn fork(
        self: &Arc<Self>,
        tenant: &str,
        from: &str,
        at: u64,
        mut edit: Option<Edit>,
    ) -> Result<String, AgentError> {
        let mut events = self.events(tenant, from).await?;
        if at == 0 || at > events.len() as u64 {
            let what = format!("the run {from} has the steps 1 to {}, and no step {at}", events.len());
            return Err(AgentError::Input(what));
        }
        events.truncate(at as usize);
        let Some(Stamped { event: Event::Created(created), .. }) = events.first() else {
            return Err(AgentError::Failed(format!("the run {from} does not begin with its beginning")));
        };
        let (agent, follows) = (created.agent.clone(), created.follows.clone());
        let (run, thread) = ((self.surroundings.new_id)("run"), (self.surroundings.new_id)("thread"));
        let before = earlier(self.store(), tenant, follows).await?;
        let state = fold(State::new(&run, tenant, before), &events).state;
        if let Some(edit) = &mut edit {
            state.definition().masker().content(&mut edit.content);
            check(&state, edit, from)?;
        }
        let first = Stamped {
            at_ms: self.now_ms(),
            event: Event::Forked { from: from.into(), thread: thread.clone(), at, edit },
        };
        let state = fold(state, [&first]).state;
        let new = NewRun {
            run: run.clone(),
            tenant: tenant.into(),
            thread,
            follows: None,
            agent,
            key: None,
            parent: None,
            copied: Some((from.into(), at)),
            first,
            standing: standing(&state),
        };
        self.store().create(new).await?;
        self.wake(tenant, &run);
        Ok(run)
    }
}

/// Whether a message can be changed: it is there, and no calls of it were made.
fn check(state: &State, edit: &Edit, run: &str) -> Result<(), AgentError> {
    let Some(message) = state.messages.get(edit.message) else {
        let what =
            format!("the run {run} has {} messages by then, and none numbered {}", state.messages.len(), edit.message);
        return Err(AgentError::Input(what));
    };
    if !message.tool_calls.is_empty() {
        let what = format!("the message {} calls tools: fork at a step before it", edit.message);
        return Err(AgentError::Input(what));
    }
    Ok(())
}
