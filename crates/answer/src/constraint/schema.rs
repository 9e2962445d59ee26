//! JSON schemas before they are compiled: what cannot be honoured is refused by naming its keyword and place, what
//! asks for nothing is taken out, and objects say of what they do not name that it is not there. Knows no tokens.

use super::{
    apart::{Comparisons, Placed, place_in},
    formats,
    guidance::TOO_LONG,
    meeting::Meetings,
};
use narthex_base::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Schemas within schemas at most.
const DEPTH_MAX: usize = 64;

/// Each `oneOf` that cannot be shown to be a choice is left open by itself, up to so many; of more, nothing is closed.
const UNSETTLED_MAX: usize = 32;

/// Rounds in which more is left open, because what was a choice is none with that.
const ROUNDS_MAX: usize = 4;

/// Keywords of drafts 4 to 2020-12 that restrict a value and that no grammar of ours can honour.
const REFUSED: [&str; 17] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "propertyNames",
    "$dynamicRef",
    "$recursiveRef",
    "contentSchema",
];

/// Keywords whose value is a whole number, however it is written.
const WHOLE: [&str; 6] = ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// Formats that are honoured; another is an annotation, as the specification has it (2020-12, validation, section 7).
const FORMATS: [&str; 11] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// Where a schema's keyword holds one schema, a list of them, or named ones.
const ONE: [&str; 3] = ["items", "additionalItems", "additionalProperties"];
const LISTS: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// How JSON is written between its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spacing {
    /// What may stand where white space may, as a regular expression; by default one blank behind `,` and `:` as
    /// Python's `json.dumps` writes it, so that most of an answer's form need not be computed.
    pub pattern: Option<String>,
    /// No white space at all.
    pub none: bool,
    /// Whether objects hold nothing but the properties that their schemas name, whatever these say.
    pub closed: bool,
}

/// A schema as the compiler wants it.
///
/// # Errors
/// If it asks for something that cannot be honoured; the keyword and its place are named.
pub fn prepared_schema(schema: &Value, spacing: &Spacing) -> Result<Value> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(Error::input("a JSON schema must be an object or a boolean"));
    }
    if let Some((keyword, where_it_is)) = Meetings::of(schema).too_many() {
        let place = place_of(schema, keyword, String::new()).unwrap_or_default();
        return Err(refused(&place, &format!("the keyword `{keyword}` is not supported {where_it_is}")));
    }
    let mut prepared = with_choices_settled(schema, spacing)?;
    if prepared == json!(true) {
        prepared = json!({});
    }
    if let Value::Object(map) = &mut prepared {
        map.insert("x-guidance".into(), written(spacing, holds_control(schema)));
    }
    Ok(prepared)
}

/// The schema, each `oneOf` in it settled: where no value can fit two branches, it is an `anyOf` to the compiler. A
/// value is written by a branch that is closed, and must not fit another as it was, which may be open. Where that
/// cannot be shown, nothing within the branches is closed, and the compiler judges.
fn with_choices_settled(schema: &Value, spacing: &Spacing) -> Result<Value> {
    let (mut open, mut comparisons) = (HashSet::new(), Comparisons::new());
    let mut round = 0;
    loop {
        let mut prepared = schema.clone();
        let mut walk = Walk {
            intersects: holds(schema, "allOf", 0),
            closed: spacing.closed,
            open: &open,
            choices: vec![],
            visited: HashSet::new(),
            referred: vec![],
        };
        walk.visit(&mut prepared, "", true, 0)?;
        walk.visit_referred(&mut prepared)?;
        let (settled, unsettled): (Vec<String>, Vec<String>) =
            walk.choices.into_iter().partition(|place| is_choice(place, &prepared, schema, &mut comparisons));
        let known = open.len();
        if unsettled.len() > UNSETTLED_MAX || round == ROUNDS_MAX {
            open.insert(String::new());
        } else {
            unsettled.iter().for_each(|place| leave_open(format!("{place}/oneOf"), schema, &mut open));
            round += 1;
        }
        if open.len() == known {
            settled.iter().for_each(|place| settle(place, &mut prepared));
            return Ok(prepared);
        }
    }
}

/// Whether what one branch of a `oneOf` writes fits no other.
fn is_choice(place: &str, prepared: &Value, original: &Value, comparisons: &mut Comparisons) -> bool {
    let branches = |root| {
        let list = Value::pointer(root, &format!("{place}/oneOf")).and_then(Value::as_array);
        list.into_iter().flatten().map(move |schema| Placed { root, schema })
    };
    let written: Vec<Placed<'_>> = branches(prepared).collect();
    let asked: Vec<Placed<'_>> = branches(original).collect();
    (0..written.len()).all(|i| (0..asked.len()).all(|j| i == j || comparisons.apart(written[i], asked[j])))
}

