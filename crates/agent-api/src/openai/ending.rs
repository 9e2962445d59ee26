//! How a run's end looks to OpenAI's clients. Knows neither chat nor responses.

use axum::http::StatusCode;
use narthex_agent::{RunStatus, RunView};
use narthex_http::ApiError;

/// The error of a run that has no answer to give, if it ended so. It is no `5xx`: clients repeat a request after one,
/// and the run may have done things already that should not be done twice.
pub(super) fn failure(view: &RunView) -> Option<ApiError> {
    let reason = view.reason.as_deref().unwrap_or("it does not say why");
    let error = |what: String, code| Some(ApiError::request(StatusCode::UNPROCESSABLE_ENTITY, what, Some(code)));
    match view.status {
        RunStatus::Failed => error(format!("the run {} failed: {reason}", view.id), "run_failed"),
        RunStatus::Cancelled => error(format!("the run {} was cancelled", view.id), "run_cancelled"),
        _ => None,
    }
}
