//! What agents refuse, as errors of HTTP. Knows status codes and the words of the errors, not their causes.

use axum::http::StatusCode;
use narthex_agent::AgentError;
use narthex_http::ApiError;

/// As most routes say it. Another run of the same conversation is `429`: it passes, and clients try again.
pub(crate) fn refused(error: AgentError) -> ApiError {
    let request = |status, what, code| ApiError::request(status, what, Some(code));
    match error {
        AgentError::Unknown(what) => request(StatusCode::NOT_FOUND, what, "not_found"),
        AgentError::Ended(what) => request(StatusCode::CONFLICT, what, "run_ended"),
        AgentError::Input(what) => request(StatusCode::BAD_REQUEST, what, "invalid_input"),
        AgentError::Refused(what) => request(StatusCode::FORBIDDEN, what, "refused"),
        AgentError::Busy(what) => request(StatusCode::TOO_MANY_REQUESTS, what, "busy"),
        AgentError::Failed(what) => ApiError::internal(what).code("failed"),
    }
}

/// As the Agent Protocol has it: what is busy is a conflict.
pub(crate) fn in_conflict(error: AgentError) -> ApiError {
    match error {
        AgentError::Busy(what) => ApiError::request(StatusCode::CONFLICT, what, Some("busy")),
        error => refused(error),
    }
}

/// Something of another API that has no counterpart here.
pub(crate) fn not_here(what: &str) -> ApiError {
    ApiError::request(StatusCode::UNPROCESSABLE_ENTITY, what, Some("not_supported"))
}
