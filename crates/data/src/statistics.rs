//! What preparing found and did, in numbers.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counts of rows, documents and bytes. Bytes are those of the normalised text; of a chat, those
/// of its messages' contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Rows read from the sources, broken ones included.
    pub rows_read: u64,
    /// Rows left out because they are broken.
    pub bad_rows: u64,
    /// Documents (or chats) kept.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Documents left out because an equal one came before.
    pub duplicates_removed: u64,
    /// Rows left out because nothing but white space is in them.
    pub empty_removed: u64,
    /// Documents for training; one that was cut by the split counts on both sides.
    pub train_documents: u64,
    /// Bytes for training.
    pub train_bytes: u64,
    /// Documents for validation.
    pub validation_documents: u64,
    /// Bytes for validation.
    pub validation_bytes: u64,
    /// Why rows were left out -> how many.
    pub reasons: BTreeMap<String, u64>,
    /// The first broken rows: `file:line: why`.
    pub bad_row_examples: Vec<String>,
}

impl Statistics {
    /// The numbers by name; each reason as `removed: REASON`.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let named = [
            ("rows_read", self.rows_read),
            ("bad_rows", self.bad_rows),
            ("documents", self.documents),
            ("bytes", self.bytes),
            ("duplicates_removed", self.duplicates_removed),
            ("empty_removed", self.empty_removed),
            ("train_documents", self.train_documents),
            ("train_bytes", self.train_bytes),
            ("validation_documents", self.validation_documents),
            ("validation_bytes", self.validation_bytes),
        ];
        let named = named.into_iter().map(|(name, count)| (name.to_string(), count as f64));
        let reasons = self.reasons.iter().map(|(reason, count)| (format!("removed: {reason}"), *count as f64));
        named.chain(reasons).collect()
    }
}
