//! From items to chat messages. Takes items in the one form that `input` makes and answers have; knows no other.

use narthex_http::ApiError;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, mem};

/// The messages of a conversation. The model's own items that stand together become one message, as chat has it.
pub(super) fn messages<'a>(
    instructions: Option<&str>,
    items: impl IntoIterator<Item = &'a Value>,
) -> Result<Vec<Value>, ApiError> {
    let mut messages = Vec::new();
    messages.extend(instructions.map(|text| json!({"role": "system", "content": text})));
    let mut own = Own::default();
    let mut called = HashSet::new();
    for item in items {
        match item["type"].as_str().unwrap_or_default() {
            "reasoning" => {
                // New thoughts begin a new message, unless calls still wait for what they gave: that must follow them.
                if own.calls.is_empty() {
                    own.flush(&mut messages);
                }
                own.reasoning.extend(reasoning(item));
            }
            "function_call" => {
                called.insert(item["call_id"].as_str().unwrap_or_default());
                own.calls.push(json!({
                    "id": item["call_id"], "type": "function",
                    "function": {"name": item["name"], "arguments": item["arguments"]},
                }));
            }
            "function_call_output" => {
                let id = item["call_id"].as_str().unwrap_or_default();
                if !called.contains(id) {
                    let message = format!("the conversation has no function call `{id}` before what it gave");
                    return Err(ApiError::field("input", message));
                }
                own.flush(&mut messages);
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": content(&item["output"])}));
            }
            _ if item["role"] == "assistant" => {
                if !own.texts.is_empty() && own.calls.is_empty() {
                    own.flush(&mut messages);
                }
                own.texts.extend(texts(&item["content"]));
            }
            _ => {
                own.flush(&mut messages);
                messages.push(json!({"role": item["role"], "content": content(&item["content"])}));
            }
        }
    }
    own.flush(&mut messages);
    Ok(messages)
}

/// The model's message that is being put together.
#[derive(Default)]
struct Own {
    reasoning: Vec<String>,
    texts: Vec<String>,
    calls: Vec<Value>,
}

impl Own {
    /// Thoughts that nothing followed are dropped.
    fn flush(&mut self, messages: &mut Vec<Value>) {
        let Self { reasoning, texts, calls } = mem::take(self);
        if texts.is_empty() && calls.is_empty() {
            return;
        }
        let mut message = Map::new();
        message.insert("role".to_string(), json!("assistant"));
        message.insert("content".to_string(), if texts.is_empty() { Value::Null } else { joined(texts) });
        if !reasoning.is_empty() {
            message.insert("reasoning_content".to_string(), json!(reasoning.join("\n")));
        }
        if !calls.is_empty() {
            message.insert("tool_calls".to_string(), Value::Array(calls));
        }
        messages.push(Value::Object(message));
    }
}

/// The whole thoughts if they are there, otherwise their summary.
fn reasoning(item: &Value) -> Option<String> {
    let text = |field: &str| Some(texts(&item[field]).join("\n")).filter(|text| !text.is_empty());
    text("content").or_else(|| text("summary"))
}

fn texts(parts: &Value) -> Vec<String> {
    let text = |part: &Value| part["text"].as_str().or_else(|| part["refusal"].as_str()).map(str::to_string);
    parts.as_array().into_iter().flatten().filter_map(text).collect()
}

fn content(value: &Value) -> Value {
    if value.is_string() { value.clone() } else { joined(texts(value)) }
}

/// One text as a string, more as parts: how they are joined is chat's business.
fn joined(mut texts: Vec<String>) -> Value {
    match texts.len() {
        0 | 1 => json!(texts.pop().unwrap_or_default()),
        _ => texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect(),
    }
}

#[cfg(test)]
mod tests;
