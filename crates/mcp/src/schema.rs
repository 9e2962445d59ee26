//! JSON Schemas of strangers: bounded before anything walks them. Knows no protocol.

use serde_json::Value;

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

/// The beginning of a text, at a character's border.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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
}
