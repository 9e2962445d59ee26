//! One answer for code that waits: shown as it comes, and whole at its end. Knows neither who shows it nor where.

use crate::{
    error::AnswerError,
    generation::{Generation, Piece, Reading},
    model::TextModel,
};
use narthex_infer::{FinishReason, Request};
use std::ops::ControlFlow;

/// What a model wrote for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its text.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: usize,
    /// Why it ended; `Length` too where nobody wanted more.
    pub reason: FinishReason,
    /// Seconds from the request to the end.
    pub seconds: f64,
    /// Seconds from the request to the first token.
    pub first_token_seconds: f64,
}

impl TextModel {
    /// Runs a request to its end, or until `show` wants no more, and shows its text as it comes; at the end, once more,
    /// with no text. Blocks.
    ///
    /// # Errors
    /// If the engine does not take it or fails.
    pub fn tell(&self, request: Request, mut show: impl FnMut(&str) -> ControlFlow<()>) -> Result<Told, AnswerError> {
        let mut generation = Generation::start(self, vec![request], &Reading::default(), ())?;
        let (mut told, mut ended) = (String::new(), None);
        while let Some((_, piece)) = generation.next_blocking()? {
            match piece {
                Piece::Prompt(_) | Piece::Mark(_) => {}
                Piece::Text(text, ..) => {
                    told += &text;
                    if show(&text).is_break() {
                        break;
                    }
                }
                Piece::End(ending) => {
                    ended = Some(ending.reason);
                    _ = show("");
                }
            }
        }
        let life = generation.life(0);
        Ok(Told {
            text: told,
            // Without stop strings, it is a token that says stop.
            tokens: life.generation_tokens - usize::from(ended == Some(FinishReason::Stop)),
            reason: ended.unwrap_or(FinishReason::Length),
            seconds: life.whole.as_secs_f64(),
            first_token_seconds: (life.queue + life.prefill).as_secs_f64(),
        })
    }
}
