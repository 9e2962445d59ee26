//! What a JSON schema may bring together: expressions for one text, and properties of one object that may be left out.
//! The engine's work grows with the power of the first and the square of the second, and nothing stops it, so that too
//! many are refused before. Knows no tokens.

use super::apart::place_in;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Schemas within schemas that are looked into.
const DEPTH_MAX: usize = 200;

/// Expressions that may meet at one place at most, as far as [`Meetings`] can tell. Searches for `a.{i}b`, i from 1 to
/// n, on one processor: n = 12 in 3 ms, 16 in 60 ms, 20 in a second.
pub(super) const TEXTS_MAX: usize = 12;

/// Squares of the number of an object's properties that may be left out, all objects together: 3,000 properties of one
/// object took 0.4 s, 6,000 2.2 s. The most in JSONSchemaBench is 98,018.
const SQUARES_MAX: usize = 1_000_000;

/// What comes together at one value.
#[derive(Clone, Copy, Default)]
struct Met {
    /// Expressions for one text, at this value or within it.
    texts: usize,
    /// Properties that may be left out.
    names: usize,
    /// The most of them at a value within.
    within: usize,
}

impl Met {
    fn most(self, other: Self) -> Self {
        Self {
            texts: self.texts.max(other.texts),
            names: self.names.max(other.names),
            within: self.within.max(other.within),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            texts: self.texts.saturating_add(other.texts),
            names: self.names.saturating_add(other.names),
            within: self.within.saturating_add(other.within),
        }
    }
}

/// What the values of a schema bring together, never less than there is.
pub(super) struct Meetings<'a> {
    root: &'a Value,
    /// What is known of those that are referred to; nothing while it is being counted.
    referred: HashMap<String, Met>,
    texts: usize,
    squares: usize,
}

impl<'a> Meetings<'a> {
    /// Those of a schema.
    pub(super) fn of(root: &'a Value) -> Self {
        let mut meetings = Self { root, referred: HashMap::new(), texts: 0, squares: 0 };
        meetings.count(root, 0);
        meetings
    }

    /// The keyword of which there is too much, and in which way.
    pub(super) fn too_many(&self) -> Option<(&'static str, String)> {
        if self.texts > TEXTS_MAX {
            return Some(("pattern", format!("where more than {TEXTS_MAX} of them may be for one text")));
        }
        let most = SQUARES_MAX.isqrt();
        (self.squares > SQUARES_MAX)
            .then(|| ("properties", format!("where some {most} of them or more may be left out")))
    }

    /// What meets at this value, if nothing else is asked of it.
    fn count(&mut self, schema: &'a Value, depth: usize) -> Met {
        let Value::Object(map) = schema else { return Met::default() };
        if depth > DEPTH_MAX {
            self.texts = usize::MAX;
            return Met::default();
        }
        let own =
            ["pattern", "format"].iter().filter(|keyword| map.get(**keyword).is_some_and(Value::is_string)).count();
        let parts = self.parts(map, depth);
        let mut met = Met { texts: own.max(parts.texts), names: optional(map), within: parts.names.max(parts.within) };
        for schema in list(map, "allOf") {
            met = met.and(self.count(schema, depth + 1));
        }
        for keyword in ["anyOf", "oneOf"] {
            let most = list(map, keyword).fold(Met::default(), |most, schema| most.most(self.count(schema, depth + 1)));
            met = met.and(most);
        }
        if let Some(place) = map.get("$ref").and_then(Value::as_str) {
            met = met.and(self.referred(place, depth));
        }
        for keyword in ["$defs", "definitions"] {
            let schemas = map.get(keyword).and_then(Value::as_object);
            for (_, schema) in schemas.into_iter().flatten() {
                self.count(schema, depth + 1);
            }
        }
        self.texts = self.texts.max(met.texts);
        let square = |number: usize| number.saturating_mul(number);
        // What stands within was counted by itself, unless it comes together here.
        let within = if met.within > parts.names.max(parts.within) { square(met.within) } else { 0 };
        self.squares = self.squares.saturating_add(square(met.names)).saturating_add(within);
        met
    }

