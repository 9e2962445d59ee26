//! What a stream tells: `values`, `updates`, `messages`, `messages-tuple` and `custom`. The others show LangGraph's own
//! machinery, which is not here, and are refused by name.

use narthex_http::ApiError;
use serde_json::Value;

/// What a stream tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    pub values: bool,
    pub updates: bool,
    /// Each message whole, as far as it is known.
    pub messages: bool,
    /// Pieces of messages.
    pub tuples: bool,
    /// How far tools are.
    pub custom: bool,
}

const KNOWN: [&str; 5] = ["values", "updates", "messages", "messages-tuple", "custom"];

impl Modes {
    /// What a stream tells that a client joins without saying what it wants: all, in one form each.
    pub const JOINED: Self = Self { values: true, updates: true, messages: false, tuples: true, custom: true };

    /// Reads modes by their names.
    ///
    /// # Errors
    /// If one is not told here.
    pub fn of(names: &[String]) -> Result<Self, ApiError> {
        let mut modes = Self::default();
        for name in names {
            match name.as_str() {
                "values" => modes.values = true,
                "updates" => modes.updates = true,
                "messages" => modes.messages = true,
                "messages-tuple" => modes.tuples = true,
                "custom" => modes.custom = true,
                other => {
                    let what = format!("the stream mode `{other}` is not told here, only {}", KNOWN.join(", "));
                    return Err(ApiError::field("stream_mode", what));
                }
            }
        }
        Ok(modes)
    }

    /// Reads `stream_mode` of a body: a name, a list of names, or nothing, which is `values`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn read(value: Option<Value>) -> Result<Self, ApiError> {
        let wrong = || ApiError::field("stream_mode", "`stream_mode` must be a name or a list of names");
        let name = |value: Value| value.as_str().map(str::to_string).ok_or_else(wrong);
        let names = match value {
            None => vec!["values".to_string()],
            Some(Value::Array(list)) => list.into_iter().map(name).collect::<Result<Vec<_>, _>>()?,
            Some(one) => vec![name(one)?],
        };
        Self::of(&names)
    }

    /// As a query that [`Modes::of`] reads again.
    pub fn query(self) -> String {
        let told = [self.values, self.updates, self.messages, self.tuples, self.custom];
        let names = KNOWN.iter().zip(told).filter(|(_, told)| *told);
        names.map(|(name, _)| format!("stream_mode={name}")).collect::<Vec<_>>().join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn modes_are_read_or_refused_by_name() {
        let check = |value: Value, expected: Option<&str>| {
            let read = Modes::read(Some(value.clone()).filter(|value| !value.is_null()));
            assert_eq!(read.ok().map(Modes::query).as_deref(), expected, "{value}");
        };
        check(json!(null), Some("stream_mode=values"));
        check(json!("updates"), Some("stream_mode=updates"));
        check(
            json!(["custom", "values", "messages-tuple"]),
            Some("stream_mode=values&stream_mode=messages-tuple&stream_mode=custom"),
        );
        for wrong in ["events", "debug", "tasks", "checkpoints", "tools", "lifecycle", "x"] {
            check(json!(wrong), None);
            check(json!(["values", wrong]), None);
        }
        check(json!(1), None);
    }
}
