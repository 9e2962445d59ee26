//! `POST /v1/embeddings` (<https://platform.openai.com/docs/api-reference/embeddings>).

use super::{
    ability,
    encoding::{Length, read_input, read_model, run},
    usage::ReadUsage,
};
use crate::{Limits, Served, app::Addressed};
use axum::Json;
use base64::{Engine, prelude::BASE64_STANDARD};
use narthex_http::{ApiError, Fields};
use narthex_infer::shortened;
use narthex_text::TokenSequence;
use serde::Serialize;

/// A request that has been read and understood.
struct Call {
    sequences: Vec<TokenSequence>,
    base64: bool,
    dimensions: usize,
}

#[derive(Serialize)]
pub(crate) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: ReadUsage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Numbers(Vec<f32>),
    /// Little-endian single precision.
    Base64(String),
}

/// Texts to vectors.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Embeddings>, ApiError> {
    let (model, limits) = (app.model.clone(), app.shared.limits.clone());
    let call = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
    let Call { sequences, base64, dimensions } = call.map_err(|error| ApiError::internal(error.to_string()))??;
    let (vectors, tokens) =
        run(&app, &exchange, ("embeddings", "input"), ability::vectors(&app.model)?, sequences).await?;
    let data = vectors.into_iter().enumerate().map(|(index, vector)| {
        let vector = shortened(vector, dimensions);
        let bytes = || vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let embedding = if base64 { Values::Base64(BASE64_STANDARD.encode(bytes())) } else { Values::Numbers(vector) };
        Embedding { object: "embedding", index, embedding }
    });
    let usage = ReadUsage::new(tokens);
    Ok(Json(Embeddings { object: "list", data: data.collect(), model: app.model.id.clone(), usage }))
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Call, ApiError> {
    read_model(&mut fields, model)?;
    let encoder = ability::vectors(model)?;
    let base64 = match fields.string("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::field("encoding_format", "`encoding_format` must be `float` or `base64`")),
    };
    let own = encoder.engine.dimension();
    let dimensions = fields.integer("dimensions", 1..=own as i64)?.map_or(own, |dimensions| dimensions as usize);
    let length = Length::read(&mut fields, encoder)?;
    let prompt_name = fields.string("prompt_name")?;
    let prompt = encoder.prompt(prompt_name.as_deref()).ok_or_else(|| {
        let names: Vec<&str> = encoder.prompts.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "it has none".into() } else { format!("it has: {}", names.join(", ")) };
        ApiError::field("prompt_name", format!("the model has no prompt of this name; {known}"))
    })?;
    let value = fields.take("input").ok_or_else(|| fields.missing("input"))?;
    fields.finish()?;
    let sequences = read_input(value, encoder, prompt, length, limits)?;
    Ok(Call { sequences, base64, dimensions })
}

#[cfg(test)]
mod tests {
    use crate::testing::{
        self, as_sent, byte_tokens, describe, embedding_model, get, post, router_over, scoring_model,
    };
    use serde_json::{Value, json};

    const PATH: &str = "/v1/embeddings";

