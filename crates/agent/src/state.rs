//! A run as data: what its events have made of it. Pure: asks no clock, does nothing, and can be built in a test by
//! hand.

use crate::{
    agents::{Interrupt, RunStatus},
    canonical::canonical_digest,
    definition::AgentDefinition,
    event::{Created, JudgedCall, Purpose, Verdict},
};
use narthex_base::{Digest, chat::Message};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// When a question lapses that must not lapse by itself: the end of the year 9999, in milliseconds since 1970.
const NEVER_MS: u64 = 253_402_300_799_000;

/// Hexadecimal digits of a question's name: 128 bits of its binding.
const QUESTION_ID_DIGITS: usize = 32;

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its id.
    pub run: String,
    /// Whose it is.
    pub tenant: String,
    /// How it began.
    pub created: Arc<Created>,
    /// What the conversation held before it.
    pub earlier: Arc<Vec<Message>>,
    /// Its own messages.
    pub messages: Vec<Message>,
    /// What stands for messages that the model does not see any more.
    pub summary: Option<Summary>,
    /// Counts the answers that called tools.
    pub turn: u32,
    /// How it stands with the model.
    pub asking: Asking,
    /// How it stands with the form of the answer, where that is asked for by itself.
    pub form: Option<Form>,
    /// The calls of the last answer, until all have results.
    pub calls: Vec<CallState>,
    /// Questions that are answered or have lapsed: none is answered twice.
    pub settled: Vec<String>,
    /// What it has used of its limits.
    pub used: Used,
    /// What the model notes as to be done.
    pub todo: Vec<Value>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How many events it has.
    pub events: u64,
    /// How many of them others were told of, counted as they are told.
    pub told: u64,
    /// Milliseconds since 1970 of its first event.
    pub started_ms: u64,
    /// Of its last.
    pub changed_ms: u64,
}

/// What stands for older messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The first message that it does not cover, counted over the whole conversation.
    pub until: usize,
    /// What they said.
    pub text: String,
}

/// How a run stands with the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// Which of the definition's models is asked.
    pub model: usize,
    /// How often it did not answer.
    pub failures: u32,
    /// Not before this, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// What it is being asked for.
    pub under_way: Option<Purpose>,
}

/// How it stands with the form of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Answers that were not valid.
    pub failures: u32,
    /// What was wrong with the last.
    pub complaint: String,
}

/// What a run has used of its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Requests to models.
    pub model_calls: u32,
    /// Calls that were asked for.
    pub tool_calls: u32,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Milliseconds of work.
    pub worked_ms: u64,
    /// Money, in the unit of the prices.
    pub money: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How.
    pub status: RunStatus,
    /// Why, unless it is done.
    pub reason: Option<String>,
    /// The answer as data.
    pub output: Option<Value>,
}

/// A call of the last answer.
#[derive(Clone, Debug, PartialEq)]
pub struct CallState {
    /// The call as it was judged last.
    pub judged: JudgedCall,
    /// How often a person was asked about it: each question is another one.
    pub questions: u32,
    /// How far it is.
    pub phase: Phase,
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// A person is asked.
    Asking {
        /// Milliseconds since 1970 when the question lapses.
        expires_ms: u64,
    },
    /// It may start, if it needs no approval or has it.
    Ready {
        /// Who approved it.
        approved: Option<Approval>,
    },
    /// It was started.
    Started {
        /// Who approved it.
        approved: Option<Approval>,
    },
    /// Another agent works on it.
    Delegated {
        /// Its run.
        child: String,
        /// What that waits for.
        interrupts: Vec<Interrupt>,
    },
    /// It was started, and nobody knows what came of it.
    Unknown,
    /// It has its result.
    Closed(Box<Message>),
}

