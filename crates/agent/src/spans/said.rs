//! Messages in the form that the conventions give to contents: a role, and parts that are texts, calls and results.

use narthex_base::chat::{Message, MessageContent, Part, Role};
use serde_json::{Value, json};

/// Bytes of one content: each request holds all messages before it, and a trace must not hold them a hundred times.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// Messages of a prompt, without the instructions, which have an attribute of their own; the last ones, where they are
/// many.
pub(super) fn input(messages: &[Message]) -> String {
    let (mut said, mut left) = (Vec::new(), CONTENT_BYTES_MAX);
    for message in messages.iter().rev().filter(|message| message.role != Role::System) {
        let message = json!({"role": message.role.as_str(), "parts": parts(message)});
        let Some(rest) = left.checked_sub(message.to_string().len()) else { break };
        left = rest;
        said.push(message);
    }
    said.reverse();
    Value::Array(said).to_string()
}

/// A text, cut where it is too long.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > CONTENT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(CONTENT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// An answer.
pub(super) fn output(message: &Message, finish_reason: &str) -> String {
    json!([{"role": "assistant", "parts": parts(message), "finish_reason": finish_reason}]).to_string()
}

/// The instructions.
pub(super) fn instructions(text: &str) -> String {
    json!([{"type": "text", "content": text}]).to_string()
}

fn parts(message: &Message) -> Vec<Value> {
    if message.role == Role::Tool {
        return vec![json!({"type": "tool_call_response", "id": message.tool_call_id, "response": message.text()})];
    }
    let mut parts = match &message.content {
        MessageContent::Text(text) if !text.is_empty() => vec![json!({"type": "text", "content": text})],
        MessageContent::Parts(parts) => parts.iter().map(part).collect(),
        MessageContent::Text(_) | MessageContent::Nothing => vec![],
    };
    parts.extend(message.tool_calls.iter().map(|call| {
        let arguments = &call.function.arguments;
        let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| Value::String(arguments.clone()));
        json!({"type": "tool_call", "id": call.id, "name": call.function.name, "arguments": arguments})
    }));
    parts
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({"type": "text", "content": text}),
        // Pictures and sounds are named, and not sent along: a trace is no place for megabytes.
        Part::ImageUrl { image_url } if image_url.url.starts_with("data:") => json!({"type": "image"}),
        Part::ImageUrl { image_url } => json!({"type": "uri", "modality": "image", "uri": image_url.url}),
        Part::InputAudio { input_audio } => json!({"type": "audio", "format": input_audio.format}),
    }
}
