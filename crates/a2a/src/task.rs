//! A run as an A2A task: state, artifacts, history, questions. Pure; knows runs and A2A's types, no request.

use crate::store::Exchange;
use a2a::{Artifact, Message, Part, PartContent, Role, Task, TaskState, TaskStatus};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use narthex_agent::{Content, Interrupt, RunStatus, RunView};
use narthex_base::chat::{Message as Said, MessageContent, Part as SaidPart, Role as Speaker};
use serde_json::{Value, json};

/// The artifact that is the final answer.
pub(crate) const ANSWER: &str = "answer";

/// Under this key, a final message may carry files: a list of [`Content`].
pub(crate) const ATTACHMENTS: &str = "attachments";

/// A final message with this key set to `true` is a direct answer, for which a caller gets no task.
pub(crate) const DIRECT: &str = "direct";

/// The most messages of a history that are sent.
const HISTORY_MAX: usize = 200;

/// How a run stands, in A2A's words. A run that came to a limit did not do what was asked: the reason says so.
pub(crate) fn state(status: RunStatus) -> TaskState {
    match status {
        RunStatus::Running => TaskState::Working,
        RunStatus::Waiting => TaskState::InputRequired,
        RunStatus::Done => TaskState::Completed,
        RunStatus::Failed | RunStatus::Limited => TaskState::Failed,
        RunStatus::Cancelled => TaskState::Canceled,
    }
}

/// A run as a task. `history_length` messages at most; none at 0.
pub(crate) fn task(
    view: &RunView,
    exchanges: &[Exchange],
    history_length: Option<usize>,
    with_artifacts: bool,
) -> Task {
    let length = history_length.unwrap_or(HISTORY_MAX).min(HISTORY_MAX);
    let mut history = if length == 0 { vec![] } else { history(view, exchanges) };
    history.drain(..history.len().saturating_sub(length));
    Task {
        id: view.id.clone(),
        context_id: view.thread.clone(),
        status: status(view),
        artifacts: with_artifacts.then(|| artifacts(view)),
        history: (!history.is_empty()).then_some(history),
        metadata: (!view.metadata.is_empty()).then(|| view.metadata.clone().into_iter().collect()),
    }
}

/// How a run stands, with what it asks or why it ended.
pub(crate) fn status(view: &RunView) -> TaskStatus {
    let message = match view.status {
        RunStatus::Waiting => question(view),
        RunStatus::Failed | RunStatus::Limited | RunStatus::Cancelled => {
            view.reason.as_ref().map(|reason| spoken(view, "reason", vec![Part::text(reason)]))
        }
        RunStatus::Running | RunStatus::Done => None,
    };
    TaskStatus {
        state: state(view.status),
        message,
        timestamp: DateTime::from_timestamp_millis(i64::try_from(view.changed_ms).unwrap_or(i64::MAX)),
    }
}

/// What a waiting run asks: in words, and as data for programs.
pub(crate) fn question(view: &RunView) -> Option<Message> {
    let first = view.interrupts.first()?;
    let words: Vec<&str> = view.interrupts.iter().map(|interrupt| interrupt.question.as_str()).collect();
    let data = json!({"interrupts": view.interrupts.iter().map(asked).collect::<Vec<_>>()});
    Some(spoken(view, &first.id, vec![Part::text(words.join("\n")), Part::data(data)]))
}

fn asked(interrupt: &Interrupt) -> Value {
    let mut asked = json!({"id": interrupt.id, "question": interrupt.question, "expiresMs": interrupt.expires_ms});
    if let Some((tool, arguments)) = &interrupt.call {
        asked["call"] = json!({"tool": tool, "arguments": arguments});
        asked["answers"] = json!(["approve", "refuse", "edit"]);
    }
    if let Some(form) = &interrupt.form {
        asked["form"] = form.clone();
    }
    asked
}

/// A message of the agent's, with an id that is the same each time.
fn spoken(view: &RunView, what: &str, parts: Vec<Part>) -> Message {
    Message {
        message_id: format!("{}-{what}", view.id),
        context_id: Some(view.thread.clone()),
        task_id: Some(view.id.clone()),
        ..Message::new(Role::Agent, parts)
    }
}

/// The final message, if the run gave its answer.
pub(crate) fn final_message(view: &RunView) -> Option<&Said> {
    let last = view.messages.last().filter(|message| is_answer(message));
    last.filter(|_| view.status == RunStatus::Done)
}

/// Whether a message may be the last one of a run.
pub(crate) fn is_answer(message: &Said) -> bool {
    message.role == Speaker::Assistant && message.tool_calls.is_empty()
}

/// The answer as a message, where the agent wants no task for it.
pub(crate) fn direct(view: &RunView) -> Option<Message> {
    let message = final_message(view).filter(|message| message.others.get(DIRECT) == Some(&Value::Bool(true)))?;
    let message = Message { task_id: None, ..spoken(view, "direct", parts(message)) };
    (!message.parts.is_empty()).then_some(message)
}

/// The final answer and the files that came with it; none before the run is done.
pub(crate) fn artifacts(view: &RunView) -> Vec<Artifact> {
    if view.status != RunStatus::Done {
        return vec![];
    }
    let message = final_message(view);
    let answer = match &view.output {
        Some(output) => vec![Part::data(output.clone()).with_media_type("application/json")],
        None => message.map(parts).unwrap_or_default(),
    };
    let mut artifacts = Vec::new();
    if !answer.is_empty() {
        artifacts.push(artifact(ANSWER.into(), ANSWER.into(), answer));
    }
    let attachments = message.and_then(|message| message.others.get(ATTACHMENTS)).and_then(Value::as_array);
    for (number, attachment) in attachments.into_iter().flatten().enumerate() {
        let Ok(content) = serde_json::from_value::<Content>(attachment.clone()) else { continue };
        if let Some(part) = attached(content) {
            let name = part.filename.clone().unwrap_or_else(|| format!("file-{}", number + 1));
            artifacts.push(artifact(format!("file-{}", number + 1), name, vec![part]));
        }
    }
    artifacts
}

