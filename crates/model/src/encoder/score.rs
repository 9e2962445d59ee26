//! Scores of a pair of texts, as a cross-encoder gives them: a head for classification and what its scores go through.

use super::{
    EncoderInput,
    config::{Json, unsupported},
    head::{Head, HeadShape, Places},
};
use crate::{config::ModelConfig, dropout::Dropout, maker::Maker};
use burn::tensor::Tensor;
use narthex_base::Result;
use narthex_kernels::Precision;
use serde_json::Value;

/// What the scores go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreActivation {
    /// Scores are as the head gives them.
    Identity,
    /// Into 0 to 1.
    Sigmoid,
}

/// A head whose scores go through a function.
pub(super) struct ScoreHead {
    head: Head,
    labels: usize,
    activation: ScoreActivation,
}

impl ScoreHead {
    pub(super) fn read(config: &Json, shape: &ModelConfig, maker: &dyn Maker) -> Result<Self> {
        let labels = config.labels();
        let head = HeadShape::of_encoder(config, shape.rms_norm_eps)?;
        let head = Head::made(&head, shape.hidden_size, labels, &|_| maker)?;
        Ok(Self { head, labels, activation: activation(config, labels)? })
    }

    /// Scores of a sequence.
    pub(super) fn labels(&self) -> usize {
        self.labels
    }

    /// What the scores go through.
    pub(super) fn activation(&self) -> ScoreActivation {
        self.activation
    }

    /// The scores of each sequence, from the vectors of all tokens, one sequence behind the other.
    pub(super) fn run(&self, hidden: Tensor<2>, inputs: &[&EncoderInput], precision: Precision) -> Vec<Vec<f32>> {
        let places = Places::packed(inputs.iter().map(|input| input.ids.len()));
        let scores = self.head.forward(hidden, &places, &mut Dropout::none(), precision).into_data();
        let scores = scores.as_slice::<f32>().expect("scores are f32");
        let activated = |x: &f32| match self.activation {
            ScoreActivation::Identity => *x,
            ScoreActivation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        };
        scores.chunks_exact(self.labels).map(|row| row.iter().map(activated).collect()).collect()
    }
}

/// As sentence-transformers' `CrossEncoder` chooses it: what the config names, else sigmoid for one label.
fn activation(config: &Json, labels: usize) -> Result<ScoreActivation> {
    let newer = ("sentence_transformers.activation_fn", &config.0["sentence_transformers"]["activation_fn"]);
    let older = ("sbert_ce_default_activation_function", &config.0["sbert_ce_default_activation_function"]);
    for (key, value) in [newer, older] {
        match value {
            Value::Null => {}
            Value::String(name) => match name.rsplit('.').next().unwrap_or("") {
                "Sigmoid" => return Ok(ScoreActivation::Sigmoid),
                "Identity" => return Ok(ScoreActivation::Identity),
                _ => return Err(unsupported(key, name, "Sigmoid, Identity")),
            },
            other => return Err(unsupported(key, &other.to_string(), "Sigmoid, Identity")),
        }
    }
    Ok(if labels == 1 { ScoreActivation::Sigmoid } else { ScoreActivation::Identity })
}
