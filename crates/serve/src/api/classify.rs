//! `POST /classify`, as vLLM has it: texts sorted into classes.

use super::{
    ability,
    encoding::{Length, read_input, read_model, run},
    head::Head,
    usage::Usage,
};
use crate::{Limits, Served, app::Addressed};
use axum::Json;
use narthex_answer::likeliest;
use narthex_http::{ApiError, Fields};
use narthex_text::TokenSequence;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Classes {
    #[serde(flatten)]
    head: Head,
    data: Vec<Class>,
    usage: Usage,
}

#[derive(Serialize)]
struct Class {
    index: usize,
    /// The likeliest.
    label: String,
    /// Of each label, in the model's order.
    probs: Vec<f32>,
    num_classes: usize,
}

/// Texts to classes.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Classes>, ApiError> {
    let (model, limits) = (app.model.clone(), app.shared.limits.clone());
    let read = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
    let sequences = read.map_err(|error| ApiError::internal(error.to_string()))??;
    let head = Head::new("classify", "list", &app.model, &app.model.id, None);
    let labels = ability::labels(&app.model)?;
    let (outputs, tokens) = run(&app, &exchange, ("classify", "input"), &labels.encoder, sequences).await?;
    let data = outputs.into_iter().enumerate().map(|(index, numbers)| {
        let probs = labels.chances.of(&numbers);
        let best = likeliest(&probs);
        Class { index, label: labels.names[best].clone(), num_classes: probs.len(), probs }
    });
    Ok(Json(Classes { head, data: data.collect(), usage: Usage::new(tokens, 0) }))
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Vec<TokenSequence>, ApiError> {
    read_model(&mut fields, model)?;
    let encoder = &ability::labels(model)?.encoder;
    let length = Length::read(&mut fields, encoder)?;
    if fields.take("messages").is_some() {
        let message = format!("the model `{}` has no chat template: send `input`", model.id);
        return Err(ApiError::field("messages", message).code("no_chat_template"));
    }
    let value = fields.take("input").ok_or_else(|| fields.missing("input"))?;
    fields.finish()?;
    read_input(value, encoder, encoder.prompt(None).unwrap_or(""), length, limits)
}

#[cfg(test)]
mod tests {
    use crate::{
        Ability,
        testing::{self, describe, embedding_model, post, router_over, scoring_model},
    };
    use narthex_answer::Chances;
    use serde_json::{Value, json};

    const PATH: &str = "/classify";

    #[tokio::test]
    async fn answers_as_vllm_does() {
        let router = router_over(scoring_model(3));
        let mut reply = post(&router, PATH, &json!({"model": "e", "input": ["ab", "b"]})).await.json(200);
        let data = reply["data"].take();
        assert_eq!(
            reply,
            json!({
                "id": "classify-…", "object": "list", "created": 0, "model": "e", "system_fingerprint": "fp_0123456789ab",
                "data": null, "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3},
            })
        );
        // The encoder of the tests gives the number s, then s + 1, then s + 2.
        let shares = [1.0, 1f64.exp(), 2f64.exp()].map(|x| x / (1.0 + 1f64.exp() + 2f64.exp()));
        for (index, class) in data.as_array().unwrap().iter().enumerate() {
            assert_eq!(
                (&class["index"], &class["label"], &class["num_classes"]),
                (&json!(index), &json!("C"), &json!(3))
            );
            let probs: Vec<f64> = serde_json::from_value(class["probs"].clone()).unwrap();
            assert!(probs.iter().zip(shares).all(|(a, b)| (a - b).abs() < 1e-6), "{probs:?}");
        }
    }

    #[tokio::test]
    async fn labels_that_stand_alone_are_not_shared_out() {
        for (chances, expected) in
            [(Chances::Each, 1.0 / (1.0 + (-testing::score(b"ab")).exp())), (Chances::AsTheyAre, testing::score(b"ab"))]
        {
            let mut model = scoring_model(2);
            if let Ability::Labels(labels) = &mut model.ability {
                labels.chances = chances;
            }
            let reply = post(&router_over(model), PATH, &json!({"model": "e", "input": "ab"})).await.json(200);
            let first = reply["data"][0]["probs"][0].as_f64().unwrap();
            assert!((first - f64::from(expected)).abs() < 1e-6, "{chances:?}: {reply}");
        }
    }

    #[tokio::test]
    async fn refusals_name_the_field() {
        let router = router_over(scoring_model(2));
        for (more, expected) in [
            (json!({}), "input: the field `input` is missing"),
            (json!({"input": []}), "input: `input` must not be empty"),
            (
                json!({"messages": [{"role": "user", "content": "x"}]}),
                "messages: the model `e` has no chat template: send `input`",
            ),
            (
                json!({"input": "x".repeat(65)}),
                "input: a text is too long: it has 65 tokens, but the model's context holds 64; \
                 `\"truncate_prompt_tokens\": -1` cuts texts to that",
            ),
        ] {
            let mut body: Value = json!({"model": "e"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(describe(&post(&router, PATH, &body).await.json(400)), expected);
        }
        for (other, expected) in [
            (embedding_model(), "model: the model `e` gives embeddings: use /v1/embeddings, /v1/score or /v1/rerank"),
            (scoring_model(1), "model: the model `e` scores pairs of texts: use /v1/score or /v1/rerank"),
        ] {
            let error = post(&router_over(other), PATH, &json!({"model": "e", "input": "x"})).await.json(400);
            assert_eq!((describe(&error).as_str(), &error["error"]["code"]), (expected, &json!("not_a_classifier")));
        }
        let error = post(&testing::router(|_| vec![]), PATH, &json!({"model": "m", "input": "x"})).await.json(400);
        assert_eq!(
            describe(&error),
            "model: the model `m` generates text: use /v1/chat/completions or /v1/completions"
        );
        let embeddings = json!({"model": "e", "input": "x"});
        let error = post(&router, "/v1/embeddings", &embeddings).await.json(400);
        assert_eq!(describe(&error), "model: the model `e` sorts texts into classes: use /classify");
    }
}
