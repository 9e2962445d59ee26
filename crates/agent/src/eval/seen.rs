//! What the events of a run show to whoever judges it. Pure.

use crate::{
    agents::RunStatus,
    event::{Event, Stamped},
    spans::RunLog,
    state::{Earlier, State},
    step::step,
};
use narthex_base::chat::{Message, Role};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A run as it is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// How it stands.
    pub status: RunStatus,
    /// Why it failed or was limited.
    pub reason: Option<String>,
    /// The last thing that its model said.
    pub answer: String,
    /// The answer as data, where the agent gives data.
    pub output: Option<Value>,
    /// Calls that its model asked for, in their order.
    pub asked: Vec<(String, Map<String, Value>)>,
    /// Tools that were run, by it or below it.
    pub ran: BTreeSet<String>,
    /// Tools whose calls wait for a person.
    pub waits: Vec<String>,
    /// Requests to models, with those below it.
    pub model_calls: u32,
    /// Calls that were asked for, with those below it.
    pub tool_calls: u32,
    /// Tokens of prompts, with those below it.
    pub tokens_in: u64,
    /// Tokens of answers, with those below it.
    pub tokens_out: u64,
    /// What was said.
    pub messages: Vec<Message>,
}

impl Seen {
    /// What is seen of a run, the first of these, and of those below it; nothing where there is none.
    pub fn of(logs: &[RunLog]) -> Option<Self> {
        let (first, others) = logs.split_first()?;
        let mut seen = Self::alone(&first.run, &first.events);
        for other in others {
            let below = Self::alone(&other.run, &other.events);
            seen.ran.extend(below.ran);
            seen.model_calls += below.model_calls;
            seen.tool_calls += below.tool_calls;
            seen.tokens_in += below.tokens_in;
            seen.tokens_out += below.tokens_out;
        }
        Some(seen)
    }

    fn alone(run: &str, events: &[Stamped]) -> Self {
        let mut state = State::new(run, "", Earlier::default());
        let (mut asked, mut ran) = (Vec::new(), BTreeSet::new());
        let (mut tokens_in, mut tokens_out) = (0, 0);
        for stamped in events {
            state = step(state, stamped).state;
            match &stamped.event {
                Event::Answered { answer, calls, .. } => {
                    tokens_in += answer.tokens_in;
                    tokens_out += answer.tokens_out;
                    asked.extend(calls.iter().map(|call| (call.tool.clone(), call.arguments.clone())));
                }
                Event::Started { call } | Event::Delegated { call, .. } => {
                    ran.extend(state.call(call).map(|call| call.judged.tool.clone()));
                }
                _ => {}
            }
        }
        let messages = state.own_messages();
        let last = messages.iter().rfind(|message| message.role == Role::Assistant);
        let answer = last.map(|message| message.text().into_owned()).unwrap_or_default();
        let waits = state.interrupts().into_iter().filter_map(|interrupt| interrupt.call.map(|(tool, _)| tool));
        Self {
            status: state.status(),
            reason: state.outcome.as_ref().and_then(|outcome| outcome.reason.clone()),
            output: state.outcome.as_ref().and_then(|outcome| outcome.output.clone()),
            waits: waits.collect(),
            model_calls: state.used.model_calls,
            tool_calls: state.used.tool_calls,
            answer,
            asked,
            ran,
            tokens_in,
            tokens_out,
            messages,
        }
    }
}
