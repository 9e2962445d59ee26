//! `messages` and `tools` of a chat. Knows nothing of settings.

use crate::dialects::passing::Ignored;
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// Calls that no message has answered yet: ids and names.
type Pending = Vec<(String, String)>;

/// The messages of a chat, none for a client that only wants the model to be loaded.
pub(super) fn read(fields: &mut Fields, ignored: &mut Ignored) -> Result<Vec<Value>, ApiError> {
    let list = match fields.take("messages") {
        None => vec![],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field("messages", "`messages` must be a list of messages")),
    };
    let mut pending = Pending::new();
    let message = |(index, value)| read_message(index, value, &mut pending, ignored);
    list.into_iter().enumerate().map(message).collect()
}

fn read_message(index: usize, value: Value, pending: &mut Pending, ignored: &mut Ignored) -> Result<Value, ApiError> {
    let name = format!("messages[{index}]");
    let Value::Object(map) = value else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `role` and `content`")));
    };
    let mut fields = Fields::new(map, format!("{name}."));
    let role = fields.string("role")?.ok_or_else(|| fields.missing("role"))?.to_lowercase();
    let content = fields.string("content")?;
    fields.unsupported("images", &[])?;
    let mut message = Map::new();
    message.insert("role".into(), role.clone().into());
    message.insert("content".into(), content.clone().unwrap_or_default().into());
    match role.as_str() {
        "system" | "user" => {}
        "assistant" => {
            if let Some(thinking) = fields.string("thinking")?.filter(|thinking| !thinking.is_empty()) {
                message.insert("reasoning_content".into(), thinking.into());
            }
            let calls = read_calls(index, &mut fields, ignored)?;
            if !calls.is_empty() {
                let known =
                    |call: &Value| Some((call["id"].as_str()?.into(), call["function"]["name"].as_str()?.into()));
                *pending = calls.iter().filter_map(known).collect();
                message.insert("tool_calls".into(), calls.into());
            }
        }
        "tool" => {
            let tool = fields.string("tool_name")?;
            let id = fields.string("tool_call_id")?;
            let id = answered(pending, id, tool.as_deref());
            message.insert("tool_call_id".into(), id.unwrap_or_else(|| format!("call_{index}")).into());
            message.extend(tool.map(|tool| ("name".to_string(), tool.into())));
        }
        _ => {
            let message = format!("`{name}.role` must be system, user, assistant or tool");
            return Err(ApiError::field(format!("{name}.role"), message));
        }
    }
    ignored.rest(&mut fields);
    Ok(message.into())
}

/// The call that a tool's message answers: by its id, else the first of its name, else the first.
fn answered(pending: &mut Pending, id: Option<String>, tool: Option<&str>) -> Option<String> {
    let position = match (&id, tool) {
        (Some(id), _) => pending.iter().position(|(known, _)| known == id),
        (None, Some(tool)) => pending.iter().position(|(_, name)| name == tool),
        (None, None) => (!pending.is_empty()).then_some(0),
    };
    let found = position.map(|position| pending.remove(position).0);
    id.or(found)
}

/// Calls with objects as arguments and, mostly, without ids.
fn read_calls(message: usize, fields: &mut Fields, ignored: &mut Ignored) -> Result<Vec<Value>, ApiError> {
    let place = fields.name("tool_calls");
    let list = match fields.take("tool_calls") {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field(&place, format!("`{place}` must be a list of calls"))),
    };
    let call = |(index, value): (usize, Value)| {
        let name = format!("{place}[{index}]");
        let Value::Object(map) = value else {
            return Err(ApiError::field(&name, format!("`{name}` must be an object with `function`")));
        };
        let mut call = Fields::new(map, format!("{name}."));
        let id = call.string("id")?.unwrap_or_else(|| format!("call_{message}_{index}"));
        call.take("type");
        let mut function = call.object("function")?.ok_or_else(|| call.missing("function"))?;
        let tool = function.string("name")?.ok_or_else(|| function.missing("name"))?;
        function.take("index");
        let arguments = match function.take("arguments") {
            None => "{}".to_string(),
            Some(Value::Object(arguments)) => Value::Object(arguments).to_string(),
            Some(_) => {
                let place = function.name("arguments");
                return Err(ApiError::field(&place, format!("`{place}` must be an object")));
            }
        };
        ignored.rest(&mut function);
        ignored.rest(&mut call);
        Ok(json!({"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}))
    };
    list.into_iter().enumerate().map(call).collect()
}

/// `tools`, whose form is a chat's.
pub(super) fn read_tools(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let list = match fields.take("tools") {
        None => return Ok(()),
        Some(Value::Array(list)) if list.is_empty() => return Ok(()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field("tools", "`tools` must be a list of tools")),
    };
    let tool = |(index, value): (usize, Value)| {
        let name = format!("tools[{index}]");
        let Value::Object(map) = value else {
            return Err(ApiError::field(&name, format!("`{name}` must be an object with `function`")));
        };
        let mut fields = Fields::new(map, format!("{name}."));
        if let Some(kind) = fields.string("type")?.filter(|kind| kind != "function") {
            let message = format!("tools of type `{kind}` are not supported: only `function`");
            return Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"));
        }
        let mut function = fields.object("function")?.ok_or_else(|| fields.missing("function"))?;
        fields.take("items");
        ignored.rest(&mut fields);
        Ok(json!({"type": "function", "function": function.rest()}))
    };
    let tools = list.into_iter().enumerate().map(tool).collect::<Result<Vec<_>, ApiError>>()?;
    request.insert("tools".into(), tools.into());
    Ok(())
}
