//! Reading an object field by field, where what nobody reads is named and not refused. Knows JSON, not what the fields
//! mean.

use narthex_http::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields that nobody has read yet. `null` counts as absent.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// `input[0].` for a nested object, empty on top.
    prefix: String,
}

impl Fields {
    pub fn top(map: Map<String, Value>) -> Self {
        Self { map, prefix: String::new() }
    }

    /// An object somewhere in the body, `name` being its place there.
    pub fn nested(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, prefix: format!("{name}.") }),
            _ => Err(ApiError::field(name, format!("`{name}` must be an object"))),
        }
    }

    /// The full name of a field.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    pub fn wrong(&self, field: &str, what: &str) -> ApiError {
        let name = self.name(field);
        ApiError::field(&name, format!("`{name}` must be {what}"))
    }

    pub fn missing(&self, field: &str) -> ApiError {
        let name = self.name(field);
        ApiError::field(&name, format!("the field `{name}` is missing")).code("missing_required_parameter")
    }

    /// We know it and cannot honour it; `why` says what to do about it.
    pub fn refused(&self, field: &str, why: &str) -> ApiError {
        let name = self.name(field);
        ApiError::field(&name, format!("`{name}` is not supported: {why}")).code("unsupported_parameter")
    }

    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    pub fn string(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    /// A string that must be there.
    pub fn needed(&mut self, field: &str) -> Result<String, ApiError> {
        self.string(field)?.ok_or_else(|| self.missing(field))
    }

    /// One of a few words.
    pub fn word(&mut self, field: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        let word = self.string(field)?;
        match &word {
            Some(word) if !words.contains(&word.as_str()) => Err(self.wrong(field, &listed(words))),
            _ => Ok(word),
        }
    }

    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    pub fn integer(&mut self, field: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX));
        match whole.filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None if *bounds.end() == i64::MAX => {
                Err(self.wrong(field, &format!("a whole number from {}", bounds.start())))
            }
            None => Err(self.wrong(field, &format!("a whole number from {} to {}", bounds.start(), bounds.end()))),
        }
    }

    pub fn number(&mut self, field: &str) -> Result<Option<Value>, ApiError> {
        match self.take(field) {
            Some(value) if !value.is_number() => Err(self.wrong(field, "a number")),
            value => Ok(value),
        }
    }

    pub fn object(&mut self, field: &str) -> Result<Option<Fields>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => Fields::nested(value, &self.name(field)).map(Some),
        }
    }

    /// An object that is handed on as it is.
    pub fn map(&mut self, field: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    pub fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(field, "a list")),
        }
    }

    /// A field that we know and cannot honour: refused unless it says what happens anyway. Empty lists and objects ask
    /// for nothing.
    pub fn unsupported(&mut self, field: &str, neutral: &[Value], why: &str) -> Result<(), ApiError> {
        let Some(value) = self.take(field) else { return Ok(()) };
        let empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty || neutral.contains(&value) { Ok(()) } else { Err(self.refused(field, why)) }
    }

    /// Drops fields that change nothing.
    pub fn harmless(&mut self, fields: &[&str]) {
        for field in fields {
            self.map.shift_remove(*field);
        }
    }

    /// Names what nobody has read.
    pub fn finish(self, ignored: &mut Vec<String>) {
        let unread = self.map.iter().filter(|(_, value)| !value.is_null());
        ignored.extend(unread.map(|(field, _)| format!("{}{field}", self.prefix)));
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
