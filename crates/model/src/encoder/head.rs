//! Heads for classification: from the vectors of a sequence's tokens to a score for each label. Names as in Hugging
//! Face's `…ForSequenceClassification`. Knows no labels' names and no files.

use super::{
    config::{Json, unsupported},
    pooling::{PoolingMode, pool},
};
use crate::{
    dropout::Dropout,
    layers::{Linear, Norm, NormRule},
    maker::{LinearShape, Maker, NormShape},
};
use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_kernels::{Activation, Precision, embedding};

/// What a head looks like, with the names of its parts in checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct HeadShape {
    /// How the vectors of tokens become one: the first, the last, or the mean.
    pub(crate) pooling: PoolingMode,
    /// The layer between, if there is one.
    pub(crate) between: Option<BetweenShape>,
    /// The layer that gives the scores.
    pub(crate) out: &'static str,
    /// Whether that has a bias.
    pub(crate) out_bias: bool,
}

/// A layer `[hidden, hidden]` with what follows it.
#[derive(Clone, Debug)]
pub(crate) struct BetweenShape {
    pub(crate) layer: &'static str,
    pub(crate) bias: bool,
    pub(crate) function: HeadFunction,
    /// A norm of this epsilon after the function.
    pub(crate) norm: Option<(&'static str, f64)>,
}

/// The function after the layer between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFunction {
    Tanh,
    Activation(Activation),
}

impl HeadShape {
    /// That of an encoder of this config, whose norms have this epsilon.
    ///
    /// # Errors
    /// If the config asks for something that is not supported.
    pub(crate) fn of_encoder(config: &Json, eps: f64) -> Result<Self> {
        let tanh = |layer| BetweenShape { layer, bias: true, function: HeadFunction::Tanh, norm: None };
        let (pooling, between, out) = match config.family() {
            "modernbert" => {
                config.refuse_true("classifier_bias")?;
                let pooling = match config.text("classifier_pooling").unwrap_or("cls") {
                    "cls" => PoolingMode::Cls,
                    "mean" => PoolingMode::Mean,
                    other => return Err(unsupported("classifier_pooling", other, "cls, mean")),
                };
                let function = HeadFunction::Activation(config.activation("classifier_activation")?);
                let norm = Some(("head.norm", eps));
                (pooling, BetweenShape { layer: "head.dense", bias: false, function, norm }, "classifier")
            }
            "bert" => (PoolingMode::Cls, tanh("pooler.dense"), "classifier"),
            _ => (PoolingMode::Cls, tanh("classifier.dense"), "classifier.out_proj"),
        };
        Ok(Self { pooling, between: Some(between), out, out_bias: true })
    }

    /// That of a decoder: the last token's vector, through one layer.
    pub(crate) fn of_decoder() -> Self {
        Self { pooling: PoolingMode::LastToken, between: None, out: "score", out_bias: false }
    }

    /// A parameter's name in checkpoints, from its name in the head.
    pub(crate) fn theirs(&self, ours: &str) -> String {
        let between = |part: &str, name: &str| ours.strip_prefix(part).map(|suffix| format!("{name}.{suffix}"));
        let found = self.between.as_ref().and_then(|shape| {
            let norm = shape.norm.and_then(|(name, _)| between("between.norm.", name));
            norm.or_else(|| between("between.layer.", shape.layer))
        });
        found.or_else(|| between("out.", self.out)).unwrap_or_else(|| ours.into())
    }
}

/// A head.
#[derive(Module, Debug)]
pub(crate) struct Head {
    between: Option<Between>,
    out: Linear,
    #[module(skip)]
    pooling: PoolingMode,
}

#[derive(Module, Debug)]
struct Between {
    layer: Linear,
    norm: Option<Norm>,
    #[module(skip)]
    function: HeadFunction,
}

