//! Ollama's endpoints (<https://github.com/ollama/ollama/blob/main/docs/api.md>), so that its clients talk to us. Models
//! are neither pulled nor made here.

use super::{
    chat_completions::Talk,
    chunks::{Translated, error_object, object, put_all},
    completions::Continuation,
    embeddings,
    parameters::with_model,
};
use crate::{
    Ability, Serving,
    app::{Addressed, App, Shared},
    dialects::{
        Ignored, Spent,
        ollama::{
            Answering, Capability, Model, Reading, Route, Running, error, plain_name, ps, read_chat, read_embed,
            read_embeddings, read_generate, read_show, show, tags, version,
        },
    },
    model::Described,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use narthex_http::{ApiError, Fields, JsonBody, line_stream};
use narthex_text::thought_marks;
use serde_json::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// An answer that has been taken by the engine.
enum Taken {
    Talk(Box<Talk>),
    Continuation(Box<Continuation>),
}

/// `POST /api/chat`.
pub(crate) async fn chat(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { answer(asked?, read_chat).await }.await)
}

/// `POST /api/generate`.
pub(crate) async fn generate(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { answer(asked?, read_generate).await }.await)
}

/// An error as Ollama's object.
fn in_its_words(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|refusal| (refusal.status(), Json(error(&error_object(&refusal)))).into_response())
}

fn note(fields: &Fields, ignored: &Ignored) {
    fields.ignore(ignored.names().iter().map(String::as_str));
}

async fn answer(
    Addressed { app, exchange, mut fields }: Addressed,
    read: fn(Map<String, Value>) -> Result<Reading, ApiError>,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Reading { route, request, mut answering } = read(with_model(fields.rest(), &app.model))?;
    note(&fields, answering.ignored());
    let inner = Fields::noting(request, &exchange);
    let taken = match route {
        Route::Chat => Taken::Talk(Box::new(Talk::begin(app, exchange, inner).await?)),
        Route::Completions => Taken::Continuation(Box::new(Continuation::begin(app, exchange, inner).await?)),
        // The model is there by now.
        Route::Load | Route::Unload => {
            known(&app, request_model(inner)?.as_str())?;
            if route == Route::Unload {
                app.serving.unload();
            }
            return Ok(Json(answering.idle(SystemTime::now())).into_response());
        }
    };
    if !answering.streams() {
        let completion = match taken {
            Taken::Talk(talk) => object(&talk.whole().await?)?,
            Taken::Continuation(continuation) => object(&continuation.whole().await?)?,
        };
        let spent = spent(begun, None);
        return Ok(Json(answering.whole(&completion, SystemTime::now(), &spent)).into_response());
    }
    Ok(line_stream(async move |lines| {
        put_all(&lines, &answering.begin()).await?;
        let mut first = None;
        let mut chunks = Translated { to: &lines, translate: |chunk: &Value| piece(&mut answering, &mut first, chunk) };
        let outcome = match taken {
            Taken::Talk(talk) => talk.stream(&mut chunks).await,
            Taken::Continuation(continuation) => continuation.stream(&mut chunks).await,
        };
        let last = match outcome {
            Ok(()) => answering.end(SystemTime::now(), &spent(begun, first)),
            Err(error) => answering.broken(&error_object(&error)),
        };
        put_all(&lines, &last).await
    }))
}

fn piece(answering: &mut Answering, first: &mut Option<Instant>, chunk: &Value) -> Vec<crate::dialects::Event> {
    let events = answering.piece(chunk, SystemTime::now());
    if !events.is_empty() {
        first.get_or_insert_with(Instant::now);
    }
    events
}

/// How long an answer took, its first token having come at this moment.
fn spent(begun: Instant, first: Option<Instant>) -> Spent {
    let total = begun.elapsed();
    let prompt = first.map_or(total, |first| first - begun);
    Spent { total, load: Duration::ZERO, prompt, answer: total - prompt }
}

fn request_model(mut fields: Fields) -> Result<String, ApiError> {
    fields.string("model")?.ok_or_else(|| fields.missing("model"))
}

/// Refuses a name that nothing has.
fn known(app: &App, name: &str) -> Result<(), ApiError> {
    super::parameters::check_model(plain_name(name), &app.model)
}

/// `POST /api/show`.
pub(crate) async fn show_model(State(shared): State<Shared>, body: Result<JsonBody, ApiError>) -> Response {
    let shown = async {
        let name = read_show(body?.0.rest())?;
        let app = App::choose(&shared, Some(&name)).await?;
        known(&app, &name)?;
        Ok(Json(show(&facts(&app.serving.described(), Some(&app.model.ability), &name))).into_response())
    };
    in_its_words(shown.await)
}

/// `GET /api/tags`.
pub(crate) async fn list(State(shared): State<Shared>) -> Json<Value> {
    Json(tags(&all(shared.models.all())))
}

/// `GET /api/ps`.
pub(crate) async fn running(State(shared): State<Shared>) -> Json<Value> {
    let models = all(shared.models.all().iter().filter(|serving| serving.is_loaded()));
    let running: Vec<Running> =
        models.iter().map(|model| Running { model, memory_bytes: model.size_bytes, vram_bytes: 0 }).collect();
    Json(ps(&running, SystemTime::now()))
}

/// `GET /api/version`.
pub(crate) async fn server_version() -> Json<Value> {
    Json(version(env!("CARGO_PKG_VERSION")))
}

/// `POST /api/embed`.
pub(crate) async fn embed(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { vectors(asked?, false).await }.await)
}

/// `POST /api/embeddings`, the older form.
pub(crate) async fn embeddings_of_one(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { vectors(asked?, true).await }.await)
}

