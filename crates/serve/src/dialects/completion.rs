//! What stands in a completion or chunk of our own endpoints, read without trust in its form. Knows OpenAI's names.

use serde_json::Value;

/// Its only choice, or the only one that this chunk is about.
pub(super) fn choice(completion: &Value) -> &Value {
    &completion["choices"][0]
}

/// What was thought, of a message or a delta; vLLM has both names.
pub(super) fn reasoning(message: &Value) -> &str {
    message["reasoning_content"].as_str().or_else(|| message["reasoning"].as_str()).unwrap_or("")
}

/// What was said.
pub(super) fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or("")
}

/// The calls of a message or of a delta.
pub(super) fn calls(message: &Value) -> &[Value] {
    message["tool_calls"].as_array().map_or(&[], Vec::as_slice)
}

/// The arguments of a call as an object: empty where the model was cut off within them.
pub(super) fn arguments(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Value::Object(map),
        _ => Value::Object(Default::default()),
    }
}

/// The sentence of an error object, with or without `{"error": …}` around it.
pub(super) fn error_message(object: &Value) -> &str {
    let inner = object.get("error").unwrap_or(object);
    inner["message"].as_str().or_else(|| inner.as_str()).unwrap_or("the server failed")
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// Of the prompt, those from the cache included.
    pub prompt: u64,
    /// Of the prompt, from the cache.
    pub cached: u64,
    /// Of the answer, its thoughts included.
    pub answer: u64,
    /// Of the answer, its thoughts, where known.
    pub thoughts: Option<u64>,
}

impl Used {
    /// The usage of a completion or of the chunk that has it.
    pub fn of(completion: &Value) -> Option<Self> {
        let usage = completion.get("usage").filter(|usage| usage.is_object())?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let prompt = number(&usage["prompt_tokens"]);
        Some(Self {
            prompt,
            cached: number(&usage["prompt_tokens_details"]["cached_tokens"]).min(prompt),
            answer: number(&usage["completion_tokens"]),
            thoughts: usage["completion_tokens_details"]["reasoning_tokens"].as_u64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_read_where_there_is_one() {
        let used = |prompt, cached, answer, thoughts| Some(Used { prompt, cached, answer, thoughts });
        for (usage, expected) in [
            (json!(null), None),
            (json!({"prompt_tokens": 3, "completion_tokens": 2}), used(3, 0, 2, None)),
            (
                json!({
                    "prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9},
                    "completion_tokens_details": {"reasoning_tokens": 1},
                }),
                used(3, 3, 2, Some(1)),
            ),
        ] {
            assert_eq!(Used::of(&json!({"usage": usage})), expected);
        }
        assert_eq!(Used::of(&json!({})), None);
    }

    #[test]
    fn errors_and_arguments_in_any_form() {
        for (object, message) in [
            (json!({"error": {"message": "a"}}), "a"),
            (json!({"message": "b"}), "b"),
            (json!({"error": "c"}), "c"),
            (json!(null), "the server failed"),
        ] {
            assert_eq!(error_message(&object), message);
        }
        for (text, object) in
            [("{\"a\": 1}", json!({"a": 1})), ("{\"a\": ", json!({})), ("[1]", json!({})), ("", json!({}))]
        {
            assert_eq!(arguments(text), object);
        }
    }
}