impl Head {
    /// For vectors of this width and so many labels; `maker` chooses by a part's name who makes it.
    ///
    /// # Errors
    /// If a maker has no such part; it is named.
    pub(crate) fn made<'a>(
        shape: &HeadShape,
        width: usize,
        labels: usize,
        maker: &dyn Fn(&str) -> &'a dyn Maker,
    ) -> Result<Self> {
        let between = |shape: &BetweenShape| -> Result<Between> {
            let norm = |(name, eps)| {
                maker(name).norm(name, NormShape { rule: NormRule::MeanVariance, width, bias: false, eps })
            };
            Ok(Between {
                layer: maker(shape.layer).linear(LinearShape::new(shape.layer, [width, width]).bias(shape.bias))?,
                norm: shape.norm.map(norm).transpose()?,
                function: shape.function,
            })
        };
        Ok(Self {
            between: shape.between.as_ref().map(between).transpose()?,
            out: maker(shape.out).linear(LinearShape::new(shape.out, [labels, width]).bias(shape.out_bias))?,
            pooling: shape.pooling,
        })
    }

    /// The vectors of all tokens `[N, hidden]` and where each sequence's lie -> `[S, labels]`.
    pub(crate) fn forward(
        &self,
        hidden: Tensor<2>,
        places: &Places,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let mut x = self.pooled(hidden, places);
        if let Some(Between { layer, norm, function }) = &self.between {
            x = match function {
                HeadFunction::Tanh => layer.forward(x, &mut Dropout::none(), precision).tanh(),
                HeadFunction::Activation(function) => {
                    layer.activated(x, *function, &mut Dropout::none(), precision, &[])
                }
            };
            if let Some(norm) = norm {
                x = norm.forward(x);
            }
        }
        self.out.forward(dropout.apply(x), &mut Dropout::none(), precision)
    }

    /// A vector for each sequence: `[S, hidden]`.
    fn pooled(&self, hidden: Tensor<2>, places: &Places) -> Tensor<2> {
        let device = hidden.device();
        let rows = |row: fn(usize, usize) -> usize| {
            let rows: Vec<i64> = places.0.iter().map(|(first, len)| row(*first, *len) as i64).collect();
            let count = rows.len();
            Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device)
        };
        let [n, width] = hidden.dims();
        match self.pooling {
            PoolingMode::Cls => embedding(hidden, rows(|first, _| first)),
            PoolingMode::LastToken => embedding(hidden, rows(|first, len| first + len - 1)),
            mode if !device.is_autodiff() => {
                let data = hidden.into_data();
                let values = data.as_slice::<f32>().expect("hidden states are f32");
                let part =
                    |(first, len): &(usize, usize)| pool(&values[first * width..(first + len) * width], width, &[mode]);
                let pooled: Vec<f32> = places.0.iter().flat_map(part).collect();
                Tensor::from_data(TensorData::new(pooled, [places.0.len(), width]), &device)
            }
            // With gradients, the mean as a product.
            _ => {
                let mut shares = vec![0f32; places.0.len() * n];
                for (shares, (first, len)) in shares.chunks_exact_mut(n).zip(&places.0) {
                    shares[*first..first + len].fill(1.0 / *len as f32);
                }
                Tensor::from_data(TensorData::new(shares, [places.0.len(), n]), &device).matmul(hidden)
            }
        }
    }
}

/// Where the rows of each sequence lie: the first, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Places(Vec<(usize, usize)>);

impl Places {
    /// Sequences of these lengths, one behind the other.
    pub(crate) fn packed(lengths: impl Iterator<Item = usize>) -> Self {
        let mut end = 0;
        Self(
            lengths
                .map(|len| {
                    end += len;
                    (end - len, len)
                })
                .collect(),
        )
    }

    /// Sequences of these lengths, each with room for `longest`.
    pub(crate) fn padded(lengths: impl Iterator<Item = usize>, longest: usize) -> Self {
        Self(lengths.enumerate().map(|(i, len)| (i * longest, len)).collect())
    }
}
