//! `POST /tokenize` and `POST /detokenize`, as vLLM has them: what a prompt becomes, and back.

use super::{
    ability, conversing::Rendering, llama_server::tokens_of, parameters::check_model, refusal::unanswered,
    tools::read_tools,
};
use crate::app::{Addressed, App};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use narthex_http::{ApiError, Fields};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(crate) struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// As the vocabulary spells them; null unless asked for.
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
pub(crate) struct Text {
    prompt: String,
    /// The same under llama-server's name.
    content: String,
}

/// Text or messages to token ids.
pub(crate) async fn tokenize(Addressed { app, mut fields, .. }: Addressed) -> Result<Response, ApiError> {
    let worked = tokio::task::spawn_blocking(move || match fields.has("content") && !fields.has("prompt") {
        // llama-server's form.
        true => tokens_of(&app.model, fields.rest()).map(|tokens| Json(tokens).into_response()),
        false => to_tokens(&app, fields).map(|tokens| Json(tokens).into_response()),
    });
    worked.await.map_err(|error| ApiError::internal(error.to_string()))?
}

fn to_tokens(app: &App, mut fields: Fields) -> Result<Tokens, ApiError> {
    let model = &app.model;
    read_model(&mut fields, app)?;
    let with_strings = fields.flag("return_token_strs")?.unwrap_or(false);
    let prompt = fields.string("prompt")?;
    let (text, special, field) = match prompt {
        Some(prompt) => (prompt, fields.flag("add_special_tokens")?.unwrap_or(true), "prompt"),
        None => {
            let rendering = Rendering::read(&mut fields, &app.shared.limits)?;
            let asked = read_tools(&mut fields, &app.shared.limits)?;
            let shown = asked.as_ref().map_or(&[][..], |asked| &asked.shown);
            let text = &ability::text(model)?.model;
            let prompt = rendering.prompt(text, shown).map_err(|error| unanswered(error, &model.id, "messages"))?;
            // What is added before a text is part of what the template writes, unless it was asked for besides.
            (prompt.text, rendering.adds_special(), "messages")
        }
    };
    fields.finish()?;
    let tokenizer = model.ability.tokenizer();
    let tokens = tokenizer.encode(&text, special).map_err(|error| ApiError::field(field, error.what()))?;
    let string = |id: &u32| tokenizer.token_text(*id).unwrap_or_default();
    let token_strs = with_strings.then(|| tokens.iter().map(string).collect());
    Ok(Tokens { count: tokens.len(), max_model_len: model.ability.context(), tokens, token_strs })
}

/// Token ids to text.
pub(crate) async fn detokenize(Addressed { app, mut fields, .. }: Addressed) -> Result<Json<Text>, ApiError> {
    read_model(&mut fields, &app)?;
    let wrong = || ApiError::field("tokens", "`tokens` must be a list of token ids of the model");
    let Some(Value::Array(list)) = fields.take("tokens") else { return Err(wrong()) };
    fields.finish()?;
    let tokenizer = app.model.ability.tokenizer();
    let vocabulary = tokenizer.vocab_size() as u64;
    let id = |value: &Value| value.as_u64().filter(|id| *id < vocabulary).map(|id| id as u32);
    let ids: Vec<u32> = list.iter().map(id).collect::<Option<_>>().ok_or_else(wrong)?;
    let text = tokenizer.decode(&ids, false).map_err(|error| ApiError::field("tokens", error.what()))?;
    Ok(Json(Text { content: text.clone(), prompt: text }))
}

/// The model may go unnamed here.
fn read_model(fields: &mut Fields, app: &App) -> Result<(), ApiError> {
    fields.string("model")?.map_or(Ok(()), |name| check_model(&name, &app.model))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, byte_tokens, post};
    use serde_json::json;

    #[tokio::test]
    async fn there_and_back() {
        let router = testing::router(|_| vec![]);
        let tokens = byte_tokens("h\u{e9}".as_bytes());
        let reply = post(&router, "/tokenize", &json!({"model": "m", "prompt": "h\u{e9}"})).await.json(200);
        assert_eq!(reply, json!({"count": 3, "max_model_len": 64, "tokens": tokens, "token_strs": null}));
        let reply = post(&router, "/detokenize", &json!({"tokens": tokens})).await.json(200);
        assert_eq!(reply, json!({"prompt": "h\u{e9}", "content": "h\u{e9}"}));
        let body = json!({"messages": [{"role": "user", "content": "a"}], "return_token_strs": true});
        let reply = post(&router, "/tokenize", &body).await.json(200);
        let strings = reply["token_strs"].as_array().unwrap();
        assert_eq!((strings.len(), &strings[0]), (reply["count"].as_u64().unwrap() as usize, &json!("<|im_start|>")));
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let router = testing::router(|_| vec![]);
        for (path, body, field) in [
            ("/tokenize", json!({"model": "other", "prompt": "x"}), "model"),
            ("/tokenize", json!({}), "messages"),
            ("/detokenize", json!({"tokens": "x"}), "tokens"),
            ("/detokenize", json!({"tokens": [-1]}), "tokens"),
            ("/detokenize", json!({"tokens": [4_000_000_000u32]}), "tokens"),
        ] {
            let status = if field == "model" { 404 } else { 400 };
            let error = post(&router, path, &body).await.json(status);
            assert_eq!(error["error"]["param"], field, "{path} {body}: {error}");
        }
    }
}