async fn vectors(Addressed { app, exchange, mut fields }: Addressed, older: bool) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let read = if older { read_embeddings } else { read_embed };
    let (request, answering) = read(with_model(fields.rest(), &app.model))?;
    note(&fields, answering.ignored());
    let reply = match request {
        Some(request) => {
            let fields = Fields::noting(request, &exchange);
            let Json(reply) = embeddings::create(Addressed { app, exchange, fields }).await?;
            object(&reply)?
        }
        None => Value::Null,
    };
    Ok(Json(answering.whole(&reply, &spent(begun, None))).into_response())
}

/// What is done by Ollama's own store, and not here.
pub(crate) async fn not_here() -> Response {
    let message = "models are neither pulled, pushed, made nor taken away over HTTP here: `narthex pull` does it";
    (StatusCode::NOT_IMPLEMENTED, Json(json!({"error": message}))).into_response()
}

fn all<'a>(models: impl IntoIterator<Item = &'a Arc<Serving>>) -> Vec<Model> {
    let of = |serving: &Arc<Serving>| {
        let (known, model) = (serving.described(), serving.model());
        let adapters = known.adapters().into_iter().map(|entry| entry.name);
        let names: Vec<String> = std::iter::once(known.id.clone()).chain(adapters).collect();
        names.into_iter().map(move |name| facts(&known, model.as_ref().map(|model| &model.ability), &name))
    };
    models.into_iter().flat_map(of).collect()
}

/// What is known of a model under this name; of one that is not in memory, less.
fn facts(model: &Described, ability: Option<&Ability>, name: &str) -> Model {
    let mut capabilities = vec![];
    let (mut template, mut defaults) = (None, vec![]);
    match ability {
        Some(Ability::Text(text)) => {
            capabilities.push(Capability::Completion);
            if let Some(own) = &text.model.template {
                capabilities.push(Capability::Tools);
                let source = own.source();
                if thought_marks(source).is_some() {
                    capabilities.push(Capability::Thinking);
                }
                template = Some(source.to_string());
            }
            let own = &text.model.defaults;
            defaults.push(("temperature".to_string(), own.temperature.to_string()));
            defaults.push(("top_p".to_string(), own.top_p.to_string()));
        }
        Some(Ability::Vectors(_)) => capabilities.push(Capability::Embedding),
        Some(Ability::Scores(_) | Ability::Labels(_)) | None => {}
    }
    Model {
        name: name.to_string(),
        digest: model.provenance.digest.clone().unwrap_or_default(),
        size_bytes: model.sizes.bytes,
        modified: UNIX_EPOCH + Duration::from_secs(model.created),
        format: "safetensors".into(),
        family: "transformer".into(),
        parameters: model.sizes.parameters,
        quantization: model.sizes.precision.clone(),
        context: model.context,
        embedding_length: model.sizes.width,
        capabilities,
        license: model.provenance.license.as_ref().map(ToString::to_string),
        template,
        defaults,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, embedding_model, get, post, router_over};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn its_clients_are_answered() {
        let router = testing::router(answer("Hi."));
        let body = json!({"model": "m:latest", "messages": [{"role": "user", "content": "x"}], "stream": false});
        let reply = post(&router, "/api/chat", &body).await.json(200);
        assert_eq!((&reply["message"]["content"], &reply["done_reason"]), (&json!("Hi."), &json!("stop")));
        assert_eq!((&reply["model"], &reply["eval_count"]), (&json!("m:latest"), &json!(4)));
        let reply = post(&router, "/api/generate", &json!({"model": "m", "prompt": "x"})).await;
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        let text = reply.text(200);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
        assert_eq!((said.as_str(), &lines.last().unwrap()["done"]), ("Hi.", &json!(true)));
        let raw = json!({"model": "m", "prompt": "x", "raw": true, "stream": false, "options": {"num_predict": 2}});
        let reply = post(&router, "/api/generate", &raw).await.json(200);
        assert_eq!((&reply["response"], &reply["done_reason"]), (&json!("Hi"), &json!("length")));
        let loaded = post(&router, "/api/generate", &json!({"model": "m"})).await.json(200);
        assert_eq!(loaded["done_reason"], "load");
        for (path, name) in [("/api/tags", "m"), ("/api/ps", "m")] {
            assert_eq!(get(&router, path).await.json(200)["models"][0]["name"], name);
        }
        let shown = post(&router, "/api/show", &json!({"model": "m"})).await.json(200);
        assert_eq!(shown["license"], "MIT");
        get(&router, "/api/version").await.json(200);
    }

    #[tokio::test]
    async fn errors_are_in_its_words() {
        let router = testing::router(answer("Hi."));
        for (path, body, status) in [
            ("/api/chat", json!({"model": "other", "messages": [{"role": "user", "content": "x"}]}), 404),
            ("/api/generate", json!({"model": "other"}), 404),
            ("/api/show", json!({"model": "other"}), 404),
            ("/api/chat", json!({"messages": 5}), 400),
            ("/api/embed", json!({"model": "m", "input": "x"}), 400),
            ("/api/pull", json!({"model": "x"}), 501),
        ] {
            let error = post(&router, path, &body).await.json(status);
            assert!(error["error"].as_str().is_some_and(|message| !message.is_empty()), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn vectors_come_in_both_forms() {
        let router = router_over(embedding_model());
        let reply = post(&router, "/api/embed", &json!({"model": "e", "input": ["a", "b"]})).await.json(200);
        assert_eq!(reply["embeddings"].as_array().unwrap().len(), 2);
        let reply = post(&router, "/api/embeddings", &json!({"model": "e", "prompt": "a"})).await.json(200);
        assert_eq!(reply["embedding"].as_array().unwrap().len(), 4);
    }
}
