//! Heads for classification: from the vectors of a pair's tokens to its scores, as a cross-encoder gives them. Names as in
//! Hugging Face's `…ForSequenceClassification`.

use super::{
    Family,
    config::{Json, unsupported},
    layers::{Affine, Loader, Norm},
    pooling::{PoolingMode, pool},
};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::Result;
use narthex_kernels::Activation;
use serde_json::Value;

/// What the scores go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreActivation {
    /// Scores are as the head gives them.
    Identity,
    /// Into 0 to 1.
    Sigmoid,
}

pub(super) struct ScoreHead {
    pooling: PoolingMode,
    dense: Affine,
    between: Between,
    out: Affine,
    labels: usize,
    activation: ScoreActivation,
}

enum Between {
    Tanh,
    /// A function, then a norm.
    Normed(Activation, Box<Norm>),
}

impl ScoreHead {
    pub(super) fn read(config: &Json, loader: &Loader, encoder: &Family) -> Result<Self> {
        let (width, _, _) = encoder.sizes();
        let labels = config.labels();
        let (pooling, dense, between, out) = match (encoder, config.family()) {
            (Family::ModernBert(shape), _) => {
                config.refuse_true("classifier_bias")?;
                let pooling = match config.text("classifier_pooling").unwrap_or("cls") {
                    "cls" => PoolingMode::Cls,
                    "mean" => PoolingMode::Mean,
                    other => return Err(unsupported("classifier_pooling", other, "cls, mean")),
                };
                let head = loader.head();
                let norm = head.norm("head.norm", width, shape.eps, false)?;
                let between = Between::Normed(config.activation("classifier_activation")?, Box::new(norm));
                let dense = head.affine(&["head.dense".into()], [width, width], false)?;
                (pooling, dense, between, head.affine(&["classifier".into()], [labels, width], true)?)
            }
            (Family::Bert(_), "bert") => {
                let dense = loader.affine(&["pooler.dense".into()], [width, width], true)?;
                let out = loader.head().affine(&["classifier".into()], [labels, width], true)?;
                (PoolingMode::Cls, dense, Between::Tanh, out)
            }
            (Family::Bert(_), _) => {
                let head = loader.head();
                let dense = head.affine(&["classifier.dense".into()], [width, width], true)?;
                let out = head.affine(&["classifier.out_proj".into()], [labels, width], true)?;
                (PoolingMode::Cls, dense, Between::Tanh, out)
            }
        };
        Ok(Self { pooling, dense, between, out, labels, activation: activation(config, labels)? })
    }

    /// Scores of a sequence.
    pub(super) fn labels(&self) -> usize {
        self.labels
    }

    /// The scores of each sequence of `[T, width]`.
    pub(super) fn run(&self, parts: &[&[f32]], width: usize) -> Vec<Vec<f32>> {
        let pooled: Vec<f32> = parts.iter().flat_map(|part| pool(part, width, &[self.pooling])).collect();
        let x = Tensor::from_data(TensorData::new(pooled, [parts.len(), width]), &Device::flex());
        let x = match &self.between {
            Between::Tanh => self.dense.forward(x).tanh(),
            Between::Normed(function, norm) => norm.forward(self.dense.activated(x, *function)),
        };
        let scores = self.out.forward(x).into_data();
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
