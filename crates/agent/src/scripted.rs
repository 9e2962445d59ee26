//! A model that answers from a script: for tests, for work on all that stands around a model, and for evaluations.

use crate::model::{Delta, Ended, Model, ModelAnswer, ModelFailure, ModelRequest};
use futures::future::BoxFuture;
use narthex_base::chat::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind};
use serde_json::Value;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// So many requests are kept, the last ones.
const REQUESTS_MAX: usize = 64;

type Script = dyn Fn(&ModelRequest) -> Result<ModelAnswer, ModelFailure> + Send + Sync;

/// A model that plays a script.
pub struct Scripted {
    name: String,
    script: Arc<Script>,
    requests: Arc<Mutex<Vec<ModelRequest>>>,
}

impl Scripted {
    /// Answers each request with what `script` makes of it. After a crash the same request comes again: a script that
    /// looks at nothing else gives the same answer.
    pub fn new(
        name: impl Into<String>,
        script: impl Fn(&ModelRequest) -> Result<ModelAnswer, ModelFailure> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), script: Arc::new(script), requests: Arc::default() }
    }

    /// Gives these answers one after the other, and fails when there are no more.
    pub fn list(name: impl Into<String>, answers: Vec<Result<ModelAnswer, ModelFailure>>) -> Self {
        let next = AtomicUsize::new(0);
        Self::new(name, move |_| {
            let end = ModelFailure { message: "the script has come to its end".into(), passing: false, wait_ms: None };
            answers.get(next.fetch_add(1, Ordering::SeqCst)).cloned().unwrap_or(Err(end))
        })
    }

    /// Gives the answer whose place in the list is the number of answers that the request holds: the same for the same
    /// request.
    pub fn by_turn(name: impl Into<String>, answers: Vec<ModelAnswer>) -> Self {
        Self::new(name, move |request| {
            let said = request.conversation.messages.iter().filter(|message| message.role == Role::Assistant).count();
            let end = ModelFailure { message: "the script has come to its end".into(), passing: false, wait_ms: None };
            answers.get(said).cloned().ok_or(end)
        })
    }

    /// What the script makes of a request.
    ///
    /// # Errors
    /// What the script says.
    pub fn play(&self, request: &ModelRequest) -> Result<ModelAnswer, ModelFailure> {
        (self.script)(request)
    }

    /// The last requests, 64 at most.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Model for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, Result<ModelAnswer, ModelFailure>> {
        let (script, requests) = (self.script.clone(), self.requests.clone());
        Box::pin(async move {
            {
                let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
                if requests.len() == REQUESTS_MAX {
                    requests.remove(0);
                }
                requests.push(request.clone());
            }
            let answer = script(&request)?;
            for word in answer.message.text().split_inclusive(' ') {
                said(Delta::Text(word.to_string()));
            }
            Ok(answer)
        })
    }
}

/// An answer of text.
pub fn say(text: impl Into<String>) -> ModelAnswer {
    let message = Message::new(Role::Assistant, text);
    let tokens_out = message.text().split_whitespace().count() as u64;
    ModelAnswer { message, tokens_in: 10, tokens_out, ended: Ended::Stop }
}

/// An answer that calls tools, each with its arguments.
pub fn call(calls: &[(&str, Value)]) -> ModelAnswer {
    let mut message = Message::new(Role::Assistant, "");
    message.content = MessageContent::Nothing;
    message.tool_calls = calls
        .iter()
        .map(|(name, arguments)| {
            let function = FunctionCall { name: name.to_string(), arguments: arguments.to_string() };
            ToolCall { id: String::new(), kind: ToolKind::Function, function }
        })
        .collect();
    ModelAnswer { message, tokens_in: 10, tokens_out: 5, ended: Ended::Calls }
}

/// A failure that may pass.
pub fn busy(message: impl Into<String>) -> ModelFailure {
    ModelFailure { message: message.into(), passing: true, wait_ms: None }
}
