//! `system` and `messages`: blocks become the messages of a chat. Knows nothing of tools but their calls.

use crate::dialects::passing::Ignored;
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// Reads both fields into `messages`.
pub(super) fn read(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let mut chat = vec![];
    if let Some(system) = fields.take("system") {
        let texts = read_texts("system", system, ignored)?;
        // An empty one is what some clients send for none.
        if texts.iter().any(|text| !text.is_empty()) {
            chat.push(json!({"role": "system", "content": content_of(texts)}));
        }
    }
    let list = match fields.take("messages") {
        None => return Err(fields.missing("messages")),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(ApiError::field("messages", "`messages` must be a list of at least one message")),
    };
    for (index, message) in list.into_iter().enumerate() {
        read_message(format!("messages[{index}]"), message, &mut chat, ignored)?;
    }
    if let Some(last) = chat.last().filter(|last| last["role"] == "assistant") {
        if last.get("tool_calls").is_some() {
            let message = "the last message calls tools: their results must follow as `tool_result` blocks";
            return Err(ApiError::field("messages", message));
        }
        // The answer goes on where that message ends.
        request.insert("add_generation_prompt".into(), false.into());
        request.insert("continue_final_message".into(), true.into());
    }
    request.insert("messages".into(), chat.into());
    Ok(())
}

fn read_message(name: String, message: Value, chat: &mut Vec<Value>, ignored: &mut Ignored) -> Result<(), ApiError> {
    let Value::Object(map) = message else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `role` and `content`")));
    };
    let mut fields = Fields::new(map, format!("{name}."));
    let role = fields.string("role")?.ok_or_else(|| fields.missing("role"))?;
    let content = fields.take("content").ok_or_else(|| fields.missing("content"))?;
    ignored.rest(&mut fields);
    let place = format!("{name}.content");
    match role.as_str() {
        "user" => read_user(&place, content, chat, ignored),
        "assistant" => read_assistant(&place, content, chat, ignored),
        "system" => {
            let texts = read_texts(&place, content, ignored)?;
            chat.push(json!({"role": "system", "content": content_of(texts)}));
            Ok(())
        }
        _ => {
            let message = format!("`{name}.role` must be user, assistant or system");
            Err(ApiError::field(format!("{name}.role"), message))
        }
    }
}

/// What a user says, and what tools have answered, in the order in which they stand.
fn read_user(place: &str, content: Value, chat: &mut Vec<Value>, ignored: &mut Ignored) -> Result<(), ApiError> {
    let mut said = vec![];
    let speak = |said: &mut Vec<String>, chat: &mut Vec<Value>| {
        if !said.is_empty() {
            chat.push(json!({"role": "user", "content": content_of(std::mem::take(said))}));
        }
    };
    for block in blocks(place, content)? {
        let mut block = block?;
        match block.kind.as_str() {
            "text" => said.push(block.text()?),
            "tool_result" => {
                speak(&mut said, chat);
                chat.push(read_result(&mut block.fields, ignored)?);
            }
            _ => return Err(block.refused("text and tool_result")),
        }
        block.finish(ignored);
    }
    speak(&mut said, chat);
    Ok(())
}

/// A tool's answer. Chats have no mark for a failed call, so that its text says so.
fn read_result(fields: &mut Fields, ignored: &mut Ignored) -> Result<Value, ApiError> {
    let id = fields.string("tool_use_id")?.ok_or_else(|| fields.missing("tool_use_id"))?;
    let mut text = match fields.take("content") {
        None => String::new(),
        Some(content) => read_texts(&fields.name("content"), content, ignored)?.join("\n"),
    };
    let starts_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
    if fields.flag("is_error")?.unwrap_or(false) && !starts_so {
        text.insert_str(0, if text.is_empty() { "Error" } else { "Error: " });
    }
    Ok(json!({"role": "tool", "tool_call_id": id, "content": text}))
}

