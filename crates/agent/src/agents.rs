//! Agents as those see them who offer them to others: the terminal, the page, MCP, A2A, OpenAI's API, the Agent
//! Protocol. Every call names a tenant, and a run of another tenant does not exist for it.

use crate::model::Delta;
use futures::{future::BoxFuture, stream::BoxStream};
use narthex_base::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Agents that can be asked.
pub trait Agents: Send + Sync {
    /// Which there are, in the order of the project file.
    fn list(&self) -> Vec<AgentView>;

    /// Starts a run, or goes on with a thread, and returns the run's id once it is on disk. The same `key` of the same
    /// tenant starts nothing anew and returns the id again.
    fn start(&self, ask: Ask) -> BoxFuture<'static, Result<String, AgentError>>;

    /// A run as it is now.
    fn run(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>>;

    /// What a run did after an event of it, and what it does, until it ends or waits for an answer. From 0 on it is
    /// all.
    fn follow(&self, tenant: &str, run: &str, after: u64) -> BoxStream<'static, Result<RunEvent, AgentError>>;

    /// Runs, those first that changed last.
    fn runs(&self, tenant: &str, filter: RunFilter, page: Page)
    -> BoxFuture<'static, Result<Vec<RunView>, AgentError>>;

    /// A run and those below it as spans of OpenTelemetry: an OTLP request as JSON, without spans where nobody makes
    /// any. What was said is in it only `with_content`.
    fn spans(&self, tenant: &str, run: &str, with_content: bool) -> BoxFuture<'static, Result<Value, AgentError>> {
        let _ = (tenant, run, with_content);
        Box::pin(async { Ok(json!({"resourceSpans": []})) })
    }

    /// Answers what a run waits for; it goes on.
    fn answer(
        &self,
        tenant: &str,
        run: &str,
        interrupt: &str,
        answer: Answer,
    ) -> BoxFuture<'static, Result<(), AgentError>>;

    /// Stops a run for good. One that has ended stays as it is: [`AgentError::Ended`].
    fn cancel(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>>;
}

/// What is shown of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// What it is asked for by.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Digest of what it is made of: instructions, model, tools, policy.
    pub version: String,
    /// JSON Schema of its final answer, if that is data.
    pub output: Option<Value>,
    /// Names and descriptions of its tools.
    pub tools: Vec<(String, String)>,
}

/// What an agent is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The agent.
    pub agent: String,
    /// Who asks.
    pub tenant: String,
    /// What is said now; behind what the thread holds already.
    pub messages: Vec<Message>,
    /// The conversation that goes on; a new one without.
    pub thread: Option<String>,
    /// Makes starting it twice the same as once.
    pub key: Option<String>,
    /// Whatever the caller wants to find with the run again.
    pub metadata: Map<String, Value>,
}

/// A run as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: String,
    /// The conversation that it is part of.
    pub thread: String,
    /// Whose it is.
    pub agent: String,
    /// How it stands.
    pub status: RunStatus,
    /// What it waits for.
    pub interrupts: Vec<Interrupt>,
    /// The messages so far, without the instructions.
    pub messages: Vec<Message>,
    /// The final answer as data, if the agent gives one.
    pub output: Option<Value>,
    /// Why it failed or was limited.
    pub reason: Option<String>,
    /// Milliseconds since 1970 when it began and when it last changed.
    pub started_ms: u64,
    /// See `started_ms`.
    pub changed_ms: u64,
    /// The number of its last event.
    pub last_event: u64,
    /// What came with the [`Ask`].
    pub metadata: Map<String, Value>,
}

impl RunView {
    /// Its place in the list of runs: a [`Page`] behind it holds no run twice, whatever has changed meanwhile.
    pub fn cursor(&self) -> String {
        format!("{}@{}", self.id, self.changed_ms)
    }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It works, or would if its process were there.
    Running,
    /// It waits for answers.
    Waiting,
    /// It gave its answer.
    Done,
    /// It could not go on.
    Failed,
    /// It came to one of its limits.
    Limited,
    /// It was cancelled.
    Cancelled,
}

impl RunStatus {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Waiting)
    }
}

/// Something that a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interrupt {
    /// Its id within the run.
    pub id: String,
    /// What is asked of a person.
    pub question: String,
    /// The tool and the exact arguments, where a call waits to be approved.
    pub call: Option<(String, Value)>,
    /// JSON Schema of the answer, where data is asked for.
    pub form: Option<Value>,
    /// Milliseconds since 1970 when it lapses.
    pub expires_ms: u64,
}

/// An answer to what a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// The call may be made as it is.
    Approve {
        /// Who says so.
        by: String,
    },
    /// The call may be made with other arguments.
    Edit {
        /// Who says so.
        by: String,
        /// The arguments instead.
        arguments: Map<String, Value>,
    },
    /// The call is not made; the model reads why.
    Refuse {
        /// Who says so.
        by: String,
        /// Why.
        why: String,
    },
    /// What was asked for.
    Say {
        /// The answer.
        value: Value,
    },
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Counted from 1 within a run, without gaps; 0 for pieces of an answer under way, which are not kept.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub kind: RunEventKind,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEventKind {
    /// It began, or goes on after an answer or a crash.
    Working,
    /// A piece of the model's answer.
    Said {
        /// The piece.
        delta: Delta,
    },
    /// A whole message: the model's, a tool's result, or a person's.
    Message {
        /// The message.
        message: Message,
    },
    /// A tool is called.
    ToolStarted {
        /// The call's id.
        call: String,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: Value,
    },
    /// A tool says how far it is.
    ToolProgress {
        /// The call's id.
        call: String,
        /// How far.
        done: f64,
        /// Of how much.
        of: Option<f64>,
        /// A word for it.
        word: Option<String>,
    },
    /// It waits for an answer.
    Waiting {
        /// To what.
        interrupt: Interrupt,
    },
    /// It ended.
    Ended {
        /// How.
        status: RunStatus,
        /// Why, unless it is done.
        reason: Option<String>,
        /// The final answer as data, if the agent gives one.
        output: Option<Value>,
    },
}

/// Which runs are wanted; all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFilter {
    /// Of this agent.
    pub agent: Option<String>,
    /// Of this conversation.
    pub thread: Option<String>,
    /// That stand so.
    pub status: Option<RunStatus>,
    /// That changed at or after this, in milliseconds since 1970.
    pub changed_since_ms: Option<u64>,
}

/// A part of a long list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Behind the run of this [`RunView::cursor`], where it stood then; or of this id, where it stands now.
    pub after: Option<String>,
    /// So many at most.
    pub size: usize,
}

impl Page {
    /// The run behind which it begins, and when that had changed, if that is known.
    pub fn place(&self) -> Option<(&str, Option<u64>)> {
        let after = self.after.as_deref()?;
        match after.rsplit_once('@').and_then(|(run, at_ms)| Some((run, at_ms.parse().ok()?))) {
            Some((run, at_ms)) => Some((run, Some(at_ms))),
            None => Some((after, None)),
        }
    }
}

/// Why something cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentError {
    /// There is no such agent, run, thread or interrupt, or it is not the caller's.
    Unknown(String),
    /// It has ended already.
    Ended(String),
    /// The request is wrong: what, and how to mend it.
    Input(String),
    /// It is not allowed, or not any more.
    Refused(String),
    /// Too much is under way.
    Busy(String),
    /// Ours: what went wrong.
    Failed(String),
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(what)
            | Self::Ended(what)
            | Self::Input(what)
            | Self::Refused(what)
            | Self::Busy(what)
            | Self::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for AgentError {}
