//! `POST /v1/responses` (<https://platform.openai.com/docs/api-reference/responses>), and what is kept of responses.

use super::{
    ability,
    chat_completions::Talk,
    chunks::{Translated, error_object, object, put_all},
    keeping::blocking,
    parameters::with_model,
};
use crate::{
    app::{Addressed, Shared},
    dialects::responses::{Given, Page, Reading, Responses, read},
};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use narthex_http::{ApiError, Fields, entropy, plain_event_stream};
use serde_json::{Map, Value, json};
use std::{
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Makes a response.
pub(crate) async fn create(Addressed { app, exchange, mut fields }: Addressed) -> Result<Response, ApiError> {
    let defaults = &ability::text(&app.model)?.model.defaults;
    let shown = json!({"temperature": defaults.temperature, "top_p": defaults.top_p, "model": app.model.id});
    let reading = Reading {
        seed: format!("{:016x}{:016x}", entropy(), entropy()),
        now,
        responses: &app.shared.responses,
        defaults: if let Value::Object(map) = shown { map } else { Map::new() },
    };
    let (mut chat, mut answering) = read(with_model(fields.rest(), &app.model), reading)?;
    // A tool that is named is what the answer is, as OpenAI has it; Instructor asks for both.
    if chat.get("tool_choice").is_some_and(|choice| choice.get("function").is_some()) {
        chat.shift_remove("response_format");
    }
    fields.ignore(answering.ignored.iter().map(String::as_str));
    let responses = app.shared.responses.clone();
    let talk = Talk::begin(app, exchange.clone(), Fields::noting(chat, &exchange)).await;
    let talk = talk.map_err(|error| error.renamed("response_format", "text.format"))?;
    let kept = answering.kept();
    if !answering.stream {
        let whole = answering.whole(&object(&talk.whole().await?)?);
        keep(&responses, kept, &whole).await?;
        return Ok(Json(whole).into_response());
    }
    Ok(plain_event_stream(async move |events| {
        put_all(&events, &answering.begin()).await?;
        let mut chunks = Translated { to: &events, translate: |chunk: &Value| answering.piece(chunk) };
        let outcome = talk.stream(&mut chunks).await;
        let last = match outcome {
            Ok(()) => answering.end(),
            Err(error) => answering.broken(&error_object(&error)),
        };
        if let Some(response) = last.last().and_then(|event| event.data.get("response")) {
            keep(&responses, kept, response).await?;
        }
        put_all(&events, &last).await
    }))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn keep(responses: &Arc<Responses>, kept: Option<Given>, response: &Value) -> Result<(), ApiError> {
    let Some(given) = kept else { return Ok(()) };
    let (responses, response) = (responses.clone(), response.clone());
    blocking(move || responses.insert(given, response)).await?.map_err(|error| not_kept(&error))
}

fn not_kept(error: &io::Error) -> ApiError {
    ApiError::internal(format!("the response cannot be kept: {error}"))
}

fn unknown(id: &str) -> ApiError {
    ApiError::request(StatusCode::NOT_FOUND, format!("no response `{id}` is kept here"), Some("response_not_found"))
}

/// A response that is kept.
pub(crate) async fn get(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    shared.responses.get(&id).map(Json).ok_or_else(|| unknown(&id))
}

/// Forgets a response.
pub(crate) async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let (responses, asked) = (shared.responses.clone(), id.clone());
    let deleted = blocking(move || responses.delete(&asked)).await?.map_err(|error| not_kept(&error))?;
    deleted.map(Json).ok_or_else(|| unknown(&id))
}

/// What a response was asked with.
pub(crate) async fn input_items(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, ApiError> {
    let page = Page::read(query.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    shared.responses.input_items(&id, &page).ok_or_else(|| unknown(&id))?.map(Json)
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, get, post, send};
    use axum::{body::Body, http::Request};
    use serde_json::json;

    #[tokio::test]
    async fn responses_are_made_kept_and_forgotten() {
        let router = testing::router(answer("Hi."));
        let made = post(&router, "/v1/responses", &json!({"input": "hello"})).await.json(200);
        assert_eq!((&made["status"], &made["output"][0]["content"][0]["text"]), (&json!("completed"), &json!("Hi.")));
        let id = made["id"].as_str().unwrap();
        assert_eq!(get(&router, &format!("/v1/responses/{id}")).await.json(200)["output"], made["output"]);
        let items = get(&router, &format!("/v1/responses/{id}/input_items?limit=5")).await.json(200);
        assert_eq!(items["data"][0]["content"][0]["text"], "hello");
        let next = json!({"input": "more", "previous_response_id": id, "max_output_tokens": 2});
        let next = post(&router, "/v1/responses", &next).await.json(200);
        assert_eq!((&next["status"], &next["previous_response_id"]), (&json!("incomplete"), &json!(id)));
        let delete = Request::delete(format!("/v1/responses/{id}")).body(Body::empty()).unwrap();
        assert_eq!(send(&router, delete).await.json(200)["deleted"], true);
        get(&router, &format!("/v1/responses/{id}")).await.json(404);
        let gone = post(&router, "/v1/responses", &json!({"input": "x", "previous_response_id": id})).await.json(400);
        assert_eq!(gone["error"]["code"], "previous_response_not_found");
    }

    #[tokio::test]
    async fn events_end_with_the_response_that_is_kept() {
        let router = testing::router(answer("Hi."));
        let body = json!({"input": "hello", "stream": true, "colour": 1});
        let reply = post(&router, "/v1/responses", &body).await;
        assert_eq!(reply.header("x-narthex-ignored"), "colour");
        let text = reply.text(200);
        let events: Vec<(&str, serde_json::Value)> = text
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) = event.split_once('\n').unwrap();
                let data = data.strip_prefix("data: ").unwrap();
                (name.strip_prefix("event: ").unwrap(), serde_json::from_str(data).unwrap())
            })
            .collect();
        let (first, last) = (events.first().unwrap(), events.last().unwrap());
        assert_eq!((first.0, last.0), ("response.created", "response.completed"));
        let deltas = events.iter().filter(|(name, _)| *name == "response.output_text.delta");
        assert_eq!(deltas.map(|(_, data)| data["delta"].as_str().unwrap()).collect::<String>(), "Hi.");
        let id = last.1["response"]["id"].as_str().unwrap();
        assert_eq!(
            get(&router, &format!("/v1/responses/{id}")).await.json(200)["output"],
            last.1["response"]["output"]
        );
    }
}
