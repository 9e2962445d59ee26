//! What every answer carries: an id, a time, and the model.

use crate::Served;
use narthex_http::new_id;
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
    /// A head with a new id behind `prefix`, or with the client's own, for the model or adapter that was asked for.
    pub fn new(prefix: &str, object: &'static str, model: &Served, name: &str, own: Option<&str>) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = own.map_or_else(|| new_id(prefix), |id| format!("{prefix}-{id}"));
        Self { id, object, created, model: name.into(), system_fingerprint: model.fingerprint() }
    }
}
