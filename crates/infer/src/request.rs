//! What goes into the engine and what comes out. The rest of the crate is an implementation of
//! these types; those who ask know these, and what the engine counts.

use crate::constraint::Constraint;
use narthex_model::Adapter;
use std::{fmt, sync::Arc};

/// How the next token is chosen. The same seed and prompt give the same tokens, whatever else
/// runs beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the most likely `top_k` tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probability reaches `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens whose probability is at least this share of the likeliest one's; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens in the prompt or the output are divided by this (multiplied if negative); 1 changes nothing
    /// (Keskar et al., "CTRL", 2019).
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the output.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it stands in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Sequences of tokens that the output shall not hold.
    pub bad_words: Vec<Vec<u32>>,
    /// If there are any, only these tokens may be chosen, and those that end the sequence.
    pub allowed: Vec<u32>,
    /// The seed of this request's random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: vec![],
            bad_words: vec![],
            allowed: vec![],
            seed: 0,
        }
    }
}

/// One sequence to continue.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// At most this many new tokens; 0 only scores the prompt.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Ids that end the sequence (end of text, end of turn).
    pub stop_tokens: Vec<u32>,
    /// Stop tokens are not sampled before there are this many new tokens.
    pub min_tokens: usize,
    /// Report the log-probability of each token and of this many most likely alternatives.
    pub logprobs: Option<usize>,
    /// Report the log-probabilities of these tokens instead of the most likely ones.
    pub logprob_ids: Vec<u32>,
    /// Report the log-probabilities of the prompt's tokens too, and of this many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// Lower numbers go first, in an engine with that policy.
    pub priority: i64,
    /// Only requests with the same salt share what the prefix cache holds.
    pub cache_salt: Option<String>,
    /// The adapter over the model, if any.
    pub adapter: Option<Arc<Adapter>>,
    /// What the output must be, if not just anything.
    pub constraint: Option<Arc<dyn Constraint>>,
}

/// A token with its log-probability (natural logarithm, of the model's own distribution before
/// temperature and truncation) and those of the most likely tokens at its position, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token that stands here.
    pub logprob: f32,
    /// Its place among all tokens, the most likely first, from 1 on.
    pub rank: usize,
    /// `(token id, log-probability)`.
    pub top: Vec<(u32, f32)>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was sampled (it is not part of the output), or nothing else was allowed.
    Stop,
    /// `max_tokens`, or the model's context, is used up.
    Length,
}

impl FinishReason {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// What the sink of a request receives, in order: one `Admitted`, at most one `Prompt`, then `Token`s, at most one
/// `StopToken`, then one `Finished` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The sequence waits no longer: its first step begins.
    Admitted {
        /// Tokens of the prompt that the prefix cache holds.
        cached: usize,
    },
    /// One entry for each prompt token; the first has none before it, so it is `None`.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// A new token.
    Token {
        /// Its id.
        id: u32,
        /// Present if `logprobs` was asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The stop token that ends the sequence: sampled like any other, but not part of the output.
    StopToken {
        /// Its id.
        id: u32,
        /// Present if `logprobs` was asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The sequence ended.
    Finished(FinishReason),
    /// The engine could not go on with this sequence.
    Failed(String),
}

/// Where the outputs of a request go. Returns whether anybody still listens.
pub type Sink = Box<dyn FnMut(Output) -> bool + Send>;

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// No tokens in the prompt.
    EmptyPrompt,
    /// A token id outside the vocabulary.
    UnknownToken(u32),
    /// The prompt alone fills the context.
    TooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens the model can hold.
        context: usize,
    },
    /// The request has a priority, but the engine goes by arrival.
    NoPriorities,
    /// Too many requests are waiting; try again later.
    QueueFull,
    /// The engine has stopped.
    Stopped,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::EmptyPrompt => write!(f, "the prompt has no tokens"),
            SubmitError::UnknownToken(id) => write!(f, "token id {id} is outside the vocabulary"),
            SubmitError::TooLong { prompt, context } => {
                write!(f, "the prompt is too long: it has {prompt} tokens, but the model's context holds {context}")
            }
            SubmitError::NoPriorities => write!(f, "this engine goes by arrival and takes no priorities"),
            SubmitError::QueueFull => write!(f, "too many requests are waiting"),
            SubmitError::Stopped => write!(f, "the engine has stopped"),
        }
    }
}

impl std::error::Error for SubmitError {}
