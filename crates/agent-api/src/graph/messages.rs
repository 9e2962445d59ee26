//! Messages in LangChain's form, and ours. Knows no run.

use crate::said;
use narthex_base::chat::{Message, MessageContent, Part, Role};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// Reads `messages` of an input: one message or a list; each an object with `type` or `role`, a pair of role and text,
/// or a text.
///
/// # Errors
/// If it is none of them.
pub(super) fn read(value: Value, name: &str) -> Result<Vec<Message>, ApiError> {
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    said::bounded(list.len(), name)?;
    list.into_iter().enumerate().map(|(index, value)| read_one(value, &format!("{name}[{index}]"))).collect()
}

fn read_one(value: Value, name: &str) -> Result<Message, ApiError> {
    let value = match value {
        Value::String(text) => json!({"role": "user", "content": text}),
        Value::Array(pair) if pair.len() == 2 => json!({"role": word(&pair[0]), "content": pair[1]}),
        Value::Object(mut map) => {
            if !map.contains_key("role") {
                let kind = map.get("type").map(word).unwrap_or_default();
                map.insert("role".into(), kind.into());
            } else {
                let role = word(&map["role"]);
                map.insert("role".into(), role.into());
            }
            let calls = map.shift_remove("tool_calls").unwrap_or_default();
            let calls: Vec<Value> = calls.as_array().into_iter().flatten().map(openai_call).collect();
            if !calls.is_empty() {
                map.insert("tool_calls".into(), calls.into());
            }
            Value::Object(map)
        }
        other => other,
    };
    said::message(value, name)
}

/// OpenAI's word for who speaks.
fn word(kind: &Value) -> String {
    match kind.as_str().unwrap_or_default() {
        "human" | "HumanMessage" | "HumanMessageChunk" => "user",
        "ai" | "AIMessage" | "AIMessageChunk" => "assistant",
        "ToolMessage" => "tool",
        "SystemMessage" => "system",
        other => other,
    }
    .to_string()
}

fn openai_call(call: &Value) -> Value {
    if call["function"].is_object() {
        return call.clone();
    }
    json!(said::call(
        call["id"].as_str().unwrap_or_default(),
        call["name"].as_str().unwrap_or_default(),
        &call["args"].to_string(),
    ))
}

/// A message with its id.
pub(super) fn written(message: &Message, id: &str) -> Value {
    let content = content(message);
    let mut more = Map::new();
    if let Some(thought) = message.others.get("reasoning_content") {
        more.insert("reasoning_content".into(), thought.clone());
    }
    match message.role {
        Role::User | Role::System => json!({
            "type": "human", "content": content, "id": id, "name": message.name, "additional_kwargs": {},
            "response_metadata": {},
        }),
        Role::Assistant => {
            let (calls, wrong) = calls(message);
            json!({
                "type": "ai", "content": content, "id": id, "name": message.name, "additional_kwargs": more,
                "response_metadata": {}, "tool_calls": calls, "invalid_tool_calls": wrong, "usage_metadata": null,
            })
        }
        Role::Tool => json!({
            "type": "tool", "content": content, "id": id, "name": message.name, "additional_kwargs": {},
            "response_metadata": {}, "tool_call_id": message.tool_call_id, "status": "success", "artifact": null,
        }),
    }
}

/// A piece of the agent's message under way.
pub(super) fn chunk(id: &str, text: &str, thought: Option<&str>) -> Value {
    let mut more = Map::new();
    if let Some(thought) = thought {
        more.insert("reasoning_content".into(), thought.into());
    }
    json!({
        "type": "AIMessageChunk", "content": text, "id": id, "name": null, "additional_kwargs": more,
        "response_metadata": {}, "tool_calls": [], "invalid_tool_calls": [], "tool_call_chunks": [],
        "usage_metadata": null,
    })
}

/// The last piece of a message: its calls.
pub(super) fn last_chunk(message: &Message, id: &str) -> Value {
    let mut last = chunk(id, "", None);
    let chunk = |(index, call): (usize, &narthex_base::ToolCall)| {
        let (name, args) = (&call.function.name, &call.function.arguments);
        json!({"type": "tool_call_chunk", "index": index, "id": call.id, "name": name, "args": args})
    };
    let (calls, wrong) = calls(message);
    last["tool_call_chunks"] = message.tool_calls.iter().enumerate().map(chunk).collect();
    (last["tool_calls"], last["invalid_tool_calls"]) = (calls.into(), wrong.into());
    last["chunk_position"] = json!("last");
    last
}

/// Calls whose arguments are an object, and the others.
fn calls(message: &Message) -> (Vec<Value>, Vec<Value>) {
    let (mut calls, mut wrong) = (vec![], vec![]);
    for call in &message.tool_calls {
        let function = &call.function;
        match serde_json::from_str::<Map<String, Value>>(&function.arguments) {
            Ok(args) => calls.push(json!({"type": "tool_call", "id": call.id, "name": function.name, "args": args})),
            Err(error) => wrong.push(json!({
                "type": "invalid_tool_call", "id": call.id, "name": function.name, "args": function.arguments,
                "error": error.to_string(),
            })),
        }
    }
    (calls, wrong)
}

/// A text, or parts as LangChain has them: OpenAI's.
fn content(message: &Message) -> Value {
    match &message.content {
        MessageContent::Nothing => json!(""),
        MessageContent::Text(text) => json!(text),
        MessageContent::Parts(parts) => {
            let texts = parts.iter().all(|part| matches!(part, Part::Text { .. }));
            if texts { json!(message.text()) } else { json!(parts) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn langchains_messages_are_read() {
        let check = |given: Value, expected: Value| {
            assert_eq!(read(given.clone(), "messages").map(|read| json!(read)).ok(), Some(expected), "{given}");
        };
        let user = json!([{"role": "user", "content": "a"}]);
        for given in [
            json!("a"),
            json!(["a"]),
            json!([["user", "a"]]),
            json!([["human", "a"]]),
            json!([{"role": "user", "content": "a"}]),
            json!([{"role": "human", "content": "a"}]),
            json!({"type": "human", "content": "a", "id": null, "additional_kwargs": {}, "example": false}),
            json!([{"type": "system", "content": [{"type": "text", "text": "a"}]}]),
        ] {
            check(given, user.clone());
        }
        let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}});
        let called = json!([{"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "b", "tool_call_id": "1", "name": "f"}]);
        let given = json!([{"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"x": 1}, "id": "1"}]},
            {"type": "tool", "content": "b", "tool_call_id": "1", "name": "f", "status": "success"}]);
        check(given, called.clone());
        // What we write is read as the same.
        let messages = read(called.clone(), "messages").unwrap();
        let written: Vec<Value> = messages.iter().map(|message| written(message, "id")).collect();
        check(json!(written), called);
        for wrong in [json!([1]), json!([{"content": "a"}]), json!([["robot", "a"]]), json!([["a", "b", "c"]])] {
            assert!(read(wrong.clone(), "messages").is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_that_are_no_object_are_invalid_calls() {
        let mut message = Message::new(Role::Assistant, "a");
        message.tool_calls = vec![said::call("1", "f", "{"), said::call("2", "g", "{}")];
        let written = written(&message, "id");
        assert_eq!(
            (&written["tool_calls"][0]["id"], &written["invalid_tool_calls"][0]["id"]),
            (&json!("2"), &json!("1"))
        );
    }
}
