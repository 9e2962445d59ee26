//! `POST /v1/chat/completions` (<https://platform.openai.com/docs/api-reference/chat>).

use super::{
    ability,
    generating::{self, Operation},
    head::Head,
    logprobs::ChatLogprobs,
    parameters::Parameters,
    refusal::unanswered,
    usage::Usage,
};
use crate::{Ability, Limits, Served, app::App};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use narthex_answer::{AnswerError, Generation, Piece, Scored, Whole};
use narthex_base::{Message, Role};
use narthex_http::{ApiError, Events, Exchange, Fields, JsonBody, event_stream};
use narthex_infer::Request;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A request that has been read and understood.
struct Call {
    parameters: Parameters,
    requests: Vec<Request>,
    prompt_tokens: usize,
}

#[derive(Serialize)]
struct Completion {
    #[serde(flatten)]
    head: Head,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct AnswerMessage {
    role: &'static str,
    content: String,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<ChunkChoice>,
    /// Absent unless asked for; then `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<App>,
    Extension(exchange): Extension<Arc<Exchange>>,
    JsonBody(fields): JsonBody,
) -> Result<Response, ApiError> {
    let (model, limits) = (app.model.clone(), app.shared.limits.clone());
    // Long conversations take a while to tokenize; other answers go on meanwhile.
    let call = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
    let call = call.map_err(|error| ApiError::internal(error.to_string()))??;
    let (parameters, prompt_tokens) = (call.parameters, call.prompt_tokens);
    let object = if parameters.stream { "chat.completion.chunk" } else { "chat.completion" };
    let head = Head::new("chatcmpl", object, &app.model, &parameters.model);
    let mut generation = generating::start(&app, exchange, Operation::Chat, &head, &parameters, call.requests)?;
    if parameters.stream {
        return Ok(event_stream(|events| stream(app, head, generation, parameters, prompt_tokens, events)));
    }
    let wholes = generation.wholes().await.map_err(|error| unanswered(error, &app.model.id, "messages"))?;
    let choices = wholes.into_iter().enumerate().map(|(index, whole)| choice(&app.model, index, whole, &parameters));
    let usage = Usage::new(prompt_tokens, generation.completion_tokens());
    Ok(Json(Completion { head, choices: choices.collect(), usage }).into_response())
}

fn choice(model: &Served, index: usize, whole: Whole, parameters: &Parameters) -> Choice {
    Choice {
        index,
        message: AnswerMessage { role: "assistant", content: whole.text, refusal: None },
        logprobs: parameters.logprobs.map(|_| logprobs(model, &whole.scored)),
        finish_reason: whole.reason.as_str(),
    }
}

fn logprobs(model: &Served, scored: &[Scored]) -> ChatLogprobs {
    ChatLogprobs::new(model.ability.tokenizer(), scored.iter().map(|scored| (scored.id, &scored.logprobs)))
}

async fn stream(
    app: App,
    head: Head,
    mut generation: Generation,
    parameters: Parameters,
    prompt_tokens: usize,
    events: Events,
) -> Result<(), ApiError> {
    let usage = parameters.include_usage.then_some(None);
    let chunk = |index, delta, logprobs, finish_reason| Chunk {
        head: &head,
        choices: vec![ChunkChoice { index, delta, logprobs, finish_reason }],
        usage,
    };
    for index in 0..parameters.n {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        events.send(&chunk(index, delta, None, None)).await?;
    }
    let broken = |error| unanswered(error, &app.model.id, "messages");
    while let Some((index, piece)) = generation.next().await.map_err(broken)? {
        match piece {
            Piece::Prompt(_) => {}
            Piece::Text(text, scored) => {
                let logprobs = parameters.logprobs.map(|_| logprobs(&app.model, &scored));
                let delta = Delta { role: None, content: Some(text) };
                events.send(&chunk(index, delta, logprobs, None)).await?;
            }
            Piece::End(reason) => events.send(&chunk(index, Delta::default(), None, Some(reason.as_str()))).await?,
        }
    }
    if parameters.include_usage {
        let usage = Some(Some(Usage::new(prompt_tokens, generation.completion_tokens())));
        events.send(&Chunk { head: &head, choices: vec![], usage }).await?;
    }
    Ok(())
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Call, ApiError> {
    let mut parameters = Parameters::read(&mut fields, model, limits)?;
    parameters.logprobs = read_logprobs(&mut fields, limits)?;
    let max_tokens = read_max_tokens(&mut fields)?;
    let messages = read_messages(&mut fields, limits)?;
    refuse_unsupported(&mut fields)?;
    fields.finish()?;

    let text = ability::text(model)?;
    let prompt = text.model.chat_prompt(&messages).map_err(|error| unanswered(error, &model.id, "messages"))?;
    let (prompt_tokens, context) = (prompt.len(), text.model.engine.context());
    let room = context - prompt_tokens;
    let request = parameters.request(&text.model, prompt, max_tokens.map_or(room, |tokens| tokens.min(room)));
    let requests = parameters.requests(0, &request);
    Ok(Call { parameters, requests, prompt_tokens })
}

/// The text of a conversation, ready for the answer if asked.
pub(super) fn render(model: &Served, messages: &[Message], answer_next: bool) -> Result<String, ApiError> {
    let text = match &model.ability {
        Ability::Text(text) => text.model.render(messages, answer_next),
        _ => Err(AnswerError::NoTemplate),
    };
    text.map_err(|error| unanswered(error, &model.id, "messages"))
}

fn read_logprobs(fields: &mut Fields, limits: &Limits) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    match (fields.integer("top_logprobs", 0..=limits.logprobs_max as i64)?, wanted) {
        (Some(_), false) => Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs` to be true")),
        (top, true) => Ok(Some(top.unwrap_or(0) as usize)),
        (None, false) => Ok(None),
    }
}

fn read_max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.integer("max_tokens", 1..=i64::MAX)?;
    let new = fields.integer("max_completion_tokens", 1..=i64::MAX)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "`max_tokens` and `max_completion_tokens` differ: set the latter only";
        return Err(ApiError::field("max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)))
}

/// The field `messages`.
pub(super) fn read_messages(fields: &mut Fields, limits: &Limits) -> Result<Vec<Message>, ApiError> {
    let list = match fields.take("messages") {
        None => return Err(fields.missing("messages")),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(ApiError::field("messages", "`messages` must be a list of at least one message")),
    };
    if list.len() > limits.messages_max {
        return Err(ApiError::field(
            "messages",
            format!("`messages` may have {} messages at most", limits.messages_max),
        ));
    }
    list.into_iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

fn read_message(index: usize, message: Value) -> Result<Message, ApiError> {
    let name = format!("messages[{index}]");
    let Value::Object(map) = message else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `role` and `content`")));
    };
    let calls = map.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty()));
    let mut fields = Fields::new(map, format!("{name}."));
    let role = match fields.string("role")?.ok_or_else(|| fields.missing("role"))?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            let message = format!("`{name}.role` must be system, developer, user, assistant or tool");
            return Err(ApiError::field(format!("{name}.role"), message));
        }
    };
    // What asks for tools says nothing; tools themselves are refused below, by their name.
    let content = match fields.take("content") {
        None if calls => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts.into_iter().enumerate().map(|(part, value)| read_part(&name, part, value));
            // Templates know strings only; vLLM joins the parts with line ends too.
            texts.collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Some(_) => {
            let message = format!("`{name}.content` must be a string or a list of parts");
            return Err(ApiError::field(format!("{name}.content"), message));
        }
        None => return Err(fields.missing("content")),
    };
    if role == Role::Tool {
        fields.string("tool_call_id")?; // Templates of chats without tools have no place for it.
    }
    // What OpenAI's client sends back with an earlier answer is empty in ours.
    // A name reaches the template, as with OpenAI and vLLM.
    let speaker = fields.string("name")?;
    for field in ["refusal", "tool_calls", "function_call", "audio", "annotations", "reasoning_content"] {
        fields.unsupported(field, &[])?;
    }
    fields.finish()?;
    Ok(Message { name: speaker, ..Message::new(role, content) })
}

fn read_part(message: &str, part: usize, value: Value) -> Result<String, ApiError> {
    let name = format!("{message}.content[{part}]");
    let Value::Object(map) = value else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `type`")));
    };
    let mut fields = Fields::new(map, format!("{name}."));
    match fields.string("type")?.ok_or_else(|| fields.missing("type"))?.as_str() {
        "text" => {
            let text = fields.string("text")?.ok_or_else(|| fields.missing("text"))?;
            // Other servers' hint at what to keep in a cache: what is here is kept anyway.
            fields.take("cache_control");
            fields.finish()?;
            Ok(text)
        }
        kind => {
            let message = format!("parts of type `{kind}` are not supported yet: only `text`");
            Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"))
        }
    }
}

/// Fields that would change the answer if we could honour them.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let without_tools = [json!("none"), json!("auto")];
    fields.unsupported("tools", &[])?;
    fields.unsupported("functions", &[])?;
    fields.unsupported("tool_choice", &without_tools)?;
    fields.unsupported("function_call", &without_tools)?;
    fields.unsupported("parallel_tool_calls", &[json!(true), json!(false)])?;
    fields.unsupported("response_format", &[json!({"type": "text"})])?;
    fields.unsupported("modalities", &[json!(["text"])])?;
    fields.unsupported("add_generation_prompt", &[json!(true)])?;
    fields.unsupported("continue_final_message", &[json!(false)])?;
    for field in [
        "audio",
        "prediction",
        "reasoning_effort",
        "verbosity",
        "web_search_options",
        "moderation",
        "chat_template_kwargs",
    ] {
        fields.unsupported(field, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
