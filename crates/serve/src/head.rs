//! What every answer carries: an id, a time, the model, and the words for its end.

use crate::{ServedModel, parameters::entropy};
use narthex_infer::FinishReason;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands on top of every answer and of every piece of a streamed one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub system_fingerprint: Option<String>,
}

impl Head {
    /// A head with a new id behind `prefix`, for the model or adapter of this name.
    pub fn new(prefix: &str, object: &'static str, model: &ServedModel, name: &str) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = format!("{prefix}-{:016x}{:016x}", entropy(), entropy());
        Self { id, object, created, model: name.into(), system_fingerprint: model.fingerprint() }
    }
}

/// The word for a reason on the wire.
pub(crate) fn reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
