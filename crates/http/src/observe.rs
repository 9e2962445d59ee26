//! Around every request: it gets an id, and whoever wants to know learns when its answer has ended.

use crate::{
    access_log::AccessLog,
    exchange::{Exchange, IGNORED, Outcome, REQUEST_ID},
    options::HttpOptions,
    trace::Traces,
};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use narthex_base::Result;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Who wants to know of requests.
#[derive(Default)]
pub struct Observers {
    log: Option<AccessLog>,
    traces: Option<Traces>,
    /// Whether fields that nobody knows are refused.
    strict: bool,
}

impl Observers {
    /// Those that the options name.
    ///
    /// # Errors
    /// If the access log cannot be used or the address for traces is none.
    pub fn open(options: &HttpOptions) -> Result<Self> {
        Ok(Self {
            log: options.access_log.as_deref().map(AccessLog::open).transpose()?,
            traces: options.otlp_traces_endpoint.as_deref().map(Traces::start).transpose()?,
            strict: options.strict_fields,
        })
    }
}

/// Gives every request an id and tells the observers when its answer has ended.
pub(crate) async fn observe(observers: Arc<Observers>, mut request: Request, next: Next) -> Response {
    let mut exchange = Exchange::new(&request);
    exchange.strict = observers.strict;
    let exchange = Arc::new(exchange);
    request.extensions_mut().insert(exchange.clone());
    let mut ending =
        Ending { exchange, observers, outcome: Outcome { status: StatusCode::OK, complete: false }, answered: false };
    let mut response = next.run(request).await;
    (ending.outcome.status, ending.answered) = (response.status(), true);
    if let Ok(id) = HeaderValue::from_str(&ending.exchange.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let ignored = ending.exchange.ignored();
    let names: Vec<String> = ignored.iter().map(|name| name.escape_default().to_string()).collect();
    if let (false, Ok(names)) = (names.is_empty(), HeaderValue::from_str(&names.join(", "))) {
        response.headers_mut().insert(IGNORED, names);
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
        self.exchange.end(self.outcome);
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
