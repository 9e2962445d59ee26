//! Whether two JSON schemas can be shown to have no value in common. What is not shown may still be so; what is shown
//! holds for every draft. Knows no tokens and no grammar.

use serde_json::{Map, Value};

/// Schemas within schemas that are looked into.
const DEPTH_MAX: usize = 24;

/// Looks at a schema that all comparisons for one schema may take together: some 20 ms. Beyond, nothing is shown.
const LOOKS_MAX: usize = 200_000;

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const NUMBER: u8 = 4;
const STRING: u8 = 8;
const ARRAY: u8 = 16;
const OBJECT: u8 = 32;
const ALL: u8 = 63;

/// A schema, and the document that its references are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) root: &'a Value,
    pub(super) schema: &'a Value,
}

impl<'a> Placed<'a> {
    fn here(self, schema: &'a Value) -> Self {
        Self { schema, ..self }
    }

    fn map(self) -> Option<&'a Map<String, Value>> {
        self.schema.as_object()
    }

    /// What it refers to. Beside a reference older drafts read nothing, so nothing is read.
    fn referred(self) -> Option<Self> {
        let place = self.map()?.get("$ref")?.as_str()?;
        place_in(place).and_then(|pointer| self.root.pointer(&pointer)).map(|schema| self.here(schema))
    }

    fn list(self, keyword: &str) -> Option<Vec<Self>> {
        let list = self.map()?.get(keyword)?.as_array()?;
        Some(list.iter().map(|schema| self.here(schema)).collect())
    }

    fn number(self, keyword: &str) -> Option<f64> {
        self.map()?.get(keyword)?.as_f64()
    }

    /// The values that it names, if it names them.
    fn literals(self) -> Option<Vec<&'a Value>> {
        let map = self.map()?;
        match (map.get("const"), map.get("enum")) {
            (Some(value), _) => Some(vec![value]),
            (None, Some(Value::Array(values))) => Some(values.iter().collect()),
            _ => None,
        }
    }

    /// What a property of this name must be, as far as it is said.
    fn property(self, name: &str) -> Option<Self> {
        let map = self.map()?;
        if let Some(schema) = map.get("properties").and_then(|properties| properties.get(name)) {
            return Some(self.here(schema));
        }
        let patterns = map.get("patternProperties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
        map.get("additionalProperties").filter(|_| !patterns).map(|schema| self.here(schema))
    }

    fn required(self) -> impl Iterator<Item = &'a str> {
        let required = self.map().and_then(|map| map.get("required")).and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }
}

/// The JSON pointer of a reference within its document; none if it refers to another, or by a name.
pub(super) fn place_in(reference: &str) -> Option<String> {
    let pointer = reference.strip_prefix('#')?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return None;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(pointer.len()), pointer.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let coded = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &more[2..]).1,
            None => (bytes.push(*first), rest = more).1,
        }
    }
    String::from_utf8(bytes).ok()
}

fn kind_named(name: &str) -> u8 {
    match name {
        "null" => NULL,
        "boolean" => BOOLEAN,
        "number" | "integer" => NUMBER,
        "string" => STRING,
        "array" => ARRAY,
        "object" => OBJECT,
        _ => ALL,
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(_) => NUMBER,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// Whether two values may be the same to JSON Schema, to which 1.0 is 1.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        _ => a == b,
    }
}

/// Comparisons of the schemas within one schema.
pub(super) struct Comparisons {
    /// Looks that may still be taken.
    looks: usize,
}

impl Comparisons {
    pub(super) fn new() -> Self {
        Self { looks: LOOKS_MAX }
    }

    /// Whether no value fits both.
    pub(super) fn apart(&mut self, a: Placed<'_>, b: Placed<'_>) -> bool {
        self.shown_apart(a, b, DEPTH_MAX)
    }

    fn may_look(&mut self) -> bool {
        self.looks = self.looks.saturating_sub(1);
        self.looks > 0
    }

    /// The kinds of values that may fit.
    fn kinds(&mut self, of: Placed<'_>, depth: usize) -> u8 {
        let Some(map) = of.map() else { return if of.schema == &Value::Bool(false) { 0 } else { ALL } };
        if depth == 0 || !self.may_look() {
            return ALL;
        }
        if map.contains_key("$ref") {
            return of.referred().map_or(ALL, |target| self.kinds(target, depth - 1));
        }
        let mut kinds = match map.get("type") {
            Some(Value::String(name)) => kind_named(name),
            Some(Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).fold(0, |all, name| all | kind_named(name))
            }
            _ => ALL,
        };
        if let Some(values) = of.literals() {
            kinds &= values.iter().fold(0, |all, value| all | kind_of(value));
        }
        for schema in of.list("allOf").into_iter().flatten() {
            kinds &= self.kinds(schema, depth - 1);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(list) = of.list(keyword) {
                kinds &= list.iter().fold(0, |all, schema| all | self.kinds(*schema, depth - 1));
            }
        }
        kinds
    }

    fn shown_apart(&mut self, a: Placed<'_>, b: Placed<'_>, depth: usize) -> bool {
        if depth == 0 || !self.may_look() {
            return false;
        }
        let kinds = self.kinds(a, depth) & self.kinds(b, depth);
        if kinds == 0 || self.part_apart(a, b, depth - 1) || self.part_apart(b, a, depth - 1) {
            return true;
        }
        if [a, b].iter().any(|one| one.map().is_some_and(|map| map.contains_key("$ref"))) {
            return false;
        }
        if let (Some(one), Some(other)) = (a.literals(), b.literals()) {
            return !one.iter().any(|value| other.iter().any(|other| same(value, other)));
        }
        // Each kind of value that may fit both must be kept apart by what is said of that kind.
        kinds & (NULL | BOOLEAN) == 0
            && (kinds & NUMBER == 0 || numbers_apart(a, b) || numbers_apart(b, a))
            && (kinds & STRING == 0 || counts_apart(a, b, "minLength", "maxLength"))
            && (kinds & ARRAY == 0 || counts_apart(a, b, "minItems", "maxItems"))
            && (kinds & OBJECT == 0 || self.objects_apart(a, b, depth - 1))
    }

    /// Whether a part of `a` that must hold, too, is apart from `b`.
    fn part_apart(&mut self, a: Placed<'_>, b: Placed<'_>, depth: usize) -> bool {
        if a.map().is_some_and(|map| map.contains_key("$ref")) {
            return a.referred().is_some_and(|target| self.shown_apart(target, b, depth));
        }
        if a.list("allOf").into_iter().flatten().any(|part| self.shown_apart(part, b, depth)) {
            return true;
        }
        ["anyOf", "oneOf"].iter().any(|keyword| {
            a.list(keyword)
                .is_some_and(|list| !list.is_empty() && list.iter().all(|part| self.shown_apart(*part, b, depth)))
        })
    }

    /// Whether a property that one of them requires cannot be what both want.
    fn objects_apart(&mut self, a: Placed<'_>, b: Placed<'_>, depth: usize) -> bool {
        let mut names: Vec<&str> = a.required().chain(b.required()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().any(|name| match (a.property(name), b.property(name)) {
            (Some(one), Some(other)) => self.shown_apart(one, other, depth),
            (Some(only), None) | (None, Some(only)) => only.schema == &Value::Bool(false),
            (None, None) => false,
        })
    }
}

