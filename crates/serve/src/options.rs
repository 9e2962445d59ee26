//! Under which options a model is served. Plain data.

use crate::{batches::FilesOptions, dialects::responses::StoreLimits};
use narthex_http::{ApiKey, HttpOptions};

/// Where to listen, whom to answer, and how much a request may ask for.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Address, keys, TLS, logs.
    pub http: HttpOptions,
    /// Keys of those who may change what is served over HTTP; nobody may where there are none.
    pub admin_keys: Vec<ApiKey>,
    /// Sizes that a request may not exceed.
    pub limits: Limits,
    /// What is kept of the Responses API, so that requests can go on from earlier ones.
    pub responses: StoreLimits,
    /// Where files and batches are kept; none are without.
    pub files: Option<FilesOptions>,
}

/// Sizes that a request to the API may not exceed.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Choices per prompt (`n`).
    pub n_max: usize,
    /// Prompts times `n` in one request.
    pub sequences_max: usize,
    /// Texts in one request for embeddings, scores or a ranking.
    pub inputs_max: usize,
    /// Messages of one conversation.
    pub messages_max: usize,
    /// Tools of one request.
    pub tools_max: usize,
    /// Strings in `stop`.
    pub stop_strings_max: usize,
    /// Bytes of one string in `stop`.
    pub stop_string_bytes_max: usize,
    /// Entries of `logit_bias`.
    pub logit_biases_max: usize,
    /// Alternatives reported per token.
    pub logprobs_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            n_max: 128,
            sequences_max: 128,
            inputs_max: 2048,
            messages_max: 4096,
            tools_max: 128,
            stop_strings_max: 16,
            stop_string_bytes_max: 1024,
            logit_biases_max: 1024,
            logprobs_max: 20,
        }
    }
}
