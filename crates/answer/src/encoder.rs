//! Text in, vectors, scores or labels out: an encoder with its tokenizer and prompts. Knows neither where it comes from
//! nor who asks.

use narthex_base::{Error, Result};
use narthex_infer::{EncoderInput, Encodes};
use narthex_text::{SequenceTokenizer, TokenSequence};
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::sync_channel},
};

/// An encoder with its tokenizer and prompts.
pub struct TextEncoder {
    /// Text to tokens.
    pub tokenizer: SequenceTokenizer,
    /// Tokens to vectors or scores.
    pub engine: Arc<dyn Encodes>,
    /// What can be put before a text, by name.
    pub prompts: BTreeMap<String, String>,
    /// The one that is used unless another is named.
    pub default_prompt: Option<String>,
}

impl TextEncoder {
    /// The prompt of this name, or the default one; none if there is no such name.
    pub fn prompt(&self, name: Option<&str>) -> Option<&str> {
        match name.or(self.default_prompt.as_deref()) {
            Some(name) => self.prompts.get(name).map(String::as_str),
            None => Some(""),
        }
    }

    /// The first prompt of these names that there is; else the default one.
    pub fn prompt_of(&self, names: &[&str]) -> &str {
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

    /// A vector for each text behind the prompt; waits for them. What is longer than the model reads is cut.
    ///
    /// # Errors
    /// If a text cannot be encoded, or the engine has stopped.
    pub fn vectors(&self, prompt: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.numbers(self.texts(prompt, texts, self.engine.context())?)
    }

    /// How well each passage answers a question, by a model that scores pairs; waits for it.
    ///
    /// # Errors
    /// If a text cannot be encoded, the engine has stopped, or the model gives anything but one number for a pair.
    pub fn scores(&self, question: &str, passages: &[&str]) -> Result<Vec<f32>> {
        let questions = vec![question; passages.len()];
        let pairs = self.tokenizer.pairs(&questions, passages, self.engine.context())?;
        let one = |numbers: Vec<f32>| match numbers.as_slice() {
            [score] => Ok(*score),
            other => Err(Error::input(format!("the model gives {} numbers for a pair, not one score", other.len()))
                .help("name a cross-encoder with one label")),
        };
        self.numbers(pairs)?.into_iter().map(one).collect()
    }

    fn numbers(&self, sequences: Vec<TokenSequence>) -> Result<Vec<Vec<f32>>> {
        if sequences.is_empty() {
            return Ok(vec![]);
        }
        let (sender, numbers) = sync_channel(1);
        let ticket = self.engine.submit(encoder_inputs(sequences), Box::new(move |outcome| _ = sender.send(outcome)));
        let _ticket = ticket.map_err(|error| Error::internal("the engine takes no texts").cause(error))?;
        let outcome = numbers.recv().map_err(|_| Error::internal("the engine has stopped"))?;
        outcome.map_err(Error::internal)
    }
}

/// Sequences as an engine takes them.
pub fn encoder_inputs(sequences: Vec<TokenSequence>) -> Vec<EncoderInput> {
    sequences.into_iter().map(|TokenSequence { ids, types, .. }| EncoderInput { ids, types }).collect()
}

/// How a classifier's numbers become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chances {
    /// One label is right: they add up to 1.
    OneOf,
    /// Each label is right or not: they are each on their own.
    Each,
    /// The numbers are probabilities already.
    AsTheyAre,
}

impl Chances {
    /// The probabilities of these numbers. Computed in double precision and rounded once.
    pub fn of(self, numbers: &[f32]) -> Vec<f32> {
        match self {
            Chances::AsTheyAre => numbers.to_vec(),
            Chances::Each => numbers.iter().map(|x| (1.0 / (1.0 + (-f64::from(*x)).exp())) as f32).collect(),
            Chances::OneOf => {
                let most = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let powers: Vec<f64> = numbers.iter().map(|x| (f64::from(*x) - f64::from(most)).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| (power / sum) as f32).collect()
            }
        }
    }
}
/// The number of the highest probability; of those that are alike, the first.
pub fn likeliest(probs: &[f32]) -> usize {
    (0..probs.len()).rev().max_by(|a, b| probs[*a].total_cmp(&probs[*b])).unwrap_or(0)
}
