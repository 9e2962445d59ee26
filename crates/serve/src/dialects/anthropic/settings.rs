//! Tools, thoughts, the answer's form and its end. Knows nothing of messages.

use crate::dialects::passing::{Ignored, template_flag};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// `stop_sequences`.
pub(super) fn read_stops(fields: &mut Fields, request: &mut Map<String, Value>) -> Result<(), ApiError> {
    let name = "stop_sequences";
    match fields.take(name) {
        None => {}
        Some(Value::Array(list)) if list.is_empty() => {}
        Some(Value::Array(list)) if list.iter().all(|stop| stop.as_str().is_some_and(|stop| !stop.is_empty())) => {
            request.insert("stop".into(), list.into());
        }
        Some(_) => {
            let message = format!("`{name}` must be a list of strings which are not empty");
            return Err(ApiError::field(name, message));
        }
    }
    Ok(())
}

/// `thinking`. Without it, the model's template decides. Returns whether thoughts are shown.
pub(super) fn read_thinking(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<bool, ApiError> {
    let Some(mut thinking) = fields.object("thinking")? else { return Ok(true) };
    let kind = thinking.string("type")?.ok_or_else(|| thinking.missing("type"))?;
    let budget = thinking.integer("budget_tokens", 1..=i64::MAX)?;
    let shown = match thinking.string("display")?.as_deref() {
        None | Some("summarized") => true,
        Some("omitted") => false,
        Some(_) => {
            let message = "`thinking.display` must be summarized or omitted";
            return Err(ApiError::field("thinking.display", message));
        }
    };
    ignored.rest(&mut thinking);
    match kind.as_str() {
        "enabled" => {
            let budget = budget.ok_or_else(|| thinking.missing("budget_tokens"))?;
            request.insert("thinking_token_budget".into(), budget.into());
            template_flag(request, "enable_thinking", true);
        }
        "adaptive" => template_flag(request, "enable_thinking", true),
        "disabled" => template_flag(request, "enable_thinking", false),
        _ => {
            let message = format!("`thinking.type` `{kind}` is not supported: only enabled, adaptive and disabled");
            return Err(ApiError::field("thinking.type", message).code("unsupported_parameter"));
        }
    }
    Ok(shown)
}

/// `tools` and `tool_choice`.
pub(super) fn read_tools(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let tools = match fields.take("tools") {
        None => vec![],
        Some(Value::Array(list)) => {
            let tool = |(index, value)| read_tool(format!("tools[{index}]"), value, ignored);
            list.into_iter().enumerate().map(tool).collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err(ApiError::field("tools", "`tools` must be a list of tools")),
    };
    let named = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
    let choice = match fields.object("tool_choice")? {
        None => None,
        Some(mut choice) => {
            let kind = choice.string("type")?.ok_or_else(|| choice.missing("type"))?;
            if choice.flag("disable_parallel_tool_use")?.unwrap_or(false) && !tools.is_empty() {
                request.insert("parallel_tool_calls".into(), false.into());
            }
            let chosen = match kind.as_str() {
                "auto" => json!("auto"),
                "none" => json!("none"),
                "any" => json!("required"),
                "tool" => {
                    let name = choice.string("name")?.ok_or_else(|| choice.missing("name"))?;
                    if !named(&name) {
                        let message = format!("`tool_choice.name` names `{name}`, which is not among `tools`");
                        return Err(ApiError::field("tool_choice.name", message));
                    }
                    json!({"type": "function", "function": {"name": name}})
                }
                _ => {
                    let message = "`tool_choice.type` must be auto, any, tool or none";
                    return Err(ApiError::field("tool_choice.type", message));
                }
            };
            ignored.rest(&mut choice);
            Some(chosen)
        }
    };
    if tools.is_empty() {
        return match choice {
            Some(choice) if choice == "required" => {
                Err(ApiError::field("tool_choice", "`tool_choice` asks for a call, but there are no `tools`"))
            }
            _ => Ok(()),
        };
    }
    request.insert("tools".into(), tools.into());
    request.extend(choice.map(|choice| ("tool_choice".to_string(), choice)));
    Ok(())
}

fn read_tool(name: String, value: Value, ignored: &mut Ignored) -> Result<Value, ApiError> {
    let Value::Object(map) = value else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `name` and `input_schema`")));
    };
    let mut fields = Fields::new(map, format!("{name}."));
    let kind = fields.string("type")?;
    if let Some(kind) = kind.filter(|kind| kind != "custom") {
        let message = format!("tools of type `{kind}` are not supported: only those with an `input_schema`");
        return Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"));
    }
    let mut function = Map::new();
    let title = fields.string("name")?.ok_or_else(|| fields.missing("name"))?;
    function.insert("name".into(), title.into());
    if let Some(description) = fields.string("description")? {
        function.insert("description".into(), description.into());
    }
    let mut schema = fields.object("input_schema")?.ok_or_else(|| fields.missing("input_schema"))?;
    function.insert("parameters".into(), Value::Object(schema.rest()));
    if let Some(strict) = fields.flag("strict")? {
        function.insert("strict".into(), strict.into());
    }
    fields.take("cache_control");
    // All input streams as it comes, whatever this says.
    fields.take("eager_input_streaming");
    ignored.rest(&mut fields);
    Ok(json!({"type": "function", "function": function}))
}

/// `output_config`, and `output_format`, an older name of its `format`.
pub(super) fn read_output(
    fields: &mut Fields,
    request: &mut Map<String, Value>,
    ignored: &mut Ignored,
) -> Result<(), ApiError> {
    let mut format = fields.object("output_format")?;
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(newer) = config.object("format")? {
            format = Some(newer);
        }
        match config.string("effort")?.as_deref() {
            None => {}
            Some(effort @ ("low" | "medium" | "high" | "xhigh")) => {
                request.insert("reasoning_effort".into(), effort.into());
            }
            // The highest that chats have.
            Some("max") => {
                request.insert("reasoning_effort".into(), "xhigh".into());
            }
            Some(_) => {
                let message = "`output_config.effort` must be low, medium, high, xhigh or max";
                return Err(ApiError::field("output_config.effort", message));
            }
        }
        ignored.rest(&mut config);
    }
    let Some(mut format) = format else { return Ok(()) };
    match format.string("type")?.as_deref() {
        Some("json_schema") => {}
        _ => {
            let place = format.name("type");
            return Err(ApiError::field(&place, format!("`{place}` must be json_schema")));
        }
    }
    let mut schema = format.object("schema")?.ok_or_else(|| format.missing("schema"))?;
    let schema = json!({"name": "output", "schema": schema.rest(), "strict": true});
    request.insert("response_format".into(), json!({"type": "json_schema", "json_schema": schema}));
    ignored.rest(&mut format);
    Ok(())
}
