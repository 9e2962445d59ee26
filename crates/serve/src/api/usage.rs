//! How much a request took. Knows numbers only.

use serde::Serialize;

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// The same where nothing can be written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ReadUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl ReadUsage {
    pub fn new(tokens: usize) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}