fn counts_apart(a: Placed<'_>, b: Placed<'_>, least: &str, most: &str) -> bool {
    let over = |a: Placed<'_>, b: Placed<'_>| matches!((a.number(least), b.number(most)), (Some(a), Some(b)) if a > b);
    over(a, b) || over(b, a)
}

/// Whether all numbers of `a` are above those of `b`.
fn numbers_apart(a: Placed<'_>, b: Placed<'_>) -> bool {
    let (least, most) = (a.number("minimum"), b.number("maximum"));
    let (above, below) = (a.number("exclusiveMinimum"), b.number("exclusiveMaximum"));
    let over = |a: Option<f64>, b: Option<f64>| matches!((a, b), (Some(a), Some(b)) if a > b);
    let beyond = |a: Option<f64>, b: Option<f64>| matches!((a, b), (Some(a), Some(b)) if a >= b);
    over(least, most) || beyond(above, most) || beyond(least, below) || beyond(above, below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(a: Value, b: Value, expected: bool) {
        let root = json!({"$defs": {
            "text": {"type": "string"},
            "named": {"type": "object", "properties": {"kind": {"const": "named"}}, "required": ["kind"]},
            "loop": {"$ref": "#/$defs/loop"},
            "a/b": {"type": "null"},
        }});
        for (a, b) in [(&a, &b), (&b, &a)] {
            let (one, other) = (Placed { root: &root, schema: a }, Placed { root: &root, schema: b });
            assert_eq!(Comparisons::new().apart(one, other), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_has_no_value_in_common_is_shown() {
        for (a, b) in [
            (json!({"type": "null"}), json!({"$ref": "#/$defs/text"})),
            (json!({"type": ["null", "integer"]}), json!({"type": ["string", "array"]})),
            (json!({"const": "a"}), json!({"enum": ["b", "c"]})),
            (json!({"enum": [1, 2]}), json!({"type": "string"})),
            (json!(false), json!({})),
            (json!({"type": "integer", "maximum": 4}), json!({"type": "number", "minimum": 5})),
            (json!({"type": "integer", "maximum": 5}), json!({"type": "number", "exclusiveMinimum": 5})),
            (json!({"type": "string", "maxLength": 2}), json!({"type": "string", "minLength": 3})),
            (json!({"type": "array", "maxItems": 2}), json!({"type": "array", "minItems": 3})),
            (json!({"$ref": "#/$defs/named"}), json!({"type": "object", "properties": {"kind": {"const": "other"}}})),
            (json!({"type": "object", "required": ["a"]}), json!({"type": "object", "additionalProperties": false})),
            (json!({"allOf": [{"type": "string"}, {}]}), json!({"anyOf": [{"type": "null"}, {"type": "boolean"}]})),
            (json!({"$ref": "#/$defs/a~1b"}), json!({"type": "string"})),
            (json!({"$ref": "#/%24defs/text"}), json!({"type": "object"})),
        ] {
            check(a, b, true);
        }
    }

    #[test]
    fn what_may_have_one_is_not() {
        for (a, b) in [
            (json!({"type": "integer"}), json!({"type": "number"})),
            (json!({"const": 1}), json!({"const": 1.0})),
            (json!({"const": [1]}), json!({"const": [1.0]})),
            (json!({"const": "a"}), json!({"type": "string"})),
            (json!({"type": "integer", "maximum": 5}), json!({"type": "number", "minimum": 5})),
            (json!({"required": ["a"]}), json!({"required": ["b"]})),
            (json!({"required": ["a"]}), json!({"additionalProperties": false})),
            (json!({"properties": {"kind": {"const": "a"}}}), json!({"properties": {"kind": {"const": "b"}}})),
            (json!({"$ref": "#/$defs/text", "type": "null"}), json!({"type": "string"})),
            (json!({"$ref": "#/$defs/loop"}), json!({"type": "string"})),
            (json!({"$ref": "#/nowhere"}), json!({"type": "string"})),
            (
                json!({"required": ["a"], "type": "object", "patternProperties": {"a": {}}, "additionalProperties": false}),
                json!({"type": "object"}),
            ),
        ] {
            check(a, b, false);
        }
    }
}
