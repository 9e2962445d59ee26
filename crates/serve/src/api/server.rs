//! What others ask of a server besides answers: `/version`, `/ping`, `/load`, `/invocations` and `/openapi.json`.

use super::{chat_completions, classify, completions, embeddings, rerank, score};
use crate::{
    Ability,
    app::{Addressed, Shared},
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use narthex_http::ApiError;
use narthex_infer::EngineStats;
use serde_json::{Map, Value, json};

/// Every endpoint: its method, its path and what it is for.
pub(crate) const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("get", "/health", "Whether the server answers."),
    ("get", "/ready", "Whether new requests should come."),
    ("get", "/ping", "The same as /health, as SageMaker asks."),
    ("post", "/ping", "The same as /health, as SageMaker asks."),
    ("get", "/version", "The version of the server."),
    ("get", "/load", "Requests under way."),
    ("get", "/metrics", "Counters for Prometheus, under vLLM's names."),
    ("get", "/admin/model", "Which versions answer, and what is on trial. Needs a key of its own."),
    ("post", "/admin/model", "Goes over to another version, at once or after a trial. Needs a key of its own."),
    ("delete", "/admin/model", "Ends a trial. Needs a key of its own."),
    ("get", "/openapi.json", "This list."),
    ("get", "/v1/models", "The models and adapters."),
    ("get", "/v1/health", "The same as /health."),
    ("get", "/v1/models/{id}", "One of them, with its lineage and licences."),
    ("get", "/models", "The models and adapters (llama-server)."),
    ("post", "/models/load", "Has a model in memory (llama-server)."),
    ("post", "/models/unload", "Puts a model out of memory until it is asked for again (llama-server)."),
    ("get", "/v1/provenance", "What the model was made from."),
    ("post", "/v1/chat/completions", "An answer to a conversation (OpenAI)."),
    ("post", "/chat/completions", "The same under llama-server's name."),
    ("post", "/v1/completions", "The continuation of a text (OpenAI)."),
    ("post", "/v1/responses", "An answer to a conversation that is kept (OpenAI)."),
    ("get", "/v1/responses/{id}", "A response that is kept."),
    ("delete", "/v1/responses/{id}", "Forgets a response."),
    ("get", "/v1/responses/{id}/input_items", "What a response was asked with."),
    ("post", "/v1/messages", "An answer to a conversation (Anthropic)."),
    ("post", "/v1/messages/count_tokens", "The tokens of a conversation (Anthropic)."),
    ("post", "/v1/embeddings", "Vectors of texts (OpenAI)."),
    ("post", "/embeddings", "The same under llama-server's name."),
    ("post", "/v2/embed", "Vectors of texts (Cohere)."),
    ("post", "/v1/score", "How alike pairs of texts are (vLLM)."),
    ("post", "/score", "How alike pairs of texts are (vLLM)."),
    ("post", "/v1/rerank", "Documents in the order of how well they fit a query."),
    ("post", "/v2/rerank", "Documents in the order of how well they fit a query (Cohere)."),
    ("post", "/rerank", "Documents in the order of how well they fit a query (vLLM)."),
    ("post", "/reranking", "The same (llama-server)."),
    ("post", "/v1/reranking", "The same (llama-server)."),
    ("post", "/classify", "Classes of texts (vLLM)."),
    ("post", "/v1/classify", "The same."),
    ("post", "/pooling", "Vectors, scores or probabilities of texts, as the model gives them (vLLM)."),
    ("post", "/tokenize", "The tokens of a text or a conversation."),
    ("post", "/detokenize", "The text of tokens."),
    ("post", "/invocations", "Any of the requests above, as SageMaker sends them."),
    ("post", "/v1/load_lora_adapter", "Loads an adapter (vLLM)."),
    ("post", "/v1/unload_lora_adapter", "Takes an adapter away (vLLM)."),
    ("post", "/api/chat", "An answer to a conversation (Ollama)."),
    ("post", "/api/generate", "An answer to a prompt (Ollama)."),
    ("post", "/api/embed", "Vectors of texts (Ollama)."),
    ("post", "/api/embeddings", "The vector of a text (Ollama)."),
    ("post", "/api/show", "What is known of a model (Ollama)."),
    ("get", "/api/tags", "The models (Ollama)."),
    ("get", "/api/ps", "The models in memory (Ollama)."),
    ("get", "/api/version", "The version of the server (Ollama)."),
    ("post", "/completion", "The continuation of a text (llama-server)."),
    ("post", "/completions", "The same (llama-server)."),
    ("post", "/infill", "What fills a hole in a text (llama-server)."),
    ("post", "/apply-template", "The text of a conversation (llama-server)."),
    ("get", "/props", "What is known of the model (llama-server)."),
    ("get", "/slots", "What is under way (llama-server)."),
    ("post", "/v1/files", "Keeps a file for a batch (OpenAI)."),
    ("get", "/v1/files", "The files that are kept."),
    ("get", "/v1/files/{id}", "What is known of a file that is kept."),
    ("delete", "/v1/files/{id}", "Deletes a file."),
    ("get", "/v1/files/{id}/content", "A file that is kept."),
    ("post", "/v1/batches", "Answers the requests of a file (OpenAI)."),
    ("get", "/v1/batches", "The batches."),
    ("get", "/v1/batches/{id}", "A batch."),
    ("post", "/v1/batches/{id}/cancel", "Ends a batch early."),
];

