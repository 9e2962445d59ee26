//! Begins runs: for a person, or for a call of another agent.

use super::inner::{Inner, standing};
use crate::{
    agents::{AgentError, Ask},
    canonical::{DEPTH_MAX, is_deeper},
    event::{Created, Event, Parent, Stamped},
    load::earlier,
    state::State,
    step::step,
    store::{Creation, NewRun, StoreError},
};
use narthex_base::{
    Digest,
    chat::{Message, Role},
    error::nearest,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

/// Bytes of all that one ask says.
const ASK_BYTES_MAX: usize = 8 << 20;
/// Bytes of a name that a caller chooses.
const NAME_BYTES_MAX: usize = 256;
/// Times that a conversation is looked at again because another run came in between.
const CONFLICTS_MAX: usize = 10;

impl Inner {
    pub(super) async fn start(self: &Arc<Self>, mut ask: Ask) -> Result<String, AgentError> {
        check(&ask)?;
        let Some(agent) = self.agent(&ask.agent) else {
            let near = nearest(&ask.agent, self.agents.iter().map(|agent| agent.name.as_str()));
            let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
            return Err(AgentError::Unknown(format!("there is no agent `{}`{hint}", ask.agent)));
        };
        let masker = agent.definition.masker();
        ask.messages.iter_mut().for_each(|message| masker.message(message));
        masker.fields(&mut ask.metadata);
        let new_id = &self.surroundings.new_id;
        let thread = ask.thread.clone().unwrap_or_else(|| new_id("thread"));
        for _ in 0..CONFLICTS_MAX {
            if let Some(key) = &ask.key
                && let Some(known) = self.store().run_of_key(&ask.tenant, key).await?
            {
                return Ok(known);
            }
            let last = self.store().last_of_thread(&ask.tenant, &thread).await?;
            if let Some(last) = last.as_ref().filter(|last| !last.status.is_final()) {
                // It may be the one of this key, begun by somebody else since we looked.
                if let Some(key) = &ask.key
                    && let Some(known) = self.store().run_of_key(&ask.tenant, key).await?
                {
                    return Ok(known);
                }
                let what = format!("the run {} of this conversation is not over: answer or cancel it first", last.run);
                return Err(AgentError::Busy(what));
            }
            let created = Created {
                agent: ask.agent.clone(),
                definition: agent.definition.clone(),
                guards: vec![],
                thread: thread.clone(),
                follows: last.map(|last| last.run),
                parent: None,
                messages: ask.messages.clone(),
                metadata: ask.metadata.clone(),
            };
            match self.create(&ask.tenant, new_id("run"), ask.key.clone(), created).await {
                Err(StoreError::Conflict) => continue,
                result => return Ok(result?),
            }
        }
        Err(AgentError::Busy(format!("the conversation {thread} changes too fast: try again")))
    }

    /// Begins the run that another agent's call asks for, unless it has begun: a call has one such run.
    pub(super) async fn start_child(
        self: &Arc<Self>,
        parent: &State,
        call: &str,
        agent: &str,
        task: &str,
    ) -> Result<(), AgentError> {
        let Some(agent) = self.agent(agent) else {
            return Err(AgentError::Unknown(format!("there is no agent `{agent}`")));
        };
        let mut guards = parent.created.guards.clone();
        guards.push(parent.definition().policy.clone());
        // What the run above may not know, those below it do not keep either.
        let mut definition = agent.definition.clone();
        let kinds: BTreeSet<_> = definition.redact.iter().chain(&parent.definition().redact).copied().collect();
        if kinds.len() > definition.redact.iter().collect::<BTreeSet<_>>().len() {
            definition.redact = kinds.into_iter().collect();
        }
        let mut task = Message::new(Role::User, task);
        definition.masker().message(&mut task);
        let run = child_id(&parent.run, call);
        let created = Created {
            agent: agent.name.clone(),
            definition,
            guards,
            thread: format!("{run}-thread"),
            follows: None,
            parent: Some(Parent { run: parent.run.clone(), call: call.to_string() }),
            messages: vec![task],
            metadata: Map::new(),
        };
        match self.create(&parent.tenant, run, None, created).await {
            // It has begun: only then is its conversation not new.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn create(
        self: &Arc<Self>,
        tenant: &str,
        run: String,
        key: Option<String>,
        created: Created,
    ) -> Result<String, StoreError> {
        let before = earlier(self.store(), tenant, created.follows.clone()).await?;
        let (thread, follows) = (created.thread.clone(), created.follows.clone());
        let (agent, parent) = (created.agent.clone(), created.parent.clone());
        let first = Stamped { at_ms: self.now_ms(), event: Event::Created(Box::new(created)) };
        let state = step(State::new(&run, tenant, before), &first).state;
        let new = NewRun {
            run: run.clone(),
            tenant: tenant.to_string(),
            thread,
            follows,
            agent,
            key,
            parent,
            copied: None,
            first,
            standing: standing(&state),
        };
        let run = match self.store().create(new).await? {
            Creation::New => run,
            Creation::Known(known) => known,
        };
        self.wake(tenant, &run);
        Ok(run)
    }
}

/// The run that a call of another agent makes: the same each time.
pub(super) fn child_id(parent: &str, call: &str) -> String {
    let digest = Digest::of(Value::from(vec![parent, call]).to_string().as_bytes()).to_string();
    format!("run-{}", &digest[..32])
}

/// Whether an ask can be taken.
fn check(ask: &Ask) -> Result<(), AgentError> {
    let wrong = |what: String| Err(AgentError::Input(what));
    for (what, name) in [("thread", &ask.thread), ("key", &ask.key)] {
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return wrong(format!("`{what}` must have 1 to {NAME_BYTES_MAX} bytes"));
        }
    }
    if ask.messages.is_empty() {
        return wrong("say something: `messages` is empty".into());
    }
    if ask.messages.iter().any(|message| message.role == Role::System) {
        return wrong("a caller's message cannot be the system's: send it as `user`".into());
    }
    let value = serde_json::to_value((&ask.messages, &ask.metadata)).unwrap_or_default();
    if is_deeper(&value, DEPTH_MAX) {
        return wrong(format!("the messages or the metadata are nested deeper than {DEPTH_MAX} levels"));
    }
    let said = value.to_string().len();
    if said > ASK_BYTES_MAX {
        return wrong(format!("the messages have {said} bytes, and {ASK_BYTES_MAX} are the limit"));
    }
    Ok(())
}
