//! Text encoders: token ids to a vector for each token, and from those to one vector or score for the sequence. One file an
//! architecture, as with decoders. For inference on the CPU, with weights packed as they are read; no gradients.
//!
//! Sequences of different lengths run together without padding: their rows lie one behind the other, and only attention
//! knows where one ends. What a sequence yields does not depend on what else is in the batch.

mod bert;
mod config;
mod layers;
mod modernbert;
mod pooling;
mod roberta;
mod score;
mod sentence;

pub use pooling::{PoolingMode, normalize, pool};
pub use score::ScoreActivation;
pub use sentence::SentenceConfig;

use crate::weights::StoredWeights;
use bert::Bert;
use burn::tensor::Tensor;
use config::Json;
use layers::{Batch, Loader};
use modernbert::ModernBert;
use narthex_base::{Error, Result};
use narthex_kernels::Precision;
use pooling::Pipeline;
use score::ScoreHead;
use std::path::Path;

/// The values of `model_type` in config.json that stand for an encoder.
const FAMILIES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "modernbert"];

/// A sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The segment of each token, as a pair of texts has them; empty where all are 0.
    pub types: Vec<u32>,
}

/// The layers of an encoder.
enum Encoder {
    /// BERT, and RoBERTa, whose blocks are the same.
    Bert(Box<Bert>),
    ModernBert(Box<ModernBert>),
}

/// What becomes of the vectors of a sequence's tokens.
enum Output {
    Embedding(Pipeline),
    Score(Box<ScoreHead>),
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderTask {
    /// A vector for a text.
    Embedding,
    /// A score for a pair of texts: a cross-encoder.
    Score,
}

/// An encoder ready for inference on the CPU.
pub struct EncoderModel {
    encoder: Encoder,
    output: Output,
    sentence: SentenceConfig,
    precision: Precision,
    vocab_size: usize,
    context: usize,
    dimension: usize,
}

/// Whether the config in a folder is that of an encoder; false also where it cannot be read.
pub fn is_encoder(folder: &Path) -> bool {
    Json::read(&folder.join("config.json")).is_ok_and(|config| FAMILIES.contains(&config.family()))
}

impl EncoderModel {
    /// Reads a folder in the layout of Hugging Face or sentence-transformers. Without a precision it is that of the file: bf16
    /// for 16 bits, else f32. A folder with neither a head for classification nor a `modules.json` embeds by the mean of
    /// its tokens, as sentence-transformers does.
    ///
    /// # Errors
    /// If files are missing or broken, or a config asks for something that is not supported: it is named.
    pub fn read(folder: &Path, precision: Option<Precision>) -> Result<Self> {
        let path = folder.join("config.json");
        let config = Json::read(&path)?;
        let weights = StoredWeights::open(folder)?;
        let precision = precision.unwrap_or_else(|| weights.precision());
        let scores = config.architecture().ends_with("ForSequenceClassification");
        let at = |error: Error| error.at(path.display(), None);
        let read = || -> Result<Self> {
            let (encoder, prefixes) = match config.family() {
                "bert" => (bert::Config::read(&config)?.into_family(), ["", "bert."]),
                "roberta" | "xlm-roberta" => (roberta::config(&config)?.into_family(), ["", "roberta."]),
                "modernbert" => (Family::ModernBert(modernbert::Config::read(&config)?), ["", "model."]),
                other => return Err(config::unsupported("model_type", other, &FAMILIES.join(", "))),
            };
            let loader = Loader::new(&weights, &prefixes, precision);
            let (hidden_size, vocab_size, context) = encoder.sizes();
            let output = match scores {
                true => Output::Score(Box::new(ScoreHead::read(&config, &loader, &encoder)?)),
                false => Output::Embedding(Pipeline::read(folder, hidden_size)?),
            };
            let dimension = match &output {
                Output::Embedding(pipeline) => pipeline.dimension(),
                Output::Score(head) => head.labels(),
            };
            let sentence = SentenceConfig::read(folder)?;
            let context = context.min(sentence.tokens_max.unwrap_or(usize::MAX));
            let encoder = encoder.load(&loader)?;
            weights.refuse_unused(|name| ignored(name, scores))?;
            Ok(Self { encoder, output, sentence, precision, vocab_size, context, dimension })
        };
        read().map_err(|error| if error.place().is_some() { error } else { at(error) })
    }

    /// What the model is for.
    pub fn task(&self) -> EncoderTask {
        match self.output {
            Output::Embedding(_) => EncoderTask::Embedding,
            Output::Score(_) => EncoderTask::Score,
        }
    }

    /// How the text is to be prepared.
    pub fn sentence(&self) -> &SentenceConfig {
        &self.sentence
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Tokens that a sequence may have, those that begin and end it included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Values of what a sequence yields: of its vector, or the scores.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The vectors of all tokens, those of one sequence behind those of another: `[N, hidden]`.
    ///
    /// # Panics
    /// If there is no token, or a sequence is longer than the model's positions or has unknown ids.
    pub fn hidden(&self, inputs: &[&EncoderInput]) -> Tensor<2> {
        let batch = Batch::new(inputs);
        match &self.encoder {
            Encoder::Bert(model) => model.forward(&batch),
            Encoder::ModernBert(model) => model.forward(&batch),
        }
    }

    /// What each sequence yields: its vector, or its scores.
    ///
    /// # Panics
    /// As [`EncoderModel::hidden`], and if a sequence is empty.
    pub fn run(&self, inputs: &[&EncoderInput]) -> Vec<Vec<f32>> {
        if inputs.is_empty() {
            return vec![];
        }
        assert!(inputs.iter().all(|input| !input.ids.is_empty()), "every sequence has a token");
        let hidden = self.hidden(inputs);
        let [_, width] = hidden.dims();
        let data = hidden.into_data();
        let mut rest = data.as_slice::<f32>().expect("hidden states are f32");
        let parts = inputs.iter().map(|input| {
            let (part, after) = rest.split_at(input.ids.len() * width);
            rest = after;
            part
        });
        match &self.output {
            Output::Embedding(pipeline) => pipeline.run(&parts.collect::<Vec<_>>(), width),
            Output::Score(head) => head.run(&parts.collect::<Vec<_>>(), width),
        }
    }
}

/// A config whose weights are still to be read.
enum Family {
    Bert(bert::Config),
    ModernBert(modernbert::Config),
}

impl bert::Config {
    fn into_family(self) -> Family {
        Family::Bert(self)
    }
}

impl Family {
    /// Hidden size, vocabulary, positions.
    fn sizes(&self) -> (usize, usize, usize) {
        match self {
            Family::Bert(config) => (config.hidden_size, config.vocab_size, config.context),
            Family::ModernBert(config) => (config.hidden_size, config.vocab_size, config.context),
        }
    }

    fn load(self, loader: &Loader) -> Result<Encoder> {
        Ok(match self {
            Family::Bert(config) => Encoder::Bert(Box::new(Bert::load(config, loader)?)),
            Family::ModernBert(config) => Encoder::ModernBert(Box::new(ModernBert::load(config, loader)?)),
        })
    }
}

/// Tensors that checkpoints carry and embeddings do not need: heads for other tasks, and what is computed here.
fn ignored(name: &str, scores: bool) -> bool {
    let heads = ["pooler.", "bert.pooler.", "roberta.pooler.", "cls.", "lm_head.", "head.", "decoder.", "classifier."];
    name.ends_with("position_ids") || (!scores && heads.iter().any(|head| name.starts_with(head)))
}
