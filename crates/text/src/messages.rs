//! Messages and other JSON as templates see them. Knows no template.

use minijinja::Value;
use narthex_base::{Message, MessageContent, Part, ToolCall};
use serde_json::{Value as Json, json};

/// The names under which messages bring reasoning: the standard one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as transformers 5.24 hands it to a template: with the keys that say something, arguments of calls as
/// objects, and reasoning under the names that templates know it by.
pub(crate) fn as_template_value(message: &Message) -> Value {
    // A role of the template's own goes over ours.
    let role = message.others.get("role").and_then(Json::as_str).unwrap_or_else(|| message.role.as_str());
    let mut keys = vec![("role", Value::from(role))];
    match &message.content {
        MessageContent::Text(text) => keys.push(("content", Value::from(text.as_str()))),
        MessageContent::Parts(parts) => keys.push(("content", from_json(&json!(parts)))),
        MessageContent::Nothing => {}
    }
    if !message.tool_calls.is_empty() {
        keys.push(("tool_calls", Value::from_iter(message.tool_calls.iter().map(call_as_template_value))));
    }
    for (key, text) in [("tool_call_id", &message.tool_call_id), ("name", &message.name)] {
        keys.extend(text.as_deref().map(|text| (key, Value::from(text))));
    }
    let said = |key: &&str| message.others.get(*key).filter(|value| !value.is_null());
    let reasoning = REASONING.iter().find_map(said);
    if let Some(reasoning) = reasoning.filter(|_| said(&"thinking").is_none()) {
        keys.push(("thinking", from_json(reasoning)));
    }
    let taken = [REASONING[0], "role"];
    let others = message.others.iter().filter(|(key, value)| !taken.contains(&key.as_str()) && !value.is_null());
    keys.extend(others.map(|(key, value)| (key.as_str(), from_json(value))));
    keys.extend(reasoning.map(|reasoning| (REASONING[0], from_json(reasoning))));
    Value::from_pairs(keys)
}

fn call_as_template_value(call: &ToolCall) -> Value {
    let written = call.function.arguments.as_str();
    // What a model wrote need not be JSON; templates that print it as it is get it so.
    let arguments = match serde_json::from_str::<Json>(written) {
        Ok(object @ Json::Object(_)) => from_json(&object),
        _ => Value::from(written),
    };
    let function = [("name", Value::from(call.function.name.as_str())), ("arguments", arguments)];
    let id = (!call.id.is_empty()).then(|| ("id", Value::from(call.id.as_str())));
    let rest = [("type", from_json(&json!(call.kind))), ("function", Value::from_pairs(function))];
    Value::from_pairs(id.into_iter().chain(rest))
}

/// JSON as templates see it, keys in their order.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => Value::from(whole),
            (_, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::from_iter(list.iter().map(from_json)),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

/// The message with something written at the end of its last text, and that text without white space around it. None
/// where nothing is said.
pub(crate) fn extended(message: &Message, more: &str) -> Option<(Message, String)> {
    let mut extended = message.clone();
    let said = match &mut extended.content {
        MessageContent::Text(text) => Some(text),
        MessageContent::Parts(parts) => parts.iter_mut().rev().find_map(|part| match part {
            Part::Text { text } => Some(text),
            _ => None,
        }),
        MessageContent::Nothing => None,
    };
    let said = said.filter(|text| !text.is_empty())?;
    let kept = said.trim().to_string();
    said.push_str(more);
    Some((extended, kept))
}
