//! What we want to find with a run again, beside what the caller wants to: both are kept in the run's metadata, ours
//! under one name that callers cannot take.

use serde_json::{Map, Value};

/// The name of ours.
const NAME: &str = "narthex";

/// Both together.
pub(crate) fn joined(mut callers: Map<String, Value>, ours: Value) -> Map<String, Value> {
    callers.insert(NAME.into(), ours);
    callers
}

/// The caller's, and ours, which may be `null`.
pub(crate) fn parted(metadata: &Map<String, Value>) -> (Map<String, Value>, Value) {
    let mut callers = metadata.clone();
    let ours = callers.shift_remove(NAME).unwrap_or_default();
    (callers, ours)
}