/// Puts a place, and all that is referred to from within it, on the list of those that are not closed.
fn leave_open(place: String, root: &Value, open: &mut HashSet<String>) {
    let mut places = vec![place];
    while let Some(place) = places.pop() {
        if let Some(schema) = root.pointer(&place).filter(|_| !open.contains(&place)) {
            places.extend(references(schema, 0));
        }
        open.insert(place);
    }
}

/// The places that are referred to from within a value.
fn references(value: &Value, depth: usize) -> Vec<String> {
    let inner: Vec<&Value> = match value {
        _ if depth > 2 * DEPTH_MAX => vec![],
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => vec![],
    };
    let here = value.get("$ref").and_then(Value::as_str).and_then(place_in);
    here.into_iter().chain(inner.into_iter().flat_map(|inner| references(inner, depth + 1))).collect()
}

/// Makes the `oneOf` at a place an `anyOf`.
fn settle(place: &str, prepared: &mut Value) {
    let Some(Value::Object(map)) = prepared.pointer_mut(place) else { return };
    let beside = map.contains_key("anyOf");
    let pairs = std::mem::take(map);
    map.extend(pairs.into_iter().map(|(key, value)| match key.as_str() {
        "oneOf" if !beside => ("anyOf".to_string(), value),
        _ => (key, value),
    }));
}

/// Whether a text of the schema holds a character that JSON can only write by its number.
fn holds_control(value: &Value) -> bool {
    let control = |text: &str| text.chars().any(|c| c < ' ' && !"\n\r\t\u{8}\u{c}".contains(c));
    match value {
        Value::String(text) => control(text),
        Value::Array(list) => list.iter().any(holds_control),
        Value::Object(map) => map.iter().any(|(key, value)| control(key) || holds_control(value)),
        _ => false,
    }
}

/// The spacing in the compiler's words. Escapes by number are left out unless the schema needs them: half a pair of
/// them is no character.
fn written(spacing: &Spacing, numbered: bool) -> Value {
    let mut written = match &spacing.pattern {
        _ if spacing.none => json!({"whitespace_flexible": false, "item_separator": ",", "key_separator": ":"}),
        Some(pattern) => json!({"whitespace_flexible": true, "whitespace_pattern": pattern}),
        None => json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}),
    };
    written["json_allowed_escapes"] = if numbered { "nrbtf\\\"u" } else { "nrbtf\\\"" }.into();
    written
}

/// Whether a list of more than one schema stands under this keyword anywhere.
fn holds(value: &Value, keyword: &str, depth: usize) -> bool {
    if depth > 2 * DEPTH_MAX {
        return false;
    }
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            key == keyword && value.as_array().is_some_and(|list| list.len() > 1) || holds(value, keyword, depth + 1)
        }),
        Value::Array(list) => list.iter().any(|value| holds(value, keyword, depth + 1)),
        _ => false,
    }
}

struct Walk<'a> {
    /// Several schemas must hold at once somewhere: what one does not name another may.
    intersects: bool,
    /// Objects are closed whatever they say.
    closed: bool,
    /// Places within which nothing is closed.
    open: &'a HashSet<String>,
    /// Places that hold a `oneOf`.
    choices: Vec<String>,
    visited: HashSet<String>,
    /// Places that are referred to.
    referred: Vec<String>,
}

