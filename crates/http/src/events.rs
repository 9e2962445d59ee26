//! Server-sent events as OpenAI's clients read them: one JSON object per event, an error object if
//! the rest fails, and `[DONE]` (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use crate::error::ApiError;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use serde::Serialize;
use std::{convert::Infallible, future::Future};
use tokio::sync::mpsc;

/// Events that may wait for a slow client before its answer is read on.
const WAITING_EVENTS: usize = 64;

/// Where an answer's pieces go.
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// Sends one object.
    ///
    /// # Errors
    /// If the client has gone; nobody sees this error.
    pub async fn send(&self, object: &impl Serialize) -> Result<(), ApiError> {
        self.send_named(None, object).await
    }

    /// Sends one object as an event of this name.
    ///
    /// # Errors
    /// As [`Events::send`].
    pub async fn send_named(&self, name: Option<&str>, object: &impl Serialize) -> Result<(), ApiError> {
        let text = serde_json::to_string(object).map_err(|error| ApiError::internal(error.to_string()))?;
        let event = name.map_or_else(Event::default, |name| Event::default().event(name));
        self.0.send(event.data(text)).await.map_err(|_| ApiError::internal("the client has gone"))
    }
}

/// A response whose events `write` sends. When the client goes away, `write` is dropped.
pub fn event_stream<Written>(write: impl FnOnce(Events) -> Written) -> Response
where
    Written: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    stream_of_events(write, true)
}

/// The same without `[DONE]` and error objects of OpenAI's: `write` says all that is to be said.
pub fn plain_event_stream<Written>(write: impl FnOnce(Events) -> Written) -> Response
where
    Written: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    stream_of_events(write, false)
}

/// A response of JSON objects, one a line (<https://github.com/ndjson/ndjson-spec>), that `write` sends.
pub fn line_stream<Written>(write: impl FnOnce(Lines) -> Written) -> Response
where
    Written: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_EVENTS);
    let written = write(Lines(sender.clone()));
    tokio::spawn(async move {
        tokio::select! {
            _ = written => {}
            () = sender.closed() => {}
        }
    });
    let lines = stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), receiver))
    });
    let mut response = Response::new(Body::from_stream(lines));
    unbuffered(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Where an answer's lines go.
pub struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Sends one object.
    ///
    /// # Errors
    /// If the client has gone; nobody sees this error.
    pub async fn send(&self, object: &impl Serialize) -> Result<(), ApiError> {
        let mut line = serde_json::to_vec(object).map_err(|error| ApiError::internal(error.to_string()))?;
        line.push(b'\n');
        self.0.send(line.into()).await.map_err(|_| ApiError::internal("the client has gone"))
    }
}

/// nginx would otherwise hold the answer back until it is complete.
fn unbuffered(headers: &mut HeaderMap) {
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn stream_of_events<Written>(write: impl FnOnce(Events) -> Written, openai: bool) -> Response
where
    Written: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let written = write(Events(sender.clone()));
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = written => outcome,
            () = sender.closed() => return,
        };
        let events = Events(sender);
        if !openai {
            return;
        }
        if let Err(error) = outcome
            && events.send(&error.object()).await.is_err()
        {
            return;
        }
        // A failure means that the client has gone, which is no concern of anyone's.
        _ = events.0.send(Event::default().data("[DONE]")).await;
    });
    let events = stream::unfold(receiver, async |mut receiver| {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    unbuffered(response.headers_mut());
    response
}
