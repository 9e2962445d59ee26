//! What gives vectors or scores and no text, ready for the CPU: an encoder that embeds, or a classifier, which may also
//! stand on a decoder. Weights are packed as they are read; what is trained is a [`Classifier`].

use crate::{
    classifier::Classifier,
    dropout::Dropout,
    encoder::{Encoder, EncoderInput, Json, Pipeline, SentenceConfig, config_of, ignored, unsupported},
    maker::Packing,
    mapped::Mapped,
    weights::StoredWeights,
};
use burn::tensor::Tensor;
use narthex_base::Result;
use narthex_kernels::Precision;
use serde_json::Value;
use std::path::Path;

/// What runs.
enum Network {
    Embedding(Box<(Encoder, Pipeline)>),
    Score(Box<Classifier>, ScoreActivation),
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderTask {
    /// A vector for a text.
    Embedding,
    /// A score for each label: a classifier, or a cross-encoder of pairs.
    Score,
}

/// An encoder, or a classifier, ready for inference on the CPU.
pub struct EncoderModel {
    network: Network,
    sentence: SentenceConfig,
    context: usize,
    several_labels: bool,
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
        let read = || -> Result<Self> {
            let network = if config.is_classifier() {
                let classifier = Classifier::read_packed(folder, precision)?;
                let activation = ScoreActivation::of(&config, classifier.labels().len())?;
                Network::Score(Box::new(classifier), activation)
            } else {
                Network::Embedding(Box::new(embedding(folder, &config, precision)?))
            };
            let sentence = SentenceConfig::read(folder)?;
            let context = match &network {
                Network::Embedding(parts) => parts.0.config().shape.context,
                Network::Score(classifier, _) => classifier.context(),
            };
            let context = context.min(sentence.tokens_max.unwrap_or(usize::MAX));
            let several_labels = config.text("problem_type") == Some("multi_label_classification");
            Ok(Self { network, sentence, context, several_labels })
        };
        read().map_err(|error| if error.place().is_some() { error } else { error.at(path.display(), None) })
    }

    /// What a user should know of how its config was read.
    pub fn notes(&self) -> &[String] {
        match &self.network {
            Network::Embedding(parts) => &parts.0.config().shape.design.notes,
            Network::Score(classifier, _) => classifier.notes(),
        }
    }

    /// What the model is for.
    pub fn task(&self) -> EncoderTask {
        match self.network {
            Network::Embedding(_) => EncoderTask::Embedding,
            Network::Score(..) => EncoderTask::Score,
        }
    }

    /// The names of a classifier's labels; none for a model that embeds.
    pub fn labels(&self) -> &[String] {
        match &self.network {
            Network::Embedding(_) => &[],
            Network::Score(classifier, _) => classifier.labels(),
        }
    }

    /// Whether each label of a classifier is right or not on its own, rather than one of them.
    pub fn has_several_labels(&self) -> bool {
        self.several_labels
    }

    /// What the scores of a classifier have gone through.
    pub fn score_activation(&self) -> Option<ScoreActivation> {
        if let Network::Score(_, activation) = self.network { Some(activation) } else { None }
    }

    /// How the text is to be prepared.
    pub fn sentence(&self) -> &SentenceConfig {
        &self.sentence
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        match &self.network {
            Network::Embedding(parts) => parts.0.precision(),
            Network::Score(classifier, _) => classifier.precision(),
        }
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        match &self.network {
            Network::Embedding(parts) => parts.0.config().shape.vocab_size,
            Network::Score(classifier, _) => classifier.vocab_size(),
        }
    }

    /// Tokens that a sequence may have, those that begin and end it included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Values of what a sequence yields: of its vector, or the scores.
    pub fn dimension(&self) -> usize {
        match &self.network {
            Network::Embedding(parts) => parts.1.dimension(),
            Network::Score(classifier, _) => classifier.labels().len(),
        }
    }

    /// The vectors of all tokens, those of one sequence behind those of another: `[N, hidden]`; none for a classifier.
    ///
    /// # Panics
    /// If there is no token, or a sequence is longer than the model's positions or has unknown ids.
    pub fn hidden(&self, inputs: &[&EncoderInput]) -> Option<Tensor<2>> {
        match &self.network {
            Network::Embedding(parts) => Some(parts.0.forward(inputs, &mut Dropout::none())),
            Network::Score(..) => None,
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
        match &self.network {
            Network::Embedding(parts) => parts.1.run(parts.0.forward(inputs, &mut Dropout::none()), inputs),
            Network::Score(classifier, activation) => {
                let scores = classifier.scores(inputs);
                scores.into_iter().map(|row| row.into_iter().map(|x| activation.of_score(x)).collect()).collect()
            }
        }
    }
}

/// Reads a model that embeds.
fn embedding(folder: &Path, config: &Json, precision: Option<Precision>) -> Result<(Encoder, Pipeline)> {
    let weights = StoredWeights::open(folder)?;
    let precision = precision.unwrap_or_else(|| weights.precision());
    let shape = config_of(config)?;
    let named = Mapped::new(&shape.shape, &weights);
    let maker = Packing { weights: &named, precision };
    let pipeline = Pipeline::read(folder, shape.shape.hidden_size)?;
    let encoder = Encoder::made(shape.clone(), &maker, precision)?;
    weights.refuse_unused(ignored)?;
    Ok((encoder, pipeline))
}

/// What the scores go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreActivation {
    /// Scores are as the head gives them.
    Identity,
    /// Into 0 to 1.
    Sigmoid,
}

impl ScoreActivation {
    /// What becomes of a score.
    fn of_score(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }

    /// What the config names, else sigmoid for one label.
    ///
    /// # Errors
    /// If it names another.
    fn of(config: &Json, labels: usize) -> Result<Self> {
        let newer = ("sentence_transformers.activation_fn", &config.0["sentence_transformers"]["activation_fn"]);
        let older = ("sbert_ce_default_activation_function", &config.0["sbert_ce_default_activation_function"]);
        for (key, value) in [newer, older] {
            match value {
                Value::Null => {}
                Value::String(name) => match name.rsplit('.').next().unwrap_or("") {
                    "Sigmoid" => return Ok(Self::Sigmoid),
                    "Identity" => return Ok(Self::Identity),
                    _ => return Err(unsupported(key, name, "Sigmoid, Identity")),
                },
                other => return Err(unsupported(key, &other.to_string(), "Sigmoid, Identity")),
            }
        }
        Ok(if labels == 1 { Self::Sigmoid } else { Self::Identity })
    }
}
