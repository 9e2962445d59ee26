//! All routes of the API and the page, and which of them ask for a key.

use crate::{Models, ServeOptions, api, api::keeping::FilesState, app::Shared, dialects::responses::Responses};
use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    routing::{delete, get, post},
};
use narthex_base::Result;
use narthex_http::{Observers, Stopping, guarded};
use std::sync::Arc;

/// The API and the chat page, without files and batches. Needs a tokio runtime to run in.
///
/// # Errors
/// If the access log cannot be written, or the address for traces is none.
pub fn router(models: Models, options: &ServeOptions) -> Result<Router> {
    let routes = routes(
        Arc::new(models),
        options,
        Stopping::default(),
        &FilesState::default(),
        Responses::new(options.responses),
    );
    Ok(guarded(routes, &options.http, needs_key, Observers::open(&options.http)?))
}

/// Paths that ask for no key, where keys are set, besides those of the page: health and metrics.
const OPEN: [&str; 7] = ["/health", "/ready", "/ping", "/version", "/metrics", "/openapi.json", "/api/version"];

/// Where the server is told what to serve.
const ADMIN: &str = "/admin/model";

/// Whether requests to a path must carry a key.
pub(crate) fn needs_key(path: &str) -> bool {
    // Those who run the server have keys of their own.
    !OPEN.contains(&path) && path != ADMIN && !api::page::FILES.iter().any(|(file, ..)| *file == path)
}

/// The routes of files and batches. Uploads have a limit of their own, whatever that of other bodies is.
pub(crate) fn files_routes<S: Clone + Send + Sync + 'static>(state: &FilesState) -> Router<S>
where
    FilesState: FromRef<S>,
{
    let file_bytes_max = state.0.as_ref().map_or(0, |store| store.options().file_bytes_max);
    let upload_max = usize::try_from(file_bytes_max.saturating_add(api::files::FORM_BYTES)).unwrap_or(usize::MAX);
    Router::new()
        .route("/v1/files", post(api::files::create).layer(DefaultBodyLimit::max(upload_max)).get(api::files::list))
        .route("/v1/files/{id}", get(api::files::get).delete(api::files::delete))
        .route("/v1/files/{id}/content", get(api::files::content))
        .route("/v1/batches", post(api::batches::create).get(api::batches::list))
        .route("/v1/batches/{id}", get(api::batches::get))
        .route("/v1/batches/{id}/cancel", post(api::batches::cancel))
}

/// The routes alone, for a server that says when it is about to stop and what it keeps.
pub(crate) fn routes(
    models: Arc<Models>,
    options: &ServeOptions,
    stopping: Stopping,
    files: &FilesState,
    responses: Responses,
) -> Router {
    let limits = Arc::new(options.limits.clone());
    api::page::routes()
        .merge(files_routes(files))
        .route("/health", get(api::health::get))
        .route("/ready", get(api::health::ready))
        .route("/metrics", get(api::metrics::get))
        .route(ADMIN, get(api::admin::get).post(api::admin::post).delete(api::admin::delete))
        .route("/v1/models", get(api::models::list))
        .route("/v1/models/{*id}", get(api::models::get))
        .route("/v1/chat/completions", post(api::chat_completions::create))
        .route("/v1/completions", post(api::completions::create))
        .route("/v1/load_lora_adapter", post(api::adapters::load))
        .route("/v1/unload_lora_adapter", post(api::adapters::unload))
        .route("/v1/embeddings", post(api::embeddings::create))
        // llama-server has some of them without `v1` too.
        .route("/v1/health", get(api::health::get))
        .route("/models", get(api::models::list))
        .route("/models/load", post(api::models::load))
        .route("/models/unload", post(api::models::unload))
        .route("/chat/completions", post(api::chat_completions::create))
        .route("/embeddings", post(api::embeddings::create))
        .route("/reranking", post(api::rerank::create))
        .route("/v1/reranking", post(api::rerank::create))
        .route("/v1/responses", post(api::responses::create))
        .route("/v1/responses/{id}", get(api::responses::get).delete(api::responses::delete))
        .route("/v1/responses/{id}/input_items", get(api::responses::input_items))
        .route("/v1/messages", post(api::anthropic::create))
        .route("/v1/messages/count_tokens", post(api::anthropic::count_tokens))
        .route("/v1/score", post(api::score::create))
        .route("/score", post(api::score::create))
        .route("/v1/rerank", post(api::rerank::create))
        .route("/v2/rerank", post(api::rerank::create))
        .route("/rerank", post(api::rerank::create))
        .route("/v2/embed", post(api::cohere::embed))
        .route("/classify", post(api::classify::create))
        .route("/v1/classify", post(api::classify::create))
        .route("/pooling", post(api::pooling::create))
        .route("/invocations", post(api::server::invocations))
        .route("/ping", get(api::server::ping).post(api::server::ping))
        .route("/version", get(api::server::version))
        .route("/load", get(api::server::load))
        .route("/openapi.json", get(api::server::openapi))
        .route("/api/chat", post(api::ollama::chat))
        .route("/api/generate", post(api::ollama::generate))
        .route("/api/embed", post(api::ollama::embed))
        .route("/api/embeddings", post(api::ollama::embeddings_of_one))
        .route("/api/show", post(api::ollama::show_model))
        .route("/api/tags", get(api::ollama::list))
        .route("/api/ps", get(api::ollama::running))
        .route("/api/version", get(api::ollama::server_version))
        .route("/api/pull", post(api::ollama::not_here))
        .route("/api/push", post(api::ollama::not_here))
        .route("/api/create", post(api::ollama::not_here))
        .route("/api/copy", post(api::ollama::not_here))
        .route("/api/delete", delete(api::ollama::not_here))
        .route("/completion", post(api::llama_server::completion))
        .route("/completions", post(api::llama_server::completion))
        .route("/infill", post(api::llama_server::infill))
        .route("/apply-template", post(api::llama_server::render))
        .route("/props", get(api::llama_server::properties))
        .route("/slots", get(api::llama_server::places))
        .route("/tokenize", post(api::tokenize::tokenize))
        .route("/detokenize", post(api::tokenize::detokenize))
        .route("/v1/provenance", get(api::provenance::get))
        .with_state(Shared {
            models,
            limits,
            responses: responses.into(),
            files: files.clone(),
            admin_keys: options.admin_keys.clone().into(),
            stopping,
        })
}

