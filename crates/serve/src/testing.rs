//! What the tests of this crate share: a model whose tokens are single bytes and whose answers are
//! scripted, and a client without a network.

use crate::{Ability, LabelAbility, Models, ServeOptions, Served, Serving, TextAbility};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request},
};
use narthex_answer::{Chances, Constraints, SamplingDefaults, TextEncoder, TextModel};
use narthex_base::{ArtifactKind, License, Manifest, Provenance, Recipe};
use narthex_http::ApiError;
use narthex_infer::{
    EncoderInput, EncoderSink, EncoderTask, Encodes, EngineStats, Generates, Output, StatsReader, SubmitError, Takes,
    Ticket,
    scripted::{Scripted, say},
};
use narthex_openness::{Openness, Shown};
use narthex_text::{CHATML, ChatTemplate, SequenceTokenizer, Tokenizer};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tower::ServiceExt;

/// One token per byte, and three special tokens before them.
pub fn tokenizer() -> Tokenizer {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    Tokenizer::train_bpe(std::iter::empty(), 256 + special.len(), &special)
        .expect("256 bytes and the special tokens fit")
}

/// The tokens of these bytes, which need not be UTF-8.
pub fn byte_tokens(bytes: &[u8]) -> Vec<u32> {
    let tokenizer = tokenizer();
    let token = |byte: &u8| (3..259).find(|id| tokenizer.token_bytes(*id).unwrap() == [*byte]).unwrap();
    bytes.iter().map(token).collect()
}

/// A script that always says this.
pub fn answer(text: &str) -> impl Fn(&narthex_infer::Request) -> Vec<Output> + Send + Sync + 'static {
    let tokens = byte_tokens(text.as_bytes());
    move |request| say(request, &tokens)
}

/// The model `m` with a context of 64 tokens.
pub fn model(script: impl Fn(&narthex_infer::Request) -> Vec<Output> + Send + Sync + 'static) -> Served {
    model_of(Arc::new(Scripted::new(script).with_context(64)))
}

/// The model `m` over this engine.
pub fn model_of(engine: Arc<dyn Generates>) -> Served {
    let model = TextModel {
        tokenizer: tokenizer(),
        template: Some(ChatTemplate::new(CHATML, None, None).expect("our own template is valid")),
        engine,
        stop_tokens: vec![2],
        defaults: SamplingDefaults::default(),
        constraints: Arc::new(Constraints::new(&tokenizer())),
    };
    served("m", Ability::Text(TextAbility { model, adapters: Arc::default(), call_parser: None }))
}

/// Something that is served, with papers of a bundle.
fn served(id: &str, ability: Ability) -> Served {
    let (provenance, sizes) = (shown("0123456789abcdef", "MIT", 3), crate::Sizes::default());
    Served { id: id.into(), created: 1_700_000_000, sizes, provenance, ability }
}

/// What is shown of something with this digest, licence and class.
pub fn shown(digest: &str, license: &str, class: u8) -> Shown {
    let openness = Openness {
        class: Some(class),
        class_name: Some(narthex_openness::class_name(class)),
        reasons: vec![],
        remarks: vec![],
        components: vec![],
    };
    Shown {
        digest: Some(digest.into()),
        license: Some(License::parse(license).unwrap()),
        openness: Some(openness),
        papers: Some(Provenance { manifest: manifest(ArtifactKind::Bundle, "m"), lineage: vec![] }),
        ..Shown::unknown()
    }
}

/// A manifest of a step of this name.
pub fn manifest(kind: ArtifactKind, step: &str) -> Manifest {
    let recipe = json!({"step": step, "kind": "train", "config": {}, "seed": 0, "narthex": "0", "version": 1});
    Manifest::new(kind, serde_json::from_value::<Recipe>(recipe).unwrap())
}

/// The model's text ability.
pub fn text(model: &mut Served) -> &mut TextAbility {
    match &mut model.ability {
        Ability::Text(text) => text,
        _ => panic!("the model writes text"),
    }
}

/// An encoder with a context of 64 tokens that gives [`vector`]s, or so many scores.
struct MadeUp {
    scores: Option<usize>,
}

impl Takes<Vec<EncoderInput>, EncoderSink> for MadeUp {
    fn submit(&self, inputs: Vec<EncoderInput>, sink: EncoderSink) -> Result<Ticket, SubmitError> {
        let ids = || inputs.iter().flat_map(|input| &input.ids);
        if inputs.iter().any(|input| input.ids.is_empty()) {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(id) = ids().find(|id| **id >= 259) {
            return Err(SubmitError::UnknownToken(*id));
        }
        let output = |input: EncoderInput| match self.scores {
            None => vector_of(&input.ids),
            Some(count) => (0..count).map(|label| score_of(&input.ids) + label as f32).collect(),
        };
        let outputs: Vec<Vec<f32>> = inputs.into_iter().map(output).collect();
        std::thread::spawn(move || sink(Ok(outputs)));
        Ok(Ticket::idle())
    }

    fn stats_reader(&self) -> StatsReader {
        Arc::new(EngineStats::default)
    }

    fn context(&self) -> usize {
        64
    }
}

impl Encodes for MadeUp {
    fn task(&self) -> EncoderTask {
        if self.scores.is_some() { EncoderTask::Score } else { EncoderTask::Embedding }
    }

