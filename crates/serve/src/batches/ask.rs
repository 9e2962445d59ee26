//! One request of a batch through the routes of the server, and what comes of it. Knows no file.

use super::answers::{Answer, Response};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use futures::FutureExt;
use serde_json::{Map, Value, json};
use std::{panic::AssertUnwindSafe, time::Duration};
use tower::ServiceExt;

/// How long a request waits before it is asked again: at least, at most where the answer says how long, and at most
/// where it does not.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(60);
const WAIT_UNTOLD_MAX: Duration = Duration::from_secs(5);

/// Bytes of an answer at most; larger ones are not answers.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The answer, or for how long to wait before asking again.
pub(crate) enum Reply {
    Answer(Answer),
    Wait(Duration),
}

/// Asks once. `tries` says how often that was done before.
pub(crate) async fn ask(
    routes: &Router,
    endpoint: &str,
    custom_id: &str,
    body: &Map<String, Value>,
    tries: u32,
) -> Reply {
    let failed = |code, message: &str| Reply::Answer(Answer::failed(custom_id.into(), code, message));
    if body.get("stream").is_some_and(|stream| *stream == Value::Bool(true)) {
        return Reply::Answer(Answer::new(custom_id.into(), streaming()));
    }
    let Ok(body) = serde_json::to_vec(body) else { return failed("server_error", "the request cannot be written") };
    let request = Request::post(endpoint).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
    let Ok(request) = request else { return failed("server_error", "the request cannot be sent") };
    let routes = routes.clone();
    // A handler that breaks must not take the other batches with it.
    let whole = AssertUnwindSafe(async move {
        let reply = match routes.oneshot(request).await {
            Ok(reply) => reply,
            Err(never) => match never {},
        };
        let (head, body) = reply.into_parts();
        (head, to_bytes(body, ANSWER_BYTES_MAX).await)
    });
    let Ok((head, bytes)) = whole.catch_unwind().await else {
        return failed("server_error", "the server failed to answer");
    };
    // Whatever is not available now may be later, at the latest after a restart.
    if matches!(head.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return Reply::Wait(wait(&head.headers, tries));
    }
    let Ok(bytes) = bytes else {
        return failed("server_error", "the answer broke off, or was too large");
    };
    let body = serde_json::from_slice(&bytes);
    let body: Value = body.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    let named = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).or_else(|| body["id"].as_str());
    let request_id = named.unwrap_or_default().to_string();
    Reply::Answer(Answer::new(custom_id.into(), Response { status_code: head.status.as_u16(), request_id, body }))
}

/// The answer to a request for pieces.
fn streaming() -> Response {
    let error = json!({
        "message": "a batch does not stream: leave `stream` out of the body",
        "type": "invalid_request_error", "param": "stream", "code": "unsupported_parameter",
    });
    Response { status_code: StatusCode::BAD_REQUEST.as_u16(), request_id: String::new(), body: json!({"error": error}) }
}

fn wait(headers: &HeaderMap, tries: u32) -> Duration {
    let told = headers.get(header::RETRY_AFTER).and_then(|text| text.to_str().ok()?.trim().parse::<f64>().ok());
    match told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(told) => told.clamp(WAIT_MIN, WAIT_MAX),
        None => WAIT_MIN.saturating_mul(1 << tries.min(16)).min(WAIT_UNTOLD_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        for (told, tries, expected_ms) in [
            ("", 0, 100),
            ("", 1, 200),
            ("", 5, 3200),
            ("", 6, 5000),
            ("", u32::MAX, 5000),
            ("1", 9, 1000),
            ("1.5", 0, 1500),
            ("0", 0, 100),
            ("86400", 0, 60_000),
            ("-1", 0, 100),
            ("NaN", 0, 100),
            ("1e300", 1, 200),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 1, 200),
        ] {
            let mut headers = HeaderMap::new();
            if !told.is_empty() {
                headers.insert(header::RETRY_AFTER, told.parse().unwrap());
            }
            assert_eq!(wait(&headers, tries).as_millis(), expected_ms, "{told:?} after {tries}");
        }
    }
}