#[cfg(test)]
mod tests {
    use crate::{
        ServeOptions,
        testing::{self, get, send},
    };
    use axum::http::Request;
    use narthex_base::random::Stream;
    use narthex_http::{ApiKey, HttpLimits, HttpOptions};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn errors_outside_the_handlers_are_openai_objects() {
        let limits = HttpLimits { body_bytes_max: 100, ..HttpLimits::default() };
        let api_keys = vec![ApiKey::new("secret")];
        let options = ServeOptions {
            http: HttpOptions { limits, api_keys, ..HttpOptions::default() },
            ..ServeOptions::default()
        };
        let router = testing::router_with(|_| vec![], &options);
        let long = format!("{{\"model\": \"{}\"}}", "x".repeat(200));
        for (method, path, headers, body, status, code, message) in [
            ("GET", "/nowhere", "Bearer secret", "", 404, "unknown_url", "unknown URL: GET /nowhere"),
            ("DELETE", "/v1/models", "Bearer secret", "", 405, "method_not_allowed", "/v1/models does not take DELETE"),
            (
                "GET",
                "/v1/completions",
                "Bearer secret",
                "",
                405,
                "method_not_allowed",
                "/v1/completions does not take GET",
            ),
            ("GET", "/v1/models", "", "", 401, "invalid_api_key", "an API key is needed: `Authorization: Bearer KEY`"),
            ("GET", "/v1/models", "Bearer x", "", 401, "invalid_api_key", "this API key is not known to the server"),
            ("POST", "/v1/completions", "Bearer secret", &long, 413, "request_too_large", "the body is too large"),
        ] {
            let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            if !headers.is_empty() {
                request = request.header("authorization", headers);
            }
            let error = send(&router, request.body(body.to_string().into()).unwrap()).await.json(status);
            let object =
                json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}});
            assert_eq!(error, object, "{method} {path}");
        }
        get(&router, "/health").await.text(200);
        get(&router, "/").await.text(200);
    }

    #[tokio::test]
    async fn a_slash_too_many_is_sent_on() {
        let router = testing::router(testing::answer("yes"));
        for (path, to) in [
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("/v1/score/?a=b", "/v1/score?a=b"),
            ("//elsewhere.example/", "/elsewhere.example"),
        ] {
            let request = Request::builder().method("POST").uri(path).body("{}".to_string().into()).unwrap();
            let reply = send(&router, request).await;
            assert_eq!(reply.header("location"), to, "{path}");
            assert_eq!(reply.any().0, 307);
        }
    }

    /// Bytes turned, bodies cut, fields of the wrong kind, fields that nobody knows.
    #[tokio::test]
    async fn broken_bodies_are_answered_with_what_is_wrong() {
        let router = testing::router(testing::answer("yes"));
        let good = [
            ("/v1/completions", json!({"model": "m", "prompt": "x", "max_tokens": 2})),
            ("/v1/chat/completions", json!({"model": "m", "messages": [{"role": "user", "content": "x"}]})),
            ("/tokenize", json!({"model": "m", "prompt": "x"})),
            ("/detokenize", json!({"model": "m", "tokens": [5]})),
        ];
        let names = [
            "model",
            "prompt",
            "messages",
            "tokens",
            "max_tokens",
            "n",
            "stop",
            "seed",
            "stream",
            "logprobs",
            "top_p",
            "logit_bias",
            "stream_options",
            "echo",
            "temperature",
            "response_format",
            "tools",
            "min_tokens",
            "wrong",
        ];
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1e300),
            json!(u64::MAX),
            json!(""),
            json!("\u{0}x"),
            json!([]),
            json!([[]]),
            json!([1, "a", null]),
            json!({}),
            json!({"role": {"content": [{}]}}),
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            json!({"1": 1e9, "x": 2}),
        ];
        let random = Stream::new(11, "bodies");
        let mut drawn = 0;
        let mut draw = |bound: usize| {
            drawn += 1;
            random.below(drawn, bound as u64) as usize
        };
        let mut refused = 0;
        for _ in 0..4000 {
            let (path, mut body) = good[draw(good.len())].clone();
            let mut bytes = match draw(3) {
                0 => body.to_string().into_bytes(),
                _ => {
                    for _ in 0..1 + draw(3) {
                        body[names[draw(names.len())]] = values[draw(values.len())].clone();
                    }
                    body.to_string().into_bytes()
                }
            };
            match draw(4) {
                0 => bytes.truncate(draw(bytes.len())),
                1 => (0..1 + draw(8)).for_each(|_| {
                    let at = draw(bytes.len());
                    bytes[at] = draw(256) as u8;
                }),
                _ => {}
            }
            let request = Request::post(path).header("content-type", "application/json");
            let (status, text) = send(&router, request.body(bytes.clone().into()).unwrap()).await.any();
            let sent = String::from_utf8_lossy(&bytes);
            assert!([200, 400, 404, 413].contains(&status), "{status} {text} for {sent}");
            if status != 200 {
                let error: Value = serde_json::from_str(&text).unwrap();
                assert!(!error["error"]["message"].as_str().unwrap().is_empty(), "{text} for {sent}");
                refused += 1;
            }
        }
        assert!((2000..4000).contains(&refused), "{refused} of 4000 refused");
        get(&router, "/health").await.text(200);
    }

    #[tokio::test]
    async fn wrong_method_names_the_right_one() {
        let router = testing::router(|_| vec![]);
        assert_eq!(get(&router, "/v1/completions").await.header("allow"), "POST");
    }

    #[tokio::test]
    async fn other_sites_and_other_content_types_are_refused() {
        let router = testing::router(|_| vec![]);
        let request =
            Request::get("/v1/models").header("host", "localhost:8000").header("origin", "http://evil.example");
        let error = send(&router, request.body(axum::body::Body::empty()).unwrap()).await.json(403);
        assert_eq!(error["error"]["code"], "forbidden_origin");
        let request = Request::post("/v1/completions").header("content-type", "text/plain").body("{}".into()).unwrap();
        let reply = send(&router, request).await;
        assert_eq!(reply.header("access-control-allow-origin"), "");
        assert_eq!(reply.json(415)["error"]["param"], Value::Null);
    }

    #[tokio::test]
    async fn fields_that_nobody_knows_are_named_or_refused() {
        let body = json!({
            "messages": [{"role": "user", "content": "x", "mood": "good"}],
            "colour": 1, "user": "u", "stream_options": null,
        });
        let reply = testing::post(&testing::router(testing::answer("yes")), "/v1/chat/completions", &body).await;
        assert_eq!(reply.header("x-narthex-ignored"), "messages[0].mood, colour");
        reply.json(200);
        let http = HttpOptions { strict_fields: true, ..HttpOptions::default() };
        let strict = testing::router_with(testing::answer("yes"), &ServeOptions { http, ..ServeOptions::default() });
        let error = testing::post(&strict, "/v1/chat/completions", &body).await.json(400);
        assert_eq!(
            (&error["error"]["param"], &error["error"]["code"]),
            (&json!("messages[0].mood"), &json!("unknown_parameter"))
        );
        let plain = json!({"messages": [{"role": "user", "content": "x"}]});
        assert_eq!(testing::post(&strict, "/v1/chat/completions", &plain).await.header("x-narthex-ignored"), "");
    }

    #[tokio::test]
    async fn named_origins_may_ask() {
        let allowed_origins = vec!["https://Chat.example".into()];
        let http = HttpOptions { allowed_origins, api_keys: vec![ApiKey::new("k")], ..HttpOptions::default() };
        let router = testing::router_with(testing::answer("yes"), &ServeOptions { http, ..ServeOptions::default() });
        let asked = |method: &str, origin: &str| {
            let request = Request::builder().method(method).uri("/v1/models").header("origin", origin);
            request.header("host", "localhost:8000")
        };
        let preflight = asked("OPTIONS", "https://chat.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, x-thing");
        let reply = send(&router, preflight.body("".to_string().into()).unwrap()).await;
        assert_eq!(reply.header("access-control-allow-origin"), "https://chat.example");
        assert_eq!(reply.header("access-control-allow-headers"), "authorization, x-thing");
        assert_eq!(reply.any().0, 204);
        let get = asked("GET", "https://chat.example").header("x-api-key", "k");
        let reply = send(&router, get.body("".to_string().into()).unwrap()).await;
        assert_eq!(reply.header("access-control-allow-origin"), "https://chat.example");
        reply.json(200);
        // Others are refused, and so is a preflight of theirs.
        for method in ["GET", "OPTIONS"] {
            let other = asked(method, "https://other.example").header("access-control-request-method", "GET");
            let reply = send(&router, other.body("".to_string().into()).unwrap()).await;
            assert_eq!(reply.header("access-control-allow-origin"), "");
            reply.json(403);
        }
    }
}
