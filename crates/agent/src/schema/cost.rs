//! How often parts of a schema meet parts of a value. References can double at every step, so that a schema of a few
//! lines takes years: whoever validates asks this first. An estimate from above that takes as long as schema and value
//! are large, not as long as validating. Knows the keywords that lead on, of all drafts; judges no value.

use serde_json::Value;
use std::collections::HashMap;

/// Keywords whose schemas are for the same value: one, a list, or by name.
const SAME: [&str; 9] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];
/// Keywords whose one schema is for every value inside, or every name.
const EACH: [&str; 7] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "items",
];
/// Keywords that lead elsewhere in the schema.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Meetings that are told apart; beyond, all is taken to be too much.
const MEMO_MAX: usize = 200_000;

/// Whether a schema refers to parts of itself; one that does not meets each value as often as it is written.
pub(super) fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            REFERENCES.iter().any(|keyword| fields.contains_key(*keyword)) || fields.values().any(refers)
        }
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

/// How often parts of the schema meet parts of the value, at most; `u64::MAX` where that has no end.
pub(super) fn meetings(schema: &Value, value: &Value) -> u64 {
    Counter { root: schema, known: HashMap::new() }.of(schema, value)
}

/// Counts, each pair of a schema and a value once.
struct Counter<'a> {
    root: &'a Value,
    /// Nothing while it is being counted.
    known: HashMap<(usize, usize), Option<u64>>,
}

impl Counter<'_> {
    fn of(&mut self, schema: &Value, value: &Value) -> u64 {
        let Value::Object(fields) = schema else { return 1 };
        let pair = (std::ptr::from_ref(schema) as usize, std::ptr::from_ref(value) as usize);
        match self.known.get(&pair) {
            Some(Some(count)) => return *count,
            // It leads back to itself without a step into the value.
            Some(None) => return u64::MAX,
            None if self.known.len() >= MEMO_MAX => return u64::MAX,
            None => _ = self.known.insert(pair, None),
        }
        let mut count = 1_u64;
        for (keyword, under) in fields {
            count = count.saturating_add(self.keyword(keyword, under, value));
        }
        self.known.insert(pair, Some(count));
        count
    }

    fn keyword(&mut self, keyword: &str, under: &Value, value: &Value) -> u64 {
        let inside = || match value {
            Value::Array(items) => items.iter().collect::<Vec<_>>(),
            Value::Object(fields) => fields.values().collect(),
            _ => vec![],
        };
        match keyword {
            _ if REFERENCES.contains(&keyword) => match under.as_str().and_then(|place| self.found(place)) {
                Some(target) => self.of(target, value),
                None => 1,
            },
            _ if SAME.contains(&keyword) => {
                let schemas: Vec<&Value> = match under {
                    Value::Array(schemas) => schemas.iter().collect(),
                    Value::Object(by_name) if keyword.starts_with("depend") => by_name.values().collect(),
                    one => vec![one],
                };
                self.sum(schemas.into_iter().map(|schema| (schema, value)))
            }
            "properties" => {
                let (Some(schemas), Some(fields)) = (under.as_object(), value.as_object()) else { return 0 };
                self.sum(fields.iter().filter_map(|(name, value)| Some((schemas.get(name)?, value))))
            }
            "patternProperties" => {
                let Some(schemas) = under.as_object() else { return 0 };
                let all = inside();
                self.sum(schemas.values().flat_map(|schema| all.iter().map(move |value| (schema, *value))))
            }
            "prefixItems" | "items" if under.is_array() => {
                let (Some(schemas), Some(items)) = (under.as_array(), value.as_array()) else { return 0 };
                self.sum(schemas.iter().zip(items))
            }
            _ if EACH.contains(&keyword) => {
                let all = inside();
                self.sum(all.into_iter().map(|value| (under, value)))
            }
            _ => 0,
        }
    }

    fn sum<'s>(&mut self, meetings: impl Iterator<Item = (&'s Value, &'s Value)>) -> u64 {
        let mut sum = 0_u64;
        for (schema, value) in meetings {
            sum = sum.saturating_add(self.of(schema, value));
            if sum == u64::MAX {
                break;
            }
        }
        sum
    }
}

impl<'a> Counter<'a> {
    /// The part of the schema that a reference names: by a pointer (`#/$defs/a`), by an anchor, or as a whole.
    fn found(&self, place: &str) -> Option<&'a Value> {
        let (_, fragment) = place.split_once('#')?;
        match fragment {
            "" => Some(self.root),
            pointer if pointer.starts_with('/') => self.root.pointer(&pointer.replace("%24", "$").replace("%25", "%")),
            anchor => anchored(self.root, anchor),
        }
    }
}

fn anchored<'s>(schema: &'s Value, anchor: &str) -> Option<&'s Value> {
    match schema {
        Value::Object(fields) => {
            let is_it = ["$anchor", "$dynamicAnchor"].iter().any(|key| fields.get(*key).is_some_and(|a| a == anchor));
            if is_it { Some(schema) } else { fields.values().find_map(|inner| anchored(inner, anchor)) }
        }
        Value::Array(items) => items.iter().find_map(|inner| anchored(inner, anchor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// References that double so often.
    fn doubling(keyword: &str, levels: usize) -> Value {
        let mut definitions = serde_json::Map::new();
        for level in 0..levels {
            let next = json!({"$ref": format!("#/$defs/a{}", level + 1)});
            definitions.insert(format!("a{level}"), json!({keyword: [next, next]}));
        }
        definitions.insert(format!("a{levels}"), json!({"type": "integer"}));
        json!({"$ref": "#/$defs/a0", "$defs": definitions})
    }

    #[test]
    fn what_meets_how_often() {
        assert!(refers(&doubling("anyOf", 1)) && !refers(&json!({"properties": {"a": {"type": "string"}}})));
        for keyword in ["anyOf", "allOf", "oneOf"] {
            assert!(meetings(&doubling(keyword, 4), &json!(1)) < 100);
            assert!(meetings(&doubling(keyword, 40), &json!(1)) > 1 << 40);
        }
        // A list within lists is as deep as the value is.
        let list = json!({"items": {"$ref": "#"}});
        assert!(meetings(&list, &json!([[1, [2]], 3])) < 20);
        // Two ways into each list: 2 for each level.
        let twice = json!({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert!(meetings(&twice, &deep) > 1 << 39);
        // Back to itself, by pointer, by anchor, by name.
        for endless in [
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            json!({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "not": {"$ref": "#a"}}}}),
        ] {
            assert_eq!(meetings(&endless, &json!(1)), u64::MAX, "{endless}");
        }
        let many: Vec<u32> = (0..1000).collect();
        assert!(
            meetings(&json!({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "integer"}}}), &json!(many))
                < 5000
        );
    }
}