    fn request(more: Value) -> Value {
        let mut body = json!({"model": "e", "input": "ab"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[tokio::test]
    async fn answers_as_openai_does() {
        let router = router_over(embedding_model());
        let reply = post(&router, PATH, &request(json!({"user": "x"}))).await.json(200);
        assert_eq!(
            reply,
            json!({
                "object": "list", "model": "e",
                "data": [{"object": "embedding", "index": 0, "embedding": as_sent(testing::vector(b"ab"))}],
                "usage": {"prompt_tokens": 2, "total_tokens": 2},
            })
        );
        let metrics = get(&router, "/metrics").await.text(200);
        for line in [
            "vllm:request_success_total{model_name=\"e\",engine=\"0\",finished_reason=\"stop\"} 1",
            "vllm:request_prompt_tokens_sum{model_name=\"e\",engine=\"0\"} 2",
        ] {
            assert!(metrics.lines().any(|found| found == line), "no line {line} in\n{metrics}");
        }
    }

    #[tokio::test]
    async fn inputs_in_all_their_forms() {
        let router = router_over(embedding_model());
        let ids = |text: &str| byte_tokens(text.as_bytes());
        for (input, texts) in [
            (json!("one"), vec!["one"]),
            (json!(["one", "two"]), vec!["one", "two"]),
            (json!(ids("one")), vec!["one"]),
            (json!([ids("a"), ids("bc")]), vec!["a", "bc"]),
        ] {
            let reply = post(&router, PATH, &request(json!({"input": input}))).await.json(200);
            let data = reply["data"].as_array().unwrap();
            assert_eq!(data.len(), texts.len(), "{input}");
            for (index, (found, text)) in data.iter().zip(&texts).enumerate() {
                assert_eq!(found["embedding"], as_sent(testing::vector(text.as_bytes())), "{input}");
                assert_eq!(found["index"], index);
            }
            assert_eq!(reply["usage"]["total_tokens"], texts.concat().len());
        }
    }

    #[tokio::test]
    async fn formats_dimensions_prompts_and_lengths() {
        let router = router_over(embedding_model());
        let embedding = |more: Value| {
            let router = router.clone();
            async move { post(&router, PATH, &request(more)).await.json(200)["data"][0]["embedding"].clone() }
        };
        let whole = testing::vector(b"ab");
        let encoded = embedding(json!({"encoding_format": "base64"})).await;
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded.as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        assert_eq!(decoded, whole);
        let short = embedding(json!({"dimensions": 2})).await;
        let length = whole[0].hypot(whole[1]);
        let found: Vec<f64> = short.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(found.len(), 2);
        assert!((found[0] - f64::from(whole[0] / length)).abs() < 1e-6, "{found:?}");
        assert_eq!(embedding(json!({"dimensions": 4})).await, as_sent(&whole));
        assert_eq!(embedding(json!({"prompt_name": "query"})).await, as_sent(testing::vector(b"q: ab")));
        let long = "x".repeat(70);
        assert_eq!(
            embedding(json!({"input": long, "truncate_prompt_tokens": -1})).await,
            as_sent(testing::vector(&[b'x'; 64]))
        );
        assert_eq!(embedding(json!({"truncate_prompt_tokens": 1})).await, as_sent(testing::vector(b"a")));
        assert_eq!(
            embedding(json!({"input": byte_tokens(b"abc"), "truncate_prompt_tokens": 2})).await,
            as_sent(testing::vector(b"ab"))
        );
    }

    #[tokio::test]
    async fn refusals_name_the_field() {
        let router = router_over(embedding_model());
        let forms = "input: `input` must be a string, a list of strings, a list of token ids, or a list of such lists";
        for (more, expected) in [
            (json!({"input": null}), "input: the field `input` is missing"),
            (json!({"input": []}), "input: `input` must not be empty"),
            (json!({"input": ""}), "input: a text in `input` must not be empty"),
            (json!({"input": ["x", ""]}), "input: a text in `input` must not be empty"),
            (json!({"input": {}}), forms),
            (json!({"input": ["x", 1]}), forms),
            (json!({"input": [[1], "x"]}), forms),
            (json!({"input": [1.5]}), forms),
            (json!({"input": [[]]}), "input: the prompt has no tokens"),
            (json!({"input": [4_000_000]}), "input: token id 4000000 is outside the vocabulary"),
            (json!({"input": vec!["x"; 2049]}), "input: `input` has 2049 entries; 2048 at most"),
            (json!({"encoding_format": "int8"}), "encoding_format: `encoding_format` must be `float` or `base64`"),
            (json!({"dimensions": 0}), "dimensions: `dimensions` must be a whole number from 1 to 4"),
            (json!({"dimensions": 5}), "dimensions: `dimensions` must be a whole number from 1 to 4"),
            (
                json!({"prompt_name": "poem"}),
                "prompt_name: the model has no prompt of this name; it has: passage, query",
            ),
            (
                json!({"input": "x".repeat(65)}),
                "input: a text is too long: it has 65 tokens, but the model's context holds 64; \
                 `\"truncate_prompt_tokens\": -1` cuts texts to that",
            ),
        ] {
            let error = post(&router, PATH, &request(more)).await.json(400);
            assert_eq!(describe(&error), expected);
        }
        let error = post(&router, PATH, &request(json!({"model": "other"}))).await.json(404);
        assert_eq!(error["error"]["code"], "model_not_found");
        let error = post(&router_over(scoring_model(1)), PATH, &request(json!({}))).await.json(400);
        assert_eq!(error["error"]["code"], "not_an_embedding_model");
    }

    #[tokio::test]
    async fn a_model_of_the_other_kind_says_so() {
        let decoder = testing::router(testing::answer("x"));
        for (path, body) in [
            (PATH, json!({"model": "m", "input": "x"})),
            ("/v1/score", json!({"model": "m", "text_1": "x", "text_2": "y"})),
            ("/v1/rerank", json!({"model": "m", "query": "x", "documents": ["y"]})),
        ] {
            let error = post(&decoder, path, &body).await.json(400);
            assert_eq!(error["error"]["code"], "not_an_encoder", "{path}");
            assert!(describe(&error).contains("serve an encoder"), "{error}");
        }
        let encoder = router_over(embedding_model());
        for (path, body) in [
            ("/v1/completions", json!({"model": "e", "prompt": "x"})),
            ("/v1/chat/completions", json!({"model": "e", "messages": [{"role": "user", "content": "x"}]})),
        ] {
            let error = post(&encoder, path, &body).await.json(400);
            assert_eq!(
                describe(&error),
                "model: the model `e` generates no text, it gives embeddings: use /v1/embeddings, /v1/score or /v1/rerank"
            );
        }
        let models = get(&encoder, "/v1/models").await.json(200);
        assert_eq!((&models["data"][0]["id"], &models["data"][0]["max_model_len"]), (&json!("e"), &json!(64)));
    }
}
