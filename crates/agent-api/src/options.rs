//! What whoever serves agents may choose, and who asks. Plain data.

use crate::uuid::new_uuid;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is served, and where time and names come from.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The page and its files.
    pub page: bool,
    /// `/v1/…`: off where another router has these paths.
    pub openai: bool,
    /// `/threads`, `/assistants`, `/runs`, `/ok` and `/info`.
    pub agent_protocol: bool,
    /// Milliseconds since 1970.
    pub now_ms: fn() -> u64,
    /// A UUID that differs each time: the name of a new conversation.
    pub new_id: fn() -> String,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self { page: true, openai: true, agent_protocol: true, now_ms, new_id: new_uuid }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
