//! Server-sent events with ids, by which a client that was cut off goes on (`Last-Event-ID`), and JSON that takes long.
//! Knows no run.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use narthex_http::ApiError;
use serde_json::Value;
use std::{convert::Infallible, future::Future, time::Duration};
use tokio::sync::mpsc;

/// Events that may wait for a slow client before a run is read on.
const WAITING_EVENTS: usize = 64;

/// Seconds after which a client that waits for one answer is sent a line end: it and what stands between would
/// otherwise think that the connection is dead.
const SIGN_OF_LIFE_S: u64 = 15;

/// Where events go.
pub(crate) struct Events(mpsc::Sender<Event>);

impl Events {
    /// Sends one. `name` and `id` are single lines.
    ///
    /// # Errors
    /// If the client has gone; nobody sees this error.
    pub async fn send(&self, id: Option<u64>, name: Option<&str>, data: &Value) -> Result<(), ApiError> {
        let mut event = Event::default().data(data.to_string());
        if let Some(name) = name {
            event = event.event(name);
        }
        if let Some(id) = id {
            event = event.id(id.to_string());
        }
        self.0.send(event).await.map_err(|_| ApiError::internal("the client has gone"))
    }
}

/// A response whose events `write` sends, until it ends. When the client goes away, `write` is dropped.
pub(crate) fn event_stream<Written>(write: impl FnOnce(Events) -> Written) -> Response
where
    Written: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let written = write(Events(sender.clone()));
    tokio::spawn(async move {
        tokio::select! {
            _ = written => {}
            () = sender.closed() => {}
        }
    });
    let events = stream::unfold(receiver, async |mut receiver| {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    unbuffered(response.headers_mut());
    response
}

/// JSON that may take long. Line ends before it say that somebody is still there; JSON allows them.
pub(crate) fn slow_json(value: impl Future<Output = Value> + Send + 'static) -> Response {
    let first = Some(Box::pin(value));
    let bytes = stream::unfold(first, async |value| {
        let mut value = value?;
        tokio::select! {
            biased;
            value = &mut value => Some((Ok::<_, Infallible>(Bytes::from(value.to_string())), None)),
            () = tokio::time::sleep(Duration::from_secs(SIGN_OF_LIFE_S)) => {
                Some((Ok(Bytes::from_static(b"\n")), Some(value)))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(bytes));
    unbuffered(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The event that a client saw last.
///
/// # Errors
/// If it is no number of ours.
pub(crate) fn last_event(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    match value.to_str().unwrap_or("?").trim() {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            ApiError::invalid(
                "the header `Last-Event-ID` must be the number of an event of this run: leave it out to see all",
            )
        }),
    }
}

/// nginx would otherwise hold the answer back until it is complete.
fn unbuffered(headers: &mut HeaderMap) {
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