impl Walk<'_> {
    /// Looks at those that are referred to and stand where no keyword holds schemas.
    fn visit_referred(&mut self, root: &mut Value) -> Result<()> {
        while let Some(place) = self.referred.pop() {
            if let Some(schema) = root.pointer_mut(&place).filter(|_| !self.visited.contains(&place)) {
                self.visit(schema, &place, true, 0)?;
            }
        }
        Ok(())
    }

    /// Looks at a schema; `alone` if no other must hold for the same value.
    fn visit(&mut self, schema: &mut Value, path: &str, alone: bool, depth: usize) -> Result<()> {
        let map = match schema {
            Value::Object(map) => map,
            Value::Bool(_) => return Ok(()),
            _ => return Err(refused(path, "a schema must be an object or a boolean")),
        };
        if depth > DEPTH_MAX {
            return Err(refused(path, &format!("schemas may be {DEPTH_MAX} deep at most")));
        }
        self.visited.insert(path.to_string());
        Self::judge(map, path)?;
        self.referred.extend(map.get("$ref").and_then(Value::as_str).and_then(place_in));
        if map.get("oneOf").is_some_and(Value::is_array) {
            self.choices.push(path.to_string());
        }
        let beside = ["properties", "patternProperties", "additionalProperties", "required", "$ref"];
        let plain = !beside.iter().any(|key| map.contains_key(*key));
        self.close(map, path, alone);
        for key in ONE {
            if let Some(inner) = map.get_mut(key).filter(|inner| !inner.is_array()) {
                self.visit(inner, &format!("{path}/{key}"), true, depth + 1)?;
            }
        }
        for key in LISTS {
            let Some(Value::Array(list)) = map.get_mut(key) else { continue };
            let alone = match key {
                "anyOf" | "oneOf" => alone && plain,
                "allOf" => alone && plain && list.len() == 1,
                _ => true,
            };
            for (i, inner) in list.iter_mut().enumerate() {
                self.visit(inner, &format!("{path}/{key}/{i}"), alone, depth + 1)?;
            }
        }
        for key in NAMED {
            let Some(Value::Object(named)) = map.get_mut(key) else { continue };
            for (name, inner) in named.iter_mut() {
                let name = name.replace('~', "~0").replace('/', "~1");
                self.visit(inner, &format!("{path}/{key}/{name}"), true, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Refuses what cannot be honoured, and takes out what asks for nothing.
    fn judge(map: &mut Map<String, Value>, path: &str) -> Result<()> {
        for (keyword, neutral) in [("uniqueItems", json!(false)), ("unevaluatedProperties", json!(true))] {
            if map.get(keyword) == Some(&neutral) {
                map.shift_remove(keyword);
            }
        }
        // Alone, `then` and `else` ask for nothing.
        if !map.contains_key("if") {
            map.shift_remove("then");
            map.shift_remove("else");
        }
        if let Some(keyword) = map.keys().find(|key| REFUSED.contains(&key.as_str())) {
            return Err(refused(path, &format!("the keyword `{keyword}` is not supported")));
        }
        if let Some(Value::String(place)) = map.get("$ref")
            && !place.starts_with('#')
        {
            let what = format!("the keyword `$ref` is not supported with another document (`{place}`)");
            return Err(refused(path, &what).help("copy what it refers to into `$defs`"));
        }
        if map.get("format").is_some_and(|format| !format.as_str().is_some_and(|name| FORMATS.contains(&name))) {
            map.shift_remove("format");
        }
        formats::narrow(map);
        for keyword in WHOLE {
            let whole =
                map.get(keyword).and_then(Value::as_f64).filter(|number| *number >= 0.0 && number.fract() == 0.0);
            if let Some(number) = whole {
                map.insert(keyword.into(), json!(number as u64));
            }
        }
        // Annotations that the compiler does not know as such.
        for keyword in [
            "deprecated",
            "$vocabulary",
            "$dynamicAnchor",
            "$recursiveAnchor",
            "x-guidance",
            "nullable",
            "example",
            "discriminator",
        ] {
            if keyword == "nullable" && map.get(keyword) == Some(&json!(true)) {
                return Err(refused(
                    path,
                    "the keyword `nullable` is not of JSON Schema: write `\"type\": [\"…\", \"null\"]`",
                ));
            }
            map.shift_remove(keyword);
        }
        Ok(())
    }

    /// An object that names its properties, and says nothing of others, has no others: so does a model know when to
    /// stop. Not where another schema may name more of the same object.
    fn close(&self, map: &mut Map<String, Value>, path: &str, alone: bool) {
        let Some(Value::Object(properties)) = map.get("properties") else { return };
        let named = |key: &Value| key.as_str().is_some_and(|key| properties.contains_key(key));
        let required = map.get("required").and_then(Value::as_array).is_none_or(|list| list.iter().all(named));
        let others = ["patternProperties", "minProperties", "allOf", "anyOf", "oneOf", "$ref"];
        let open = others.iter().any(|key| map.contains_key(*key));
        let silent = !map.contains_key("additionalProperties");
        let mut around = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
        let left = around.any(|place| self.open.contains(place));
        if required && !open && alone && !left && !self.intersects && (silent || self.closed) {
            map.insert("additionalProperties".into(), json!(false));
        }
    }
}

/// Something at a place of a schema, as a JSON pointer, that is refused.
fn refused(path: &str, what: &str) -> Error {
    let place = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
    Error::input(format!("{what}{place}"))
}

/// What the compiler complains of, in the words of who wrote the schema.
pub(super) fn explained(schema: &Value, why: String) -> Error {
    for (said, keyword, what) in [
        ("oneOf", "oneOf", "is only supported where no value can fit two of its branches"),
        ("circular references", "$ref", "to a schema around it is not supported beside other keywords"),
        ("multipleOf", "multipleOf", "is not supported here"),
        (TOO_LONG, "multipleOf", "is not supported with so large a number"),
        (TOO_LONG, "pattern", "is not supported where it takes so long to tell what may come first"),
        ("min/maxProperties", "minProperties", "is only supported where all named properties are required"),
        ("min/maxProperties", "maxProperties", "is only supported where all named properties are required"),
        ("integer range", "minimum", "is not supported with so large a number"),
        ("integer range", "maximum", "is not supported with so large a number"),
        ("look-around", "pattern", "is not supported with what looks around"),
        ("lookarounds", "pattern", "is not supported with what looks around"),
        ("lookarounds", "patternProperties", "is not supported with what looks around"),
        ("regex parse error", "pattern", "is no regular expression of those that are supported"),
        (
            "Unable to determine if regex",
            "pattern",
            "is not supported where it takes so long to tell whether anything fits",
        ),
        ("intersect", "allOf", "is not supported here"),
        ("patternProperty regexes", "patternProperties", "is only supported where no name can fit two of its patterns"),
        ("Anchor", "$ref", "is not supported to an anchor that only `$dynamicAnchor` makes"),
        ("not present in a registry", "$schema", "is not supported with a dialect of one's own"),
        ("not present in a registry", "$id", "is not supported where it stands for another document"),
        ("NoExtensionBias", "$ref", "leaves nothing that can be written"),
        ("NoExtensionBias", "allOf", "leaves nothing that can be written"),
        ("Unsatisfiable", "allOf", "leaves nothing that fits"),
        ("Unsatisfiable", "anyOf", "leaves nothing that fits"),
        ("Unsatisfiable", "oneOf", "leaves nothing that fits"),
        ("Unsatisfiable", "$ref", "leaves nothing that fits"),
        ("Unsatisfiable", "enum", "leaves nothing that fits"),
        ("Unsatisfiable", "type", "leaves nothing that fits beside the others"),
    ] {
        if why.contains(said)
            && let Some(path) = place_of(schema, keyword, String::new())
        {
            return refused(&path, &format!("the keyword `{keyword}` {what}")).cause(why);
        }
    }
    match schema {
        Value::Bool(false) => Error::input("the schema is the keyword `false`, which nothing fits"),
        _ => Error::input(why),
    }
}

/// Where a keyword stands first.
fn place_of(value: &Value, keyword: &str, path: String) -> Option<String> {
    match value {
        Value::Object(map) if map.contains_key(keyword) => Some(path),
        Value::Object(map) => map.iter().find_map(|(key, value)| place_of(value, keyword, format!("{path}/{key}"))),
        Value::Array(list) => {
            list.iter().enumerate().find_map(|(i, value)| place_of(value, keyword, format!("{path}/{i}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, expected: std::result::Result<Value, &str>) {
        match (prepared_schema(&schema, &Spacing::default()), expected) {
            (Ok(mut found), Ok(expected)) => {
                found.as_object_mut().unwrap().shift_remove("x-guidance");
                assert_eq!(found, expected, "{schema}");
            }
            (Err(error), Err(expected)) => assert_eq!(error.what(), expected, "{schema}"),
            (found, _) => panic!("{schema}: {found:?}"),
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_named_with_its_place() {
        for (schema, expected) in [
            (json!({"not": {}}), "the keyword `not` is not supported"),
            (
                json!({"properties": {"a": {"items": {"if": true}}}}),
                "the keyword `if` is not supported at `/properties/a/items`",
            ),
            (
                json!({"anyOf": [{}, {"$ref": "http://x.example/y"}]}),
                "the keyword `$ref` is not supported with another document (`http://x.example/y`) at `/anyOf/1`",
            ),
            (json!({"uniqueItems": true}), "the keyword `uniqueItems` is not supported"),
            (json!(5), "a JSON schema must be an object or a boolean"),
            (json!({"items": 5}), "a schema must be an object or a boolean at `/items`"),
        ] {
            check(schema, Err(expected));
        }
        let deep = (0..100).fold(json!({}), |inner, _| json!({"items": inner}));
        assert!(prepared_schema(&deep, &Spacing::default()).unwrap_err().what().starts_with("schemas may be 64 deep"));
    }

    #[test]
    fn what_asks_for_nothing_is_taken_out() {
        for schema in [
            json!({"type": "string", "format": "color", "deprecated": true}),
            json!({"type": "string", "uniqueItems": false, "then": {}, "unevaluatedProperties": true}),
        ] {
            check(schema, Ok(json!({"type": "string"})));
        }
        check(json!({"format": "uuid"}), Ok(json!({"format": "uuid"})));
        check(json!({"const": {"not": 1}}), Ok(json!({"const": {"not": 1}})));
        check(
            json!({"properties": {"not": {}}}),
            Ok(json!({"properties": {"not": {}}, "additionalProperties": false})),
        );
    }

    #[test]
    fn a_choice_is_one_if_no_value_fits_two_branches_as_they_were() {
        let object = |name: &str, more: &str| {
            let mut schema = json!({"type": "object", "properties": {name: {}}, "required": [name]});
            if !more.is_empty() {
                schema["properties"][more] = json!({});
                schema["required"] = json!([name, more]);
            }
            schema
        };
        let closed = |mut schema: Value| {
            schema["additionalProperties"] = json!(false);
            schema
        };
        let (a, b, both) = (object("a", ""), object("b", ""), object("a", "b"));
        let (a2, b2, both2) = (closed(a.clone()), closed(b.clone()), closed(both.clone()));
        check(json!({"oneOf": [{"type": "null"}, a]}), Ok(json!({"anyOf": [{"type": "null"}, a2]})));
        check(json!({"oneOf": [a, b]}), Ok(json!({"anyOf": [a2, b2]})));
        // `{"a": 0, "b": 0}` fits both.
        check(json!({"oneOf": [a, both]}), Ok(json!({"oneOf": [a, both]})));
        check(json!({"items": both, "oneOf": [a, both]}), Ok(json!({"items": both2, "oneOf": [a, both]})));
        let referred = json!({"$defs": {"a": a, "ab": both}, "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/ab"}]});
        check(referred.clone(), Ok(referred));
        let (one, other) = (json!({"$ref": "#/$defs/a"}), json!({"type": "string"}));
        check(
            json!({"$defs": {"a": a}, "oneOf": [one, other]}),
            Ok(json!({"$defs": {"a": a2}, "anyOf": [one, other]})),
        );
        check(
            json!({"anyOf": [{}], "oneOf": [{"type": "null"}]}),
            Ok(json!({"anyOf": [{}], "oneOf": [{"type": "null"}]})),
        );
    }

    #[test]
    fn what_is_referred_to_elsewhere_is_seen_too() {
        check(
            json!({"x": {"y/z": {"properties": {"a": {}}, "example": 1}}, "$ref": "#/x/y~1z"}),
            Ok(json!({"x": {"y/z": {"properties": {"a": {}}, "additionalProperties": false}}, "$ref": "#/x/y~1z"})),
        );
        check(json!({"x": {"not": {}}, "$ref": "#/x"}), Err("the keyword `not` is not supported at `/x`"));
        check(json!({"x": {"not": {}}}), Ok(json!({"x": {"not": {}}})));
    }

    #[test]
    fn too_many_patterns_for_one_text_are_refused() {
        let many = |keyword: &str| json!({keyword: vec![json!({"type": "string", "pattern": "a.{2}b"}); 13]});
        let expected =
            "the keyword `pattern` is not supported where more than 12 of them may be for one text at `/allOf/0`";
        check(many("allOf"), Err(expected));
        check(many("anyOf"), Ok(many("anyOf")));
    }

    #[test]
    fn objects_are_closed_where_nobody_else_names_properties() {
        let (open, closed) =
            (json!({"properties": {"a": {}}}), json!({"properties": {"a": {}}, "additionalProperties": false}));
        check(open.clone(), Ok(closed.clone()));
        check(json!({"items": open}), Ok(json!({"items": closed})));
        check(
            json!({"$defs": {"x": open}, "$ref": "#/$defs/x"}),
            Ok(json!({"$defs": {"x": closed}, "$ref": "#/$defs/x"})),
        );
        check(json!({"anyOf": [open, {"type": "null"}]}), Ok(json!({"anyOf": [closed, {"type": "null"}]})));
        for kept in [
            json!({"properties": {"a": {}}, "additionalProperties": true}),
            json!({"properties": {"a": {}}, "required": ["b"]}),
            json!({"properties": {"a": {}}, "minProperties": 2}),
            json!({"allOf": [open, {"properties": {"b": {}}}]}),
            json!({"properties": {"b": {}}, "anyOf": [open]}),
            json!({"required": ["b"], "anyOf": [open]}),
            json!({"type": "object"}),
        ] {
            check(kept.clone(), Ok(kept));
        }
    }
}
