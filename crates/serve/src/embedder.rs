//! The seam between texts and an encoder: what becomes tokens, and who computes vectors and scores. Knows no HTTP.

use crate::{Counters, Generator, Sink, Ticket};
use narthex_base::Result;
use narthex_infer::{EncoderEngine, EncoderInput, EncoderSink, EncoderTask, Request, SubmitError};
use narthex_text::{SequenceTokenizer, TokenSequence};
use std::{collections::BTreeMap, sync::Arc};

/// Something that turns token sequences into vectors or scores: the engine, or a script in tests.
pub trait Encodes: Send + Sync + 'static {
    /// Takes sequences; what they yield reaches `sink` from another thread. Dropping the ticket says that nobody wants it.
    ///
    /// # Errors
    /// If a sequence does not fit, ids are unknown, the queue is full or the engine stopped.
    fn submit(&self, inputs: Vec<EncoderInput>, sink: EncoderSink) -> Result<Ticket, SubmitError>;

    /// Reads the counters since the start, without keeping the engine.
    fn counters(&self) -> Counters;

    /// What the model is for.
    fn task(&self) -> EncoderTask;

    /// Tokens that a sequence may have.
    fn context(&self) -> usize;

    /// Values that a sequence yields.
    fn dimension(&self) -> usize;
}

impl Encodes for EncoderEngine {
    fn submit(&self, inputs: Vec<EncoderInput>, sink: EncoderSink) -> Result<Ticket, SubmitError> {
        Ok(Box::new(EncoderEngine::submit(self, inputs, sink)?))
    }

    fn counters(&self) -> Counters {
        Arc::new(self.counters())
    }

    fn task(&self) -> EncoderTask {
        EncoderEngine::task(self)
    }

    fn context(&self) -> usize {
        EncoderEngine::context(self)
    }

    fn dimension(&self) -> usize {
        EncoderEngine::dimension(self)
    }
}

/// An encoder with its tokenizer and prompts.
pub struct Embedder {
    /// Text to tokens.
    pub tokenizer: SequenceTokenizer,
    /// Tokens to vectors or scores.
    pub encoder: Arc<dyn Encodes>,
    /// What can be put before a text, by name.
    pub prompts: BTreeMap<String, String>,
    /// The one that is used unless another is named.
    pub default_prompt: Option<String>,
}

impl Embedder {
    /// The prompt of this name, or the default one; none if there is no such name.
    pub fn prompt(&self, name: Option<&str>) -> Option<&str> {
        match name.or(self.default_prompt.as_deref()) {
            Some(name) => self.prompts.get(name).map(String::as_str),
            None => Some(""),
        }
    }

    /// The first prompt of these names that there is; else the default one.
    pub(crate) fn prompt_of(&self, names: &[&str]) -> &str {
        let named = names.iter().find_map(|name| self.prompts.get(*name));
        named.map_or_else(|| self.prompt(None).unwrap_or(""), String::as_str)
    }

    /// Each text behind the prompt, cut to `tokens_max` tokens.
    ///
    /// # Errors
    /// If the tokenizer cannot encode a text.
    pub fn texts(&self, prompt: &str, texts: &[&str], tokens_max: usize) -> Result<Vec<TokenSequence>> {
        if prompt.is_empty() {
            return self.tokenizer.texts(texts, tokens_max);
        }
        let prompted: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
        self.tokenizer.texts(&prompted.iter().map(String::as_str).collect::<Vec<_>>(), tokens_max)
    }
}

/// An encoder continues nothing; as a generator it only tells of itself.
impl Generator for Embedder {
    fn submit(&self, _: Request, _: Sink) -> Result<Ticket, SubmitError> {
        Err(SubmitError::Stopped)
    }

    fn counters(&self) -> Counters {
        self.encoder.counters()
    }

    fn context(&self) -> usize {
        self.encoder.context()
    }
}
