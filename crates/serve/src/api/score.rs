//! `POST /v1/score`, as vLLM has it: how alike two texts are, by a cross-encoder or by the cosine of their vectors.

use super::{
    ability::comparer,
    encoding::{Length, Likeness, read_model, read_texts},
    head::Head,
    usage::Usage,
};
use crate::{Limits, Served, app::Addressed};
use axum::Json;
use narthex_http::{ApiError, Fields};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Scores {
    #[serde(flatten)]
    head: Head,
    data: Vec<Score>,
    usage: Usage,
}

#[derive(Serialize)]
struct Score {
    index: usize,
    object: &'static str,
    score: f32,
}

/// Pairs of texts to scores.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Scores>, ApiError> {
    let (model, limits) = (app.model.clone(), app.shared.limits.clone());
    let read = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
    let likeness = read.map_err(|error| ApiError::internal(error.to_string()))??;
    let head = Head::new("score", "list", &app.model, &app.model.id, None);
    let encoder = comparer(&app.model)?.encoder();
    let (scores, tokens) = likeness.run(&app, &exchange, ("score", "text_2"), encoder).await?;
    let data = scores.into_iter().enumerate().map(|(index, score)| Score { index, object: "score", score });
    Ok(Json(Scores { head, data: data.collect(), usage: Usage::new(tokens, 0) }))
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Likeness, ApiError> {
    read_model(&mut fields, model)?;
    let comparer = comparer(model)?;
    let encoder = comparer.encoder();
    // vLLM's names for both, the older ones first.
    let named =
        |fields: &Fields, names: [&'static str; 4]| names.into_iter().find(|name| fields.has(name)).unwrap_or(names[0]);
    let firsts = named(&fields, ["text_1", "queries", "data_1", "query"]);
    let seconds = named(&fields, ["text_2", "documents", "items", "data_2"]);
    let first = read_texts(&mut fields, firsts, limits.inputs_max)?;
    let second = read_texts(&mut fields, seconds, limits.inputs_max)?;
    let length = Length::read(&mut fields, encoder)?;
    fields.finish()?;
    if first.len() != 1 && first.len() != second.len() {
        let message = format!(
            "`{firsts}` has {} texts and `{seconds}` {}: it must have one, or as many",
            first.len(),
            second.len()
        );
        return Err(ApiError::field(firsts, message));
    }
    let prompt = encoder.prompt(None).unwrap_or("");
    Likeness::read(comparer, [(&first, prompt), (&second, prompt)], length, [firsts, seconds])
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, describe, embedding_model, post, router_over, scoring_model};
    use serde_json::{Value, json};

    const PATH: &str = "/v1/score";

    fn request(first: Value, second: Value) -> Value {
        json!({"model": "e", "text_1": first, "text_2": second})
    }

    fn scores(reply: &Value) -> Vec<f64> {
        reply["data"].as_array().unwrap().iter().map(|score| score["score"].as_f64().unwrap()).collect()
    }

    #[tokio::test]
    async fn vectors_are_compared_by_their_angle() {
        let router = router_over(embedding_model());
        let reply = post(&router, PATH, &request(json!("ab"), json!(["ab", "xyz"]))).await.json(200);
        let found = scores(&reply);
        assert!((found[0] - 1.0).abs() < 1e-6, "{found:?}");
        let (a, b) = (testing::vector(b"ab"), testing::vector(b"xyz"));
        let dot: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
        assert!((found[1] - f64::from(dot)).abs() < 1e-6, "{found:?}");
        let mut rest = reply.clone();
        rest["data"] = json!([]);
        assert_eq!(
            rest,
            json!({
                "id": "score-…", "object": "list", "created": 0, "model": "e", "system_fingerprint": "fp_0123456789ab",
                "data": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7},
            })
        );
        assert_eq!((&reply["data"][1]["object"], &reply["data"][1]["index"]), (&json!("score"), &json!(1)));
        let each = post(&router, PATH, &request(json!(["ab", "xyz"]), json!(["xyz", "xyz"]))).await.json(200);
        assert!((scores(&each)[0] - found[1]).abs() < 1e-6 && (scores(&each)[1] - 1.0).abs() < 1e-6);
    }

    #[tokio::test]
    async fn a_cross_encoder_scores_the_pair() {
        let router = router_over(scoring_model(1));
        let reply = post(&router, PATH, &request(json!("ab"), json!(["cd", "e"]))).await.json(200);
        let expected = [testing::score(b"abcd"), testing::score(b"abe")].map(f64::from);
        let found = scores(&reply);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
        let error = post(&router_over(scoring_model(3)), PATH, &request(json!("a"), json!("b"))).await.json(400);
        assert_eq!(error["error"]["code"], "not_a_ranker");
    }

    #[tokio::test]
    async fn refusals_name_the_field() {
        let router = router_over(embedding_model());
        for (body, expected) in [
            (request(json!(null), json!("x")), "text_1: the field `text_1` is missing"),
            (request(json!("x"), json!([])), "text_2: `text_2` must not be empty"),
            (request(json!("x"), json!([1])), "text_2: `text_2` must be a string or a list of strings"),
            (
                request(json!(["x", "y"]), json!(["x"])),
                "text_1: `text_1` has 2 texts and `text_2` 1: it must have one, or as many",
            ),
        ] {
            assert_eq!(describe(&post(&router, PATH, &body).await.json(400)), expected);
        }
        let long = request(json!("x"), json!(["y".repeat(65)]));
        assert_eq!(post(&router, PATH, &long).await.json(400)["error"]["param"], "text_2");
        let mut cut = long;
        cut["truncate_prompt_tokens"] = json!(-1);
        post(&router, PATH, &cut).await.json(200);
    }
}
