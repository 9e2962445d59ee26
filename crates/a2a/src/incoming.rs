//! What a caller sends, read: a message as one of a chat, or as an answer to what a run waits for. Pure.

use crate::task::words;
use a2a::{A2AError, Message, Part, PartContent, Role};
use base64::{Engine, engine::general_purpose::STANDARD};
use narthex_agent::{Answer, Interrupt};
use narthex_base::{
    Digest,
    chat::{ImageUrl, InputAudio, Message as Said, MessageContent, Part as SaidPart, Role as Speaker},
};
use serde_json::{Map, Value, json};

/// The longest id that a caller may give to a message, a context or a config, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 256;

/// The most parts of a message.
const PARTS_MAX: usize = 256;

/// Checks what every message needs.
///
/// # Errors
/// If it has no parts, too many, or is not the user's.
pub(crate) fn check(message: &Message) -> Result<(), A2AError> {
    let wrong = |why: &str| Err(A2AError::invalid_params(format!("message.{why}")));
    let ids = [Some(&message.message_id), message.context_id.as_ref(), message.task_id.as_ref()];
    if ids.into_iter().flatten().any(|id| id.len() > ID_BYTES_MAX) {
        return wrong("messageId, contextId and taskId have 256 bytes at most");
    }
    if message.role != Role::User {
        return wrong("role must be ROLE_USER");
    }
    if message.parts.is_empty() || message.parts.len() > PARTS_MAX {
        return wrong("parts must hold 1 to 256 parts");
    }
    Ok(())
}

/// What tells two messages of the same id apart.
pub(crate) fn content(message: &Message) -> String {
    Digest::of(json!([message.context_id, message.parts]).to_string().as_bytes()).short()
}

/// A message as one of a chat.
///
/// # Errors
/// If a part is of a media type that the agent does not take.
pub(crate) fn said(message: &Message, input_modes: &[String]) -> Result<Said, A2AError> {
    let parts: Vec<SaidPart> =
        message.parts.iter().map(|part| said_part(part, input_modes)).collect::<Result<_, _>>()?;
    let mut said = Said::new(Speaker::User, words(message));
    if parts.iter().any(|part| !matches!(part, SaidPart::Text { .. })) {
        said.content = MessageContent::Parts(parts);
    }
    Ok(said)
}

fn said_part(part: &Part, input_modes: &[String]) -> Result<SaidPart, A2AError> {
    let media_type = part.media_type.as_deref().filter(|media_type| !media_type.is_empty());
    // `text/plain; charset=utf-8` is `text/plain`.
    let essence =
        media_type.map(|media_type| media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let takes = |wanted: &str| input_modes.iter().any(|mode| mode == wanted);
    let refused = || {
        let shown = media_type.unwrap_or("a file without a media type").chars().take(100).collect::<String>();
        Err(A2AError::new(
            a2a::error_code::CONTENT_TYPE_NOT_SUPPORTED,
            format!("{shown} is not supported: this agent takes {}", input_modes.join(", ")),
        ))
    };
    match (&part.content, essence.as_deref()) {
        (PartContent::Text(text), None) => Ok(SaidPart::Text { text: text.clone() }),
        (PartContent::Text(text), Some(essence)) if takes(essence) => Ok(SaidPart::Text { text: text.clone() }),
        (PartContent::Data(data), None) if takes("application/json") => Ok(SaidPart::Text { text: data.to_string() }),
        (PartContent::Data(data), Some(essence)) if takes(essence) => Ok(SaidPart::Text { text: data.to_string() }),
        (PartContent::Raw(bytes), Some(essence)) if takes(essence) => match essence {
            _ if essence.starts_with("image/") => {
                let url = format!("data:{essence};base64,{}", STANDARD.encode(bytes));
                Ok(SaidPart::ImageUrl { image_url: ImageUrl { url, detail: None } })
            }
            "audio/wav" | "audio/mpeg" => {
                let format = if essence == "audio/wav" { "wav" } else { "mp3" }.to_string();
                Ok(SaidPart::InputAudio { input_audio: InputAudio { data: STANDARD.encode(bytes), format } })
            }
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(SaidPart::Text { text: text.to_string() }),
                Err(_) => refused(),
            },
        },
        // Fetching what a caller names is not for this layer; an image's URL is handed on.
        (PartContent::Url(url), Some(essence)) if takes(essence) && essence.starts_with("image/") => {
            Ok(SaidPart::ImageUrl { image_url: ImageUrl { url: url.clone(), detail: None } })
        }
        _ => refused(),
    }
}