    fn dimension(&self) -> usize {
        self.scores.unwrap_or(4)
    }
}

fn vector_of(ids: &[u32]) -> Vec<f32> {
    let weighted: u32 = ids.iter().enumerate().map(|(i, id)| i as u32 % 7 * id).sum();
    let values = [ids.len() as u32 * 50, ids.iter().sum(), weighted, ids[0] * 3].map(|x| x as f32);
    let length = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    values.iter().map(|x| x / length).collect()
}

fn score_of(ids: &[u32]) -> f32 {
    ids.iter().sum::<u32>() as f32 / 1024.0
}

/// A value as a client reads it: single precision loses digits on the way.
pub fn as_sent(value: impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap()
}

/// What the encoder of the tests gives for a text.
pub fn vector(text: &[u8]) -> Vec<f32> {
    vector_of(&byte_tokens(text))
}

/// What the cross-encoder of the tests gives for the texts of a pair, one behind the other.
pub fn score(texts: &[u8]) -> f32 {
    score_of(&byte_tokens(texts))
}

fn encoder(scores: Option<usize>) -> TextEncoder {
    let prompts = [("query".to_string(), "q: ".to_string()), ("passage".to_string(), String::new())];
    TextEncoder {
        tokenizer: SequenceTokenizer::new(tokenizer(), false),
        engine: Arc::new(MadeUp { scores }),
        prompts: BTreeMap::from(prompts),
        default_prompt: None,
    }
}

/// The model `e`, which embeds.
pub fn embedding_model() -> Served {
    served("e", Ability::Vectors(encoder(None)))
}

/// The model `e`, which gives pairs a score; with more than one, it sorts texts into the classes `A`, `B`, ….
pub fn scoring_model(scores: usize) -> Served {
    let encoder = encoder(Some(scores));
    if scores == 1 {
        return served("e", Ability::Scores(encoder));
    }
    let names = ('A'..).take(scores).map(String::from).collect();
    served("e", Ability::Labels(LabelAbility { encoder, names, chances: Chances::OneOf }))
}

/// A router over a scripted model with default options.
pub fn router(script: impl Fn(&narthex_infer::Request) -> Vec<Output> + Send + Sync + 'static) -> Router {
    router_with(script, &ServeOptions::default())
}

/// A router over a scripted model.
pub fn router_with(
    script: impl Fn(&narthex_infer::Request) -> Vec<Output> + Send + Sync + 'static,
    options: &ServeOptions,
) -> Router {
    crate::router(Models::of(Arc::new(Serving::new(model(script)))), options).unwrap()
}

/// A router over this model with default options.
pub fn router_over(model: Served) -> Router {
    crate::router(Models::of(Arc::new(Serving::new(model))), &ServeOptions::default()).unwrap()
}

/// A router over this engine.
pub fn router_of(engine: Arc<Scripted>) -> Router {
    router_over(model_of(engine))
}

/// A response that has been read.
pub struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// A header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and body, whatever they are.
    pub fn any(self) -> (u16, String) {
        (self.status, String::from_utf8_lossy(&self.body).into_owned())
    }

    /// The body, if the status is this.
    pub fn text(self, status: u16) -> String {
        let text = String::from_utf8(self.body.to_vec()).unwrap();
        assert_eq!(self.status, status, "{text}");
        text
    }

    /// The body as JSON, if the status is this; `id` and `created` of answers are masked.
    pub fn json(self, status: u16) -> Value {
        masked(serde_json::from_str(&self.text(status)).unwrap())
    }

    /// The objects of an event stream that ends as it should.
    pub fn events(self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), "text/event-stream");
        let text = self.text(200);
        let mut data: Vec<&str> =
            text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.into_iter().map(|event| masked(serde_json::from_str(event).unwrap())).collect()
    }
}

/// Replaces what differs each time, after checking its form.
fn masked(mut value: Value) -> Value {
    let id = value.get("id").and_then(Value::as_str).filter(|id| id.len() > 32);
    if let Some((prefix, _)) = id.and_then(|id| id.split_once('-')) {
        let prefix = prefix.to_string();
        value["id"] = format!("{prefix}-…").into();
        if let Some(created) = value.get_mut("created") {
            assert!(created.as_u64().unwrap() > 1_700_000_000);
            *created = 0.into();
        }
    }
    value
}

/// Sends a request.
pub async fn send(router: &Router, request: Request<Body>) -> Reply {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 16 << 20).await.unwrap();
    Reply { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Gets a path.
pub async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

/// Posts a JSON value.
pub async fn post(router: &Router, path: &str, body: &Value) -> Reply {
    let request = Request::post(path).header("content-type", "application/json");
    send(router, request.body(body.to_string().into()).unwrap()).await
}

/// The object of an error.
pub fn object_of(error: &ApiError) -> Value {
    serde_json::to_value(error.object()).unwrap()
}

/// `param: message` of an error.
pub fn message_of(error: &ApiError) -> String {
    describe(&serde_json::to_value(error.object()).unwrap())
}

/// `param: message` of an error object.
pub fn describe(object: &Value) -> String {
    let error = &object["error"];
    format!("{}: {}", error["param"].as_str().unwrap_or("-"), error["message"].as_str().unwrap())
}

/// Whether the generator learns within a generous time that nobody wants the rest.
pub async fn aborted(generator: &Scripted) -> bool {
    for _ in 0..1000 {
        if Takes::stats(generator).finished_abort_total == 1 {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    false
}
