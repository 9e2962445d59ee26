//! One request and its answer, as the access log and traces see them: who, what, how long, how much; never what was
//! said.

use crate::id::new_id;
use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, Method, StatusCode},
};
use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

/// Names a request, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's own request id at most.
const REQUEST_ID_MAX: usize = 128;

/// Names the fields of a request that changed nothing.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-narthex-ignored");

/// Fields that are named there at most, and characters of a name.
const IGNORED_MAX: usize = 32;
const IGNORED_LENGTH_MAX: usize = 64;

/// A request until its answer has ended.
pub struct Exchange {
    /// The client's id, or ours.
    pub id: String,
    /// Where it came from, if it came over a network.
    pub peer: Option<SocketAddr>,
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// When it came.
    pub time: SystemTime,
    /// The same, for measuring.
    pub begun: Instant,
    /// Whether fields that nobody knows are refused.
    pub strict: bool,
    generation: Mutex<Option<GenerationRecord>>,
    /// Fields that changed nothing.
    ignored: Mutex<Vec<String>>,
    /// What is done once it has ended.
    at_end: Mutex<Vec<AtEnd>>,
}

/// Told how an exchange ended.
type AtEnd = Box<dyn FnOnce(&Ended) + Send>;

/// How an exchange ended, for those who asked to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The answer's status; 499 if the client left before there was one.
    pub status: StatusCode,
    /// Whether the client had all of the answer.
    pub complete: bool,
    /// What was generated, if something was.
    pub generation: Option<GenerationRecord>,
}

/// What a model was asked for and gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationRecord {
    /// As OpenTelemetry names it: `chat`, `text_completion` or `embeddings`; ours besides are `score`, `rerank`
    /// and `classify`.
    pub operation: &'static str,
    /// The model or adapter that was named.
    pub model: String,
    /// The answer's id.
    pub response_id: String,
    /// As it was asked for, or the model's own.
    pub temperature: f32,
    /// As it was asked for, or the model's own.
    pub top_p: f32,
    /// As it was asked for, or the model's own.
    pub top_k: usize,
    /// As it was asked for; 0 changes nothing.
    pub frequency_penalty: f32,
    /// As it was asked for; 0 changes nothing.
    pub presence_penalty: f32,
    /// The seed of the first choice.
    pub seed: u64,
    /// New tokens of a choice at most.
    pub max_tokens: usize,
    /// How many choices there are for each prompt; of encoders, how many texts.
    pub choices: usize,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// Tokens read.
    pub prompt_tokens: usize,
    /// Tokens written so far.
    pub completion_tokens: usize,
    /// A word for each choice that ended.
    pub finish_reasons: Vec<&'static str>,
    /// Seconds from the request to the first token.
    pub first_token_s: Option<f64>,
}

/// How an exchange ended.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub status: StatusCode,
    /// The client had all of the answer.
    pub complete: bool,
}

impl Exchange {
    /// A request that has just come.
    pub fn new(request: &Request) -> Self {
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let given = given.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX);
        Self {
            id: given.map_or_else(|| new_id("req"), str::to_string),
            peer: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address),
            method: request.method().clone(),
            path: request.uri().path().to_string(),
            headers: request.headers().clone(),
            time: SystemTime::now(),
            begun: Instant::now(),
            strict: false,
            generation: Mutex::new(None),
            ignored: Mutex::default(),
            at_end: Mutex::default(),
        }
    }

    /// Notes a field that changes nothing.
    pub fn ignore(&self, name: &str) {
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        if ignored.len() < IGNORED_MAX && !ignored.iter().any(|known| known == name) {
            ignored.push(name.chars().take(IGNORED_LENGTH_MAX).collect());
        }
    }

    /// The fields that changed nothing.
    pub fn ignored(&self) -> Vec<String> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what a model is asked for.
    pub fn generates(&self, record: GenerationRecord) {
        *self.lock() = Some(record);
    }

    /// Changes what is known of the generation.
    pub fn update(&self, change: impl FnOnce(&mut GenerationRecord)) {
        if let Some(record) = self.lock().as_mut() {
            change(record);
        }
    }

    /// Tells somebody once the answer has ended, or the client has gone.
    pub fn at_end(&self, told: impl FnOnce(&Ended) + Send + 'static) {
        self.at_end.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(told));
    }

    /// Tells all who asked.
    pub(crate) fn end(&self, outcome: Outcome) {
        let asked = std::mem::take(&mut *self.at_end.lock().unwrap_or_else(PoisonError::into_inner));
        if !asked.is_empty() {
            let ended = Ended { status: outcome.status, complete: outcome.complete, generation: self.generation() };
            asked.into_iter().for_each(|told| told(&ended));
        }
    }

    /// What is known of the generation, if there was one.
    pub fn generation(&self) -> Option<GenerationRecord> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<GenerationRecord>> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
