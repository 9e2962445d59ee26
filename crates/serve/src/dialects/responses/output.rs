//! The parts of a response: its items, its usage, how it ended. Knows neither requests nor streams.

use serde_json::{Map, Value, json};

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Completed,
    /// Cut off, with OpenAI's word for why.
    Incomplete(&'static str),
    /// With OpenAI's error object of a response.
    Failed(Value),
}

impl Outcome {
    /// From chat's `finish_reason`.
    pub fn of(reason: Option<&str>) -> Self {
        match reason {
            Some("stop" | "tool_calls" | "function_call") => Self::Completed,
            Some("length") => Self::Incomplete("max_output_tokens"),
            Some("content_filter") => Self::Incomplete("content_filter"),
            other => {
                let message = format!("the answer ended early ({})", other.unwrap_or("it does not say why"));
                Self::Failed(json!({"code": "server_error", "message": message}))
            }
        }
    }

    /// The status of the response.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
        }
    }

    /// The status of the item that was being written.
    pub fn last_item(&self) -> &'static str {
        if *self == Self::Completed { "completed" } else { "incomplete" }
    }

    /// The event that ends a stream.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Completed => "response.completed",
            Self::Incomplete(_) => "response.incomplete",
            Self::Failed(_) => "response.failed",
        }
    }
}

/// An error of a response from an error object of the API: OpenAI knows few codes here.
pub(super) fn failure(error: &Value) -> Value {
    let code = match (error["code"].as_str(), error["type"].as_str()) {
        (Some("rate_limit_exceeded" | "queue_full"), _) | (_, Some("rate_limit_error")) => "rate_limit_exceeded",
        (_, Some("invalid_request_error")) => "invalid_prompt",
        _ => "server_error",
    };
    json!({"code": code, "message": error["message"].as_str().unwrap_or("the answer broke off")})
}

/// The response with what came of it. `frame` has all fields in their order.
pub(super) fn response(
    frame: &Map<String, Value>,
    outcome: &Outcome,
    output: Vec<Value>,
    usage: Option<&Value>,
    now: u64,
) -> Value {
    let mut response = frame.clone();
    let mut put = |field: &str, value: Value| response.insert(field.to_string(), value);
    put("status", json!(outcome.status()));
    match outcome {
        Outcome::Completed => put("completed_at", json!(now)),
        Outcome::Incomplete(reason) => put("incomplete_details", json!({"reason": reason})),
        Outcome::Failed(error) => put("error", error.clone()),
    };
    put("output", Value::Array(output));
    put("usage", usage.map_or(Value::Null, used));
    Value::Object(response)
}

/// Chat's `usage` in this API's words.
fn used(usage: &Value) -> Value {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (read, written) = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]));
    let prompt = &usage["prompt_tokens_details"];
    json!({
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": count(&prompt["cached_tokens"]),
            "cache_write_tokens": count(&prompt["cache_write_tokens"]),
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": count(&usage["completion_tokens_details"]["reasoning_tokens"])},
        "total_tokens": usage["total_tokens"].as_u64().unwrap_or(read + written),
    })
}

/// What the model thought.
pub(super) fn reasoning(id: &str, text: Option<&str>, status: &str) -> Value {
    let content: Vec<Value> = text.map(thought).into_iter().collect();
    json!({
        "id": id, "type": "reasoning", "status": status, "summary": [], "content": content, "encrypted_content": null,
    })
}

/// The part of a reasoning item.
pub(super) fn thought(text: &str) -> Value {
    json!({"type": "reasoning_text", "text": text})
}

/// What the model says.
pub(super) fn message(id: &str, part: Option<Value>, status: &str) -> Value {
    let content: Vec<Value> = part.into_iter().collect();
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

/// The part of a message.
pub(super) fn said(text: &str, logprobs: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

/// A call of a function.
pub(super) fn call(id: &str, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments,
    })
}

/// Chat's scored tokens of a choice; bytes are a list here, also of tokens that have none.
pub(super) fn logprobs(choice: &Value) -> Vec<Value> {
    let alternative = |token: &Value| {
        let bytes = if token["bytes"].is_array() { token["bytes"].clone() } else { json!([]) };
        json!({"token": token["token"], "bytes": bytes, "logprob": token["logprob"]})
    };
    let scored = |token: &Value| {
        let mut scored = alternative(token);
        scored["top_logprobs"] = token["top_logprobs"].as_array().into_iter().flatten().map(alternative).collect();
        scored
    };
    choice["logprobs"]["content"].as_array().into_iter().flatten().map(scored).collect()
}
