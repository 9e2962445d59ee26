//! Schemas of an OpenAPI file as JSON Schema 2020-12 that stands alone: what is referred to goes into `$defs`, once, so
//! that a schema grows no faster than the file. Knows no requests.

use super::document::Document;
use serde_json::{Map, Value, json};

/// Schemas of one tool, within each other or referred to.
const SCHEMAS_MAX: usize = 2_000;
/// Bytes of the schema of one tool.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Schemas within each other.
const DEPTH_MAX: usize = 60;

/// Keywords that are taken over as they are.
const PLAIN: [&str; 20] = [
    "type",
    "title",
    "description",
    "default",
    "enum",
    "const",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];
/// Keywords whose value is a schema.
const ONE: [&str; 3] = ["items", "not", "additionalProperties"];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is schemas by name.
const NAMED: [&str; 2] = ["properties", "patternProperties"];

/// Schemas that share their definitions.
pub struct Schemas<'a> {
    document: &'a Document,
    /// References, and the names of what they lead to.
    names: Vec<(String, String)>,
    definitions: Map<String, Value>,
    schemas: usize,
}

impl<'a> Schemas<'a> {
    /// None yet.
    pub fn of(document: &'a Document) -> Self {
        Self { document, names: vec![], definitions: Map::new(), schemas: 0 }
    }

    /// One schema; what it refers to is kept for [`Schemas::finish`].
    ///
    /// # Errors
    /// If it is no schema, refers to another file, or is too much.
    pub fn convert(&mut self, schema: &Value) -> Result<Value, String> {
        self.at_depth(schema, 0)
    }

    /// The schema of an object with all that was referred to.
    ///
    /// # Errors
    /// As [`Schemas::convert`].
    pub fn finish(mut self, properties: Map<String, Value>, required: &[String]) -> Result<Value, String> {
        let document = self.document;
        let mut done = 0;
        // Definitions may refer to further ones.
        while let Some((reference, name)) = self.names.get(done).cloned() {
            let definition = self.convert(document.target(&reference)?)?;
            self.definitions.insert(name, definition);
            done += 1;
        }
        let mut schema = json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false
        });
        if !self.definitions.is_empty() {
            schema["$defs"] = Value::Object(self.definitions);
        }
        let bytes = schema.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("its schema has {bytes} bytes, and {SCHEMA_BYTES_MAX} is the most"));
        }
        Ok(schema)
    }

    fn at_depth(&mut self, schema: &Value, depth: usize) -> Result<Value, String> {
        self.schemas += 1;
        if depth > DEPTH_MAX || self.schemas > SCHEMAS_MAX {
            return Err(format!("its schema has more than {SCHEMAS_MAX} parts, or {DEPTH_MAX} within each other"));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => return Err("a schema in it is neither an object nor a boolean".into()),
        };
        if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
            return self.referred(reference);
        }
        let mut made: Map<String, Value> =
            PLAIN.iter().filter_map(|key| Some((key.to_string(), map.get(*key)?.clone()))).collect();
        for key in ONE {
            if let Some(inner) = map.get(key) {
                made.insert(key.into(), self.at_depth(inner, depth + 1)?);
            }
        }
        for key in LIST {
            if let Some(Value::Array(items)) = map.get(key) {
                let items = items.iter().map(|item| self.at_depth(item, depth + 1)).collect::<Result<_, _>>()?;
                made.insert(key.into(), Value::Array(items));
            }
        }
        for key in NAMED {
            if let Some(Value::Object(named)) = map.get(key) {
                let named = named.iter().filter(|(_, inner)| inner["readOnly"] != true);
                let named = named.map(|(name, inner)| Ok((name.clone(), self.at_depth(inner, depth + 1)?)));
                made.insert(key.into(), Value::Object(named.collect::<Result<_, String>>()?));
            }
        }
        if let Some(Value::Array(required)) = map.get("required") {
            made.insert("required".into(), required_of(map, required));
        }
        modernise(&mut made, map);
        Ok(Value::Object(made))
    }

    fn referred(&mut self, reference: &str) -> Result<Value, String> {
        self.document.target(reference)?;
        let known = self.names.iter().find(|(known, _)| known == reference).map(|(_, name)| name.clone());
        let name = known.unwrap_or_else(|| {
            let last = reference.rsplit('/').next().unwrap_or_default();
            let plain: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
            let is_taken = plain.is_empty() || self.names.iter().any(|(_, name)| *name == plain);
            let name = if is_taken { format!("{plain}_{}", self.names.len()) } else { plain };
            self.names.push((reference.into(), name.clone()));
            name
        });
        Ok(json!({"$ref": format!("#/$defs/{name}")}))
    }
}

