//! The seam between the loop and whoever answers: our engine in this process, an OpenAI-compatible endpoint, a script.

use futures::future::BoxFuture;
use narthex_base::chat::{Conversation, Message};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The messages, and the tools in OpenAI's form.
    pub conversation: Conversation,
    /// How it should answer.
    pub wish: Wish,
}

/// How a model should answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// A JSON Schema that the answer's text must be valid for.
    pub form: Option<Value>,
    /// Tokens at most.
    pub tokens_max: Option<usize>,
    /// 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Of the random choices.
    pub seed: Option<u64>,
    /// Whether it must call one of the tools.
    pub must_call: bool,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelAnswer {
    /// A message of the assistant, with its calls.
    pub message: Message,
    /// Tokens of the prompt.
    pub tokens_in: u64,
    /// Tokens that were made.
    pub tokens_out: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself.
    Stop,
    /// By calling tools.
    Calls,
    /// By the limit of tokens: calls may be cut short.
    Length,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFailure {
    /// What is wrong, for a person.
    pub message: String,
    /// Whether it may go well a little later: overload, a lost connection, a timeout.
    pub passing: bool,
    /// Milliseconds that whoever refused asks to wait.
    pub wait_ms: Option<u64>,
}

/// A piece of an answer under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// Of what is said.
    Text(String),
    /// Of what is thought.
    Thought(String),
}

/// Something that answers.
pub trait Model: Send + Sync {
    /// Its name, as traces show it.
    fn name(&self) -> &str;

    /// Answers, and tells pieces of the text as they come. Dropping the future cancels the request.
    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, Result<ModelAnswer, ModelFailure>>;
}
