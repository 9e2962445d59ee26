//! `tools` and `tool_choice`: from the flat form to chat's nested one. Does not judge a function's name or its schema:
//! chat does.

use super::fields::Fields;
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// What a request says about tools.
#[derive(Debug)]
pub(super) struct Tools {
    /// As the response shows them.
    pub shown: Vec<Value>,
    pub shown_choice: Value,
    /// As chat takes them.
    pub chat: Vec<Value>,
    pub chat_choice: Option<Value>,
}

/// Reads both fields.
pub(super) fn read(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Tools, ApiError> {
    let (mut shown, mut chat) = (vec![], vec![]);
    for (index, value) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let (tool, function) = read_tool(index, value, ignored)?;
        shown.push(tool);
        chat.push(json!({"type": "function", "function": function}));
    }
    let names: Vec<&str> = shown.iter().filter_map(|tool| tool["name"].as_str()).collect();
    let (shown_choice, chat_choice) = match fields.take("tool_choice") {
        None => (json!("auto"), None),
        Some(choice) => read_choice(choice, &names, ignored)?,
    };
    // Without tools chat has no use for a choice among them.
    let idle = chat.is_empty() && (shown_choice == "auto" || shown_choice == "none");
    Ok(Tools { shown, shown_choice, chat, chat_choice: chat_choice.filter(|_| !idle) })
}

/// A tool as it is shown, and its function for chat.
fn read_tool(index: usize, value: Value, ignored: &mut Vec<String>) -> Result<(Value, Value), ApiError> {
    let mut fields = Fields::nested(value, &format!("tools[{index}]"))?;
    let kind = fields.needed("type")?;
    if kind != "function" {
        return Err(fields.refused("type", &format!("there is no built-in tool `{kind}` here, only `function`")));
    }
    let name = fields.needed("name")?;
    let description = fields.string("description")?;
    let parameters = fields.map("parameters")?;
    let strict = fields.flag("strict")?;
    fields.unsupported("defer_loading", &[json!(false)], "every function is shown to the model at once")?;
    fields.unsupported("allowed_callers", &[json!(["direct"])], "only models call functions here")?;
    fields.unsupported("async", &[json!(false)], "an answer ends with its calls")?;
    fields.finish(ignored);
    let mut function = Map::new();
    function.insert("name".to_string(), json!(name));
    function.extend(description.as_ref().map(|text| ("description".to_string(), json!(text))));
    function.extend(parameters.as_ref().map(|schema| ("parameters".to_string(), json!(schema))));
    function.extend(strict.map(|strict| ("strict".to_string(), json!(strict))));
    let shown = json!({
        "type": "function", "name": name, "description": description, "parameters": parameters, "strict": strict,
    });
    Ok((shown, Value::Object(function)))
}

/// A choice as it is shown, and for chat.
fn read_choice(choice: Value, names: &[&str], ignored: &mut Vec<String>) -> Result<(Value, Option<Value>), ApiError> {
    if let Value::String(word) = &choice {
        return match word.as_str() {
            "none" | "auto" | "required" => Ok((choice.clone(), Some(choice))),
            _ => Err(ApiError::field("tool_choice", "`tool_choice` must be none, auto, required or an object")),
        };
    }
    let mut fields = Fields::nested(choice, "tool_choice")?;
    match fields.needed("type")?.as_str() {
        "function" => {
            let name = known(&mut fields, names)?;
            fields.finish(ignored);
            let chat = json!({"type": "function", "function": {"name": name}});
            Ok((json!({"type": "function", "name": name}), Some(chat)))
        }
        "allowed_tools" => {
            let mode = fields.word("mode", &["auto", "required"])?.ok_or_else(|| fields.missing("mode"))?;
            let list = fields.list("tools")?.ok_or_else(|| fields.missing("tools"))?;
            let (mut shown, mut chat) = (vec![], vec![]);
            for (index, value) in list.into_iter().enumerate() {
                let mut tool = Fields::nested(value, &format!("tool_choice.tools[{index}]"))?;
                tool.word("type", &["function"])?;
                let name = known(&mut tool, names)?;
                tool.finish(ignored);
                shown.push(json!({"type": "function", "name": name}));
                chat.push(json!({"type": "function", "function": {"name": name}}));
            }
            if chat.is_empty() {
                return Err(fields.wrong("tools", "a list of at least one function"));
            }
            fields.finish(ignored);
            let chat = json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": chat}});
            Ok((json!({"type": "allowed_tools", "mode": mode, "tools": shown}), Some(chat)))
        }
        kind => Err(fields.refused("type", &format!("there is no built-in tool `{kind}` to choose here"))),
    }
}

/// The name of a function that `tools` has.
fn known(fields: &mut Fields, names: &[&str]) -> Result<String, ApiError> {
    let name = fields.needed("name")?;
    match names.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(fields.wrong("name", &format!("the name of a function in `tools`, and `{name}` is none"))),
    }
}