/// What the model has thought, said and called.
fn read_assistant(place: &str, content: Value, chat: &mut Vec<Value>, ignored: &mut Ignored) -> Result<(), ApiError> {
    let (mut said, mut thought, mut calls) = (vec![], vec![], vec![]);
    for block in blocks(place, content)? {
        let mut block = block?;
        match block.kind.as_str() {
            "text" => said.push(block.text()?),
            "thinking" => {
                thought.push(block.required("thinking")?);
                block.fields.take("signature");
            }
            // Nobody but Anthropic can read it.
            "redacted_thinking" => {
                block.fields.take("data");
            }
            "tool_use" => calls.push(read_call(&mut block.fields)?),
            _ => return Err(block.refused("text, thinking, redacted_thinking and tool_use")),
        }
        block.finish(ignored);
    }
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    let nothing = said.is_empty() && !calls.is_empty();
    message.insert("content".into(), if nothing { Value::Null } else { content_of(said) });
    // An answer whose thoughts were not shown has empty ones.
    if thought.iter().any(|text| !text.is_empty()) {
        message.insert("reasoning_content".into(), thought.join("\n").into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    chat.push(message.into());
    Ok(())
}

fn read_call(fields: &mut Fields) -> Result<Value, ApiError> {
    let id = fields.string("id")?.ok_or_else(|| fields.missing("id"))?;
    let name = fields.string("name")?.ok_or_else(|| fields.missing("name"))?;
    let input = match fields.take("input") {
        None => Map::new(),
        Some(Value::Object(input)) => input,
        Some(_) => {
            let place = fields.name("input");
            return Err(ApiError::field(&place, format!("`{place}` must be an object")));
        }
    };
    let arguments = Value::Object(input).to_string();
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

/// A string, or blocks of text only.
fn read_texts(place: &str, content: Value, ignored: &mut Ignored) -> Result<Vec<String>, ApiError> {
    let mut texts = vec![];
    for block in blocks(place, content)? {
        let mut block = block?;
        if block.kind != "text" {
            return Err(block.refused("text"));
        }
        texts.push(block.text()?);
        block.finish(ignored);
    }
    Ok(texts)
}

/// The content of a chat's message: parts stay apart, as their seams are for the chat to choose.
fn content_of(mut texts: Vec<String>) -> Value {
    match texts.len() {
        0 => "".into(),
        1 => texts.remove(0).into(),
        _ => texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect(),
    }
}

struct Block {
    fields: Fields,
    kind: String,
}

impl Block {
    fn required(&mut self, field: &'static str) -> Result<String, ApiError> {
        self.fields.string(field)?.ok_or_else(|| self.fields.missing(field))
    }

    fn text(&mut self) -> Result<String, ApiError> {
        self.required("text")
    }

    fn refused(&self, instead: &str) -> ApiError {
        let message = format!("blocks of type `{}` are not supported here: only {instead}", self.kind);
        ApiError::field(self.fields.name("type"), message).code("unsupported_parameter")
    }

    /// Hints at caches and marks of earlier answers ask for nothing.
    fn finish(mut self, ignored: &mut Ignored) {
        for field in ["cache_control", "citations", "caller", "toolset_name"] {
            self.fields.take(field);
        }
        ignored.rest(&mut self.fields);
    }
}

/// The blocks of a content; a string is one block of text.
fn blocks(place: &str, content: Value) -> Result<impl Iterator<Item = Result<Block, ApiError>>, ApiError> {
    let list = match content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(list) => list,
        _ => return Err(ApiError::field(place, format!("`{place}` must be a string or a list of blocks"))),
    };
    let block = |(index, value)| {
        let name = format!("{place}[{index}]");
        let Value::Object(map) = value else {
            return Err(ApiError::field(&name, format!("`{name}` must be an object with `type`")));
        };
        let mut fields = Fields::new(map, format!("{name}."));
        let kind = fields.string("type")?.ok_or_else(|| fields.missing("type"))?;
        Ok(Block { fields, kind })
    };
    Ok(list.into_iter().enumerate().map(block).collect::<Vec<_>>().into_iter())
}