/// Somebody's word that a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// What exactly was approved.
    pub binding: Digest,
    /// Who.
    pub by: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl State {
    /// A run before its first event.
    pub fn new(run: impl Into<String>, tenant: impl Into<String>, earlier: Earlier) -> Self {
        let created = Created {
            agent: String::new(),
            definition: AgentDefinition::new(""),
            guards: vec![],
            thread: String::new(),
            follows: None,
            parent: None,
            messages: vec![],
            metadata: Map::new(),
        };
        Self {
            run: run.into(),
            tenant: tenant.into(),
            created: Arc::new(created),
            earlier: earlier.messages,
            messages: vec![],
            summary: earlier.summary,
            turn: 0,
            asking: Asking::default(),
            form: None,
            calls: vec![],
            settled: vec![],
            used: Used::default(),
            todo: vec![],
            outcome: None,
            events: 0,
            told: 0,
            started_ms: 0,
            changed_ms: 0,
        }
    }

    /// What its agent is.
    pub fn definition(&self) -> &AgentDefinition {
        &self.created.definition
    }

    /// How it stands.
    pub fn status(&self) -> RunStatus {
        if let Some(outcome) = &self.outcome {
            return outcome.status;
        }
        let waits = |call: &CallState| match &call.phase {
            Phase::Asking { .. } | Phase::Unknown => true,
            Phase::Delegated { interrupts, .. } => !interrupts.is_empty(),
            Phase::Ready { .. } | Phase::Started { .. } | Phase::Closed(_) => false,
        };
        let works = |call: &CallState| !matches!(call.phase, Phase::Closed(_)) && !waits(call);
        if self.calls.iter().any(waits) && !self.calls.iter().any(works) {
            RunStatus::Waiting
        } else {
            RunStatus::Running
        }
    }

    /// A call of the last answer.
    pub fn call(&self, id: &str) -> Option<&CallState> {
        self.calls.iter().find(|call| call.judged.id == id)
    }

    /// What an approval of a call is bound to: the run, the turn, the call, the tool as it is described, the arguments
    /// and the question.
    pub fn binding(&self, call: &CallState) -> Digest {
        let JudgedCall { id, tool, arguments, digest, .. } = &call.judged;
        canonical_digest(&json!([self.run, self.turn, id, tool, digest, arguments, call.questions]))
    }

    /// The name of the question about a call.
    pub fn question_id(&self, call: &CallState) -> String {
        self.binding(call).to_string()[..QUESTION_ID_DIGITS].to_string()
    }

    /// Whether nothing stands in the way of starting a call.
    pub fn may_start(&self, call: &CallState) -> bool {
        match &call.phase {
            Phase::Ready { approved: Some(approval) } => approval.binding == self.binding(call),
            Phase::Ready { approved: None } => call.judged.verdict == Verdict::Allow,
            _ => false,
        }
    }

    /// What it waits for.
    pub fn interrupts(&self) -> Vec<Interrupt> {
        if self.outcome.is_some() {
            return vec![];
        }
        self.calls.iter().flat_map(|call| self.interrupts_of(call)).collect()
    }

    /// What a call waits for.
    pub fn interrupts_of(&self, call: &CallState) -> Vec<Interrupt> {
        let tool = &call.judged.tool;
        let id = || self.question_id(call);
        let asked = || Some((tool.clone(), Value::Object(call.judged.arguments.clone())));
        match &call.phase {
            Phase::Asking { expires_ms } => vec![Interrupt {
                id: id(),
                question: format!("may `{tool}` be called with these arguments?"),
                call: asked(),
                form: None,
                expires_ms: *expires_ms,
            }],
            Phase::Unknown => vec![Interrupt {
                id: id(),
                question: format!(
                    "`{tool}` was started, and the process ended before its result came: look whether it took effect, \
                     then approve to call it again, give its result, or refuse to go on without one"
                ),
                call: asked(),
                form: Some(given_form()),
                expires_ms: NEVER_MS,
            }],
            Phase::Delegated { child, interrupts } => interrupts
                .iter()
                .map(|inner| Interrupt { id: format!("{child}/{}", inner.id), ..inner.clone() })
                .collect(),
            Phase::Ready { .. } | Phase::Started { .. } | Phase::Closed(_) => vec![],
        }
    }

    /// The first question that has lapsed: its call.
    pub fn lapsed(&self, now_ms: u64) -> Option<&str> {
        let lapsed = |call: &&CallState| matches!(call.phase, Phase::Asking { expires_ms } if expires_ms <= now_ms);
        if self.outcome.is_some() { None } else { self.calls.iter().find(lapsed).map(|call| call.judged.id.as_str()) }
    }

    /// Milliseconds since 1970 when somebody must look after it though no answer comes; 0 if it works.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let expiry = |call: &CallState| match call.phase {
            Phase::Asking { expires_ms } => Some(expires_ms),
            _ => None,
        };
        match self.status() {
            RunStatus::Running => Some(0),
            RunStatus::Waiting => Some(self.calls.iter().filter_map(expiry).min().unwrap_or(NEVER_MS)),
            _ => None,
        }
    }

    /// Its own messages, with the results of calls whose turn is not over.
    pub fn own_messages(&self) -> Vec<Message> {
        let closed = self.calls.iter().filter_map(|call| match &call.phase {
            Phase::Closed(message) => Some((**message).clone()),
            _ => None,
        });
        self.messages.iter().cloned().chain(closed).collect()
    }

    /// What a run behind it in the conversation starts with.
    pub fn handed_on(&self) -> Earlier {
        let messages = self.earlier.iter().cloned().chain(self.own_messages()).collect();
        Earlier { messages: Arc::new(messages), summary: self.summary.clone() }
    }
}

/// What a conversation held before a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Earlier {
    /// All messages.
    pub messages: Arc<Vec<Message>>,
    /// What stands for the oldest of them.
    pub summary: Option<Summary>,
}

/// The form in which a person gives the result of a call of which nobody knows what came of it.
pub(crate) fn given_form() -> Value {
    json!({"type": "object", "properties": {"result": {"type": "string", "description": "what came of the call"}},
        "required": ["result"], "additionalProperties": false})
}
