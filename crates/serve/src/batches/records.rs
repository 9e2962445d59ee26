//! Files and batches as the API shows them and as they lie on disk
//! (<https://platform.openai.com/docs/api-reference/files>, <https://platform.openai.com/docs/api-reference/batch>).
//! Plain data; knows no folder and no request.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the field `object` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ObjectKind {
    File,
    Batch,
    List,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Requests of a batch.
    Batch,
    /// Answers of a batch.
    BatchOutput,
    /// Whatever its owner likes.
    UserData,
}

impl Purpose {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::UserData => "user_data",
        }
    }
}

/// How far a file is. Files of ours need no processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileStatus {
    Processed,
}

/// A file as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileObject {
    pub id: String,
    pub object: ObjectKind,
    pub bytes: u64,
    pub created_at: u64,
    /// Null where it stays until somebody deletes it.
    pub expires_at: Option<u64>,
    /// As its owner calls it; never part of a path.
    pub filename: String,
    pub purpose: Purpose,
    pub status: FileStatus,
}

/// What lies beside a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Rises from file to file; tells the order of two that are of the same second.
    pub number: u64,
    pub file: FileObject,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BatchStatus {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl BatchStatus {
    /// Whether nothing more becomes of the batch.
    pub fn ended(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }

    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchError {
    pub code: String,
    pub message: String,
    pub param: Option<String>,
    /// The line of the input file, from 1.
    pub line: Option<usize>,
}

impl BatchError {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), param: None, line: None }
    }
}

/// All that is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchErrors {
    pub object: ObjectKind,
    pub data: Vec<BatchError>,
}

/// How many requests are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestCounts {
    pub total: usize,
    pub completed: usize,
    pub failed: usize,
}

/// Tokens of all answers together, in the words of the Responses API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchUsage {
    pub input_tokens: u64,
    pub input_tokens_details: InputDetails,
    pub output_tokens: u64,
    pub output_tokens_details: OutputDetails,
    pub total_tokens: u64,
}

/// Of the tokens read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputDetails {
    pub cached_tokens: u64,
}

/// Of the tokens written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutputDetails {
    pub reasoning_tokens: u64,
}

impl BatchUsage {
    /// Adds what an answer says of itself, in the words of either API.
    pub fn add(&mut self, answer: &Value) {
        let usage = &answer["usage"];
        let read = |names: [&str; 2], detail: &str| {
            let value = names.iter().map(|name| &usage[*name]).find(|value| !value.is_null()).unwrap_or(&Value::Null);
            if detail.is_empty() { value } else { &value[detail] }.as_u64().unwrap_or(0)
        };
        let (input, output) =
            (read(["prompt_tokens", "input_tokens"], ""), read(["completion_tokens", "output_tokens"], ""));
        let cached = read(["prompt_tokens_details", "input_tokens_details"], "cached_tokens");
        let thought = read(["completion_tokens_details", "output_tokens_details"], "reasoning_tokens");
        for (sum, more) in [
            (&mut self.input_tokens, input),
            (&mut self.input_tokens_details.cached_tokens, cached),
            (&mut self.output_tokens, output),
            (&mut self.output_tokens_details.reasoning_tokens, thought),
            (&mut self.total_tokens, input.saturating_add(output)),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A batch as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchObject {
    pub id: String,
    pub object: ObjectKind,
    pub endpoint: String,
    /// The model that all requests name; null until they have been read, or where they name several.
    pub model: Option<String>,
    pub errors: Option<BatchErrors>,
    pub input_file_id: String,
    pub completion_window: String,
    pub status: BatchStatus,
    pub output_file_id: Option<String>,
    pub error_file_id: Option<String>,
    pub created_at: u64,
    pub in_progress_at: Option<u64>,
    pub expires_at: u64,
    pub finalizing_at: Option<u64>,
    pub completed_at: Option<u64>,
    pub failed_at: Option<u64>,
    pub expired_at: Option<u64>,
    pub cancelling_at: Option<u64>,
    pub cancelled_at: Option<u64>,
    pub request_counts: RequestCounts,
    pub usage: Option<BatchUsage>,
    pub metadata: Option<Map<String, Value>>,
}

/// What lies on disk of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BatchRecord {
    /// Rises from batch to batch.
    pub number: u64,
    /// Seconds that the files of answers stay.
    pub output_expires_s: u64,
    /// How the files of answers will be called, so that a restart in the midst of ending makes no second ones.
    pub output_id: String,
    pub error_id: String,
    /// How a batch that is being finalized will end.
    pub ending: Option<BatchStatus>,
    pub batch: BatchObject,
}

/// What a batch is made of.
#[derive(Clone, Debug)]
pub(crate) struct NewBatch {
    pub input_file_id: String,
    pub endpoint: &'static str,
    pub metadata: Option<Map<String, Value>>,
    /// Seconds that the files of answers stay.
    pub output_expires_s: u64,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_adds_up_in_the_words_of_both_apis() {
        let mut usage = BatchUsage::default();
        for answer in [
            json!({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}}),
            json!({"usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30,
                "input_tokens_details": {"cached_tokens": 5}, "output_tokens_details": {"reasoning_tokens": 6}}}),
            json!({"usage": {"prompt_tokens": 100, "total_tokens": 100, "completion_tokens": null}}),
            json!({"usage": {"prompt_tokens": -1, "completion_tokens": "many"}}),
            json!({"usage": null}),
            json!([]),
            json!("text"),
        ] {
            usage.add(&answer);
        }
        let expected = json!({
            "input_tokens": 113, "input_tokens_details": {"cached_tokens": 7},
            "output_tokens": 24, "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 137,
        });
        assert_eq!(serde_json::to_value(usage).unwrap(), expected);
    }

    #[test]
    fn names_are_those_of_the_api() {
        for status in [
            BatchStatus::Validating,
            BatchStatus::Failed,
            BatchStatus::InProgress,
            BatchStatus::Finalizing,
            BatchStatus::Completed,
            BatchStatus::Expired,
            BatchStatus::Cancelling,
            BatchStatus::Cancelled,
        ] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
        for purpose in [Purpose::Batch, Purpose::BatchOutput, Purpose::UserData] {
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.name());
        }
    }
}
