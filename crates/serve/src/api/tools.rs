//! The tools of a request: which there are, and whether the model may, must or may not call them. Knows neither how a
//! model writes a call nor what answers are.

use crate::Limits;
use narthex_http::{ApiError, Fields};
use narthex_text::calls::Tool;
use serde_json::{Value, json};

/// Whether tools are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The model decides.
    Auto,
    /// At least one.
    Required,
    /// This one, once.
    Named(String),
}

/// The tools of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedTools {
    /// As the template shows them.
    pub shown: Vec<Value>,
    /// Those that may be called.
    pub tools: Vec<Tool>,
    pub choice: Choice,
    /// Whether more than one call may come.
    pub parallel: bool,
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`; nothing if no tool may be called.
pub(crate) fn read_tools(fields: &mut Fields, limits: &Limits) -> Result<Option<AskedTools>, ApiError> {
    let parallel = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    fields.unsupported("functions", &[])?;
    fields.unsupported("function_call", &[json!("none"), json!("auto")])?;
    let choice = fields.take("tool_choice");
    let list = match fields.take("tools") {
        None => {
            return match choice {
                Some(choice) if choice != "none" && choice != "auto" => {
                    Err(ApiError::field("tool_choice", "`tool_choice` needs `tools`"))
                }
                _ => Ok(None),
            };
        }
        Some(Value::Array(list)) if !list.is_empty() => list,
        // LangChain's agents send it beside the form of their answer.
        Some(Value::Array(_)) if fields.asked("response_format") => return Ok(None),
        Some(_) => return Err(ApiError::field("tools", "`tools` must be a list of at least one tool")),
    };
    if list.len() > limits.tools_max {
        return Err(ApiError::field("tools", format!("`tools` may have {} tools at most", limits.tools_max)));
    }
    let mut tools = Vec::with_capacity(list.len());
    for (at, tool) in list.iter().enumerate() {
        let tool: Tool = read_tool(fields, &format!("tools[{at}]"), tool)?;
        if tools.iter().any(|known: &Tool| known.name == tool.name) {
            let message = format!("there are two tools of the name `{}`", tool.name);
            return Err(ApiError::field(format!("tools[{at}].function.name"), message));
        }
        tools.push(tool);
    }
    let Some(choice) = read_choice(choice, &mut tools)? else { return Ok(None) };
    Ok(Some(AskedTools { shown: list, tools, choice, parallel }))
}

fn read_tool(outer: &Fields, name: &str, tool: &Value) -> Result<Tool, ApiError> {
    let wrong = || ApiError::field(name, format!("`{name}` must be an object with `type` and `function`"));
    let Value::Object(map) = tool else { return Err(wrong()) };
    let mut fields = outer.inner(map.clone(), name);
    let kind = fields.string("type")?.unwrap_or_else(|| "function".into());
    if kind != "function" {
        let message = format!("tools of type `{kind}` are not supported: only `function`");
        return Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"));
    }
    let mut function = fields.object("function")?.ok_or_else(wrong)?;
    let called = function.string("name")?.ok_or_else(|| function.missing("name"))?;
    if called.is_empty() {
        let field = format!("{name}.function.name");
        return Err(ApiError::field(&field, format!("`{field}` must not be empty")));
    }
    function.string("description")?;
    let strict = function.flag("strict")?.unwrap_or(false);
    let parameters = match function.take("parameters") {
        None => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema,
        Some(_) => {
            let field = format!("{name}.function.parameters");
            return Err(ApiError::field(&field, format!("`{field}` must be a JSON schema")));
        }
    };
    function.finish()?;
    fields.finish()?;
    Ok(Tool { name: called, parameters, strict })
}

/// What `tool_choice` says, leaving those tools that may be called; nothing if none may.
fn read_choice(choice: Option<Value>, tools: &mut Vec<Tool>) -> Result<Option<Choice>, ApiError> {
    let wrong = || {
        let message =
            "`tool_choice` must be none, auto, required, or `{\"type\": \"function\", \"function\": {\"name\": …}}`";
        ApiError::field("tool_choice", message)
    };
    let word = |word: &str| match word {
        "none" => Ok(None),
        "auto" => Ok(Some(Choice::Auto)),
        "required" | "any" => Ok(Some(Choice::Required)),
        _ => Err(wrong()),
    };
    let unknown = |name: &str| {
        ApiError::field("tool_choice", format!("`tool_choice` names `{name}`, but `tools` has no such tool"))
    };
    match choice {
        None => Ok(Some(Choice::Auto)),
        Some(Value::String(said)) => word(&said),
        Some(Value::Object(map)) if map.get("type") == Some(&json!("allowed_tools")) => {
            let inner = map.get("allowed_tools").unwrap_or(&Value::Null);
            let inner = if inner.is_object() { inner } else { &json!(map) };
            let list = inner.get("tools").and_then(Value::as_array).ok_or_else(wrong)?;
            let names: Vec<&str> = list.iter().map(name_of).collect::<Option<_>>().ok_or_else(wrong)?;
            if let Some(name) = names.iter().find(|name| !tools.iter().any(|tool| tool.name == **name)) {
                return Err(unknown(name));
            }
            tools.retain(|tool| names.contains(&tool.name.as_str()));
            word(inner.get("mode").and_then(Value::as_str).unwrap_or("auto"))
        }
        Some(value) => {
            let name = name_of(&value).ok_or_else(wrong)?;
            if !tools.iter().any(|tool| tool.name == name) {
                return Err(unknown(name));
            }
            tools.retain(|tool| tool.name == name);
            Ok(Some(Choice::Named(name.into())))
        }
    }
}

