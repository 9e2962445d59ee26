//! One request and its answer, as the access log and traces see them: who, what, how long, how much; never what was said.

use crate::{log::AccessLog, trace::Traces};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

/// Names a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's own request id at most.
const REQUEST_ID_MAX: usize = 128;

/// Who wants to know of requests.
#[derive(Default)]
pub(crate) struct Observers {
    pub log: Option<AccessLog>,
    pub traces: Option<Traces>,
}

/// A request until its answer has ended.
pub(crate) struct Exchange {
    /// The client's id, or ours.
    pub id: String,
    pub peer: Option<SocketAddr>,
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// When it came.
    pub time: SystemTime,
    pub begun: Instant,
    generation: Mutex<Option<GenerationRecord>>,
}

/// What a model was asked for and gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GenerationRecord {
    /// As OpenTelemetry names it: `chat` or `text_completion`.
    pub operation: &'static str,
    pub model: String,
    pub response_id: String,
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: usize,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub seed: u64,
    pub max_tokens: usize,
    pub choices: usize,
    pub stream: bool,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// A word for each choice that ended.
    pub finish_reasons: Vec<&'static str>,
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
    fn new(request: &Request) -> Self {
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let given = given.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX);
        let entropy = crate::parameters::entropy;
        Self {
            id: given.map_or_else(|| format!("req-{:016x}{:016x}", entropy(), entropy()), str::to_string),
            peer: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address),
            method: request.method().clone(),
            path: request.uri().path().to_string(),
            headers: request.headers().clone(),
            time: SystemTime::now(),
            begun: Instant::now(),
            generation: Mutex::new(None),
        }
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

    /// What is known of the generation, if there was one.
    pub fn generation(&self) -> Option<GenerationRecord> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<GenerationRecord>> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives every request an id and tells the observers when its answer has ended.
pub(crate) async fn observe(observers: Arc<Observers>, mut request: Request, next: Next) -> Response {
    let exchange = Arc::new(Exchange::new(&request));
    request.extensions_mut().insert(exchange.clone());
    let mut ending =
        Ending { exchange, observers, outcome: Outcome { status: StatusCode::OK, complete: false }, answered: false };
    let mut response = next.run(request).await;
    (ending.outcome.status, ending.answered) = (response.status(), true);
    if let Ok(id) = HeaderValue::from_str(&ending.exchange.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|body| Body::new(Watched { body, ending }))
}

/// Tells the observers when it is dropped: after the answer, or when the client has gone.
struct Ending {
    exchange: Arc<Exchange>,
    observers: Arc<Observers>,
    outcome: Outcome,
    answered: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.answered {
            // nginx's number for a client that left before there was an answer.
            self.outcome.status = StatusCode::from_u16(499).unwrap_or(StatusCode::OK);
        }
        if let Some(log) = &self.observers.log {
            log.write(&self.exchange, self.outcome);
        }
        if let Some(traces) = &self.observers.traces {
            traces.end(&self.exchange, self.outcome);
        }
    }
}

/// A body whose end is noticed.
struct Watched {
    body: Body,
    ending: Ending,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // A body of known length is not asked again after its last frame.
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ending.outcome.complete = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
