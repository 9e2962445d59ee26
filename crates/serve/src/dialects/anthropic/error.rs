//! Errors in Anthropic's form (<https://docs.anthropic.com/en/api/errors>). Knows statuses, not causes.

use crate::dialects::completion::error_message;
use serde_json::{Value, json};

/// An OpenAI error object, with or without `{"error": …}` around it, that is answered with this status.
pub fn error(status: u16, object: &Value) -> Value {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    wrap(kind, object)
}

/// The same within a stream, where the status is long sent.
pub(super) fn late_error(object: &Value) -> Value {
    let inner = object.get("error").unwrap_or(object);
    match (inner["code"].as_u64().and_then(|code| u16::try_from(code).ok()), inner["type"].as_str()) {
        (Some(status @ 400..=599), _) => error(status, object),
        (_, Some("invalid_request_error")) => wrap("invalid_request_error", object),
        _ => wrap("api_error", object),
    }
}

fn wrap(kind: &str, object: &Value) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": error_message(object)}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_kinds() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (404, "not_found_error"),
            (413, "request_too_large"),
            (415, "invalid_request_error"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
        ] {
            let object = json!({"error": {"message": "no", "type": "x"}});
            let expected = json!({"type": "error", "error": {"type": kind, "message": "no"}});
            assert_eq!(error(status, &object), expected, "{status}");
        }
    }

    #[test]
    fn late_errors_tell_by_their_type() {
        for (object, kind) in [
            (json!({"message": "no", "type": "server_error"}), "api_error"),
            (json!({"error": {"message": "no", "type": "invalid_request_error"}}), "invalid_request_error"),
            (json!({"error": {"message": "no", "type": "x", "code": 503}}), "overloaded_error"),
            (json!({"message": "no", "code": 7}), "api_error"),
        ] {
            assert_eq!(late_error(&object)["error"], json!({"type": kind, "message": "no"}));
        }
    }
}
