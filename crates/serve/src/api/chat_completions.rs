//! `POST /v1/chat/completions` (<https://platform.openai.com/docs/api-reference/chat>).

use crate::{
    Limits, ServedModel,
    answer::{Answer, Usage, collect},
    app::App,
    error::ApiError,
    events::{Events, event_stream},
    exchange::Exchange,
    fields::{Fields, JsonBody},
    generation::{Generation, Operation, Piece, Scored},
    head::{Head, reason_word},
    logprobs::ChatLogprobs,
    parameters::Parameters,
};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use narthex_base::{Message, Role};
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
    let generation = Generation::start(&app, exchange, Operation::Chat, &head, &parameters, call.requests)?;
    if parameters.stream {
        return Ok(event_stream(|events| stream(app, head, generation, parameters, prompt_tokens, events)));
    }
    let (answers, completion_tokens) = collect(generation, parameters.n).await?;
    let choices = answers.into_iter().enumerate().map(|(index, answer)| choice(&app.model, index, answer, &parameters));
    let usage = Usage::new(prompt_tokens, completion_tokens);
    Ok(Json(Completion { head, choices: choices.collect(), usage }).into_response())
}

fn choice(model: &ServedModel, index: usize, answer: Answer, parameters: &Parameters) -> Choice {
    Choice {
        index,
        message: AnswerMessage { role: "assistant", content: answer.text, refusal: None },
        logprobs: parameters.logprobs.map(|_| logprobs(model, &answer.scored)),
        finish_reason: answer.finish_reason,
    }
}

fn logprobs(model: &ServedModel, scored: &[Scored]) -> ChatLogprobs {
    ChatLogprobs::new(&model.tokenizer, scored.iter().map(|scored| (scored.id, &scored.logprobs)))
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
    while let Some((index, piece)) = generation.next().await? {
        match piece {
            Piece::Prompt(_) => {}
            Piece::Text(text, scored) => {
                let logprobs = parameters.logprobs.map(|_| logprobs(&app.model, &scored));
                let delta = Delta { role: None, content: Some(text) };
                events.send(&chunk(index, delta, logprobs, None)).await?;
            }
            Piece::End(reason) => events.send(&chunk(index, Delta::default(), None, Some(reason_word(reason)))).await?,
        }
    }
    if parameters.include_usage {
        let usage = Some(Some(Usage::new(prompt_tokens, generation.completion_tokens())));
        events.send(&Chunk { head: &head, choices: vec![], usage }).await?;
    }
    Ok(())
}

fn read(mut fields: Fields, model: &ServedModel, limits: &Limits) -> Result<Call, ApiError> {
    let mut parameters = Parameters::read(&mut fields, model, limits)?;
    parameters.logprobs = read_logprobs(&mut fields, limits)?;
    let max_tokens = read_max_tokens(&mut fields)?;
    let messages = read_messages(&mut fields, limits)?;
    refuse_unsupported(&mut fields)?;
    fields.finish()?;

    let text = render(model, &messages, true)?;
    let prompt = model.tokenizer.encode(&text, false).map_err(refused)?;
    let prompt_tokens = prompt.len();
    let context = model.generator.context();
    if prompt_tokens >= context {
        let message = format!(
            "the prompt is too long: the messages have {prompt_tokens} tokens, but the model's context holds {context}"
        );
        return Err(ApiError::field("messages", message).code("context_length_exceeded"));
    }
    let room = context - prompt_tokens;
    let request = parameters.request(model, prompt, max_tokens.map_or(room, |tokens| tokens.min(room)));
    let requests = parameters.requests(0, &request);
    Ok(Call { parameters, requests, prompt_tokens })
}

fn refused(error: narthex_base::Error) -> ApiError {
    ApiError::field("messages", error.causes().first().map_or(error.what(), String::as_str))
}

/// The text of a conversation, ready for the answer if asked.
pub(super) fn render(model: &ServedModel, messages: &[Message], answer_next: bool) -> Result<String, ApiError> {
    let Some(template) = &model.template else {
        let message = format!("the model `{}` has no chat template: use /v1/completions", model.id);
        return Err(ApiError::field("model", message).code("no_chat_template"));
    };
    template.render(messages, answer_next).map_err(refused)
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
    let content = match fields.take("content") {
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
    for field in ["name", "refusal", "tool_calls", "function_call", "audio", "annotations", "reasoning_content"] {
        fields.unsupported(field, &[])?;
    }
    fields.finish()?;
    Ok(Message::new(role, content))
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
