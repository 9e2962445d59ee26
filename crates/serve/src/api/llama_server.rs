//! llama-server's own endpoints (<https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>) over
//! completions.

use super::{
    ability,
    chunks::{Translated, error_object, object, put_all},
    completions::Continuation,
    conversing::Rendering,
    refusal::unanswered,
    tools::read_tools,
};
use crate::{
    Served,
    app::{Addressed, App},
    dialects::{
        Spent,
        llama_server::{
            Defaults, Fim, Props, Reading, Slot, Tokens, apply_template, error, props, read, read_infill,
            read_tokenize, slots, tokenized,
        },
    },
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use narthex_answer::TextModel;
use narthex_http::{ApiError, Fields, plain_event_stream};
use narthex_text::Tokenizer;
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// The marks of a family.
type Hole = (&'static str, &'static str, &'static str, Option<(&'static str, &'static str)>);

/// Marks of a hole in a text, by the families that have them: before it, behind it, and where its text comes; and what
/// stands before a repository's name and a file's.
const HOLES: [Hole; 4] = [
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", Some(("<|repo_name|>", "<|file_sep|>"))),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", Some(("<repo_name>", "<file_sep>"))),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>", None),
    ("<PRE>", "<SUF>", "<MID>", None),
];

struct Vocabulary<'a>(&'a Tokenizer);

impl Tokens for Vocabulary<'_> {
    fn ids(&self, text: &str, begins: bool) -> Result<Vec<u32>, ApiError> {
        self.0.encode(text, begins).map_err(|error| ApiError::field("content", error.what()))
    }

    fn text(&self, ids: &[u32]) -> String {
        self.0.decode(ids, false).unwrap_or_default()
    }

    fn bytes(&self, id: u32) -> Vec<u8> {
        self.0.token_bytes(id).unwrap_or_default()
    }
}

/// `POST /completion`.
pub(crate) async fn completion(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { answer(asked?, false).await }.await)
}

/// `POST /infill`.
pub(crate) async fn infill(asked: Result<Addressed, ApiError>) -> Response {
    in_its_words(async { answer(asked?, true).await }.await)
}

/// An error as llama-server's object.
fn in_its_words(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|refusal| {
        let status = refusal.status();
        (status, Json(error(status.as_u16(), &error_object(&refusal)))).into_response()
    })
}

fn defaults(model: &Served, text: &TextModel) -> Defaults {
    let own = &text.defaults;
    Defaults {
        model: model.id.clone(),
        context: text.engine.context(),
        temperature: f64::from(own.temperature),
        top_k: own.top_k as i64,
        top_p: f64::from(own.top_p),
        min_p: f64::from(own.min_p),
        repeat_penalty: f64::from(own.repetition_penalty),
    }
}

fn holes(tokenizer: &Tokenizer) -> Option<Fim> {
    let token = |text: &str| tokenizer.token_id(text).filter(|id| tokenizer.is_mark(*id));
    HOLES.into_iter().find_map(|(prefix, suffix, middle, repository)| {
        let repository = repository.and_then(|(name, file)| Some((token(name)?, token(file)?)));
        Some(Fim { prefix: token(prefix)?, suffix: token(suffix)?, middle: token(middle)?, repository })
    })
}

fn read_request(model: &Served, body: Map<String, Value>, fills: bool) -> Result<Reading, ApiError> {
    let text = &ability::text(model)?.model;
    let (defaults, vocabulary) = (defaults(model, text), Vocabulary(&text.tokenizer));
    match fills {
        true => read_infill(body, holes(&text.tokenizer).as_ref(), &defaults, &vocabulary),
        false => read(body, &defaults, &vocabulary),
    }
}

async fn answer(Addressed { app, exchange, mut fields }: Addressed, fills: bool) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let (body, model) = (fields.rest(), app.model.clone());
    // Long prompts take a while to tokenize; other answers go on meanwhile.
    let read = tokio::task::spawn_blocking(move || read_request(&model, body, fills)).await;
    let Reading { request, mut answering, .. } = read.map_err(|error| ApiError::internal(error.to_string()))??;
    fields.ignore(answering.ignored().names().iter().map(String::as_str));
    let served = app.model.clone();
    let continuation = Continuation::begin(app, exchange.clone(), Fields::noting(request, &exchange)).await?;
    if !answering.streams() {
        let completion = object(&continuation.whole().await?)?;
        let vocabulary = Vocabulary(served.ability.tokenizer());
        return Ok(Json(answering.whole(&completion, &vocabulary, &spent(begun, None))).into_response());
    }
    Ok(plain_event_stream(async move |events| {
        put_all(&events, &answering.begin()).await?;
        let (mut first, vocabulary) = (None, Vocabulary(served.ability.tokenizer()));
        let translate = |chunk: &Value| {
            let pieces = answering.piece(chunk, &vocabulary);
            if !pieces.is_empty() {
                first.get_or_insert_with(Instant::now);
            }
            pieces
        };
        let outcome = continuation.stream(&mut Translated { to: &events, translate }).await;
        let last = match outcome {
            Ok(()) => answering.end(&spent(begun, first)),
            Err(error) => answering.broken(&error_object(&error)),
        };
        put_all(&events, &last).await
    }))
}

