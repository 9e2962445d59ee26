//! Where the chunks of an answer go: to a client as they are, or as another API's events. Knows neither chat nor
//! completions.

use crate::dialects::Event;
use narthex_http::{ApiError, Events, Lines};
use serde::Serialize;
use serde_json::Value;
use std::future::Future;

/// Where the chunks of an answer go.
pub(crate) trait Chunks: Send {
    /// Sends one.
    fn send(&mut self, chunk: &(impl Serialize + Sync)) -> impl Future<Output = Result<(), ApiError>> + Send;
}

impl Chunks for Events {
    async fn send(&mut self, chunk: &(impl Serialize + Sync)) -> Result<(), ApiError> {
        Events::send(self, chunk).await
    }
}

/// Where the events of another API go.
pub(crate) trait Sends: Send + Sync {
    /// Sends one.
    fn put(&self, event: &Event) -> impl Future<Output = Result<(), ApiError>> + Send;
}

impl Sends for Events {
    async fn put(&self, event: &Event) -> Result<(), ApiError> {
        self.send_named(event.name, &event.data).await
    }
}

impl Sends for Lines {
    async fn put(&self, event: &Event) -> Result<(), ApiError> {
        self.send(&event.data).await
    }
}

/// Sends several.
pub(crate) async fn put_all(to: &impl Sends, events: &[Event]) -> Result<(), ApiError> {
    for event in events {
        to.put(event).await?;
    }
    Ok(())
}

/// Turns each chunk into another API's events.
pub(crate) struct Translated<'a, To, Translate> {
    pub to: &'a To,
    pub translate: Translate,
}

impl<To: Sends, Translate: FnMut(&Value) -> Vec<Event> + Send> Chunks for Translated<'_, To, Translate> {
    async fn send(&mut self, chunk: &(impl Serialize + Sync)) -> Result<(), ApiError> {
        let chunk = object(chunk)?;
        put_all(self.to, &(self.translate)(&chunk)).await
    }
}

/// What is sent, as a value.
pub(crate) fn object(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::internal(error.to_string()))
}

/// An error as OpenAI's object.
pub(crate) fn error_object(error: &ApiError) -> Value {
    serde_json::to_value(error.object()).unwrap_or_default()
}
