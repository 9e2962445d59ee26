//! JSON Schemas of arguments and answers, compiled once and asked often. Never reads a file or the network: a `$ref` to
//! either is refused. Knows nothing of tools.

mod cost;

use crate::canonical::is_deeper;
use boon::{Compiler, SchemaIndex, Schemas, UrlLoader};
use serde_json::Value;
use std::{collections::BTreeSet, error::Error};

/// A larger schema is refused.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// A schema that is nested deeper is refused.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Parts of a schema that meet parts of a value, at most: a second's work.
const MEETINGS_MAX: u64 = 1_000_000;
/// So many complaints are told of one value.
const COMPLAINTS_MAX: usize = 5;
/// A complaint is cut there: it may quote the value.
const COMPLAINT_CHARS_MAX: usize = 300;
/// Where a schema stands that names no place of its own.
const PLACE: &str = "https://schema.invalid/";

/// A compiled schema.
pub struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
    /// The schema itself where it refers to parts of itself, so that it may take longer than it is long.
    refers: Option<Value>,
}

struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, url: &str) -> Result<Value, Box<dyn Error>> {
        Err(format!("`$ref` to {url}: schemas are not fetched; put it under `$defs`").into())
    }
}

impl Schema {
    /// Compiles a schema of draft 2020-12, or of the draft that its `$schema` names.
    ///
    /// # Errors
    /// What is wrong with the schema, in words.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        if is_deeper(schema, SCHEMA_DEPTH_MAX) {
            return Err(format!("the schema has more than {SCHEMA_DEPTH_MAX} levels"));
        }
        let bytes = schema.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("the schema has {bytes} bytes, and {SCHEMA_BYTES_MAX} are the limit"));
        }
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.use_loader(Box::new(Nowhere));
        compiler.add_resource(PLACE, schema.clone()).map_err(|error| format!("{error:#}"))?;
        let index = compiler.compile(PLACE, &mut schemas).map_err(|error| format!("{error:#}"))?;
        Ok(Self { schemas, index, refers: cost::refers(schema).then(|| schema.clone()) })
    }

    /// Whether a value is valid.
    ///
    /// # Errors
    /// What is wrong with it and where, for a model to mend; or that finding out would take too long.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if self.refers.as_ref().is_some_and(|schema| cost::meetings(schema, value) > MEETINGS_MAX) {
            return Err("its schema leads too often to the same parts of it to be checked".into());
        }
        self.schemas.validate(value, self.index).map_err(|error| {
            let mut complaints = BTreeSet::new();
            leaves(&error, &mut complaints);
            complaints.into_iter().take(COMPLAINTS_MAX).collect::<Vec<_>>().join("; ")
        })
    }
}

/// What is wrong at the ends of the tree of errors: its inner nodes only say that something below them is.
fn leaves(error: &boon::ValidationError, complaints: &mut BTreeSet<String>) {
    if error.causes.is_empty() {
        let place = error.instance_location.to_string();
        let place = if place.is_empty() { "the whole".into() } else { format!("`{place}`") };
        complaints.insert(format!("{place}: {}", error.kind).chars().take(COMPLAINT_CHARS_MAX).collect());
    }
    for cause in &error.causes {
        leaves(cause, complaints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The error's part, or nothing where the value is valid.
    fn check(schema: &Value, value: Value, complaint: Option<&str>) {
        match (Schema::compile(schema).unwrap().check(&value), complaint) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => assert!(error.contains(part), "{value}: {error}"),
            (result, _) => panic!("{value}: {result:?}"),
        }
    }

    #[test]
    fn values_are_judged() {
        let schema = json!({"type": "object", "properties": {"path": {"type": "string", "pattern": "^a"},
            "n": {"$ref": "#/$defs/n"}}, "required": ["path"], "additionalProperties": false,
            "$defs": {"n": {"type": "integer", "minimum": 1}}});
        check(&schema, json!({"path": "ab"}), None);
        check(&schema, json!({"path": "ab", "n": 2}), None);
        check(&schema, json!({"path": "b"}), Some("`/path`"));
        check(&schema, json!({"path": "a", "n": 0}), Some("`/n`"));
        check(&schema, json!({}), Some("path"));
        check(&schema, json!({"path": "a", "other": 1}), Some("other"));
        check(&schema, json!([]), Some("the whole"));
        check(&json!(true), json!(1), None);
        check(&json!(false), json!(1), Some("the whole"));
        let twice = json!({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
        check(&twice, json!([[1]]), None);
        check(&twice, (0..40).fold(json!(1), |inner, _| json!([inner])), Some("too often"));
    }

    #[test]
    fn schemas_that_cannot_be_used() {
        let large = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
        for (schema, part) in [
            (json!({"type": "thing"}), "type"),
            (json!({"$ref": "file:///etc/passwd"}), "not fetched"),
            (json!({"$ref": "https://example.org/a.json"}), "not fetched"),
            (json!({"$schema": "https://example.org/draft"}), "not fetched"),
            (large, "limit"),
            ((0..70).fold(json!({}), |inner, _| json!({"properties": inner})), "levels"),
            (json!({"type": "string", "pattern": "^(?=a)"}), ""),
        ] {
            let error = Schema::compile(&schema).err().unwrap();
            assert!(error.contains(part), "{error}");
        }
    }
}