/// The names that must be there, without those that only answers have.
fn required_of(map: &Map<String, Value>, required: &[Value]) -> Value {
    let is_asked = |name: &&Value| {
        name.as_str().is_some_and(|name| map.get("properties").is_none_or(|all| all[name]["readOnly"] != true))
    };
    required.iter().filter(is_asked).cloned().collect()
}

/// What OpenAPI 3.0 says in words of its own.
fn modernise(made: &mut Map<String, Value>, map: &Map<String, Value>) {
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match made.get(exclusive) {
            Some(Value::Bool(true)) => {
                made.remove(exclusive);
                if let Some(bound) = made.remove(bound) {
                    made.insert(exclusive.into(), bound);
                }
            }
            Some(Value::Bool(false)) => drop(made.remove(exclusive)),
            _ => {}
        }
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        if let Some(Value::String(kind)) = made.get("type") {
            let kinds = json!([kind, "null"]);
            made.insert("type".into(), kinds);
        }
        if let Some(Value::Array(values)) = made.get_mut("enum")
            && !values.contains(&Value::Null)
        {
            values.push(Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(schema: Value) -> Result<Value, String> {
        let document = Document::new(
            json!({
                "openapi": "3.0.3",
                "components": {"schemas": {
                    "Pet": {"type": "object", "required": ["id", "name"], "properties": {
                        "id": {"type": "integer", "readOnly": true},
                        "name": {"type": "string", "example": "Rex"},
                        "children": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}},
                        "tag": {"$ref": "#/components/schemas/Tag"}
                    }},
                    "Tag": {"type": "string", "nullable": true, "enum": ["a"]},
                    "a": {"Pet": {"type": "number"}}
                }}
            }),
            100,
        )
        .unwrap();
        let mut schemas = Schemas::of(&document);
        let schema = schemas.convert(&schema)?;
        schemas.finish(Map::from_iter([("p".to_string(), schema)]), &[])
    }

    #[test]
    fn schemas_stand_alone() {
        let pet = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Pet"}},
            "tag": {"$ref": "#/$defs/Tag"}
        }});
        let tag = json!({"type": ["string", "null"], "enum": ["a", null]});
        for (schema, expected, definitions) in [
            (json!({"type": "string", "xml": {}, "x-y": 1}), json!({"type": "string"}), None),
            (json!(true), json!(true), None),
            (json!({"minimum": 1, "exclusiveMinimum": true}), json!({"exclusiveMinimum": 1}), None),
            (json!({"minimum": 1, "exclusiveMinimum": false}), json!({"minimum": 1}), None),
            (json!({"exclusiveMinimum": 1}), json!({"exclusiveMinimum": 1}), None),
            (
                json!({"anyOf": [{"type": "null"}, {"not": {}}]}),
                json!({"anyOf": [{"type": "null"}, {"not": {}}]}),
                None,
            ),
            (
                json!({"$ref": "#/components/schemas/Pet"}),
                json!({"$ref": "#/$defs/Pet"}),
                Some(json!({"Pet": pet, "Tag": tag})),
            ),
            (
                json!({"items": {"$ref": "#/components/schemas/a/Pet"}, "not": {"$ref": "#/components/schemas/Tag"}}),
                json!({"items": {"$ref": "#/$defs/Pet"}, "not": {"$ref": "#/$defs/Tag"}}),
                Some(json!({"Pet": {"type": "number"}, "Tag": tag})),
            ),
        ] {
            let made = converted(schema.clone()).unwrap();
            assert_eq!(made["properties"]["p"], expected, "{schema}");
            assert_eq!(made.get("$defs"), definitions.as_ref(), "{schema}");
        }
        let deep = (0..80).fold(json!({}), |inner, _| json!({"items": inner}));
        let wide = json!({"anyOf": vec![json!({}); 3000]});
        let long = json!({"description": "x".repeat(70_000)});
        for (schema, part) in [
            (json!({"$ref": "http://evil.example/schema.json"}), "out of the file"),
            (json!({"items": {"$ref": "#/none"}}), "leads to nothing"),
            (json!({"properties": {"a": 5}}), "neither an object"),
            (deep, "within each other"),
            (wide, "2000 parts"),
            (long, "bytes"),
        ] {
            assert!(converted(schema).unwrap_err().contains(part), "{part}");
        }
    }
}
