//! llama-server's own endpoints (<https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>) as a
//! translation over completions. Knows nothing of slots but their shape.

mod answer;
mod infill;
mod prompt;
mod settings;
mod shapes;

pub use answer::Answering;
pub use infill::{Fim, read_infill};
pub use prompt::Tokens;
pub use settings::Defaults;
pub use shapes::{Props, Slot, apply_template, props, read_tokenize, slots, tokenized};

use super::{completion::error_message, passing::Ignored};
use narthex_http::{ApiError, Fields};
use prompt::Prompt;
use serde_json::{Map, Value, json};

/// A request as `/v1/completions` takes it, and what is needed to answer it.
pub struct Reading {
    /// The fields of our endpoint.
    pub request: Map<String, Value>,
    /// Makes the answer.
    pub answering: Answering,
}

/// Errors in llama-server's form: of an OpenAI error object that is answered with this status.
pub fn error(status: u16, object: &Value) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        501 => "not_supported_error",
        503 => "unavailable_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json!({"error": {"code": status, "message": error_message(object), "type": kind}})
}

/// `POST /completion`. `defaults` are those of the model which answers where none is named.
pub fn read(body: Map<String, Value>, defaults: &Defaults, tokens: &dyn Tokens) -> Result<Reading, ApiError> {
    let mut fields = Fields::new(body, String::new());
    let prompt = fields.take("prompt").ok_or_else(|| fields.missing("prompt"))?;
    let prompts = prompt::read(prompt, tokens)?;
    finish(fields, prompts, defaults, tokens)
}

/// All but the prompt.
fn finish(
    mut fields: Fields,
    prompts: Vec<Prompt>,
    defaults: &Defaults,
    tokens: &dyn Tokens,
) -> Result<Reading, ApiError> {
    let mut ignored = Ignored::default();
    let mut request = Map::new();
    let model = fields.string("model")?.unwrap_or_else(|| defaults.model.clone());
    request.insert("model".into(), model.clone().into());
    request.insert("prompt".into(), prompt::request(&prompts, tokens)?);
    let settings = settings::read(&mut fields, &mut request, defaults, tokens, &mut ignored)?;
    let answering = Answering::new(model, prompts, settings, ignored, tokens)?;
    Ok(Reading { request, answering })
}

#[cfg(test)]
mod tests;