/// The function that `{"type": "function", "function": {"name"}}` names, or the flat form of it.
fn name_of(value: &Value) -> Option<&str> {
    if value.get("type").is_some_and(|kind| kind != "function") {
        return None;
    }
    value.get("function").unwrap_or(value).get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message_of;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    fn check(body: Value, expected: Result<Option<(&str, Choice, bool)>, &str>) {
        let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        match (read_tools(&mut fields, &Limits::default()), expected) {
            (Ok(found), Ok(expected)) => {
                let found = found.map(|asked| {
                    let names: Vec<String> = asked.tools.into_iter().map(|tool| tool.name).collect();
                    (names.join(" "), asked.choice, asked.parallel)
                });
                assert_eq!(found, expected.map(|(names, choice, parallel)| (names.into(), choice, parallel)), "{body}");
            }
            (Err(error), Err(expected)) => assert_eq!(message_of(&error), expected, "{body}"),
            (found, _) => panic!("{body}: {found:?}"),
        }
    }

    #[test]
    fn choices_leave_the_tools_that_may_be_called() {
        let tools = json!([tool("f"), tool("g")]);
        for (choice, expected) in [
            (json!(null), Some(("f g", Choice::Auto, true))),
            (json!("auto"), Some(("f g", Choice::Auto, true))),
            (json!("required"), Some(("f g", Choice::Required, true))),
            (json!("none"), None),
            (json!({"type": "function", "function": {"name": "g"}}), Some(("g", Choice::Named("g".into()), true))),
            (json!({"type": "function", "name": "g"}), Some(("g", Choice::Named("g".into()), true))),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}}),
                Some(("f", Choice::Required, true)),
            ),
        ] {
            check(json!({"tools": tools, "tool_choice": choice}), Ok(expected));
        }
        check(json!({"tools": tools, "parallel_tool_calls": false}), Ok(Some(("f g", Choice::Auto, false))));
        check(json!({"tool_choice": "auto"}), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, message) in [
            (json!({"tools": []}), "tools: `tools` must be a list of at least one tool"),
            (json!({"tool_choice": "required"}), "tool_choice: `tool_choice` needs `tools`"),
            (
                json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
                "tool_choice: `tool_choice` names `g`, but `tools` has no such tool",
            ),
            (json!({"tools": [tool("f"), tool("f")]}), "tools[1].function.name: there are two tools of the name `f`"),
            (
                json!({"tools": [{"type": "web_search"}]}),
                "tools[0].type: tools of type `web_search` are not supported: only `function`",
            ),
            (
                json!({"tools": [{"type": "function"}]}),
                "tools[0]: `tools[0]` must be an object with `type` and `function`",
            ),
            (json!({"tools": [5]}), "tools[0]: `tools[0]` must be an object with `type` and `function`"),
            (
                json!({"tools": [{"function": {"name": "f", "parameters": 5}}]}),
                "tools[0].function.parameters: `tools[0].function.parameters` must be a JSON schema",
            ),
        ] {
            check(body, Err(message));
        }
    }
}