pub(crate) fn artifact(artifact_id: String, name: String, parts: Vec<Part>) -> Artifact {
    Artifact { artifact_id, name: Some(name), description: None, parts, metadata: None, extensions: None }
}

/// What a message says, in A2A's parts.
fn parts(message: &Said) -> Vec<Part> {
    match &message.content {
        MessageContent::Text(text) if text.is_empty() => vec![],
        MessageContent::Text(text) => vec![Part::text(text)],
        MessageContent::Nothing => vec![],
        MessageContent::Parts(parts) => parts.iter().filter_map(part).collect(),
    }
}

fn part(part: &SaidPart) -> Option<Part> {
    match part {
        SaidPart::Text { text } => Some(Part::text(text)),
        SaidPart::ImageUrl { image_url } => Some(match data_url(&image_url.url) {
            Some((media_type, bytes)) => Part::raw(bytes).with_media_type(media_type),
            None => Part::url(&image_url.url),
        }),
        SaidPart::InputAudio { input_audio } => {
            let bytes = STANDARD.decode(&input_audio.data).ok()?;
            let media_type =
                if input_audio.format == "mp3" { "audio/mpeg".into() } else { format!("audio/{}", input_audio.format) };
            Some(Part::raw(bytes).with_media_type(media_type))
        }
    }
}

/// The media type and the bytes of a `data:` URL in base64.
fn data_url(url: &str) -> Option<(String, Vec<u8>)> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some((media_type.to_string(), STANDARD.decode(data).ok()?))
}

/// A file that came with the answer.
fn attached(content: Content) -> Option<Part> {
    let named = |part: Part, uri: &str| match uri.rsplit(['/', ':']).next() {
        Some(name) if !name.is_empty() => part.with_filename(name),
        _ => part,
    };
    let typed = |part: Part, media_type: Option<String>| match media_type {
        Some(media_type) => part.with_media_type(media_type),
        None => part,
    };
    Some(match content {
        Content::Text { text } => Part::text(text),
        Content::Image { data, mime_type } | Content::Audio { data, mime_type } => {
            Part::raw(STANDARD.decode(data).ok()?).with_media_type(mime_type)
        }
        Content::Resource { uri, mime_type, text, blob } => {
            let bytes = match (text, blob) {
                (Some(text), _) => text.into_bytes(),
                (None, Some(blob)) => STANDARD.decode(blob).ok()?,
                (None, None) => return None,
            };
            typed(named(Part::raw(bytes), &uri), mime_type)
        }
        Content::Link { uri, name, mime_type } => typed(Part::url(uri).with_filename(name), mime_type),
    })
}

/// The messages of a task, oldest first: those that it was sent as they were, and what the agent said besides its
/// answer, which is an artifact. Tool calls and results stay inside.
fn history(view: &RunView, exchanges: &[Exchange]) -> Vec<Message> {
    let read = |json: &str| serde_json::from_str::<Message>(json).ok();
    let sent: Vec<(usize, String, Vec<Message>)> = exchanges
        .iter()
        .filter_map(|exchange| {
            let message = read(&exchange.message)?;
            let text = words(&message);
            let question = exchange.question.as_deref().and_then(read);
            Some((exchange.position, text, question.into_iter().chain([message]).collect()))
        })
        .collect();
    // A run may show what its thread held before: the task begins with the message that began it.
    let first = sent.first().map(|(_, text, _)| text.as_str());
    let begin =
        view.messages.iter().rposition(|said| is_said(said, Speaker::User) && Some(said.text().as_ref()) == first);
    let last = if final_message(view).is_some() { view.messages.len() - 1 } else { view.messages.len() };
    let (mut history, mut waiting) = (Vec::new(), sent.iter().peekable());
    for (index, said) in view.messages.iter().enumerate().take(last).skip(begin.unwrap_or(0)) {
        while waiting.peek().is_some_and(|(position, ..)| *position <= index) {
            history.extend(waiting.next().into_iter().flat_map(|(.., messages)| messages.clone()));
        }
        let is_sent = said.role == Speaker::User && sent.iter().any(|(_, text, _)| *text == said.text());
        if !is_sent && (is_said(said, Speaker::User) || is_said(said, Speaker::Assistant)) {
            let role = if said.role == Speaker::User { Role::User } else { Role::Agent };
            history.push(Message { role, ..spoken(view, &index.to_string(), parts(said)) });
        }
    }
    history.extend(waiting.flat_map(|(.., messages)| messages.clone()));
    history
}

fn is_said(message: &Said, role: Speaker) -> bool {
    message.role == role && !parts(message).is_empty()
}

/// What a message says in words, as the run has it.
pub(crate) fn words(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match &part.content {
        PartContent::Text(text) => Some(text.clone()),
        PartContent::Data(data) => Some(data.to_string()),
        PartContent::Raw(bytes) => {
            let media_type = part.media_type.as_deref().unwrap_or_default();
            let is_seen = media_type.starts_with("image/") || media_type.starts_with("audio/");
            std::str::from_utf8(bytes).ok().filter(|_| !is_seen).map(str::to_string)
        }
        PartContent::Url(_) => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
