//! JSON Schemas of strangers: bounded before anything walks them, compiled without ever asking the network. Knows no
//! protocol.

use jsonschema::Validator;
use serde_json::Value;

/// Bytes of all that is said about why a value does not fit.
const WHY_BYTES_MAX: usize = 512;

/// Why a schema is too large or refers to somewhere else, if it does.
///
/// # Errors
/// Names the limit, or the reference.
pub(crate) fn bounded(schema: &Value, bytes_max: usize, depth_max: usize) -> Result<(), String> {
    let depth = depth(schema, depth_max);
    if depth > depth_max {
        return Err(format!("its schema has more than {depth_max} levels"));
    }
    let bytes = schema.to_string().len();
    if bytes > bytes_max {
        return Err(format!("its schema has {bytes} bytes, {bytes_max} at most"));
    }
    if !schema.is_object() {
        return Err("its schema is no object".into());
    }
    Ok(())
}

/// Levels of a value, counted no further than one above the limit: our own recursion is bounded by it.
fn depth(value: &Value, depth_max: usize) -> usize {
    fn of(value: &Value, left: usize) -> usize {
        let deepest = |values: &mut dyn Iterator<Item = &Value>| {
            if left == 0 { 1 } else { 1 + values.map(|value| of(value, left - 1)).max().unwrap_or(0) }
        };
        match value {
            Value::Array(items) => deepest(&mut items.iter()),
            Value::Object(fields) => deepest(&mut fields.values()),
            _ => 0,
        }
    }
    of(value, depth_max)
}

/// Compiles a schema. A reference to another document is an error: nothing here can fetch one.
///
/// # Errors
/// If it is no JSON Schema, or refers to another document.
pub(crate) fn compiled(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().build(schema).map_err(|error| cut(&error.to_string()))
}

/// Whether a value fits a schema.
///
/// # Errors
/// Says where it does not.
pub(crate) fn fits(validator: &Validator, value: &Value) -> Result<(), String> {
    let mut whys = validator.iter_errors(value).take(3).map(|error| {
        let place = error.instance_path().to_string();
        if place.is_empty() { error.to_string() } else { format!("{place}: {error}") }
    });
    match whys.next() {
        None => Ok(()),
        Some(first) => Err(cut(&std::iter::once(first).chain(whys).collect::<Vec<_>>().join("; "))),
    }
}

/// The beginning of a text, at a character's border.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn cut(text: &str) -> String {
    let kept = beginning(text, WHY_BYTES_MAX);
    if kept.len() < text.len() { format!("{kept}…") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An object nested so often.
    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!({}), |inner, _| json!({"properties": inner}))
    }

    #[test]
    fn schemas_are_bounded() {
        let check = |schema: Value, expected: bool| {
            assert_eq!(bounded(&schema, 10_000, 64).is_ok(), expected, "{}", beginning(&schema.to_string(), 80));
        };
        check(json!({"type": "object"}), true);
        check(nested(63), true);
        check(nested(64), false);
        check(nested(120), false);
        check(json!({"description": "x".repeat(9_000)}), true);
        check(json!({"description": "x".repeat(10_000)}), false);
        check(json!(true), false);
        check(json!([]), false);
    }

    #[test]
    fn other_documents_are_never_fetched() {
        let check = |schema: Value, expected: bool| assert_eq!(compiled(&schema).is_ok(), expected, "{schema}");
        check(json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}), true);
        check(json!({"$ref": "http://127.0.0.1:9/schema.json"}), false);
        check(json!({"$ref": "https://example.org/schema.json"}), false);
        check(json!({"$ref": "file:///etc/passwd"}), false);
        check(json!({"type": 1}), false);
    }

    #[test]
    fn values_fit_or_are_told_why() {
        let validator = compiled(&json!({
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false
        }))
        .unwrap();
        let check = |value: Value, expected: &str| match fits(&validator, &value) {
            Ok(()) => assert_eq!(expected, "", "{value}"),
            Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{value}: {why}"),
        };
        check(json!({"a": 1}), "");
        check(json!({"a": "1"}), "/a");
        check(json!({}), "required");
        check(json!({"a": 1, "b": 2}), "b");
    }
}
