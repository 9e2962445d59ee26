//! Messages as a client says them, in OpenAI's form of chat, read into our own. What a message carries besides what is
//! said (refusals, annotations, sounds of an answer) is passed over: clients send back whole answers.

use narthex_base::chat::{FunctionCall, Message, MessageContent, Part, Role, ToolCall, ToolKind};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value};

/// Messages of one request at most.
pub(crate) const MESSAGES_MAX: usize = 10_000;

/// Reads a list of messages that is named `name`.
///
/// # Errors
/// If it is no list, too long, or a message is none.
pub(crate) fn messages(value: Value, name: &str) -> Result<Vec<Message>, ApiError> {
    let Value::Array(list) = value else {
        return Err(ApiError::field(name, format!("`{name}` must be a list of messages")));
    };
    bounded(list.len(), name)?;
    list.into_iter().enumerate().map(|(index, value)| message(value, &format!("{name}[{index}]"))).collect()
}

/// Whether so many messages are taken.
///
/// # Errors
/// If they are too many.
pub(crate) fn bounded(count: usize, name: &str) -> Result<(), ApiError> {
    if count > MESSAGES_MAX {
        return Err(ApiError::field(name, format!("`{name}` has {count} messages, and {MESSAGES_MAX} are the limit")));
    }
    Ok(())
}

/// Reads one message.
///
/// # Errors
/// If it is none.
pub(crate) fn message(value: Value, name: &str) -> Result<Message, ApiError> {
    let Value::Object(map) = value else {
        return Err(ApiError::field(name, format!("`{name}` must be an object with `role` and `content`")));
    };
    let mut fields = Fields::new(map, format!("{name}."));
    let Some(word) = fields.string("role")? else { return Err(fields.missing("role")) };
    let field = fields.name("role");
    let mut message = Message::new(role(&word, &field)?, "");
    message.content = content(fields.take("content"), &fields.name("content"))?;
    message.name = fields.string("name")?;
    message.tool_call_id = fields.string("tool_call_id")?;
    message.tool_calls = calls(fields.take("tool_calls"), &fields.name("tool_calls"))?;
    if message.role == Role::Assistant
        && let Some(thought) = fields.string("reasoning_content")?
    {
        message.others.insert("reasoning_content".into(), thought.into());
    }
    if message.role == Role::Tool && message.tool_call_id.is_none() {
        return Err(fields.missing("tool_call_id"));
    }
    Ok(message)
}

/// Who speaks. A caller's instructions are said as the user: an agent has its own, and takes no others.
///
/// # Errors
/// If it is nobody.
pub(crate) fn role(word: &str, field: &str) -> Result<Role, ApiError> {
    match word {
        "user" | "system" | "developer" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => Err(ApiError::field(field, format!("`{field}` must be user, assistant, tool, system or developer"))),
    }
}

/// What is said: a text, parts, or nothing.
///
/// # Errors
/// If it is anything else.
pub(crate) fn content(value: Option<Value>, name: &str) -> Result<MessageContent, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(MessageContent::Nothing),
        Some(Value::String(text)) => Ok(MessageContent::Text(text)),
        Some(Value::Array(parts)) => {
            let part = |(index, value)| part(value, &format!("{name}[{index}]"));
            let parts: Vec<Part> = parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?;
            Ok(match <[Part; 1]>::try_from(parts) {
                Ok([Part::Text { text }]) => MessageContent::Text(text),
                Ok([part]) => MessageContent::Parts(vec![part]),
                Err(parts) => MessageContent::Parts(parts),
            })
        }
        Some(_) => Err(ApiError::field(name, format!("`{name}` must be a string or a list of parts"))),
    }
}

