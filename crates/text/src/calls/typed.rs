//! Arguments that come as plain text, by the types which the tool's schema gives them.

use super::{
    Tool,
    input::{Input, at_once},
    python,
};
use serde_json::Value;

/// Schemas within schemas are followed this far.
const DEEPEST: usize = 8;

/// The arguments' schemas of the tool that is called.
#[derive(Clone)]
pub(crate) struct Parameters {
    root: Value,
    /// A parameter that the schema doesn't name is JSON if it can be read as such, else always a string.
    untyped_is_json: bool,
}

impl Parameters {
    /// Those of this tool; an unknown one has none.
    pub(crate) fn of(tools: &[Tool], name: &str, untyped_is_json: bool) -> Self {
        let root = tools.iter().find(|tool| tool.name == name).map(|tool| tool.parameters.clone());
        Self { root: root.unwrap_or(Value::Null), untyped_is_json }
    }

    /// The types which a parameter may have, in the schema's order; empty if it says nothing.
    fn kinds(&self, key: &str) -> Vec<&str> {
        let mut kinds = Vec::new();
        let object = resolved(&self.root, &self.root).unwrap_or(&self.root);
        if let Some(schema) = object.get("properties").and_then(|properties| properties.get(key)) {
            collect(schema, &self.root, DEEPEST, &mut kinds);
        }
        kinds
    }

    /// The parameter is a string whatever stands there, so it can be passed on as it comes.
    pub(crate) fn is_text(&self, key: &str) -> bool {
        match self.kinds(key).as_slice() {
            [] => !self.untyped_is_json,
            kinds => kinds.iter().all(|kind| *kind == "string"),
        }
    }

    /// A parameter's value. What doesn't fit its type stays a string, as vLLM has it.
    pub(crate) fn value(&self, key: &str, raw: &str) -> Value {
        let kinds = self.kinds(key);
        let trimmed = raw.trim();
        let null = ["null", "none"].contains(&trimmed.to_lowercase().as_str());
        match kinds.iter().find(|kind| **kind != "null") {
            None if kinds.is_empty() && !self.untyped_is_json => Value::from(raw),
            Some(_) if null && kinds.contains(&"null") => Value::Null,
            Some(&"string") => Value::from(raw),
            _ if null => Value::Null,
            Some(&"boolean") if trimmed.eq_ignore_ascii_case("true") => Value::Bool(true),
            Some(&"boolean") if trimmed.eq_ignore_ascii_case("false") => Value::Bool(false),
            Some(_) => literal(trimmed)
                .filter(|value| kinds.iter().any(|kind| is_a(value, kind)))
                .unwrap_or_else(|| Value::from(raw)),
            None => literal(trimmed).unwrap_or_else(|| Value::from(raw)),
        }
    }
}

/// The type that decides how a parameter of this schema is written: the first one besides null.
pub(crate) fn kind_of<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a str> {
    let mut kinds = Vec::new();
    collect(schema, root, DEEPEST, &mut kinds);
    kinds.into_iter().find(|kind| *kind != "null")
}

fn literal(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let input = Input::whole(text);
        at_once(async {
            let value = python::read_value(&input, python::DEEPEST).await?;
            input.end().await?;
            Ok(value)
        })
        .ok()
    })
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn collect<'a>(schema: &'a Value, root: &'a Value, depth: usize, kinds: &mut Vec<&'a str>) {
    if depth == 0 {
        return;
    }
    match schema.get("type") {
        Some(Value::String(kind)) => add(kinds, kind),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).for_each(|kind| add(kinds, kind)),
        _ => {
            let choices = schema.get("const").into_iter().chain(list_of(schema, "enum"));
            choices.for_each(|choice| add(kinds, type_of(choice)));
            for key in ["anyOf", "oneOf", "allOf"] {
                list_of(schema, key).for_each(|schema| collect(schema, root, depth - 1, kinds));
            }
            if let Some(schema) = resolved(schema, root) {
                collect(schema, root, depth - 1, kinds);
            }
        }
    }
}

fn add<'a>(kinds: &mut Vec<&'a str>, kind: &'a str) {
    if !kinds.contains(&kind) {
        kinds.push(kind);
    }
}

/// What `$ref` points to.
pub(crate) fn resolved<'a>(schema: &Value, root: &'a Value) -> Option<&'a Value> {
    root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

pub(crate) fn list_of<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_becomes_what_the_schema_says() {
        let parameters = json!({
            "$defs": {"n": {"type": "integer"}},
            "properties": {
                "s": {"type": "string"}, "i": {"type": "integer"}, "f": {"type": "number"}, "b": {"type": "boolean"},
                "o": {"type": "object"}, "a": {"type": "array"}, "r": {"$ref": "#/$defs/n"},
                "m": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "mi": {"type": ["null", "integer"]},
                "mixed": {"enum": [1, "auto"]}, "e": {"enum": ["1", "2"]}, "c": {"const": 5}, "x": {},
            },
        });
        let tool = Tool { name: "f".into(), parameters, strict: false };
        let typed = Parameters::of(std::slice::from_ref(&tool), "f", false);
        for (key, raw, value) in [
            ("s", "12", json!("12")),
            ("s", "null", json!("null")),
            ("s", " a\n", json!(" a\n")),
            ("i", "12", json!(12)),
            ("i", " -3 ", json!(-3)),
            ("i", "1.5", json!("1.5")),
            ("i", "twelve", json!("twelve")),
            ("i", "null", json!(null)),
            ("f", "1.5", json!(1.5)),
            ("f", "3", json!(3)),
            ("b", "True", json!(true)),
            ("b", "false", json!(false)),
            ("b", "yes", json!("yes")),
            ("o", r#"{"a": [1, {"b": "}"}]}"#, json!({"a": [1, {"b": "}"}]})),
            ("o", "{'a': None, 'b': True}", json!({"a": null, "b": true})),
            ("o", "{'a", json!("{'a")),
            ("o", "[1]", json!("[1]")),
            ("a", "[1, 'x']", json!([1, "x"])),
            ("r", "7", json!(7)),
            ("m", "None", json!(null)),
            ("m", "x", json!("x")),
            ("m", "5", json!("5")),
            ("mi", "null", json!(null)),
            ("mi", "5", json!(5)),
            ("e", "1", json!("1")),
            ("mixed", "\"auto\"", json!("auto")),
            ("mixed", "auto", json!("auto")),
            ("mixed", "1", json!(1)),
            ("c", "5", json!(5)),
            ("x", "5", json!("5")),
            ("unknown", "5", json!("5")),
        ] {
            assert_eq!(typed.value(key, raw), value, "{key} {raw}");
        }
        let parameters = json!({"$ref": "#/$defs/o", "$defs": {"o": {"properties": {"i": {"type": "integer"}}}}});
        let referred = Tool { name: "f".into(), parameters, strict: false };
        assert_eq!(Parameters::of(&[referred], "f", false).value("i", "3"), json!(3));
        let lenient = Parameters::of(&[tool], "f", true);
        assert_eq!(lenient.value("unknown", "5"), json!(5));
        assert_eq!(lenient.value("x", "a b"), json!("a b"));
        let none = Parameters::of(&[], "g", false);
        assert_eq!(none.value("x", "[1]"), json!("[1]"));
        assert!(none.is_text("x") && typed.is_text("e") && !typed.is_text("m"));
    }
}
