//! A tool of a server as a tool of ours: as it was described when it was approved, or not at all.

use super::link::{Link, Trouble};
use crate::{convert, cut::cut, limits::ClientLimits, schema};
use futures::future::BoxFuture;
use narthex_agent::{Call, Content, Effect, Progress, Schema, Tool, ToolDefinition, ToolFailure, ToolResult};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Bytes of a tool's name at most, with the server's before it.
const NAME_BYTES_MAX: usize = 128;

/// Errors that the protocol gives before a tool is looked for: what cannot be read, an unknown method, a header that is
/// not the body's, an unknown revision. All others may come from the middle of a call: the Python SDK sends −32600 for
/// a tool that asked the client something.
const HARMLESS_CODES: [i32; 4] = [-32700, -32601, -32020, -32022];

/// Asks for the tools again, if the server said that they changed.
pub(super) type Freshen = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A tool of a server.
pub(super) struct RemoteTool {
    link: Arc<Link>,
    definition: ToolDefinition,
    freshen: Freshen,
    /// Set once the server describes it otherwise: what was approved is not what would be called.
    stale: Arc<AtomicBool>,
}

impl RemoteTool {
    pub fn new(link: Arc<Link>, definition: ToolDefinition, freshen: Freshen) -> Self {
        Self { link, definition, freshen, stale: Arc::default() }
    }

    /// Its own name there.
    fn own_name(&self) -> String {
        self.definition.name[self.link.dial.spec.name.len() + 1..].into()
    }

    /// What says that it was changed.
    pub fn stale(&self) -> Arc<AtomicBool> {
        self.stale.clone()
    }
}

impl Tool for RemoteTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (link, name, stale) = (self.link.clone(), self.own_name(), self.stale.clone());
        let freshened = (self.freshen)();
        let (shown, output_schema) = (self.definition.name.clone(), self.definition.output_schema.clone());
        Box::pin(async move {
            freshened.await.map_err(|why| ToolFailure { message: format!("`{shown}`: {why}"), harmless: true })?;
            if stale.load(Ordering::Acquire) {
                let message =
                    format!("the server describes `{shown}` otherwise than when it was approved: approve it again");
                return Err(ToolFailure { message, harmless: true });
            }
            let params = CallToolRequestParams::new(name).with_arguments(call.arguments);
            match link.call(params, progress).await {
                Ok(result) => Ok(received(result, output_schema.as_ref(), link.dial.limits.result_bytes_max)),
                // The call was made, and the model should know that: it is no failure to try again.
                Err(Trouble::TooLong(bytes)) => Ok(ToolResult::error(format!("[cut: {}]", Trouble::TooLong(bytes)))),
                Err(trouble) => {
                    let harmless = match &trouble {
                        Trouble::Refused(code, _) => HARMLESS_CODES.contains(code),
                        Trouble::Unreached(_) | Trouble::Login(_) => true,
                        _ => false,
                    };
                    Err(ToolFailure { message: format!("`{shown}`: {trouble}"), harmless })
                }
            }
        })
    }
}

/// A server's result as one of ours.
fn received(result: CallToolResult, output_schema: Option<&Value>, bytes_max: usize) -> ToolResult {
    let is_error = result.is_error == Some(true);
    let mut content: Vec<Content> = result.content.into_iter().map(convert::content).collect();
    let mut structured = result.structured_content;
    if let (Some(value), Some(schema), false) = (&structured, output_schema, is_error)
        && let Err(why) = Schema::compile(schema).and_then(|schema| schema.check(value))
    {
        content
            .push(Content::Text { text: format!("[the data does not fit the tool's schema and is left out: {why}]") });
        structured = None;
    }
    cut(ToolResult { content, structured, is_error }, bytes_max)
}

/// A tool that a server names, as one of ours.
///
/// # Errors
/// Says why it is left out.
pub(super) fn definition(
    server: &str,
    tool: &rmcp::model::Tool,
    effect: Effect,
    limits: &ClientLimits,
) -> Result<ToolDefinition, String> {
    let name = format!("{server}.{}", tool.name);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if tool.name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        return Err(format!("its name is not 1 to {NAME_BYTES_MAX} of a–z, A–Z, 0–9, _, - and ."));
    }
    let description = tool.description.as_deref().unwrap_or_default();
    if description.len() > limits.description_bytes_max {
        let bytes_max = limits.description_bytes_max;
        return Err(format!("its description has {} bytes, {bytes_max} at most", description.len()));
    }
    let input_schema = Value::Object((*tool.input_schema).clone());
    let output_schema = tool.output_schema.as_ref().map(|schema| Value::Object((**schema).clone()));
    for schema in std::iter::once(&input_schema).chain(&output_schema) {
        schema::bounded(schema, limits.schema_bytes_max, limits.schema_depth_max)?;
        Schema::compile(schema).map_err(|why| format!("its schema cannot be used: {why}"))?;
    }
    match input_schema.get("type") {
        None => {}
        Some(kind) if *kind == json!("object") => {}
        Some(kind) => return Err(format!("its arguments are {kind}, not an object")),
    }
    check_headers(&input_schema)?;
    Ok(ToolDefinition { name, description: description.into(), input_schema, output_schema, effect })
}

