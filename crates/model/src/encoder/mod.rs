//! Text encoders: token ids to a vector for each token, and from those to one vector or score for the sequence. One
//! file an architecture, as with decoders, and the same blocks. Here is what runs on the CPU, with weights packed as
//! they are read; what is trained is a [`crate::Classifier`].
//!
//! Sequences of different lengths run together without padding: their rows lie one behind the other, and only attention
//! knows where one ends. What a sequence yields does not depend on what else is in the batch.

mod bert;
mod config;
mod head;
mod modernbert;
mod network;
mod pooling;
mod roberta;
mod score;
mod sentence;

pub use pooling::{PoolingMode, normalize, pool};
pub use score::ScoreActivation;
pub use sentence::SentenceConfig;

pub(crate) use config::Json;
pub(crate) use head::{Head, HeadShape, Places};
pub(crate) use network::{Encoder, EncoderConfig};

use crate::{dropout::Dropout, maker::Packing, mapped::Mapped, weights::StoredWeights};
use burn::tensor::Tensor;
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
    context: usize,
    dimension: usize,
    labels: Vec<String>,
    several_labels: bool,
}

/// Whether the config in a folder is that of an encoder; false also where it cannot be read.
pub fn is_encoder(folder: &Path) -> bool {
    Json::read(&folder.join("config.json")).is_ok_and(|config| FAMILIES.contains(&config.family()))
}

impl EncoderModel {
    /// Reads a folder in the layout of Hugging Face or sentence-transformers. Without a precision it is that of the
    /// file: bf16 for 16 bits, else f32. A folder with neither a head for classification nor a `modules.json` embeds by
    /// the mean of its tokens, as sentence-transformers does.
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
            let shape = config_of(&config)?;
            let (hidden_size, context) = (shape.shape.hidden_size, shape.shape.context);
            let named = Mapped::new(&shape.shape, &weights);
            let maker = Packing { weights: &named, precision };
            let output = match scores {
                true => Output::Score(Box::new(ScoreHead::read(&config, &shape.shape, &maker)?)),
                false => Output::Embedding(Pipeline::read(folder, hidden_size)?),
            };
            let dimension = match &output {
                Output::Embedding(pipeline) => pipeline.dimension(),
                Output::Score(head) => head.labels(),
            };
            let sentence = SentenceConfig::read(folder)?;
            let context = context.min(sentence.tokens_max.unwrap_or(usize::MAX));
            let encoder = Encoder::made(shape.clone(), &maker, precision)?;
            weights.refuse_unused(|name| ignored(name, scores))?;
            let labels = if scores { config.label_names() } else { vec![] };
            let several_labels = config.text("problem_type") == Some("multi_label_classification");
            Ok(Self { encoder, output, sentence, context, dimension, labels, several_labels })
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

    /// The names of a classifier's labels; none for a model that embeds.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether each label of a classifier is right or not on its own, rather than one of them.
    pub fn has_several_labels(&self) -> bool {
        self.several_labels
    }

    /// What the scores of a classifier have gone through.
    pub fn score_activation(&self) -> Option<ScoreActivation> {
        if let Output::Score(head) = &self.output { Some(head.activation()) } else { None }
    }

    /// How the text is to be prepared.
    pub fn sentence(&self) -> &SentenceConfig {
        &self.sentence
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.encoder.precision()
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.encoder.config().shape.vocab_size
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
        self.encoder.forward(inputs, &mut Dropout::none())
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
        match &self.output {
            Output::Embedding(pipeline) => pipeline.run(hidden, inputs),
            Output::Score(head) => head.run(hidden, inputs, self.encoder.precision()),
        }
    }
}

/// What an encoder of this config looks like.
///
/// # Errors
/// If it is none, or asks for something that is not supported.
pub(crate) fn config_of(config: &Json) -> Result<EncoderConfig> {
    match config.family() {
        "bert" => bert::config(config),
        "roberta" | "xlm-roberta" => roberta::config(config),
        "modernbert" => modernbert::config(config),
        other => Err(config::unsupported("model_type", other, &FAMILIES.join(", "))),
    }
}

/// Tensors that checkpoints carry and embeddings do not need: heads for other tasks, and what is computed here.
pub(crate) fn ignored(name: &str, scores: bool) -> bool {
    let heads = ["pooler.", "bert.pooler.", "roberta.pooler.", "cls.", "lm_head.", "head.", "decoder.", "classifier."];
    name.ends_with("position_ids") || (!scores && heads.iter().any(|head| name.starts_with(head)))
}
