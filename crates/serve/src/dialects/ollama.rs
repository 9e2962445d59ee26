//! Ollama's API (<https://github.com/ollama/ollama/blob/main/docs/api.md>) as a translation over chat completions and,
//! for raw prompts, completions. Knows nothing of how models are stored.

mod answer;
mod embed;
mod messages;
mod models;
mod options;

pub use answer::Answering;
pub use embed::{read_embed, read_embeddings};
pub use models::{Capability, Model, Running, ps, show, tags, version};

use super::{
    completion::error_message,
    passing::{Ignored, Target, pass},
};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Route {
    /// An answer of `/v1/chat/completions`.
    Chat,
    /// An answer of `/v1/completions`.
    Completions,
    /// Nothing but that the model be there: answered by [`Answering::idle`].
    Load,
    /// The same for a model that may go.
    Unload,
}

/// A request as our endpoint takes it, and what is needed to answer it.
pub struct Reading {
    /// Where it goes.
    pub route: Route,
    /// The fields of that endpoint.
    pub request: Map<String, Value>,
    /// Makes the answer.
    pub answering: Answering,
}

/// The two endpoints have different answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Chat,
    Generate,
}

/// Errors in Ollama's form: of an OpenAI error object.
pub fn error(object: &Value) -> Value {
    json!({"error": error_message(object)})
}

/// A model's name without the tag that Ollama's clients add to names without one.
pub fn plain_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// `/api/show`: the model that is asked for.
pub fn read_show(body: Map<String, Value>) -> Result<String, ApiError> {
    let mut fields = Fields::new(body, String::new());
    let older = fields.string("name")?;
    let name = fields.string("model")?.or(older).ok_or_else(|| fields.missing("model"))?;
    Ok(plain_name(&name).into())
}

/// `/api/chat`.
pub fn read_chat(body: Map<String, Value>) -> Result<Reading, ApiError> {
    let mut fields = Fields::new(body, String::new());
    let mut ignored = Ignored::default();
    let (mut request, model) = read_model(&mut fields)?;
    let messages = messages::read(&mut fields, &mut ignored)?;
    let route = if messages.is_empty() { idle(&mut fields) } else { Route::Chat };
    request.insert("messages".into(), messages.into());
    messages::read_tools(&mut fields, &mut request, &mut ignored)?;
    finish(fields, request, model, route, Form::Chat, ignored)
}

/// `/api/generate`.
pub fn read_generate(body: Map<String, Value>) -> Result<Reading, ApiError> {
    let mut fields = Fields::new(body, String::new());
    let ignored = Ignored::default();
    let (mut request, model) = read_model(&mut fields)?;
    for field in ["suffix", "template"] {
        fields.unsupported(field, &[json!("")])?;
    }
    for field in ["images", "context"] {
        fields.unsupported(field, &[])?;
    }
    let prompt = fields.string("prompt")?.unwrap_or_default();
    let system = fields.string("system")?.filter(|system| !system.is_empty());
    let raw = fields.flag("raw")?.unwrap_or(false);
    let route = match (prompt.is_empty(), raw) {
        (true, _) => idle(&mut fields),
        (false, true) => Route::Completions,
        (false, false) => Route::Chat,
    };
    if raw && system.is_some() {
        return Err(ApiError::field("system", "`system` needs a template, so that `raw` must be false"));
    }
    if route == Route::Completions {
        request.insert("prompt".into(), prompt.into());
    } else {
        let system = system.map(|system| json!({"role": "system", "content": system}));
        let messages: Vec<Value> = system.into_iter().chain([json!({"role": "user", "content": prompt})]).collect();
        request.insert("messages".into(), messages.into());
    }
    finish(fields, request, model, route, Form::Generate, ignored)
}

fn read_model(fields: &mut Fields) -> Result<(Map<String, Value>, String), ApiError> {
    let model = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
    let mut request = Map::new();
    request.insert("model".into(), plain_name(&model).into());
    Ok((request, model))
}

/// Without anything to answer, clients ask for a model to be loaded, or to be let go.
fn idle(fields: &mut Fields) -> Route {
    let goes = match fields.take("keep_alive") {
        Some(Value::Number(seconds)) => seconds.as_f64() == Some(0.0),
        // `0`, `0s`, `0m`.
        Some(Value::String(text)) => text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()) == "0",
        _ => false,
    };
    if goes { Route::Unload } else { Route::Load }
}

/// What both endpoints share.
fn finish(
    mut fields: Fields,
    mut request: Map<String, Value>,
    model: String,
    route: Route,
    form: Form,
    mut ignored: Ignored,
) -> Result<Reading, ApiError> {
    let target = if route == Route::Completions { Target::Completions } else { Target::Chat };
    let stream = fields.flag("stream")?.unwrap_or(true);
    if stream {
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({"include_usage": true}));
    }
    if let Some(kwargs) = fields.take("chat_template_kwargs") {
        request.insert("chat_template_kwargs".into(), kwargs);
    }
    options::read(&mut fields, target, &mut request, &mut ignored)?;
    options::read_format(&mut fields, target, &mut request)?;
    options::read_think(&mut fields, target, &mut request, &mut ignored)?;
    options::read_logprobs(&mut fields, target, &mut request)?;
    fields.unsupported("_debug_render_only", &[json!(false)])?;
    pass(&mut fields, target, &mut request, &mut ignored);
    let answering = Answering::new(model, form, route, stream, ignored);
    Ok(Reading { route, request, answering })
}

#[cfg(test)]
mod tests;
