//! Whole answers, and what every answer carries: an id, a time, the usage. Knows neither chat nor
//! completions.

use crate::{
    error::ApiError,
    generation::{Generation, Piece, Scored},
    parameters::entropy,
};
use narthex_infer::{FinishReason, TokenLogprobs};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// A head with a new id behind `prefix`.
    pub fn new(prefix: &str, object: &'static str, model: &crate::ServedModel) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = format!("{prefix}-{:016x}{:016x}", entropy(), entropy());
        Self { id, object, created, model: model.id.clone(), system_fingerprint: model.fingerprint() }
    }
}

/// The word for a reason on the wire.
pub(crate) fn reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// A choice that has ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub prompt: Vec<Option<TokenLogprobs>>,
    pub text: String,
    pub scored: Vec<Scored>,
    pub finish_reason: &'static str,
}

/// Follows all choices to their ends. Gives them with the number of tokens written.
pub(crate) async fn collect(mut generation: Generation, choices: usize) -> Result<(Vec<Answer>, usize), ApiError> {
    let empty = || Answer { prompt: vec![], text: String::new(), scored: vec![], finish_reason: "stop" };
    let mut answers: Vec<Answer> = (0..choices).map(|_| empty()).collect();
    while let Some((index, piece)) = generation.next().await? {
        let answer = &mut answers[index];
        match piece {
            Piece::Prompt(scores) => answer.prompt = scores,
            Piece::Text(text, scored) => {
                answer.text += &text;
                answer.scored.extend(scored);
            }
            Piece::End(reason) => answer.finish_reason = reason_word(reason),
        }
    }
    let tokens = generation.completion_tokens();
    Ok((answers, tokens))
}