/// `GET /version`.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "server": "narthex"}))
}

/// `GET` and `POST /ping`.
pub(crate) async fn ping() -> StatusCode {
    StatusCode::OK
}

/// `GET /load`.
pub(crate) async fn load(State(shared): State<Shared>) -> Json<Value> {
    let of = |stats: EngineStats| stats.requests_running + stats.requests_waiting;
    let load: u64 = shared.models.all().iter().map(|serving| of(serving.stats())).sum();
    Json(json!({"server_load": load}))
}

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Json<Value> {
    let mut paths = Map::new();
    for &(method, path, summary) in ENDPOINTS {
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = names
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let mut operation = json!({
            "summary": summary,
            "responses": {"200": {"description": "The answer."}, "default": {"description": "An error object."}},
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if method == "post" && path != "/ping" {
            operation["requestBody"] = json!({"content": {"application/json": {"schema": {"type": "object"}}}});
        }
        entry[method] = operation;
    }
    Json(json!({
        "openapi": "3.1.0",
        "info": {"title": "narthex", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    }))
}

/// `POST /invocations`: the endpoint is told by the fields.
pub(crate) async fn invocations(Addressed { app, exchange, fields }: Addressed) -> Result<Response, ApiError> {
    let labels = matches!(app.model.ability, Ability::Labels(_));
    let asked = Addressed { app, exchange, fields };
    let has = |names: &[&str]| names.iter().any(|name| asked.fields.has(name));
    if has(&["messages"]) {
        return chat_completions::create(asked).await;
    }
    if has(&["prompt"]) {
        return completions::create(asked).await;
    }
    if has(&["query"]) {
        return rerank::create(asked).await.map(IntoResponse::into_response);
    }
    if has(&["text_1", "queries", "data_1"]) {
        return score::create(asked).await.map(IntoResponse::into_response);
    }
    if has(&["input"]) && labels {
        return classify::create(asked).await.map(IntoResponse::into_response);
    }
    if has(&["input"]) {
        return embeddings::create(asked).await.map(IntoResponse::into_response);
    }
    Err(ApiError::invalid("the body has none of `messages`, `prompt`, `input`, `query` and `text_1`: what is wanted?"))
}

#[cfg(test)]
mod tests {
    use super::ENDPOINTS;
    use crate::testing::{self, answer, embedding_model, get, post, router_over, send};
    use axum::{body::Body, http::Request};
    use serde_json::json;

    #[tokio::test]
    async fn what_is_listed_is_there() {
        let router = testing::router(answer("Hi."));
        let listed = get(&router, "/openapi.json").await.json(200);
        for &(method, path, _) in ENDPOINTS {
            assert!(listed["paths"][path][method].is_object(), "{method} {path}");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path.replace("{id}", "x"));
            let request = request.header("content-type", "application/json").body(Body::from("{}")).unwrap();
            let (status, text) = send(&router, request).await.any();
            assert!(status != 405 && !text.contains("unknown_url"), "{method} {path}: {status} {text}");
        }
    }

    #[tokio::test]
    async fn invocations_are_told_by_their_fields() {
        let router = testing::router(answer("Hi."));
        let chat = json!({"messages": [{"role": "user", "content": "x"}]});
        assert_eq!(post(&router, "/invocations", &chat).await.json(200)["object"], "chat.completion");
        assert_eq!(post(&router, "/invocations", &json!({"prompt": "x"})).await.json(200)["object"], "text_completion");
        post(&router, "/invocations", &json!({})).await.json(400);
        let router = router_over(embedding_model());
        assert_eq!(post(&router, "/invocations", &json!({"input": "x"})).await.json(200)["object"], "list");
        assert_eq!(get(&router, "/ping").await.text(200), "");
        assert_eq!(get(&router, "/load").await.json(200), json!({"server_load": 0}));
    }
}
