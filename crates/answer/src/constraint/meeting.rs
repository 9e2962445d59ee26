//! What a JSON schema may bring together: expressions for one text, properties of one object that may be left out,
//! patterns of names, long patterns. The engine's work grows with the power of the first and the square of the others,
//! and nothing stops it, so that too many are refused before. Knows no tokens.

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

/// Pairs of patterns for names of one object, all objects together: each is held against the others in up to a
/// millisecond. 2,000 patterns took more than a minute. The most in JSONSchemaBench are 231 for one object.
const PAIRS_MAX: usize = 1_000;

/// Squares of the bytes of patterns, all together: 8 KiB of `a?a?…` take 0.1 s, 80,000 bytes 12 s. The most in
/// JSONSchemaBench are 26,555,315.
pub(super) const PATTERN_SQUARES_MAX: usize = 64 << 20;

/// What comes together at one value.
#[derive(Clone, Copy, Default)]
struct Met {
    /// Expressions for one text, at this value or within it.
    texts: usize,
    /// Properties that may be left out.
    names: usize,
    /// Patterns for names.
    patterns: usize,
    /// The most properties that may be left out at a value within, and patterns.
    within: (usize, usize),
}

impl Met {
    fn most(self, other: Self) -> Self {
        Self {
            texts: self.texts.max(other.texts),
            names: self.names.max(other.names),
            patterns: self.patterns.max(other.patterns),
            within: (self.within.0.max(other.within.0), self.within.1.max(other.within.1)),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            texts: self.texts.saturating_add(other.texts),
            names: self.names.saturating_add(other.names),
            patterns: self.patterns.saturating_add(other.patterns),
            within: (self.within.0.saturating_add(other.within.0), self.within.1.saturating_add(other.within.1)),
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
    pairs: usize,
    pattern_squares: usize,
    deep: bool,
}

impl<'a> Meetings<'a> {
    /// Those of a schema.
    pub(super) fn of(root: &'a Value) -> Self {
        let referred = HashMap::new();
        let mut meetings = Self { root, referred, texts: 0, squares: 0, pairs: 0, pattern_squares: 0, deep: false };
        meetings.count(root, 0);
        meetings
    }

    /// The keyword of which there is too much, and in which way.
    pub(super) fn too_many(&self) -> Option<(&'static str, String)> {
        if self.texts > TEXTS_MAX {
            return Some(("pattern", format!("where more than {TEXTS_MAX} of them may be for one text")));
        }
        let (names, bytes) = (SQUARES_MAX.isqrt(), PATTERN_SQUARES_MAX.isqrt());
        let keyword = if self.deep {
            ("$ref", format!("where schemas refer to each other more than {DEPTH_MAX} deep"))
        } else if self.squares > SQUARES_MAX {
            ("properties", format!("where some {names} of them or more may be left out or stand in one value"))
        } else if self.pairs > PAIRS_MAX {
            ("patternProperties", "with so many patterns".to_string())
        } else if self.pattern_squares > PATTERN_SQUARES_MAX {
            ("pattern", format!("with some {bytes} bytes or more"))
        } else {
            return None;
        };
        Some(keyword)
    }

    /// What meets at this value, if nothing else is asked of it.
    fn count(&mut self, schema: &'a Value, depth: usize) -> Met {
        let Value::Object(map) = schema else { return Met::default() };
        if depth > DEPTH_MAX {
            self.deep = true;
            return Met::default();
        }
        let own =
            ["pattern", "format"].iter().filter(|keyword| map.get(**keyword).is_some_and(Value::is_string)).count();
        let parts = self.parts(map, depth);
        let patterns = map.get("patternProperties").and_then(Value::as_object);
        let below = (parts.names.max(parts.within.0), parts.patterns.max(parts.within.1));
        let mut met = Met {
            texts: own.max(parts.texts),
            names: optional(map),
            patterns: patterns.map_or(0, Map::len),
            within: below,
        };
        let literals = map.get("const").into_iter().chain(list(map, "enum"));
        self.squares = literals.fold(self.squares, |squares, value| squares.saturating_add(parts_squared(value)));
        let bytes = patterns.into_iter().flatten().map(|(pattern, _)| pattern.len());
        for bytes in bytes.chain(map.get("pattern").and_then(Value::as_str).map(str::len)) {
            self.pattern_squares = self.pattern_squares.saturating_add(bytes.saturating_mul(bytes));
        }
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
        self.note(met, below);
        met
    }

    /// Counts what meets at a value. What stands within it was counted by itself, unless more comes together here.
    fn note(&mut self, met: Met, below: (usize, usize)) {
        let square = |number: usize| number.saturating_mul(number);
        let pairs = |number: usize| square(number).saturating_sub(number) / 2;
        self.texts = self.texts.max(met.texts);
        self.squares = self.squares.saturating_add(square(met.names));
        self.pairs = self.pairs.saturating_add(pairs(met.patterns));
        if met.within.0 > below.0 {
            self.squares = self.squares.saturating_add(square(met.within.0));
        }
        if met.within.1 > below.1 {
            self.pairs = self.pairs.saturating_add(pairs(met.within.1));
        }
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

/// The squares of the number of parts of a value and the values within: one that is named is compiled part by part.
fn parts_squared(value: &Value) -> usize {
    let (count, within): (usize, usize) = match value {
        Value::Array(list) => (list.len(), list.iter().map(parts_squared).sum()),
        Value::Object(map) => (map.len(), map.values().map(parts_squared).sum()),
        _ => (0, 0),
    };
    count * count + within
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
    fn what_is_too_much_is_named() {
        let object = |names: std::ops::Range<usize>| {
            let properties: Map<String, Value> = names.map(|i| (format!("p{i}"), json!({}))).collect();
            json!({"properties": properties})
        };
        let named = |count: usize, name: &str| {
            (0..count).map(|i| (format!("{name}{i}$"), json!({}))).collect::<Map<String, Value>>()
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
            (json!({"enum": vec![json!("a"); 5000]}), None),
            (json!({"const": vec![json!("a"); 1001]}), Some("properties")),
            (json!({"enum": [{"a": vec![json!("a"); 800]}, vec![json!("a"); 800]]}), Some("properties")),
            (json!({"patternProperties": named(45, "x")}), None),
            (json!({"patternProperties": named(46, "x")}), Some("patternProperties")),
            (json!({"allOf": vec![json!({"patternProperties": named(23, "x")}); 2]}), Some("patternProperties")),
            (json!({"pattern": "a?".repeat(4096)}), None),
            (json!({"pattern": "a?".repeat(4097)}), Some("pattern")),
            (json!({"patternProperties": {"a?".repeat(4097): {}}}), Some("pattern")),
            ((0..150).fold(json!({}), |inner, _| json!({"items": inner})), None),
            ((0..250).fold(json!({}), |inner, _| json!({"items": inner})), Some("$ref")),
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
