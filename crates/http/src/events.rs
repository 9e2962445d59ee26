//! Server-sent events as OpenAI's clients read them: one JSON object per event, an error object if
//! the rest fails, and `[DONE]` (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use crate::error::ApiError;
use axum::{
    http::{HeaderValue, header},
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
        let text = serde_json::to_string(object).map_err(|error| ApiError::internal(error.to_string()))?;
        self.0.send(Event::default().data(text)).await.map_err(|_| ApiError::internal("the client has gone"))
    }
}

/// A response whose events `write` sends. When the client goes away, `write` is dropped.
pub fn event_stream<Written>(write: impl FnOnce(Events) -> Written) -> Response
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
    // nginx would otherwise hold the answer back until it is complete.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
