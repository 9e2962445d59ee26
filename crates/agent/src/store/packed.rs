//! Events as rows: long texts stand elsewhere, once each, by their digests. Knows JSON, not what the events say.

use narthex_base::Digest;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A longer text is kept by its digest. Above what most words of an event take, below what a text is worth a row.
const INLINE_BYTES_MAX: usize = 512;
/// Stands in place of a text: `{"$blob": DIGEST}`. An object of the event's own that looks so gets one more `$`.
const MARK: &str = "$blob";

/// Takes the long texts out of a value.
pub(super) fn pack(value: Value, texts: &mut BTreeMap<Digest, String>) -> Value {
    match value {
        Value::String(text) if text.len() > INLINE_BYTES_MAX => {
            let digest = Digest::of(text.as_bytes());
            texts.insert(digest, text);
            Value::Object(Map::from_iter([(MARK.into(), digest.to_string().into())]))
        }
        Value::Array(items) => items.into_iter().map(|item| pack(item, texts)).collect(),
        Value::Object(fields) => {
            let escape = fields.len() == 1;
            let field = |(key, value): (String, Value)| {
                let key = if escape && is_mark(&key) { format!("${key}") } else { key };
                (key, pack(value, texts))
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        other => other,
    }
}

/// Puts the texts back.
///
/// # Errors
/// The digest of a text that is missing.
pub(super) fn unpack(value: Value, texts: &BTreeMap<Digest, String>) -> Result<Value, String> {
    Ok(match value {
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| unpack(item, texts)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            if let Some(digest) = reference(&fields) {
                let text = digest.parse().ok().and_then(|digest| texts.get(&digest));
                return Ok(Value::String(text.ok_or_else(|| digest.to_string())?.clone()));
            }
            let escaped = fields.len() == 1;
            let field = |(key, value): (String, Value)| {
                let key = if escaped && is_mark(&key) { key[1..].to_string() } else { key };
                Ok((key, unpack(value, texts)?))
            };
            Value::Object(fields.into_iter().map(field).collect::<Result<_, String>>()?)
        }
        other => other,
    })
}

/// The digests of all texts that a packed value refers to.
pub(super) fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(fields) => match reference(fields) {
            Some(digest) => found.push(digest.to_string()),
            None => fields.values().for_each(|value| references(value, found)),
        },
        _ => {}
    }
}

fn reference(fields: &Map<String, Value>) -> Option<&str> {
    if fields.len() == 1 { fields.get(MARK)?.as_str() } else { None }
}

/// `$blob` with any number of further `$` before it.
fn is_mark(key: &str) -> bool {
    key.ends_with(MARK) && key.trim_start_matches('$') == &MARK[1..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Comes back as it was, with so many texts elsewhere.
    fn check(value: Value, count: usize) {
        let mut texts = BTreeMap::new();
        let packed = pack(value.clone(), &mut texts);
        let mut found = Vec::new();
        references(&packed, &mut found);
        found.sort();
        found.dedup();
        assert_eq!((texts.len(), found.len()), (count, count), "{packed}");
        assert_eq!(unpack(packed, &texts).unwrap(), value);
    }

    #[test]
    fn long_texts_stand_elsewhere_once() {
        let long = "x".repeat(INLINE_BYTES_MAX + 1);
        check(json!({"a": "x".repeat(INLINE_BYTES_MAX)}), 0);
        check(json!({"a": long, "b": [long, {"c": format!("{long}y")}]}), 2);
        check(json!({"$blob": "0".repeat(64)}), 0);
        check(json!({"$blob": {"$$blob": [{"$$$blob": long}]}}), 1);
        check(json!({"$blob": 1, "other": 2}), 0);
        check(json!([null, true, 1, 1.5, "", {}, []]), 0);
        let mut texts = BTreeMap::new();
        let packed = pack(json!(long), &mut texts);
        assert_eq!(unpack(packed, &BTreeMap::new()).unwrap_err(), Digest::of(long.as_bytes()).to_string());
    }
}
