//! Values as Python writes them: `str`, `repr`, and printf's `%s`. Knows no filter and no template.

use minijinja::{
    Error, Output, State, Value, filters,
    value::{Rest, Tuple, ValueKind, ValueOrKwargs},
};
use std::fmt::Write;

/// Writes a value as Python's `str` does.
pub(crate) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => minijinja::escape_formatter(out, state, value),
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => Ok(out.write_str(&text_of(value)?)?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A value as Python's `str` gives it.
pub(crate) fn text_of(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => repr(&mut out, value)?,
    }
    Ok(out)
}

/// The filter `format`: `%` of Python's strings, where what is no number is written as `str` gives it.
pub(crate) fn formatted(state: &mut State, format: &Value, values: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    // `%s` of a number is `str` too; the other directives want the number itself.
    let all_texts = format.as_str().is_some_and(|text| text.matches('%').count() == text.matches("%s").count());
    let values = values.into_values().into_iter().map(|value| match value.kind() {
        ValueKind::Seq => text_of(&value).map(Value::from),
        ValueKind::Map if !value.is_kwargs() => text_of(&value).map(Value::from),
        ValueKind::Number if all_texts && !value.is_integer() => text_of(&value).map(Value::from),
        _ => Ok(value),
    });
    let values = values.collect::<Result<Vec<Value>, Error>>()?;
    filters::format(state, format, Rest(values.into_iter().map(ValueOrKwargs::from).collect()))
}

/// Python's `repr`.
fn repr(out: &mut String, value: &Value) -> Result<(), Error> {
    let items = |out: &mut String, [open, close]: [&str; 2]| -> Result<(), Error> {
        out.push_str(open);
        for (place, item) in value.try_iter()?.enumerate() {
            out.push_str(if place > 0 { ", " } else { "" });
            repr(out, &item)?;
            if value.kind() == ValueKind::Map {
                out.push_str(": ");
                repr(out, &value.get_item(&item)?)?;
            }
        }
        out.push_str(close);
        Ok(())
    };
    match value.kind() {
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => match float_repr(f64::try_from(value.clone())?).as_str() {
            "NaN" => out.push_str("nan"),
            "Infinity" => out.push_str("inf"),
            "-Infinity" => out.push_str("-inf"),
            other => out.push_str(other),
        },
        ValueKind::Map => items(out, ["{", "}"])?,
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_some() => {
            items(out, ["(", if value.len() == Some(1) { ",)" } else { ")" }])?;
        }
        ValueKind::Seq => items(out, ["[", "]"])?,
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

/// Python's `repr(str)`.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            quoted if quoted == quote => out.extend(['\\', quote]),
            shown if is_printable(shown) => out.push(shown),
            hidden => {
                let code = u32::from(hidden);
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
                written.expect("a string takes all");
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`. The standard library knows the same classes, but tells them only by what it escapes;
/// behind another character, marks that combine with it are none of them.
fn is_printable(character: char) -> bool {
    character.is_ascii_graphic() || character == ' ' || {
        let pair = ['a', character].iter().collect::<String>();
        pair.escape_debug().nth(1) == Some(character)
    }
}

/// Python's `repr(float)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
pub(crate) fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes an integer exponent");
    match exponent {
        -4..=15 => format!("{number:?}"),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::from_json;

    #[test]
    fn values_as_python_writes_them() {
        // repr() in Python 3.11.
        for (json, expected) in [
            (
                r#"{"a": [1, -2.5, 1e-7, 1e16, 1e15, null, true], "b": {}, "c": []}"#,
                "{'a': [1, -2.5, 1e-07, 1e+16, 1000000000000000.0, None, True], 'b': {}, 'c': []}",
            ),
            (r#"["it's", "\"", "'\"", "\\ \n\r\t"]"#, r#"["it's", '"', '\'"', '\\ \n\r\t']"#),
            (
                "[\"é ü 🦀 e\u{301} あ\", \"\u{a0}\u{ad}\u{200b}\u{7f}\u{e000}\u{10fffe}\"]",
                "['é ü 🦀 e\u{301} あ', '\\xa0\\xad\\u200b\\x7f\\ue000\\U0010fffe']",
            ),
            ("1e300", "1e+300"),
            (r#""it's""#, "it's"),
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(text_of(&from_json(&value)).unwrap(), expected, "{json}");
        }
        let tuples =
            [Value::from(Tuple::from(vec![Value::from(1)])), Value::from(Tuple::from(vec![1.into(), "x".into()]))];
        assert_eq!(tuples.map(|tuple| text_of(&tuple).unwrap()), ["(1,)", "(1, 'x')"]);
    }

    #[test]
    fn floats_as_python_writes_them() {
        for (number, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (1e-4, "0.0001"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (1e15, "1000000000000000.0"),
            (0.0, "0.0"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(float_repr(number), expected);
        }
    }
}
