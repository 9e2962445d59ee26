//! `POST /v2/embed`, as Cohere's clients ask (<https://docs.cohere.com/reference/embed>).

use super::{
    ability,
    encoding::{Length, check_count, read_model, run},
};
use crate::app::{Addressed, App};
use axum::Json;
use base64::{Engine, prelude::BASE64_STANDARD};
use narthex_http::{ApiError, Fields, new_id};
use narthex_infer::shortened;
use narthex_text::TokenSequence;
use serde_json::{Map, Value, json};

/// A request that has been read and understood.
struct Call {
    texts: Vec<String>,
    sequences: Vec<TokenSequence>,
    forms: Vec<String>,
    dimensions: usize,
}

/// Forms of vectors that there are.
const FORMS: [&str; 2] = ["float", "base64"];

/// Texts to vectors.
pub(crate) async fn embed(Addressed { app, exchange, fields }: Addressed) -> Result<Json<Value>, ApiError> {
    let asked = app.clone();
    let call = tokio::task::spawn_blocking(move || read(fields, &asked)).await;
    let Call { texts, sequences, forms, dimensions } =
        call.map_err(|error| ApiError::internal(error.to_string()))??;
    let encoder = ability::vectors(&app.model)?;
    let (vectors, tokens) = run(&app, &exchange, ("embeddings", "texts"), encoder, sequences).await?;
    let vectors: Vec<Vec<f32>> = vectors.into_iter().map(|vector| shortened(vector, dimensions)).collect();
    let mut embeddings = Map::new();
    for form in forms {
        let bytes = |vector: &Vec<f32>| vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let all = match form.as_str() {
            "base64" => json!(vectors.iter().map(|vector| BASE64_STANDARD.encode(bytes(vector))).collect::<Vec<_>>()),
            _ => json!(vectors),
        };
        embeddings.insert(form, all);
    }
    Ok(Json(json!({
        "id": new_id("embd"),
        "texts": texts,
        "embeddings": embeddings,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
        "response_type": "embeddings_by_type",
    })))
}

fn read(mut fields: Fields, app: &App) -> Result<Call, ApiError> {
    read_model(&mut fields, &app.model)?;
    let encoder = ability::vectors(&app.model)?;
    let wrong = || ApiError::field("texts", "`texts` must be a list of strings");
    let texts: Vec<String> = match fields.take("texts") {
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|text| text.as_str().map(str::to_string).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
        None => return Err(fields.missing("texts")),
    };
    check_count(&texts, "texts", app.shared.limits.inputs_max)?;
    fields.unsupported("images", &[])?;
    fields.unsupported("inputs", &[])?;
    let forms = match fields.take("embedding_types") {
        None => vec!["float".to_string()],
        Some(list) => {
            let names = list.as_array().map(|list| list.iter().map(Value::as_str).collect::<Vec<_>>());
            let wrong = || ApiError::field("embedding_types", "`embedding_types` must be a list of float and base64");
            let known = |name: Option<&str>| name.filter(|name| FORMS.contains(name)).map(str::to_string);
            let names = names.filter(|names| !names.is_empty()).ok_or_else(wrong)?;
            names.into_iter().map(known).collect::<Option<_>>().ok_or_else(wrong)?
        }
    };
    let own = encoder.engine.dimension();
    let dimensions = fields.integer("output_dimension", 1..=own as i64)?.map_or(own, |count| count as usize);
    let prompt = match fields.string("input_type")?.as_deref() {
        Some("search_query") => encoder.prompt_of(&["query", "search_query"]),
        Some("search_document") => encoder.prompt_of(&["document", "passage", "search_document"]),
        _ => encoder.prompt(None).unwrap_or(""),
    };
    let tokens_max = match fields.string("truncate")?.as_deref() {
        None | Some("END") => encoder.engine.context(),
        Some("NONE") => usize::MAX,
        Some(_) => return Err(ApiError::field("truncate", "`truncate` must be NONE or END")),
    };
    let tokens_max =
        fields.integer("max_tokens", 1..=i64::MAX)?.map_or(tokens_max, |most| tokens_max.min(most as usize));
    let length = Length::read(&mut fields, encoder)?;
    fields.finish()?;
    let sequences = encoder.texts(prompt, &texts.iter().map(String::as_str).collect::<Vec<_>>(), tokens_max);
    let sequences = sequences.map_err(|error| ApiError::field("texts", error.what()))?;
    length.check(&sequences, "texts")?;
    Ok(Call { texts, sequences, forms, dimensions })
}

#[cfg(test)]
mod tests {
    use crate::testing::{as_sent, embedding_model, post, router_over, vector};
    use serde_json::json;

    /// A vector, with the digits that single precision has beyond those it is written with.
    fn numbers(text: &[u8]) -> Vec<f64> {
        vector(text).into_iter().map(f64::from).collect()
    }

    #[tokio::test]
    async fn texts_become_vectors_by_type() {
        let router = router_over(embedding_model());
        let body = json!({"model": "e", "texts": ["ab"], "embedding_types": ["float", "base64"], "input_type": "x"});
        let reply = post(&router, "/v2/embed", &body).await.json(200);
        assert_eq!(as_sent(&reply["embeddings"]["float"][0]), as_sent(numbers(b"ab")));
        assert!(reply["embeddings"]["base64"][0].is_string());
        let query = json!({"model": "e", "texts": ["ab"], "input_type": "search_query"});
        let reply = post(&router, "/v2/embed", &query).await.json(200);
        assert_eq!(as_sent(&reply["embeddings"]["float"][0]), as_sent(numbers(b"q: ab")));
        for (body, field) in [
            (json!({}), "texts"),
            (json!({"texts": []}), "texts"),
            (json!({"texts": ["a"], "embedding_types": ["int8"]}), "embedding_types"),
            (json!({"texts": ["a"], "truncate": "START"}), "truncate"),
        ] {
            assert_eq!(post(&router, "/v2/embed", &body).await.json(400)["error"]["param"], field, "{body}");
        }
    }
}