/// A part in OpenAI's forms of chat and of responses.
fn part(value: Value, name: &str) -> Result<Part, ApiError> {
    let wrong = |what: String| Err(ApiError::field(name, what));
    if let Value::String(text) = value {
        return Ok(Part::Text { text });
    }
    let text = |field: &str| value[field].as_str().map(str::to_string);
    match value["type"].as_str().unwrap_or_default() {
        "text" | "input_text" | "output_text" => match text("text") {
            Some(text) => Ok(Part::Text { text }),
            None => wrong(format!("`{name}.text` must be a string")),
        },
        "refusal" => Ok(Part::Text { text: text("refusal").unwrap_or_default() }),
        "image_url" | "input_image" => {
            let url = text("image_url").map(Value::String).map(|url| serde_json::json!({"url": url}));
            let url = serde_json::from_value(url.unwrap_or_else(|| value["image_url"].clone()));
            match url {
                Ok(image_url) => Ok(Part::ImageUrl { image_url }),
                Err(_) => wrong(format!("`{name}.image_url` must be an address, or an object with `url`")),
            }
        }
        "input_audio" => match serde_json::from_value(value["input_audio"].clone()) {
            Ok(input_audio) => Ok(Part::InputAudio { input_audio }),
            Err(_) => wrong(format!("`{name}.input_audio` must be an object with `data` and `format`")),
        },
        other => wrong(format!("`{name}.type` must be text, image_url or input_audio, not `{other}`")),
    }
}

/// The calls of an earlier answer.
fn calls(value: Option<Value>, name: &str) -> Result<Vec<ToolCall>, ApiError> {
    match value {
        None => Ok(vec![]),
        Some(value @ Value::Array(_)) => serde_json::from_value(value)
            .map_err(|error| ApiError::field(name, format!("`{name}` must be calls of functions: {error}"))),
        Some(_) => Err(ApiError::field(name, format!("`{name}` must be a list of calls"))),
    }
}

/// A call of a function.
pub(crate) fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    let function = FunctionCall { name: name.into(), arguments: arguments.into() };
    ToolCall { id: id.into(), kind: ToolKind::Function, function }
}

/// An object that a client wants to find with a run again.
///
/// # Errors
/// If it is none.
pub(crate) fn metadata(value: Option<Value>, name: &str) -> Result<Map<String, Value>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(ApiError::field(name, format!("`{name}` must be an object"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_read_or_named() {
        let check = |given: Value, expected: Result<Value, &str>| match messages(given.clone(), "messages") {
            Ok(read) => assert_eq!(Ok(json!(read)), expected, "{given}"),
            Err(error) => {
                let told = serde_json::to_value(error.object()).unwrap()["error"]["message"].clone();
                assert_eq!(Err(told.as_str().unwrap()), expected, "{given}");
            }
        };
        let user = |content: Value| json!([{"role": "user", "content": content}]);
        check(user(json!("a")), Ok(user(json!("a"))));
        check(user(json!([{"type": "text", "text": "a"}])), Ok(user(json!("a"))));
        check(json!([{"role": "system", "content": "a", "weight": 1}]), Ok(user(json!("a"))));
        let image = json!([{"type": "image_url", "image_url": {"url": "data:x"}}]);
        check(user(image.clone()), Ok(user(image.clone())));
        check(user(json!([{"type": "input_image", "image_url": "data:x"}])), Ok(user(image)));
        let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let called = json!([{"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "b"}]);
        let mut read = called.clone();
        read[0].as_object_mut().unwrap().shift_remove("refusal");
        read[1] = json!({"role": "tool", "content": "b", "tool_call_id": "1"});
        check(called, Ok(read));
        for (given, told) in [
            (json!("a"), "`messages` must be a list of messages"),
            (json!(["a"]), "`messages[0]` must be an object with `role` and `content`"),
            (json!([{}]), "the field `messages[0].role` is missing"),
            (json!([{"role": "x"}]), "`messages[0].role` must be user, assistant, tool, system or developer"),
            (user(json!(1)), "`messages[0].content` must be a string or a list of parts"),
            (
                user(json!([{"type": "file"}])),
                "`messages[0].content[0].type` must be text, image_url or input_audio, not `file`",
            ),
            (json!([{"role": "tool", "content": "b"}]), "the field `messages[0].tool_call_id` is missing"),
        ] {
            check(given, Err(told));
        }
        let long = Value::Array(vec![json!({"role": "user", "content": "a"}); MESSAGES_MAX + 1]);
        assert!(messages(long, "messages").is_err());
    }
}
