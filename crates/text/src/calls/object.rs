//! Calls that are JSON objects, `{"name": N, "arguments": {…}}`, one by one or in a list: reading and grammar.

use super::{
    Tool,
    input::{Broken, Input, Read, Symbol},
    lark::{Lark, arguments, quoted},
};
use serde_json::Value;

/// Reads one call. The keys come in any order, `parameters` is as good as `arguments`, arguments may be missing,
/// `null` or JSON within a string; other keys are skipped. `full`: a call without arguments is none.
pub(crate) async fn read_object(input: &Input, full: bool) -> Read<()> {
    input.literal("{").await?;
    let (mut named, mut kept, mut complete) = (false, None, false);
    input.space().await;
    if input.peek().await == Some(Symbol::Char('}')) {
        return Err(Broken);
    }
    loop {
        let key = read_string(input).await?;
        input.space().await;
        input.literal(":").await?;
        input.space().await;
        match key.as_str() {
            "name" => {
                let name = read_string(input).await?;
                if named || name.is_empty() {
                    return Err(Broken);
                }
                input.call(name, None);
                named = true;
                if let Some(kept) = kept.take() {
                    let kept: String = kept;
                    input.arguments(&kept);
                }
            }
            "arguments" | "parameters" if complete => return Err(Broken),
            "arguments" | "parameters" => {
                complete = true;
                if named && input.peek().await == Some(Symbol::Char('{')) {
                    input.json_arguments().await?;
                } else {
                    let mut raw = String::new();
                    input.json(|part| raw.push_str(part)).await?;
                    let raw = as_object(raw)?;
                    if named {
                        input.arguments(&raw);
                    } else {
                        kept = Some(raw);
                    }
                }
            }
            _ => input.json(|_| {}).await?,
        }
        input.space().await;
        if input.maybe("}").await {
            break;
        }
        input.literal(",").await?;
        input.space().await;
    }
    if !named || (full && !complete) {
        return Err(Broken);
    }
    if !complete {
        input.arguments("{}");
    }
    Ok(())
}

async fn read_string(input: &Input) -> Read<String> {
    let mut raw = String::new();
    input.json(|part| raw.push_str(part)).await?;
    serde_json::from_str(&raw).map_err(|_| Broken)
}

/// Arguments that aren't written as an object, as an object.
fn as_object(raw: String) -> Read<String> {
    match serde_json::from_str(&raw) {
        Ok(Value::Object(_)) => Ok(raw),
        Ok(Value::Null) => Ok("{}".to_string()),
        Ok(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(_)) => Ok(text),
            _ => Err(Broken),
        },
        _ => Err(Broken),
    }
}

/// Reads a list of calls, one at least.
pub(crate) async fn read_list(input: &Input) -> Read<()> {
    input.literal("[").await?;
    read_rest(input).await
}

/// Reads a list behind its bracket.
pub(crate) async fn read_rest(input: &Input) -> Read<()> {
    loop {
        input.space().await;
        read_object(input, false).await?;
        input.space().await;
        if input.maybe("]").await {
            return Ok(());
        }
        input.literal(",").await?;
    }
}

/// A rule for one call with this key for its arguments.
pub(crate) fn object_rule(lark: &mut Lark<'_>, tools: &[Tool], key: &str) -> &'static str {
    let mut calls = Vec::new();
    for (place, tool) in tools.iter().enumerate() {
        let name = Value::from(tool.name.as_str());
        let head = quoted(&format!("{{\"name\": {name}, \"{key}\": "));
        lark.json(&format!("args_{place}"), &arguments(tool));
        calls.push(format!("{head} args_{place} \"}}\""));
    }
    lark.rule("object", &calls.join(" | "));
    "object"
}

/// A rule for a list of calls.
pub(crate) fn list_rule(lark: &mut Lark<'_>, tools: &[Tool], parallel: bool) -> &'static str {
    let rest = rest_rule(lark, tools, parallel);
    lark.rule("list", &format!("\"[\" {rest}"));
    "list"
}

/// A rule for such a list behind its bracket.
pub(crate) fn rest_rule(lark: &mut Lark<'_>, tools: &[Tool], parallel: bool) -> &'static str {
    let object = object_rule(lark, tools, "arguments");
    let more = if parallel { format!(" (\", \" {object})*") } else { String::new() };
    lark.rule("rest", &format!("{object}{more} \"]\""));
    "rest"
}
