//! `input`: what a client gives as items, brought into the one form in which items are kept and listed. Knows nothing
//! of chat messages.

use super::{fields::Fields, ids::Ids};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// Finds a kept item by its name.
pub(super) type LookUp<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// Reads `input`; an absent one has no items.
pub(super) fn read(
    input: Option<Value>,
    ids: &Ids,
    look_up: LookUp<'_>,
    ignored: &mut Vec<String>,
) -> Result<Vec<Value>, ApiError> {
    let list = match input {
        None => return Ok(vec![]),
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field("input", "`input` must be a string or a list of items")),
    };
    let item = |(index, value)| read_item(index, value, ids, look_up, ignored);
    list.into_iter().enumerate().map(item).collect()
}

fn read_item(
    index: usize,
    value: Value,
    ids: &Ids,
    look_up: LookUp<'_>,
    ignored: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let name = format!("input[{index}]");
    let mut fields = Fields::nested(value, &name)?;
    let given = fields.string("type")?;
    let id = fields.string("id")?.filter(|id| !id.is_empty());
    let role = fields.string("role")?;
    let kind = match (&given, &role, &id) {
        (Some(kind), _, _) => kind.as_str(),
        (None, Some(_), _) => "message",
        (None, None, Some(_)) => "item_reference",
        (None, None, None) => return Err(fields.missing("type")),
    };
    if kind == "item_reference" {
        let id = id.ok_or_else(|| fields.missing("id"))?;
        fields.finish(ignored);
        return look_up(&id).ok_or_else(|| {
            let message = format!("no item `{id}` is kept here: it is unknown, too old, or of `\"store\": false`");
            ApiError::field(format!("{name}.id"), message).code("item_not_found")
        });
    }
    let mut item = Map::new();
    item.insert("id".to_string(), json!(id.unwrap_or_else(|| ids.item(kind, index))));
    item.insert("type".to_string(), json!(kind));
    let mut put = |field: &str, value: Value| item.insert(field.to_string(), value);
    match kind {
        "message" => {
            let role = role.ok_or_else(|| fields.missing("role"))?;
            let answered = match role.as_str() {
                "assistant" => true,
                "user" | "system" | "developer" => false,
                _ => return Err(fields.wrong("role", "user, assistant, system or developer")),
            };
            put("status", json!(fields.word("status", &STATUS)?.as_deref().unwrap_or("completed")));
            put("role", json!(role));
            put("content", read_content(&mut fields, "content", answered, ignored)?);
            // Which of a model's messages is the last one: no template asks.
            fields.harmless(&["phase"]);
        }
        "function_call" => {
            put("status", json!(fields.word("status", &STATUS)?.as_deref().unwrap_or("completed")));
            for field in ["call_id", "name", "arguments"] {
                put(field, json!(fields.needed(field)?));
            }
            fields.harmless(&["created_by", "async"]);
        }
        "function_call_output" => {
            put("status", json!(fields.word("status", &STATUS)?.as_deref().unwrap_or("completed")));
            put("call_id", json!(fields.needed("call_id")?));
            let output = match fields.take("output") {
                Some(Value::String(text)) => Value::String(text),
                Some(Value::Array(parts)) => read_parts(parts, &fields.name("output"), false, ignored)?,
                Some(_) => return Err(fields.wrong("output", "a string or a list of parts")),
                None => return Err(fields.missing("output")),
            };
            put("output", output);
            fields.harmless(&["created_by", "name"]);
        }
        "reasoning" => {
            put("summary", read_texts(&mut fields, "summary", "summary_text")?);
            put("content", read_texts(&mut fields, "content", "reasoning_text")?);
            // Of another server's secret nothing can be read: such an item says nothing to us.
            put("encrypted_content", json!(fields.string("encrypted_content")?));
            put("status", json!(fields.word("status", &STATUS)?.as_deref().unwrap_or("completed")));
        }
        _ => return Err(fields.refused("type", &format!("items of type `{kind}` cannot be read here"))),
    }
    // Calls are always made by the model itself and by plain names.
    fields.unsupported("caller", &[json!({"type": "direct"})], "only models call functions here")?;
    fields.unsupported("namespace", &[json!("")], "functions have plain names here")?;
    fields.finish(ignored);
    Ok(Value::Object(item))
}

const STATUS: [&str; 3] = ["in_progress", "completed", "incomplete"];

/// A string or a list of parts, as a list of parts.
fn read_content(
    fields: &mut Fields,
    field: &str,
    answered: bool,
    ignored: &mut Vec<String>,
) -> Result<Value, ApiError> {
    match fields.take(field) {
        Some(Value::String(text)) => Ok(json!([text_part(text, answered)])),
        Some(Value::Array(parts)) => read_parts(parts, &fields.name(field), answered, ignored),
        Some(_) => Err(fields.wrong(field, "a string or a list of parts")),
        None => Err(fields.missing(field)),
    }
}

fn text_part(text: String, answered: bool) -> Value {
    match answered {
        true => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
        false => json!({"type": "input_text", "text": text}),
    }
}

fn read_parts(parts: Vec<Value>, name: &str, answered: bool, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let part = |(index, value)| read_part(value, &format!("{name}[{index}]"), answered, ignored);
    parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn read_part(value: Value, name: &str, answered: bool, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let mut fields = Fields::nested(value, name)?;
    let kind = fields.needed("type")?;
    let part = match kind.as_str() {
        // Who wrote a message says which of the two it is; clients mix them up.
        "input_text" | "output_text" => text_part(fields.needed("text")?, answered),
        "refusal" if answered => json!({"type": "refusal", "refusal": fields.needed("refusal")?}),
        "input_image" => return Err(fields.refused("type", "images cannot be read here, only text")),
        "input_file" => return Err(fields.refused("type", "files cannot be read here, only text: give their text")),
        "input_audio" => return Err(fields.refused("type", "sound cannot be read here, only text")),
        _ => return Err(fields.wrong("type", if answered { "output_text or refusal" } else { "input_text" })),
    };
    // What an answer's text came with says nothing to the model; what others keep in a cache is kept here anyway.
    fields.harmless(&["annotations", "logprobs", "prompt_cache_breakpoint"]);
    fields.finish(ignored);
    Ok(part)
}

/// The texts of a reasoning item.
fn read_texts(fields: &mut Fields, field: &str, kind: &str) -> Result<Value, ApiError> {
    let list = fields.list(field)?.unwrap_or_default();
    let text = |(index, value)| {
        let mut part = Fields::nested(value, &format!("{}[{index}]", fields.name(field)))?;
        part.word("type", &[kind])?;
        Ok(json!({"type": kind, "text": part.needed("text")?}))
    };
    list.into_iter().enumerate().map(text).collect::<Result<Vec<_>, ApiError>>().map(Value::Array)
}

#[cfg(test)]
mod tests;
