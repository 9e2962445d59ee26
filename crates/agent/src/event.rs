//! What happens to a run, as it is kept: each event is on disk before anything follows from it, and a run is nothing
//! but its events. Knows no store and no clock: times come with the events.

use crate::{
    agents::Interrupt,
    definition::AgentDefinition,
    model::{ModelAnswer, ModelFailure},
    policy::PolicyRules,
    tool::{Effect, ToolResult},
};
use narthex_base::{
    Digest,
    chat::{Message, MessageContent},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run was asked for. Always the first.
    Created(Box<Created>),
    /// A model is about to be asked.
    Asked {
        /// What for.
        purpose: Purpose,
        /// Which.
        model: String,
    },
    /// It answered.
    Answered {
        /// What it said; its calls have ids that are unique in the run.
        answer: Box<ModelAnswer>,
        /// Its calls, judged.
        calls: Vec<JudgedCall>,
        /// The answer as data, or why it is none; where data is wanted and nothing is called.
        output: Option<Checked>,
    },
    /// It did not answer.
    NotAnswered {
        /// Why.
        failure: ModelFailure,
        /// Milliseconds to wait before a model is asked again.
        wait_ms: u64,
    },
    /// A person decided about a call.
    Decided {
        /// The call.
        call: String,
        /// What exactly was decided about.
        binding: Digest,
        /// What was decided.
        decision: Decision,
    },
    /// Nobody decided in time.
    Lapsed {
        /// About this call.
        call: String,
    },
    /// The tool is not the one any more that the call was judged by.
    Rejudged {
        /// The call, judged anew.
        call: JudgedCall,
    },
    /// A tool is about to be called.
    Started {
        /// The call.
        call: String,
    },
    /// Another agent is about to be asked.
    Delegated {
        /// The call.
        call: String,
        /// The run of the other agent.
        child: String,
    },
    /// Another agent waits for answers, or does not any more.
    ChildWaits {
        /// The call.
        call: String,
        /// What it waits for; nothing if it works.
        interrupts: Vec<Interrupt>,
    },
    /// A call gave a result.
    Done {
        /// The call.
        call: String,
        /// Its result.
        result: ToolResult,
    },
    /// A process took the run up where another left it in the middle of something.
    Resumed,
    /// Time has passed, and the limit of work is reached.
    TimeUp,
    /// Somebody stopped it.
    Cancelled,
    /// What stands before was copied from another run. No approval comes with it.
    Forked {
        /// The other run.
        from: String,
        /// The conversation that it begins.
        thread: String,
        /// The last event that was taken over.
        at: u64,
        /// A message that is changed; what follows it in the run is dropped.
        edit: Option<Edit>,
    },
}

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// The agent's name.
    pub agent: String,
    /// What the agent was when the run began; later changes do not concern it.
    pub definition: AgentDefinition,
    /// The policies of the agents above it: a call must please all of them.
    pub guards: Vec<PolicyRules>,
    /// The conversation.
    pub thread: String,
    /// The run before it in the conversation.
    pub follows: Option<String>,
    /// The call of another run that asks for it.
    pub parent: Option<Parent>,
    /// What is said.
    pub messages: Vec<Message>,
    /// Whatever the caller wants to find with the run again.
    pub metadata: Map<String, Value>,
}

/// The call that a run is made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: String,
    /// The call in it.
    pub call: String,
}

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To go on.
    Answer,
    /// To put its answer into the form that is wanted.
    Form,
    /// To sum up the messages before this one, counted from the first that the run can see.
    Summary {
        /// The first message that is not summed up.
        until: usize,
    },
}

/// A call that a model asks for, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedCall {
    /// Unique in the run; the result names it.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// The arguments; empty where they could not be read.
    pub arguments: Map<String, Value>,
    /// What it does to the world.
    pub effect: Effect,
    /// The tool as it was described when this was judged.
    pub digest: Digest,
    /// The agent behind it, if it is one.
    pub delegate: Option<String>,
    /// What is to be done.
    pub verdict: Verdict,
}

/// What is to be done with a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is made.
    Allow,
    /// A person is asked.
    Ask,
    /// It is not made: the policy says so.
    Deny {
        /// Why, for the model.
        why: String,
    },
    /// It cannot be made: there is no such tool, or the arguments are wrong.
    Wrong {
        /// Why, for the model.
        why: String,
    },
}

/// What a person decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Decision {
    /// The call may be made.
    Approve {
        /// Who says so.
        by: String,
    },
    /// It may be made with other arguments.
    Edit {
        /// Who says so.
        by: String,
        /// The call as it may be made.
        call: Box<JudgedCall>,
    },
    /// It is not made.
    Refuse {
        /// Who says so.
        by: String,
        /// Why.
        why: String,
    },
    /// Of a call of which nobody knows whether it was made: what came of it.
    Given {
        /// The result.
        text: String,
    },
}

/// An answer as data, or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// It is valid.
    Valid(Value),
    /// It is not: why.
    Wrong(String),
}

/// A message that is changed in a fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// Which, counted from 0 within the run's own messages.
    pub message: usize,
    /// What it says instead.
    pub content: MessageContent,
}
