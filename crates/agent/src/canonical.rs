//! JSON in one form: keys sorted, no spaces. What a person approved is compared in this form, so that the order in
//! which a model wrote its arguments makes no difference and any other byte does. Knows nothing of what the JSON says.

use narthex_base::Digest;
use serde_json::{Map, Value};

/// Levels of a value that comes from outside: half of what serde_json reads, since an event stands around it.
pub(crate) const DEPTH_MAX: usize = 64;

/// The value with the keys of all its objects sorted by their bytes.
pub(crate) fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Whether a value is nested deeper than this. What is kept must be read again, and readers stop at some depth.
pub(crate) fn is_deeper(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| is_deeper(item, depth - 1)),
        Value::Object(fields) => depth == 0 || fields.values().any(|field| is_deeper(field, depth - 1)),
        _ => false,
    }
}

/// The digest of a value's canonical form.
pub(crate) fn canonical_digest(value: &Value) -> Digest {
    Digest::of(canonical(value).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, same: bool) {
        let digest = |text: &str| canonical_digest(&serde_json::from_str(text).unwrap());
        assert_eq!(digest(a) == digest(b), same, "{a} {b}");
    }

    #[test]
    fn depth() {
        for (text, depth) in [("1", 0), ("[]", 1), ("{\"a\":[1,{}]}", 3)] {
            let value = serde_json::from_str(text).unwrap();
            assert!(!is_deeper(&value, depth) && (depth == 0 || is_deeper(&value, depth - 1)), "{text}");
        }
    }

    #[test]
    fn order_of_keys_is_no_difference_and_all_else_is() {
        check(r#"{"a":1,"b":{"c":2,"d":[{"e":1,"f":2}]}}"#, r#"{"b":{"d":[{"f":2,"e":1}],"c":2}, "a": 1}"#, true);
        check(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false);
        check(r#"{"a":1}"#, r#"{"a":1.0}"#, false);
        check(r#"{"a":"x"}"#, r#"{"a":"x "}"#, false);
        check(r#"{"a":"\u00e9"}"#, r#"{"a":"e\u0301"}"#, false);
        check(r#"{"a":null}"#, "{}", false);
        check(r#"{"a":"\u0041"}"#, r#"{"a":"A"}"#, true);
    }
}
