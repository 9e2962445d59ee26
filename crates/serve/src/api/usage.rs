//! How much a request took. Knows numbers only.

use serde::Serialize;

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    /// Absent of what reads its texts anew each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptDetails>,
    /// Absent where nothing was thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: usize,
}

impl Usage {
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: None,
            completion_tokens_details: None,
        }
    }

    /// So many of the prompt's tokens were at hand.
    pub fn with_cached(self, cached_tokens: usize) -> Self {
        Self { prompt_tokens_details: Some(PromptDetails { cached_tokens }), ..self }
    }

    /// So many of the tokens written were thoughts.
    pub fn with_reasoning(self, reasoning_tokens: usize) -> Self {
        let details = (reasoning_tokens > 0).then_some(CompletionDetails { reasoning_tokens });
        Self { completion_tokens_details: details, ..self }
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
