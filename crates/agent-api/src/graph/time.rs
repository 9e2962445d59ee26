//! Times as LangGraph's clients read them.

use chrono::{DateTime, SecondsFormat};

/// Milliseconds since 1970 in the form of RFC 3339.
pub(super) fn written(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, false)
}
