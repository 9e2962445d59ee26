//! `POST /v1/messages` and `/v1/messages/count_tokens`, as Anthropic's clients ask
//! (<https://docs.anthropic.com/en/api/messages>).

use super::{
    ability,
    chat_completions::Talk,
    chunks::{Translated, error_object, object, put_all},
    conversing::Rendering,
    parameters::with_model,
    refusal::unanswered,
    tools::read_tools,
};
use crate::{
    app::Addressed,
    dialects::anthropic::{counted, error, read, read_count},
};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use narthex_http::{ApiError, Fields, entropy, plain_event_stream};
use serde_json::Value;

/// Answers a conversation.
pub(crate) async fn create(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { answer(asked?).await }.await)
}

/// Counts the tokens of a conversation.
pub(crate) async fn count_tokens(asked: Result<Addressed, ApiError>) -> Response {
    let counted = async {
        let Addressed { app, exchange, mut fields } = asked?;
        let (chat, ignored) = read_count(with_model(fields.rest(), &app.model))?;
        fields.ignore(ignored.names().iter().map(String::as_str));
        let mut chat = Fields::noting(chat, &exchange);
        let worked = tokio::task::spawn_blocking(move || {
            let rendering = Rendering::read(&mut chat, &app.shared.limits)?;
            let tools = read_tools(&mut chat, &app.shared.limits)?;
            let text = &ability::text(&app.model)?.model;
            let prompt = rendering.prompt(text, tools.as_ref().map_or(&[][..], |tools| &tools.shown));
            let prompt = prompt.map_err(|error| unanswered(error, &app.model.id, "messages"))?;
            Ok::<_, ApiError>(prompt.ids.len())
        });
        let tokens = worked.await.map_err(|error| ApiError::internal(error.to_string()))??;
        Ok(Json(counted(tokens)).into_response())
    };
    in_its_words(counted.await)
}

/// An error as Anthropic's object.
fn in_its_words(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|refusal| {
        let status = refusal.status();
        let words = error(status.as_u16(), &error_object(&refusal));
        // Its clients try again by themselves at 529.
        let status = if status == StatusCode::SERVICE_UNAVAILABLE { overloaded() } else { status };
        (status, Json(words)).into_response()
    })
}

fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn answer(Addressed { app, exchange, mut fields }: Addressed) -> Result<Response, ApiError> {
    let id = format!("msg_{:016x}{:016x}", entropy(), entropy());
    let (chat, mut answering) = read(with_model(fields.rest(), &app.model), id)?;
    fields.ignore(answering.ignored().names().iter().map(String::as_str));
    let talk = Talk::begin(app, exchange.clone(), Fields::noting(chat, &exchange)).await?;
    answering.prompt_tokens(talk.prompt_tokens());
    if !answering.streams() {
        return Ok(Json(answering.whole(&object(&talk.whole().await?)?)).into_response());
    }
    Ok(plain_event_stream(async move |events| {
        put_all(&events, &answering.begin()).await?;
        let mut chunks = Translated { to: &events, translate: |chunk: &Value| answering.piece(chunk) };
        let outcome = talk.stream(&mut chunks).await;
        let last = match outcome {
            Ok(()) => answering.end(),
            Err(error) => answering.broken(&error_object(&error)),
        };
        put_all(&events, &last).await
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, post};
    use serde_json::json;

    #[tokio::test]
    async fn messages_are_answered_and_counted() {
        let router = testing::router(answer("Hi."));
        let body = json!({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]});
        let reply = post(&router, "/v1/messages", &body).await.json(200);
        assert_eq!(reply["content"], json!([{"type": "text", "text": "Hi."}]));
        assert_eq!((&reply["stop_reason"], &reply["usage"]["output_tokens"]), (&json!("end_turn"), &json!(4)));
        let counted = post(&router, "/v1/messages/count_tokens", &body).await.json(200);
        assert_eq!(counted["input_tokens"], reply["usage"]["input_tokens"]);
        let mut streamed = body.clone();
        streamed["stream"] = true.into();
        let text = post(&router, "/v1/messages", &streamed).await.text(200);
        assert!(text.starts_with("event: message_start\n") && text.contains("event: message_stop\n"), "{text}");
        assert!(!text.contains("[DONE]"), "{text}");
    }

    #[tokio::test]
    async fn errors_are_in_its_words() {
        let router = testing::router(answer("Hi."));
        for (body, status, kind) in [
            (json!({"model": "m", "messages": []}), 400, "invalid_request_error"),
            (
                json!({"model": "other", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}),
                404,
                "not_found_error",
            ),
        ] {
            let error = post(&router, "/v1/messages", &body).await.json(status);
            assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{error}");
        }
    }
}
