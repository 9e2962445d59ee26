//! Scored tokens on the wire, in chat's form and in that of completions. Knows single tokens, not
//! where their text belongs.

use narthex_infer::TokenLogprobs;
use narthex_text::Tokenizer;
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// What OpenAI writes for a token of no probability: JSON has no infinity.
const LEAST_LOGPROB: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LEAST_LOGPROB }
}

/// A token as text. Bytes that are no whole characters are escaped (`\xe2\x82`), behind `mark`.
fn token_text(bytes: &[u8], mark: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().fold(mark.to_string(), |mut text, byte| {
            write!(text, "\\x{byte:02x}").expect("a string takes all text");
            text
        }),
    }
}

/// A token by its id, as vLLM writes it.
fn token_name(id: u32) -> String {
    format!("token_id:{id}")
}

/// `prompt_logprobs`, as vLLM has it: for each token of the prompt its own score and the best, by id; none for the first.
#[derive(Debug)]
pub(crate) struct PromptLogprobs(Vec<Option<Vec<(u32, PromptToken)>>>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct PromptToken {
    logprob: f32,
    rank: usize,
    decoded_token: String,
}

impl PromptLogprobs {
    /// Of these tokens with these scores.
    pub fn new(tokenizer: &Tokenizer, ids: &[u32], scores: &[Option<TokenLogprobs>]) -> Self {
        let entry = |id: u32, logprob: f32, rank: usize| {
            let text = token_text(&tokenizer.token_bytes(id).unwrap_or_default(), "bytes:");
            (id, PromptToken { logprob: finite(logprob), rank, decoded_token: text })
        };
        let all = ids.iter().zip(scores).map(|(id, scores)| {
            let scores = scores.as_ref()?;
            let mut tokens = vec![entry(*id, scores.logprob, scores.rank)];
            for (place, (other, logprob)) in scores.top.iter().enumerate().filter(|(_, (other, _))| other != id) {
                tokens.push(entry(*other, *logprob, place + 1));
            }
            Some(tokens)
        });
        Self(all.collect())
    }
}

impl Serialize for PromptLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Tokens<'a>(&'a [(u32, PromptToken)]);
        impl Serialize for Tokens<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(id, token)| (id.to_string(), token)))
            }
        }
        serializer.collect_seq(self.0.iter().map(|tokens| tokens.as_deref().map(Tokens)))
    }
}

/// `logprobs` of a chat choice.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: ChatAlternative,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Debug, Serialize)]
struct ChatAlternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatAlternative {
    fn new(tokenizer: &Tokenizer, named: bool, id: u32, logprob: f32) -> Self {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let token = if named { token_name(id) } else { token_text(&bytes, "") };
        Self { token, logprob: finite(logprob), bytes }
    }
}

impl ChatLogprobs {
    /// The tokens of an answer, or of a piece of it; `named` by their ids if asked.
    pub fn new<'a>(tokenizer: &Tokenizer, named: bool, tokens: impl Iterator<Item = (u32, &'a TokenLogprobs)>) -> Self {
        let alternative = |id, logprob| ChatAlternative::new(tokenizer, named, id, logprob);
        let content = tokens.map(|(id, scores)| ChatToken {
            token: alternative(id, scores.logprob),
            top_logprobs: scores.top.iter().map(|(id, logprob)| alternative(*id, *logprob)).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }

    /// Adds what follows.
    pub fn extend(&mut self, more: Self) {
        self.content.extend(more.content);
    }
}

/// `logprobs` of a completion: four lists, one entry per token in each.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top>>,
    text_offset: Vec<usize>,
}

/// Token to log-probability, best first.
#[derive(Debug)]
struct Top(Vec<(String, f32)>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl CompletionLogprobs {
    /// Adds a token that begins `offset_chars` into the text; the first of a prompt has no scores.
    pub fn push(
        &mut self,
        (tokenizer, named): (&Tokenizer, bool),
        id: u32,
        scores: Option<&TokenLogprobs>,
        offset_chars: usize,
    ) {
        let text = |id| match named {
            true => token_name(id),
            false => token_text(&tokenizer.token_bytes(id).unwrap_or_default(), "bytes:"),
        };
        let top = scores.map(|scores| {
            let mut top: Vec<(String, f32)> = Vec::with_capacity(scores.top.len() + 1);
            // The token itself is always among its alternatives; of two with one text, the likelier stays.
            for (id, logprob) in scores.top.iter().copied().chain([(id, scores.logprob)]) {
                let text = text(id);
                if !top.iter().any(|(known, _)| *known == text) {
                    top.push((text, finite(logprob)));
                }
            }
            Top(top)
        });
        self.tokens.push(text(id));
        self.token_logprobs.push(scores.map(|scores| finite(scores.logprob)));
        self.top_logprobs.push(top);
        self.text_offset.push(offset_chars);
    }
}
