//! Other servers' APIs as translations over our own: JSON in, JSON out. Knows neither HTTP nor models.

pub mod anthropic;
mod clock;
mod completion;
pub mod llama_server;
pub mod ollama;
mod passing;
pub mod responses;

use serde_json::Value;

pub use clock::Spent;
pub use passing::Ignored;

/// One event of a streamed answer: with server-sent events, `name` is its `event:` line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What kind of event it is, where the dialect says so.
    pub name: Option<&'static str>,
    /// One JSON object.
    pub data: Value,
}

impl Event {
    fn plain(data: Value) -> Self {
        Self { name: None, data }
    }
}

#[cfg(test)]
mod tests;
