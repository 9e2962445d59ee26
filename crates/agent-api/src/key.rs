//! The header that makes a request which is sent twice one run.

use axum::http::HeaderMap;
use narthex_http::ApiError;

/// `Idempotency-Key`, if there is one.
///
/// # Errors
/// If it is not plain text.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.trim().is_empty() => Ok(Some(key.trim().to_string())),
        _ => Err(ApiError::invalid("the header `Idempotency-Key` must be plain text that is not empty")),
    }
}