/// A message as an answer: to which interrupt, and what. Who answers is who was authenticated, whatever it says.
///
/// A data part may name the interrupt and the answer: `{"interrupt": ID, "answer": WORD}` with the word `approve`;
/// `refuse` and `"why"`; `edit` and `"arguments"`; or `say` and `"value"`. In words, a call is approved by `approve` or
/// `yes`, and refused by `refuse`, `no`, or `refuse: why`; anything else is an answer only where no call waits.
///
/// # Errors
/// If it does not say which of several is meant, or is no answer to it: how to mend it.
pub(crate) fn answer(
    interrupts: &[Interrupt],
    message: &Message,
    caller: &str,
    may_approve: bool,
) -> Result<(String, Answer), A2AError> {
    let wrong = |why: String| Err(A2AError::invalid_params(why));
    let data = message.parts.iter().find_map(|part| match &part.content {
        PartContent::Data(Value::Object(map)) if map.contains_key("interrupt") || map.contains_key("answer") => {
            Some(map)
        }
        _ => None,
    });
    let named = data.and_then(|data| data.get("interrupt")).and_then(Value::as_str);
    let interrupt = match (named, interrupts) {
        (Some(id), _) => match interrupts.iter().find(|interrupt| interrupt.id == id) {
            Some(interrupt) => interrupt,
            None => return wrong(format!("the task does not wait for {}", id.chars().take(100).collect::<String>())),
        },
        (None, [interrupt]) => interrupt,
        (None, _) => {
            let ids: Vec<&str> = interrupts.iter().map(|interrupt| interrupt.id.as_str()).collect();
            return wrong(format!(
                "the task waits for several answers: name one in a data part, {{\"interrupt\": ID, …}}, of {}",
                ids.join(", ")
            ));
        }
    };
    if interrupt.call.is_some() && !may_approve {
        return Err(A2AError::unsupported_operation("calls of this agent are not approved by its callers"));
    }
    let answer = match data {
        Some(data) => answer_of_data(interrupt, data, caller),
        None => answer_of_words(interrupt, message, caller),
    };
    answer.map(|answer| (interrupt.id.clone(), answer))
}

fn answer_of_data(interrupt: &Interrupt, data: &Map<String, Value>, caller: &str) -> Result<Answer, A2AError> {
    let by = caller.to_string();
    let is_call = interrupt.call.is_some();
    match (data.get("answer").and_then(Value::as_str), is_call) {
        (Some("approve"), true) => Ok(Answer::Approve { by }),
        (Some("refuse"), true) => {
            let why = data.get("why").and_then(Value::as_str).unwrap_or("no reason was given").to_string();
            Ok(Answer::Refuse { by, why })
        }
        (Some("edit"), true) => match data.get("arguments").and_then(Value::as_object) {
            Some(arguments) => Ok(Answer::Edit { by, arguments: arguments.clone() }),
            None => Err(A2AError::invalid_params("`edit` needs the object `arguments`")),
        },
        (Some("say") | None, false) => match data.get("value") {
            Some(value) => Ok(Answer::Say { value: value.clone() }),
            None => Err(A2AError::invalid_params("the answer needs a `value`")),
        },
        (_, true) => Err(A2AError::invalid_params("`answer` must be `approve`, `refuse` or `edit`: a call waits")),
        (_, false) => Err(A2AError::invalid_params("`answer` must be `say`, with a `value`: no call waits")),
    }
}

fn answer_of_words(interrupt: &Interrupt, message: &Message, caller: &str) -> Result<Answer, A2AError> {
    let text = words(message);
    let by = caller.to_string();
    if interrupt.call.is_none() {
        let data = message.parts.iter().find_map(|part| match &part.content {
            PartContent::Data(data) => Some(data.clone()),
            _ => None,
        });
        // Where data is asked for, a text may be the data written out.
        let written = interrupt.form.as_ref().and_then(|_| serde_json::from_str(&text).ok());
        return Ok(Answer::Say { value: data.or(written).unwrap_or(Value::String(text)) });
    }
    let (word, why) = match text.trim().split_once(':') {
        Some((word, why)) => (word.trim().to_ascii_lowercase(), Some(why.trim().to_string())),
        None => (text.trim().trim_end_matches(['.', '!']).to_ascii_lowercase(), None),
    };
    match (word.as_str(), why) {
        ("approve" | "approved" | "yes", None) => Ok(Answer::Approve { by }),
        ("refuse" | "refused" | "no", why) => {
            Ok(Answer::Refuse { by, why: why.unwrap_or_else(|| "no reason was given".into()) })
        }
        // Words that are neither must not set a call going.
        _ => Err(A2AError::invalid_params("a call waits to be approved: answer `approve`, or `refuse: why`")),
    }
}

#[cfg(test)]
mod tests;
