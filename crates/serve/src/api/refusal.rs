//! Why a request is not answered, in the API's words.

use axum::http::StatusCode;
use narthex_answer::AnswerError;
use narthex_http::ApiError;
use narthex_infer::SubmitError;

/// The engine no longer runs.
pub(crate) fn engine_stopped() -> ApiError {
    let message = "the engine has stopped; restart the server";
    ApiError::server(StatusCode::SERVICE_UNAVAILABLE, message, Some("engine_stopped"))
}

/// The engine did not take a sequence that the field `prompt` was made into.
pub(crate) fn not_taken(error: &SubmitError, prompt: &str) -> ApiError {
    match error {
        SubmitError::EmptyPrompt | SubmitError::UnknownToken(_) => ApiError::field(prompt, error.to_string()),
        SubmitError::TooLong { .. } => ApiError::field(prompt, error.to_string()).code("context_length_exceeded"),
        SubmitError::NoPriorities => {
            let message = "`priority` needs a server with `--scheduling-policy priority`: leave it out";
            ApiError::field("priority", message).code("unsupported_parameter")
        }
        SubmitError::QueueFull => {
            let message = "too many requests are waiting; try again later";
            ApiError::server(StatusCode::SERVICE_UNAVAILABLE, message, Some("queue_full"))
        }
        SubmitError::Stopped => engine_stopped(),
    }
}

/// The model of this name gave no answer to what the field `prompt` asked.
pub(crate) fn unanswered(error: AnswerError, model: &str, prompt: &str) -> ApiError {
    match error {
        AnswerError::NoTemplate => {
            let message = format!("the model `{model}` has no chat template: use /v1/completions");
            ApiError::field("model", message).code("no_chat_template")
        }
        AnswerError::Refused(error) => {
            let cause = error.causes().first().map(|cause| format!(": {cause}")).unwrap_or_default();
            ApiError::field(prompt, format!("{}{cause}", error.what()))
        }
        AnswerError::Full { tokens, context } => {
            let message = format!(
                "the prompt is too long: the messages have {tokens} tokens, and this model's maximum context length is {context}"
            );
            ApiError::field(prompt, message).code("context_length_exceeded")
        }
        AnswerError::NotTaken(error) => not_taken(&error, prompt),
        AnswerError::Failed(_) | AnswerError::Undecodable(_) => ApiError::internal(error.to_string()),
        AnswerError::Stopped => engine_stopped(),
    }
}