    /// The most of what the schema's parts, each by itself, bring together.
    fn parts(&mut self, map: &'a Map<String, Value>, depth: usize) -> Met {
        let mut most = Met::default();
        for keyword in ["items", "additionalItems", "additionalProperties"] {
            if let Some(schema) = map.get(keyword) {
                most = most.most(self.count(schema, depth + 1));
            }
        }
        for keyword in ["prefixItems", "items"] {
            most = list(map, keyword).fold(most, |most, schema| most.most(self.count(schema, depth + 1)));
        }
        for keyword in ["properties", "patternProperties"] {
            let parts = map.get(keyword).and_then(Value::as_object);
            most = parts.into_iter().flatten().fold(most, |most, (_, schema)| most.most(self.count(schema, depth + 1)));
        }
        most
    }

    fn referred(&mut self, place: &str, depth: usize) -> Met {
        if let Some(known) = self.referred.get(place) {
            return *known;
        }
        let target = place_in(place).and_then(|pointer| self.root.pointer(&pointer));
        let Some(target) = target else { return Met::default() };
        self.referred.insert(place.into(), Met::default());
        let met = self.count(target, depth + 1);
        self.referred.insert(place.into(), met);
        met
    }
}

/// How many named properties an object may leave out.
fn optional(map: &Map<String, Value>) -> usize {
    let named = map.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    named.saturating_sub(list(map, "required").count())
}

fn list<'a>(map: &'a Map<String, Value>, keyword: &str) -> impl Iterator<Item = &'a Value> {
    map.get(keyword).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, expected: usize) {
        assert_eq!(Meetings::of(&schema).texts, expected, "{schema}");
    }

    #[test]
    fn what_meets_is_counted() {
        let text = json!({"type": "string", "pattern": "a"});
        for (schema, expected) in [
            (json!({}), 0),
            (text.clone(), 1),
            (json!({"pattern": "a", "format": "date"}), 2),
            (json!({"properties": {"a": text, "b": text, "pattern": {"type": "string"}}}), 1),
            (json!({"anyOf": [text, text]}), 1),
            (json!({"allOf": [text, text, {"anyOf": [text, {"allOf": [text, text]}]}]}), 4),
            (json!({"allOf": [{"properties": {"a": text}}, {"items": text}]}), 2),
            (json!({"pattern": "b", "$ref": "#/$defs/x", "$defs": {"x": text}}), 2),
            (json!({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}, "pattern": "a"}}}), 1),
            (json!({"$defs": {"x": {"allOf": [text, text]}}}), 2),
        ] {
            check(schema, expected);
        }
    }

    #[test]
    fn what_may_be_left_out_is_counted() {
        let object = |names: std::ops::Range<usize>| {
            let properties: Map<String, Value> = names.map(|i| (format!("p{i}"), json!({}))).collect();
            json!({"properties": properties})
        };
        let required = |count: usize| (0..count).map(|i| json!(format!("p{i}"))).collect::<Vec<Value>>();
        for (schema, expected) in [
            (object(0..1000), None),
            (object(0..1001), Some("properties")),
            (json!({"properties": object(0..2000)["properties"], "required": required(1500)}), None),
            (json!({"allOf": [object(0..700), object(700..1400)]}), Some("properties")),
            (json!({"anyOf": [object(0..600), object(0..600)]}), Some("properties")),
            (json!({"allOf": [{"items": object(0..700)}, {"items": object(700..1400)}]}), Some("properties")),
            (json!({"items": {"items": object(0..900)}}), None),
        ] {
            assert_eq!(Meetings::of(&schema).too_many().map(|(keyword, _)| keyword), expected);
        }
    }

    /// References that double count without end otherwise.
    #[test]
    fn references_are_counted_once() {
        let twice = |i: usize| json!({"allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}, {"$ref": format!("#/$defs/d{}", i + 1)}]});
        let mut rules: Map<String, Value> = (0..40).map(|i| (format!("d{i}"), twice(i))).collect();
        rules.insert("d40".into(), json!({"pattern": "a"}));
        check(json!({"$defs": rules, "$ref": "#/$defs/d0"}), 1 << 40);
    }
}
