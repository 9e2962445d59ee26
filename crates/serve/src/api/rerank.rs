//! `POST /v1/rerank`, in the form that Jina, Cohere and vLLM share: documents in the order of how well they fit a
//! query.

use super::{
    ability::comparer,
    encoding::{Length, Likeness, check_count, read_model},
    usage::ReadUsage,
};
use crate::{Limits, Served, app::Addressed};
use axum::Json;
use narthex_http::{ApiError, Fields, new_id};
use serde::Serialize;
use serde_json::Value;

struct Call {
    likeness: Likeness,
    documents: Vec<String>,
    top_n: usize,
    return_documents: bool,
}

#[derive(Serialize)]
pub(crate) struct Ranking {
    id: String,
    model: String,
    usage: ReadUsage,
    results: Vec<Ranked>,
}

#[derive(Serialize)]
struct Ranked {
    /// The document's place in the request.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Serialize)]
struct Document {
    text: String,
}

/// Ranks documents.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Ranking>, ApiError> {
    let (model, limits) = (app.model.clone(), app.shared.limits.clone());
    let call = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
    let Call { likeness, mut documents, top_n, return_documents } =
        call.map_err(|error| ApiError::internal(error.to_string()))??;
    let encoder = comparer(&app.model)?.encoder();
    let (scores, tokens) = likeness.run(&app, &exchange, ("rerank", "documents"), encoder).await?;
    let mut order: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
    // Documents of the same score stay in the order of the request.
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let results = order.into_iter().take(top_n).map(|(index, relevance_score)| {
        let text = || Document { text: std::mem::take(&mut documents[index]) };
        Ranked { index, relevance_score, document: return_documents.then(text) }
    });
    let results = results.collect();
    let usage = ReadUsage::new(tokens);
    let id = new_id("rerank");
    Ok(Json(Ranking { id, model: app.model.id.clone(), usage, results }))
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Call, ApiError> {
    read_model(&mut fields, model)?;
    let comparer = comparer(model)?;
    let encoder = comparer.encoder();
    let query = fields.string("query")?.ok_or_else(|| fields.missing("query"))?;
    let documents = read_documents(&mut fields, limits)?;
    let top_n = fields.integer("top_n", 1..=i64::MAX)?.map_or(documents.len(), |n| n as usize);
    let return_documents = fields.flag("return_documents")?.unwrap_or(true);
    let length = Length::read(&mut fields, encoder)?;
    fields.finish()?;
    let (ask, tell) = (encoder.prompt_of(&["query"]), encoder.prompt_of(&["document", "passage", "corpus"]));
    let texts = [(std::slice::from_ref(&query), ask), (documents.as_slice(), tell)];
    let likeness = Likeness::read(comparer, texts, length, ["query", "documents"])?;
    Ok(Call { likeness, documents, top_n, return_documents })
}

/// Strings, or objects with a `text`.
fn read_documents(fields: &mut Fields, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field("documents", "`documents` must be a list of strings or of `{\"text\": …}`");
    let Value::Array(list) = fields.take("documents").ok_or_else(|| fields.missing("documents"))? else {
        return Err(wrong());
    };
    check_count(&list, "documents", limits.inputs_max)?;
    let text = |document: Value| match document {
        Value::String(text) => Ok(text),
        Value::Object(mut map) => match (map.shift_remove("text"), map.is_empty()) {
            (Some(Value::String(text)), true) => Ok(text),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    };
    list.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, describe, embedding_model, post, router_over, scoring_model};
    use serde_json::{Value, json};

    const PATH: &str = "/v1/rerank";

    fn request(more: Value) -> Value {
        let mut body = json!({"model": "e", "query": "ab", "documents": ["c", {"text": "zz"}, "c", "a"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[tokio::test]
    async fn documents_come_in_the_order_of_their_scores() {
        let router = router_over(scoring_model(1));
        let mut reply = post(&router, PATH, &request(json!({}))).await.json(200);
        let id = reply["id"].take();
        assert!(id.as_str().unwrap().starts_with("rerank-"), "{id}");
        let score = |document: &str| testing::as_sent(testing::score(format!("ab{document}").as_bytes()));
        let ranked = |index: usize, text: &str| json!({"index": index, "relevance_score": score(text), "document": {"text": text}});
        assert_eq!(
            reply,
            json!({
                "id": null, "model": "e", "usage": {"prompt_tokens": 13, "total_tokens": 13},
                "results": [ranked(1, "zz"), ranked(0, "c"), ranked(2, "c"), ranked(3, "a")],
            })
        );
        let reply = post(&router, PATH, &request(json!({"top_n": 2, "return_documents": false}))).await.json(200);
        let first = json!({"index": 1, "relevance_score": score("zz")});
        assert_eq!((reply["results"].as_array().unwrap().len(), &reply["results"][0]), (2, &first));
    }

    #[tokio::test]
    async fn vectors_rank_too_with_their_prompts() {
        let router = router_over(embedding_model());
        let reply = post(&router, PATH, &request(json!({"documents": ["xy", "q: ab", "b"]}))).await.json(200);
        // The query gets the prompt `query`, and documents that of `passage`, which is empty.
        let first = &reply["results"][0];
        assert_eq!(first["index"], 1, "{reply}");
        assert!((first["relevance_score"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{reply}");
    }

    #[tokio::test]
    async fn refusals_name_the_field() {
        let router = router_over(scoring_model(1));
        let forms = "documents: `documents` must be a list of strings or of `{\"text\": …}`";
        for (more, expected) in [
            (json!({"query": null}), "query: the field `query` is missing"),
            (json!({"query": ["x"]}), "query: `query` must be a string"),
            (json!({"documents": []}), "documents: `documents` must not be empty"),
            (json!({"documents": "x"}), forms),
            (json!({"documents": [{"title": "x"}]}), forms),
            (json!({"documents": [{"text": "x", "title": "x"}]}), forms),
            (json!({"top_n": 0}), "top_n: `top_n` must be a whole number from 1"),
            (
                json!({"documents": ["x".repeat(70)]}),
                "documents: a text is too long: it has 72 tokens, but the model's context holds 64; \
                 `\"truncate_prompt_tokens\": -1` cuts texts to that",
            ),
        ] {
            assert_eq!(describe(&post(&router, PATH, &request(more)).await.json(400)), expected);
        }
    }
}
