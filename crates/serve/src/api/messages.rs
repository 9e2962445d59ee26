//! The messages of a conversation, as OpenAI's clients send them. Knows neither templates nor models.

use crate::Limits;
use narthex_base::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value};

/// Names under which clients give back what a model thought.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// The field `messages`.
pub(crate) fn read_messages(fields: &mut Fields, limits: &Limits) -> Result<Vec<Message>, ApiError> {
    let list = match fields.take("messages") {
        None => return Err(fields.missing("messages")),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(ApiError::field("messages", "`messages` must be a list of at least one message")),
    };
    if list.len() > limits.messages_max {
        let message = format!("`messages` may have {} messages at most", limits.messages_max);
        return Err(ApiError::field("messages", message));
    }
    list.into_iter().enumerate().map(|(index, message)| read_message(fields, index, message)).collect()
}

fn read_message(outer: &Fields, index: usize, message: Value) -> Result<Message, ApiError> {
    let name = format!("messages[{index}]");
    let Value::Object(map) = message else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `role` and `content`")));
    };
    let mut fields = outer.inner(map, &name);
    let mut others = Map::new();
    let role = match fields.string("role")?.ok_or_else(|| fields.missing("role"))?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "" => {
            let field = format!("{name}.role");
            return Err(ApiError::field(&field, format!("`{field}` must not be empty")));
        }
        // Templates have roles of their own (`ipython`, `context`): they see the name, or refuse it.
        role => {
            others.insert("role".into(), role.into());
            Role::User
        }
    };
    let tool_calls = read_calls(&mut fields, &name, role)?;
    let content = match fields.take("content") {
        // As vLLM shows it to templates: many add to what is said.
        None if !tool_calls.is_empty() => MessageContent::Text(String::new()),
        // An assistant that refused says so elsewhere.
        None if role == Role::Assistant && fields.has("refusal") => MessageContent::Text(String::new()),
        Some(Value::String(text)) => MessageContent::Text(text),
        Some(Value::Array(parts)) => {
            let texts = parts.into_iter().enumerate().map(|(part, value)| read_part(&fields, &name, part, value));
            // Templates know strings only; vLLM joins the parts with line ends too.
            MessageContent::Text(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Some(_) => {
            let message = format!("`{name}.content` must be a string or a list of parts");
            return Err(ApiError::field(format!("{name}.content"), message));
        }
        None => return Err(fields.missing("content")),
    };
    let tool_call_id = fields.string("tool_call_id")?.filter(|_| role == Role::Tool);
    // A name reaches the template, as with OpenAI and vLLM.
    let speaker = fields.string("name")?;
    for field in REASONING {
        if let Some(thought) = fields.string(field)?.filter(|thought| !thought.is_empty()) {
            others.entry(REASONING[0]).or_insert(thought.into());
        }
    }
    // What OpenAI's client sends back with an earlier answer is empty in ours, or changes nothing.
    fields.take("refusal");
    fields.take("annotations");
    for field in ["function_call", "audio"] {
        fields.unsupported(field, &[])?;
    }
    fields.finish()?;
    Ok(Message { content, tool_calls, tool_call_id, name: speaker, others, ..Message::new(role, "") })
}

fn read_calls(fields: &mut Fields, message: &str, role: Role) -> Result<Vec<ToolCall>, ApiError> {
    let name = format!("{message}.tool_calls");
    let list = match fields.take("tool_calls") {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field(&name, format!("`{name}` must be a list of calls"))),
    };
    if role != Role::Assistant && !list.is_empty() {
        return Err(ApiError::field(&name, format!("`{name}`: only the assistant calls tools")));
    }
    list.into_iter().enumerate().map(|(at, call)| read_call(fields, &format!("{name}[{at}]"), call)).collect()
}

fn read_call(outer: &Fields, name: &str, call: Value) -> Result<ToolCall, ApiError> {
    let wrong = || ApiError::field(name, format!("`{name}` must be an object with `id`, `type` and `function`"));
    let Value::Object(map) = call else { return Err(wrong()) };
    let mut fields = outer.inner(map, name);
    let id = fields.string("id")?.unwrap_or_default();
    if let Some(kind) = fields.string("type")?
        && kind != "function"
    {
        let message = format!("calls of type `{kind}` are not supported: only `function`");
        return Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"));
    }
    let mut function = fields.object("function")?.ok_or_else(wrong)?;
    let called = function.string("name")?.ok_or_else(|| function.missing("name"))?;
    let arguments = match function.take("arguments") {
        None => "{}".into(),
        Some(Value::String(text)) => text,
        // Ollama's clients send the object itself.
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(_) => {
            let field = format!("{name}.function.arguments");
            return Err(ApiError::field(&field, format!("`{field}` must be a string of JSON")));
        }
    };
    function.finish()?;
    // The place of a call in a stream, which clients keep.
    fields.take("index");
    fields.finish()?;
    Ok(ToolCall { id, kind: ToolKind::Function, function: FunctionCall { name: called, arguments } })
}

fn read_part(outer: &Fields, message: &str, part: usize, value: Value) -> Result<String, ApiError> {
    let name = format!("{message}.content[{part}]");
    let Value::Object(map) = value else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object with `type`")));
    };
    let mut fields = outer.inner(map, &name);
    match fields.string("type")?.ok_or_else(|| fields.missing("type"))?.as_str() {
        "text" => {
            let text = fields.string("text")?.ok_or_else(|| fields.missing("text"))?;
            // Other servers' hint at what to keep in a cache: what is here is kept anyway.
            fields.take("cache_control");
            fields.finish()?;
            Ok(text)
        }
        "refusal" => fields.string("refusal")?.ok_or_else(|| fields.missing("refusal")),
        kind => {
            let message = format!("parts of type `{kind}` are not supported yet: only `text`");
            Err(ApiError::field(format!("{name}.type"), message).code("unsupported_parameter"))
        }
    }
}
