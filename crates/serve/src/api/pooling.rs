//! `POST /pooling`, as vLLM has it: what an encoder gives for a text, whatever that is.

use super::{
    encoding::{Length, read_input, read_model, run},
    usage::Usage,
};
use crate::{
    Ability, Served,
    app::{Addressed, App},
};
use axum::Json;
use narthex_answer::TextEncoder;
use narthex_http::{ApiError, Fields, new_id};
use narthex_text::TokenSequence;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Serialize)]
pub(crate) struct Pooled {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    data: Vec<Entry>,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry {
    index: usize,
    object: &'static str,
    data: Vec<f32>,
}

/// Texts to what the model gives for them.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Pooled>, ApiError> {
    let asked = app.clone();
    let read = tokio::task::spawn_blocking(move || read(fields, &asked)).await;
    let sequences = read.map_err(|error| ApiError::internal(error.to_string()))??;
    let (outputs, tokens) = run(&app, &exchange, ("pooling", "input"), encoder(&app.model)?, sequences).await?;
    let outputs = match &app.model.ability {
        Ability::Labels(labels) => outputs.iter().map(|numbers| labels.chances.of(numbers)).collect(),
        _ => outputs,
    };
    let data = outputs.into_iter().enumerate().map(|(index, data)| Entry { index, object: "pooling", data }).collect();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (id, model, usage) = (new_id("pool"), app.model.id.clone(), Usage::new(tokens, 0));
    Ok(Json(Pooled { id, object: "list", created, model, data, usage }))
}

/// The model as an encoder of any kind.
fn encoder(model: &Served) -> Result<&TextEncoder, ApiError> {
    match &model.ability {
        Ability::Vectors(encoder) | Ability::Scores(encoder) => Ok(encoder),
        Ability::Labels(labels) => Ok(&labels.encoder),
        Ability::Text(_) => {
            let message =
                format!("the model `{}` generates text: use /v1/chat/completions or /v1/completions", model.id);
            Err(ApiError::field("model", message).code("not_an_encoder"))
        }
    }
}

fn read(mut fields: Fields, app: &App) -> Result<Vec<TokenSequence>, ApiError> {
    read_model(&mut fields, &app.model)?;
    let encoder = encoder(&app.model)?;
    let length = Length::read(&mut fields, encoder)?;
    fields.unsupported("encoding_format", &["float".into()])?;
    fields.string("task")?;
    let value = fields.take("input").ok_or_else(|| fields.missing("input"))?;
    fields.finish()?;
    read_input(value, encoder, encoder.prompt(None).unwrap_or(""), length, &app.shared.limits)
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, as_sent, embedding_model, post, router_over, scoring_model, vector};
    use serde_json::json;

    #[tokio::test]
    async fn each_kind_gives_what_it_has() {
        let reply = post(&router_over(embedding_model()), "/pooling", &json!({"input": ["ab", "c"]})).await.json(200);
        assert_eq!((&reply["data"][0]["data"], reply["data"].as_array().unwrap().len()), (&as_sent(vector(b"ab")), 2));
        let reply = post(&router_over(scoring_model(3)), "/pooling", &json!({"input": "ab"})).await.json(200);
        let sum: f64 = reply["data"][0]["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{reply}");
        let error = post(&testing::router(answer("x")), "/pooling", &json!({"input": "ab"})).await.json(400);
        assert_eq!(error["error"]["code"], "not_an_encoder");
    }
}
