//! What a server offers: tools, tools that ask back, agents, resources, prompts. Seams only; knows no wire and no
//! transport.

use futures::future::BoxFuture;
use narthex_agent::{Agents, Call, Content, Progress, Tool, ToolDefinition, ToolFailure, ToolResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};

/// What a server offers.
#[derive(Clone, Default)]
pub struct Offer {
    /// Its name, for machines.
    pub name: String,
    /// Its name, for people.
    pub title: Option<String>,
    /// Its version.
    pub version: String,
    /// How to use it, for the model.
    pub instructions: Option<String>,
    /// What can be called.
    pub tools: Vec<Arc<dyn Tool>>,
    /// What can be called and may ask the caller for something before it answers.
    pub dialogues: Vec<Arc<dyn Dialogue>>,
    /// Agents: each is a tool that takes a message.
    pub agents: Option<Arc<dyn Agents>>,
    /// What can be read.
    pub resources: Option<Arc<dyn Resources>>,
    /// Prompts that a person can choose.
    pub prompts: Option<Arc<dyn Prompts>>,
    /// Where changes are told; a clone stays with whoever makes them.
    pub changes: crate::changes::Changes,
}

/// Why a request of a client cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing.
    Unknown(String),
    /// The request is wrong: what, and how to mend it.
    Input(String),
    /// It can only be met for clients that can do something more.
    Needs(Ability),
    /// Ours: what went wrong.
    Failed(String),
}

/// Something that a client can do for a server while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Show a form to a person.
    Form,
    /// Ask a model.
    Sample,
    /// Name the folders that it works in.
    Roots,
}

/// A tool that may ask whoever called it for something before it answers. Its state travels between the turns: in the
/// newest revision the client carries it, sealed, and the next turn may come to another process.
pub trait Dialogue: Send + Sync {
    /// How it is described.
    fn definition(&self) -> &ToolDefinition;

    /// Takes a turn. Dropping the future cancels the call, as far as it can be.
    fn turn(&self, turn: Turn, line: Line) -> BoxFuture<'static, Result<Reply, Refusal>>;
}

/// A turn of a dialogue.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The call; the same in all turns.
    pub call: Call,
    /// What the turn before left; nothing in the first.
    pub state: Option<Value>,
    /// What was answered to the questions of the turn before.
    pub answers: BTreeMap<String, Answered>,
    /// What the client can be asked for.
    pub abilities: Vec<Ability>,
}

/// How a turn ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// With the result.
    Done(ToolResult),
    /// With questions to the client; the next turn comes with the answers.
    Ask {
        /// The questions by name.
        questions: BTreeMap<String, Question>,
        /// What the next turn needs to know. The client can read it; it cannot change it.
        state: Value,
    },
}

/// A question to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Question {
    /// A form for a person. Never for secrets: models and logs may see the answer.
    Form {
        /// What is asked.
        message: String,
        /// JSON Schema of the answer: an object of plain fields.
        schema: Value,
    },
    /// A question to the client's model.
    Sample {
        /// The question.
        text: String,
        /// Tokens of the answer at most.
        tokens_max: u32,
    },
    /// The folders that the client works in.
    Roots,
}

impl Question {
    /// What a client needs for it.
    pub fn needs(&self) -> Ability {
        match self {
            Question::Form { .. } => Ability::Form,
            Question::Sample { .. } => Ability::Sample,
            Question::Roots => Ability::Roots,
        }
    }
}

/// What a client answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// The form, valid for its schema.
    Filled(Map<String, Value>),
    /// The person does not want to.
    Declined,
    /// The person put it away.
    Dismissed,
    /// What the model said.
    Sampled(String),
    /// Addresses of folders.
    Roots(Vec<String>),
}

/// How important a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warning,
    /// What failed.
    Error,
}

/// Told what a call does: how far it is, and notices.
#[derive(Clone)]
pub struct Line {
    /// How far it is.
    pub progress: Progress,
    /// A notice for the client's log, which gets it if it wants such notices.
    pub notice: Arc<dyn Fn(Level, Value) + Send + Sync>,
}

/// A resource as a list shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceView {
    /// Its address; of a template, with its variables in braces.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Its bytes, if that is known.
    pub bytes: Option<u64>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// What the next page is asked by; nothing on the last.
    pub next: Option<String>,
}

/// Things that can be read. Every call names the tenant, and what is another's does not exist for it.
pub trait Resources: Send + Sync {
    /// A page of what there is, behind the page that gave `cursor`.
    fn list(
        &self,
        tenant: &str,
        cursor: Option<String>,
        size: usize,
    ) -> BoxFuture<'static, Result<Listed<ResourceView>, Refusal>>;

    /// Patterns of addresses (RFC 6570) that can be read though no list names them.
    fn templates(&self) -> Vec<ResourceView>;

    /// What is at an address: [`Content::Resource`], one or more.
    fn read(&self, tenant: &str, uri: &str) -> BoxFuture<'static, Result<Vec<Content>, Refusal>>;

    /// What a variable of a template could be, given how it begins.
    fn complete(&self, _template: &str, _variable: &str, _beginning: &str) -> Vec<String> {
        vec![]
    }
}

/// A prompt as a list shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptView {
    /// What it is asked for by.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its variables: name, description, and whether it must be given.
    pub variables: Vec<(String, Option<String>, bool)>,
}

/// How a prompt is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptAsk {
    /// Its name.
    pub name: String,
    /// Whose client asks.
    pub tenant: String,
    /// Its variables.
    pub variables: Map<String, Value>,
    /// What was answered to its questions.
    pub answers: BTreeMap<String, Answered>,
}

/// A prompt with its variables filled in, or what it still needs.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptReply {
    /// The messages: whether the assistant speaks, and what.
    Messages {
        /// What it is.
        description: Option<String>,
        /// The messages.
        messages: Vec<(bool, Content)>,
    },
    /// Questions to the client, which asks again with the answers. Only clients of the newest revision can.
    Ask(BTreeMap<String, Question>),
}

/// Prompts that a person can choose.
pub trait Prompts: Send + Sync {
    /// Which there are, in a fixed order.
    fn list(&self) -> Vec<PromptView>;

    /// One, filled in.
    fn get(&self, ask: PromptAsk) -> BoxFuture<'static, Result<PromptReply, Refusal>>;

    /// What a variable could be, given how it begins.
    fn complete(&self, _prompt: &str, _variable: &str, _beginning: &str) -> Vec<String> {
        vec![]
    }
}

impl From<ToolFailure> for Refusal {
    fn from(failure: ToolFailure) -> Self {
        Refusal::Failed(failure.message)
    }
}
