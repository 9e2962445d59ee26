//! Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`
//! (<https://docs.anthropic.com/en/api/messages>) as a translation over chat completions.

mod answer;
mod error;
mod messages;
mod settings;

pub use answer::Answering;
pub use error::error;

use super::passing::{Ignored, Target, pass};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// Reads a request for a message; `id` is the answer's, `msg_…`.
pub fn read(body: Map<String, Value>, id: String) -> Result<(Map<String, Value>, Answering), ApiError> {
    let mut fields = Fields::new(body, String::new());
    let mut ignored = Ignored::default();
    let mut request = Map::new();
    let model = read_model(&mut fields, &mut request)?;
    let max_tokens = fields.integer("max_tokens", 1..=i64::MAX)?.ok_or_else(|| fields.missing("max_tokens"))?;
    request.insert("max_tokens".into(), max_tokens.into());
    let stream = fields.flag("stream")?.unwrap_or(false);
    if stream {
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({"include_usage": true}));
    }
    let shown = read_prompt(&mut fields, &mut request, &mut ignored)?;
    settings::read_stops(&mut fields, &mut request)?;
    refuse_unsupported(&mut fields)?;
    pass(&mut fields, Target::Chat, &mut request, &mut ignored);
    Ok((request, Answering::new(id, model, stream, shown, ignored)))
}

/// Reads a request to count tokens: what the conversion gives is rendered and counted by the caller, whose answer is
/// that of [`counted`].
pub fn read_count(body: Map<String, Value>) -> Result<(Map<String, Value>, Ignored), ApiError> {
    let mut fields = Fields::new(body, String::new());
    let mut ignored = Ignored::default();
    let mut request = Map::new();
    read_model(&mut fields, &mut request)?;
    read_prompt(&mut fields, &mut request, &mut ignored)?;
    // Clients send the request that they are about to make.
    for field in ["max_tokens", "stream", "stop_sequences", "temperature", "top_p", "top_k"] {
        fields.take(field);
    }
    refuse_unsupported(&mut fields)?;
    pass(&mut fields, Target::Chat, &mut request, &mut ignored);
    Ok((request, ignored))
}

/// The answer to a request to count.
pub fn counted(tokens: usize) -> Value {
    json!({"input_tokens": tokens})
}

fn read_model(fields: &mut Fields, request: &mut Map<String, Value>) -> Result<String, ApiError> {
    let model = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
    request.insert("model".into(), model.clone().into());
    Ok(model)
}

/// All that the prompt is made of. Returns whether thoughts are shown.
fn read_prompt(fields: &mut Fields, request: &mut Map<String, Value>, ignored: &mut Ignored) -> Result<bool, ApiError> {
    if let Some(kwargs) = fields.take("chat_template_kwargs") {
        request.insert("chat_template_kwargs".into(), kwargs);
    }
    let shown = settings::read_thinking(fields, request, ignored)?;
    messages::read(fields, request, ignored)?;
    settings::read_tools(fields, request, ignored)?;
    settings::read_output(fields, request, ignored)?;
    fields.take("cache_control"); // What is here is kept in the cache anyway.
    Ok(shown)
}

/// What would change the answer if we could honour it.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    fields.unsupported("mcp_servers", &[])?;
    fields.unsupported("container", &[])
}

#[cfg(test)]
mod tests;
