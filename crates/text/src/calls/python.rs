//! Python's literals and calls with named arguments. Knows nothing of what stands around them.

use super::{
    input::{Broken, Input, Read},
    members::Members,
};
use serde_json::{Map, Value};
use std::pin::Pin;

/// Deeper literals are refused.
pub(crate) const DEEPEST: usize = 100;

type Reading<'a, T> = Pin<Box<dyn Future<Output = Read<T>> + Send + 'a>>;

/// Reads `name(a=1, b="x")`. Arguments without a name are refused: nothing says which parameter they are.
pub(crate) async fn read_call(input: &Input) -> Read<()> {
    let name = input.take_while(|char| char.is_alphanumeric() || "_.-/:".contains(char)).await;
    if name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) {
        return Err(Broken);
    }
    input.literal("(").await?;
    input.call(name, None);
    let mut members = Members::open(input);
    loop {
        input.space().await;
        if input.maybe(")").await {
            members.close();
            return Ok(());
        }
        let key = input.take_while(|char| char.is_alphanumeric() || char == '_' || char == '-').await;
        if key.is_empty() {
            return Err(Broken);
        }
        input.space().await;
        input.literal("=").await?;
        input.space().await;
        let value = read_value(input, DEEPEST).await?;
        members.add(&key, &value);
        input.space().await;
        if !input.maybe(",").await {
            input.literal(")").await?;
            members.close();
            return Ok(());
        }
    }
}

/// Reads a literal. JSON's words for true, false and null count too.
pub(crate) fn read_value(input: &Input, depth: usize) -> Reading<'_, Value> {
    Box::pin(async move {
        if depth == 0 {
            return Err(Broken);
        }
        match input.peek_char().await.ok_or(Broken)? {
            quote @ ('"' | '\'') => Ok(Value::String(read_string(input, quote).await?)),
            '[' => read_items(input, "]", depth).await,
            '(' => read_items(input, ")", depth).await,
            '{' => read_dict(input, depth).await,
            '0'..='9' | '-' | '+' | '.' => {
                let text = input.take_while(|char| char.is_ascii_alphanumeric() || "+-._".contains(char)).await;
                read_number(&text)
            }
            _ => match input.take_while(char::is_alphabetic).await.as_str() {
                "True" | "true" => Ok(Value::Bool(true)),
                "False" | "false" => Ok(Value::Bool(false)),
                "None" | "null" => Ok(Value::Null),
                _ => Err(Broken),
            },
        }
    })
}

fn read_number(text: &str) -> Read<Value> {
    let text = text.replace('_', "");
    if let Ok(number @ Value::Number(_)) = serde_json::from_str(&text) {
        return Ok(number);
    }
    let (sign, digits) = if let Some(digits) = text.strip_prefix('-') { ("-", digits) } else { ("", &*text) };
    for (mark, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.to_ascii_lowercase().strip_prefix(mark) {
            let unsigned = digits.starts_with(|char: char| char.is_ascii_alphanumeric());
            let number = i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().filter(|_| unsigned);
            return number.map(Value::from).ok_or(Broken);
        }
    }
    // Python's forms that JSON lacks: `.5`, `1.`, `+1`. Infinity and NaN have no JSON.
    if text.contains(|char: char| char.is_ascii_alphabetic() && !"eE".contains(char)) {
        return Err(Broken);
    }
    let unsigned = text.strip_prefix('+').unwrap_or(&text);
    // Python refuses leading zeros; a month `07` is meant as 7.
    if let Ok(number) = unsigned.parse::<i64>() {
        return Ok(number.into());
    }
    unsigned.parse().ok().and_then(serde_json::Number::from_f64).map(Value::Number).ok_or(Broken)
}

async fn read_items(input: &Input, end: &'static str, depth: usize) -> Read<Value> {
    input.advance();
    let mut items = Vec::new();
    loop {
        input.space().await;
        if input.maybe(end).await {
            return Ok(Value::Array(items));
        }
        items.push(read_value(input, depth - 1).await?);
        input.space().await;
        if !input.maybe(",").await {
            input.literal(end).await?;
            return Ok(Value::Array(items));
        }
    }
}

