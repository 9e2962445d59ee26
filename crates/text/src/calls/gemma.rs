//! Gemma's literals: bare keys, strings between markers of their own. Knows nothing of what stands around a call.

use super::{
    Tool,
    input::{Broken, Input, Read},
    lark::{Lark, arguments, quoted},
    literal_grammar::{Dialect, Values},
    members::Members,
    typed::Parameters,
};
use serde_json::{Map, Value};
use std::pin::Pin;

/// Deeper literals are refused.
const DEEPEST: usize = 100;

type Reading<'a, T> = Pin<Box<dyn Future<Output = Read<T>> + Send + 'a>>;

/// Reads `call:name{key:value,…}` with strings between two `quote`s.
pub(crate) async fn read_call(input: &Input, quote: &'static str, tools: &[Tool]) -> Read<()> {
    input.space().await;
    input.literal("call:").await?;
    let name = input.take_while(|char| char != '{' && !char.is_control()).await;
    let name = name.trim();
    if name.is_empty() {
        return Err(Broken);
    }
    input.literal("{").await?;
    let parameters = Parameters::of(tools, name, true);
    input.call(name.to_string(), None);
    let mut members = Members::open(input);
    input.space().await;
    while !input.maybe("}").await {
        let key = read_key(input, quote).await?;
        let value = match read_value(input, quote, DEEPEST).await? {
            // Numbers come between string markers at times: the schema knows better.
            Value::String(text) if !parameters.is_text(&key) => parameters.value(&key, &text),
            value => value,
        };
        members.add(&key, &value);
        next(input, "}").await?;
    }
    members.close();
    Ok(())
}

/// Reads what stands between members: a comma, or nothing before the end.
async fn next(input: &Input, end: &'static str) -> Read<()> {
    input.space().await;
    if input.maybe(",").await {
        input.space().await;
        return Ok(());
    }
    let ends = input.peek_char().await.is_some_and(|char| end.starts_with(char));
    if ends { Ok(()) } else { Err(Broken) }
}

async fn read_key(input: &Input, quote: &'static str) -> Read<String> {
    let key = if input.maybe(quote).await {
        let mut key = String::new();
        input.until(&[quote], |part| key.push_str(part)).await?;
        input.space().await;
        key
    } else {
        input.take_while(|char| !":{}[],".contains(char)).await.trim().to_string()
    };
    input.literal(":").await?;
    input.space().await;
    if key.is_empty() { Err(Broken) } else { Ok(key) }
}

fn read_value<'a>(input: &'a Input, quote: &'static str, depth: usize) -> Reading<'a, Value> {
    Box::pin(async move {
        if depth == 0 {
            return Err(Broken);
        }
        if input.maybe(quote).await {
            let mut text = String::new();
            input.until(&[quote], |part| text.push_str(part)).await?;
            return Ok(Value::String(text));
        }
        if input.maybe("{").await {
            let mut members = Map::new();
            input.space().await;
            while !input.maybe("}").await {
                let key = read_key(input, quote).await?;
                let value = read_value(input, quote, depth - 1).await?;
                members.insert(key, value);
                next(input, "}").await?;
            }
            return Ok(Value::Object(members));
        }
        if input.maybe("[").await {
            let mut items = Vec::new();
            input.space().await;
            while !input.maybe("]").await {
                items.push(read_value(input, quote, depth - 1).await?);
                next(input, "]").await?;
            }
            return Ok(Value::Array(items));
        }
        let text = input.take_while(|char| !",}]{[".contains(char)).await;
        let text = text.trim();
        match text {
            "" => Err(Broken),
            "null" | "None" | "none" | "nil" => Ok(Value::Null),
            // A bare word is a string whose markers are missing.
            text => Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))),
        }
    })
}

/// A rule for one call without its markers.
pub(crate) fn call_rule(lark: &mut Lark<'_>, tools: &[Tool], dialect: &'static Dialect) -> &'static str {
    let mut values = Values::new(lark, dialect);
    let calls: Vec<String> = tools
        .iter()
        .map(|tool| {
            let rule = values.arguments(&arguments(tool));
            format!("{} {rule} \"}}\"", quoted(&format!("call:{}{{", tool.name)))
        })
        .collect();
    lark.rule("call", &calls.join(" | "));
    "call"
}