/// How long an answer took, its first token having come at this moment.
fn spent(begun: Instant, first: Option<Instant>) -> Spent {
    let total = begun.elapsed();
    let prompt = first.map_or(total, |first| first - begun);
    Spent { total, load: Duration::ZERO, prompt, answer: total - prompt }
}

/// `GET /props`.
pub(crate) async fn properties(app: App) -> Response {
    let found = ability::text(&app.model).map(|text| {
        let text = &text.model;
        let spelt = |id: Option<&u32>| id.and_then(|id| text.tokenizer.token_text(*id)).unwrap_or_default();
        let facts = Props {
            slots: SLOTS_SHOWN,
            model_path: app.model.id.clone(),
            chat_template: text.template.as_ref().map(|template| template.source().to_string()).unwrap_or_default(),
            bos_token: spelt(text.tokenizer.prefix().unwrap_or_default().first()),
            eos_token: spelt(text.stop_tokens.first()),
            build: concat!("narthex ", env!("CARGO_PKG_VERSION")).into(),
        };
        Json(props(&facts, &defaults(&app.model, text))).into_response()
    });
    in_its_words(found)
}

/// Places that are shown: ours are not fixed.
const SLOTS_SHOWN: usize = 32;

/// `GET /slots`: those under way come first.
pub(crate) async fn places(app: App) -> Json<Value> {
    let running = app.serving.stats().requests_running as usize;
    let all: Vec<Slot> =
        (0..SLOTS_SHOWN.max(running)).map(|at| Slot { is_processing: at < running, written: 0 }).collect();
    Json(slots(&all, app.model.ability.context()))
}

/// `POST /apply-template`: what a conversation becomes.
pub(crate) async fn render(asked: Result<Addressed, ApiError>) -> Response {
    let rendered = asked.and_then(|Addressed { app, mut fields, .. }| {
        let rendering = Rendering::read(&mut fields, &app.shared.limits)?;
        let tools = read_tools(&mut fields, &app.shared.limits)?;
        let text = &ability::text(&app.model)?.model;
        let prompt = rendering.prompt(text, tools.as_ref().map_or(&[][..], |tools| &tools.shown));
        let prompt = prompt.map_err(|error| unanswered(error, &app.model.id, "messages"))?;
        Ok(Json(apply_template(&prompt.text)).into_response())
    });
    in_its_words(rendered)
}

/// Its form of `POST /tokenize`.
pub(crate) fn tokens_of(model: &Served, body: Map<String, Value>) -> Result<Value, ApiError> {
    let vocabulary = Vocabulary(model.ability.tokenizer());
    let request = read_tokenize(body, &vocabulary)?;
    Ok(tokenized(&request, &vocabulary))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, get, post};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn its_clients_are_answered() {
        let router = testing::router(answer("Hi."));
        let reply = post(&router, "/completion", &json!({"prompt": "x", "n_predict": 2})).await.json(200);
        assert_eq!((&reply["content"], &reply["stop_type"]), (&json!("Hi"), &json!("limit")));
        assert_eq!((&reply["tokens_predicted"], &reply["tokens_evaluated"]), (&json!(2), &json!(1)));
        let text = post(&router, "/completion", &json!({"prompt": "x", "stream": true})).await.text(200);
        let events: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        let said: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
        assert_eq!((said.as_str(), &events.last().unwrap()["stop"]), ("Hi.", &json!(true)));
        assert_eq!(get(&router, "/props").await.json(200)["model_alias"], "m");
        assert!(get(&router, "/slots").await.json(200).as_array().is_some_and(|slots| !slots.is_empty()));
        let chat = json!({"messages": [{"role": "user", "content": "x"}]});
        let rendered = post(&router, "/apply-template", &chat).await.json(200);
        assert!(rendered["prompt"].as_str().unwrap().ends_with("<|im_start|>assistant\n"));
        let tokens = post(&router, "/tokenize", &json!({"content": "ab", "with_pieces": true})).await.json(200);
        assert_eq!(tokens["tokens"][1]["piece"], "b");
        let ids: Vec<u64> = tokens["tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()).collect();
        assert_eq!(post(&router, "/detokenize", &json!({"tokens": ids})).await.json(200)["content"], "ab");
    }

    #[tokio::test]
    async fn errors_are_in_its_words() {
        let router = testing::router(answer("Hi."));
        for (path, body) in [("/completion", json!({})), ("/infill", json!({"input_prefix": "a", "input_suffix": "b"}))]
        {
            let error = post(&router, path, &body).await;
            let (status, text) = error.any();
            let error: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(error["error"]["code"], status, "{path}: {error}");
        }
    }
}