/// Whether what a schema wants in headers can stand there (`x-mcp-header`): the SDK looks at it over HTTP only, and the
/// same tool must not appear there and not here.
fn check_headers(schema: &Value) -> Result<(), String> {
    let mut names: Vec<String> = vec![];
    let mut rest = vec![(schema, true)];
    while let Some((value, is_reachable)) = rest.pop() {
        let Some(fields) = value.as_object() else {
            rest.extend(value.as_array().into_iter().flatten().map(|item| (item, false)));
            continue;
        };
        if let Some(header) = fields.get("x-mcp-header") {
            let header = header.as_str().unwrap_or_default();
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let plain = ["string", "integer", "boolean"].map(Value::from);
            let is_plain = fields.get("type").is_some_and(|kind| plain.contains(kind));
            let lower = header.to_ascii_lowercase();
            if header.is_empty()
                || !header.bytes().all(is_token)
                || !is_plain
                || !is_reachable
                || names.contains(&lower)
            {
                return Err(format!("its `x-mcp-header` {header:?} cannot stand in a header"));
            }
            names.push(lower);
        }
        for (name, value) in fields {
            match (name.as_str(), value) {
                // A header can only come from a field that is always in the same place.
                ("properties", Value::Object(properties)) => {
                    rest.extend(properties.values().map(|value| (value, is_reachable)));
                }
                ("const" | "enum" | "default" | "examples", _) => {}
                (_, value) => rest.push((value, false)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, schema: Value) -> rmcp::model::Tool {
        rmcp::model::Tool::new(name.to_string(), "It does something.", schema.as_object().unwrap().clone())
    }

    #[test]
    fn tools_that_cannot_be_used_are_left_out() {
        let limits = ClientLimits::default();
        let check = |tool: rmcp::model::Tool, expected: &str| {
            let defined = definition("files", &tool, Effect::Reads, &limits);
            match defined {
                Ok(definition) => {
                    assert_eq!((&*definition.name, expected), (&*format!("files.{}", tool.name), ""), "{tool:?}")
                }
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{}: {why}", tool.name),
            }
        };
        let plain = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let header = |header: Value, kind: &str| {
            let field = json!({"type": kind, "x-mcp-header": header});
            json!({"type": "object", "properties": {"a": field}})
        };
        check(tool("read", plain.clone()), "");
        check(tool("read.file-2_", plain.clone()), "");
        check(tool("", plain.clone()), "name");
        check(tool("read file", plain.clone()), "name");
        check(tool("läs", plain.clone()), "name");
        check(tool(&"x".repeat(123), plain.clone()), "name");
        check(tool("read", json!({"type": "string"})), "not an object");
        check(tool("read", json!({"type": "object", "$ref": "http://127.0.0.1:1/x.json"})), "cannot be used");
        check(
            tool("read", json!({"type": "object", "properties": {"a": {"$ref": "https://evil.example/x"}}})),
            "cannot",
        );
        check(tool("read", json!({"type": "object", "description": "x".repeat(300_000)})), "bytes");
        let deep = (0..200).fold(json!({}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
        check(tool("read", deep), "levels");
        check(tool("read", header(json!("Region"), "string")), "");
        check(tool("read", header(json!(""), "string")), "x-mcp-header");
        check(tool("read", header(json!("My Region"), "string")), "x-mcp-header");
        check(tool("read", header(json!("Region\n"), "string")), "x-mcp-header");
        check(tool("read", header(json!(1), "string")), "x-mcp-header");
        check(tool("read", header(json!("Region"), "array")), "x-mcp-header");
        check(
            tool(
                "read",
                json!({"type": "object", "properties": {
                    "a": {"type": "string", "x-mcp-header": "Region"}, "b": {"type": "string", "x-mcp-header": "REGION"}
                }}),
            ),
            "x-mcp-header",
        );
        let mut long = tool("read", plain);
        long.description = Some("x".repeat(20_000).into());
        check(long, "description");
    }

    #[test]
    fn data_that_does_not_fit_is_left_out() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        for (structured, kept) in [(json!({"n": 1}), true), (json!({"n": "1"}), false), (json!([]), false)] {
            let mut result = CallToolResult::success(vec![]);
            result.structured_content = Some(structured.clone());
            let received = received(result, Some(&schema), 1000);
            assert_eq!(received.structured.is_some(), kept, "{structured}");
            assert_eq!(received.content.is_empty(), kept, "{structured}");
        }
    }
}