async fn read_dict(input: &Input, depth: usize) -> Read<Value> {
    input.advance();
    let mut members = Map::new();
    loop {
        input.space().await;
        if input.maybe("}").await {
            return Ok(Value::Object(members));
        }
        let key = match read_value(input, depth - 1).await? {
            Value::String(key) => key,
            Value::Number(key) => key.to_string(),
            _ => return Err(Broken),
        };
        input.space().await;
        input.literal(":").await?;
        input.space().await;
        let value = read_value(input, depth - 1).await?;
        members.insert(key, value);
        input.space().await;
        if !input.maybe(",").await {
            input.literal("}").await?;
            return Ok(Value::Object(members));
        }
    }
}

async fn read_string(input: &Input, quote: char) -> Read<String> {
    let (end, long) = if quote == '"' { ("\"", "\"\"\"") } else { ("'", "'''") };
    let end = if input.maybe(long).await {
        long
    } else {
        input.advance();
        end
    };
    let mut text = String::new();
    loop {
        if input.maybe(end).await {
            return Ok(text);
        }
        let char = input.peek_char().await.ok_or(Broken)?;
        input.advance();
        if char == '\\' {
            read_escape(input, &mut text).await?;
        } else {
            text.push(char);
        }
    }
}

async fn read_escape(input: &Input, text: &mut String) -> Read<()> {
    let char = input.peek_char().await.ok_or(Broken)?;
    input.advance();
    match char {
        'n' => text.push('\n'),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        'b' => text.push('\u{8}'),
        'f' => text.push('\u{c}'),
        'a' => text.push('\u{7}'),
        'v' => text.push('\u{b}'),
        digit @ '0'..='7' => {
            let mut code = digit.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(digit) = input.peek_char().await.and_then(|char| char.to_digit(8)) else { break };
                input.advance();
                code = code * 8 + digit;
            }
            text.push(char::from_u32(code).ok_or(Broken)?);
        }
        '\\' | '\'' | '"' | '/' => text.push(char),
        '\n' => {}
        'x' => text.push(char::from_u32(read_hex(input, 2).await?).ok_or(Broken)?),
        'U' => text.push(char::from_u32(read_hex(input, 8).await?).ok_or(Broken)?),
        'u' => {
            let code = read_hex(input, 4).await?;
            let code = if (0xd800..0xdc00).contains(&code) {
                // JSON's way to write what lies beyond the first plane.
                input.literal("\\u").await?;
                let low = read_hex(input, 4).await?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(Broken)?;
                0x10000 + ((code - 0xd800) << 10) + low
            } else {
                code
            };
            text.push(char::from_u32(code).ok_or(Broken)?);
        }
        // Python leaves what it doesn't know.
        other => text.extend(['\\', other]),
    }
    Ok(())
}

async fn read_hex(input: &Input, digits: usize) -> Read<u32> {
    let mut code = 0;
    for _ in 0..digits {
        let digit = input.peek_char().await.and_then(|char| char.to_digit(16)).ok_or(Broken)?;
        input.advance();
        code = (code << 4) | digit;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::input::at_once;
    use serde_json::json;

    fn read(text: &str) -> Option<Value> {
        let input = Input::whole(text);
        at_once(async {
            let value = read_value(&input, DEEPEST).await?;
            input.end().await?;
            Ok(value)
        })
        .ok()
    }

    #[test]
    fn literals() {
        for (text, value) in [
            ("1", json!(1)),
            ("-2.5e3", json!(-2500.0)),
            (".5", json!(0.5)),
            ("1_000", json!(1000)),
            ("07", json!(7)),
            ("0x1F", json!(31)),
            ("-0b101", json!(-5)),
            ("True", json!(true)),
            ("null", json!(null)),
            ("'it\\'s'", json!("it's")),
            (r#""a\n\t\\ \x41 \u00e9 \ud83d\ude00 \q""#, json!("a\n\t\\ A é 😀 \\q")),
            (r"'\0\101\7z\a\v\x00'", json!("\0A\u{7}z\u{7}\u{b}\0")),
            ("''", json!("")),
            ("'''a 'b' \"c\"\n'''", json!("a 'b' \"c\"\n")),
            ("[1, 'a', [], (2, 3),]", json!([1, "a", [], [2, 3]])),
            ("{'a': {\"b\": [None]}, 1: 2}", json!({"a": {"b": [null]}, "1": 2})),
            ("{}", json!({})),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in [
            "",
            "x",
            "'a",
            "[1",
            "{1}",
            "1e999",
            "nan",
            "inf",
            "b'z'",
            "f(1)",
            "1 2",
            "0x1g",
            "0x",
            "0x-1",
            "0b2",
            "'\\ud800'",
            "--1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&"[".repeat(5000)), None);
    }
}
