//! Whole answers and their usage. Knows neither chat nor completions.

use crate::{
    error::ApiError,
    generation::{Generation, Piece, Scored},
    head::reason_word,
};
use narthex_infer::TokenLogprobs;
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
