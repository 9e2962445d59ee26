//! A request of chat as what an agent is asked. Knows no run.

use crate::{
    pending::{self, ANSWERS_MAX},
    said,
};
use narthex_agent::Answer;
use narthex_base::chat::{Message, Role};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// What is wanted.
#[derive(Debug, PartialEq)]
pub(super) struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    pub stream: bool,
    pub metadata: Map<String, Value>,
    /// The conversation that goes on, if the client names one.
    pub thread: Option<String>,
    /// The run that goes on, with answers to what it waits for.
    pub run: Option<(String, Vec<(String, Answer)>)>,
}

/// Tools and forms are the agent's own.
const NOT_TAKEN: [&str; 6] = ["tools", "functions", "tool_choice", "function_call", "audio", "modalities"];

impl ChatRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// If a field is wrong, or asks for what agents do not do.
    pub fn read(mut fields: Fields, approver: impl Fn(Option<String>) -> String) -> Result<Self, ApiError> {
        let Some(model) = fields.string("model")? else { return Err(fields.missing("model")) };
        let stream = fields.flag("stream")?.unwrap_or(false);
        // Tokens are not told, so that there is nothing to include.
        fields.take("stream_options");
        for field in NOT_TAKEN {
            let neutral = [json!("none"), json!("auto"), json!(["text"])];
            fields.unsupported(field, &neutral).map_err(|_| own(field))?;
        }
        let plain = [json!({"type": "text"})];
        fields.unsupported("response_format", &plain).map_err(|_| own("response_format"))?;
        fields.unsupported("n", &[json!(1)])?;
        let metadata = said::metadata(fields.take("metadata"), "metadata")?;
        let ours = fields.object("narthex")?;
        let messages = fields.take("messages");
        fields.finish()?;
        let (mut thread, mut run) = (None, None);
        if let Some(mut ours) = ours {
            thread = ours.string("thread")?;
            if let Some(id) = ours.string("run")? {
                run = Some((id, answers(ours.take("answers"), &approver)?));
            }
            ours.finish()?;
        }
        let mut messages = match messages {
            Some(messages) => said::messages(messages, "messages")?,
            None if run.is_some() => vec![],
            None => return Err(ApiError::field("messages", "the field `messages` is missing")),
        };
        if thread.is_some() {
            // The conversation is kept: what the client has sent back of it is known already.
            let last = messages.iter().rposition(|message| message.role == Role::Assistant);
            messages.drain(..last.map_or(0, |last| last + 1));
        }
        Ok(Self { model, messages, stream, metadata, thread, run })
    }
}

/// Why a field is not taken.
fn own(field: &str) -> ApiError {
    let what = "an agent has tools and a form of answers of its own";
    ApiError::field(field, format!("`{field}` cannot be chosen by a request: {what}; leave it out"))
        .code("unsupported_parameter")
}

fn answers(
    value: Option<Value>,
    approver: &impl Fn(Option<String>) -> String,
) -> Result<Vec<(String, Answer)>, ApiError> {
    const NAME: &str = "narthex.answers";
    match value {
        None => Ok(vec![]),
        Some(Value::Array(list)) if list.len() <= ANSWERS_MAX => {
            let read = |(index, value)| match value {
                Value::Object(map) => pending::answer(Fields::new(map, format!("{NAME}[{index}].")), approver),
                _ => Err(ApiError::field(NAME, format!("`{NAME}[{index}]` must be an object"))),
            };
            list.into_iter().enumerate().map(read).collect()
        }
        Some(_) => Err(ApiError::field(NAME, format!("`{NAME}` must be a list of at most {ANSWERS_MAX} answers"))),
    }
}
