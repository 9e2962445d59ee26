//! The parts of decoders and encoders that hold weights. Knows neither names of checkpoints nor files.

use crate::{
    dropout::Dropout,
    lora::Lora,
    weight::{PackedRows, Weight},
};
use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor},
};
use narthex_kernels::{
    Activation, Adapted, PackedFinish, PackedWeight, Precision, activation, embedding, frozen_linear, layer_norm,
    linear, packed_affine, packed_linear_adapted, packed_rows, rms_norm,
};

/// A matrix product with the weight in Hugging Face's layout `[out, in]`, a bias if it has one, and a low-rank adapter
/// in training.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Weight,
    /// `[out]`; none where it is packed with the weight.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter in training.
    pub lora: Option<Lora>,
}

impl Linear {
    /// With this weight and bias.
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self { weight, bias: bias.map(Param::from_tensor), lora: None }
    }

    /// Layers of these heights that run side by side, from their packed matrix.
    pub(crate) fn packed(whole: &PackedWeight, heights: &[usize]) -> Vec<Self> {
        PackedRows::share(whole, heights).into_iter().map(|rows| Self::new(Weight::Packed(rows), None)).collect()
    }

    /// Whether an adapter's learned sizes make its product one of its own, or frozen weights do.
    fn runs_alone(&self) -> bool {
        matches!(self.weight, Weight::Frozen(_)) || self.lora.as_ref().is_some_and(|lora| lora.magnitude.is_some())
    }

    /// `[N, in]` -> `[N, out]`
    pub fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        Self::side_by_side(&[self], x, dropout, precision, &[])
    }

    /// Several layers with the same input as one product, packed ones with the updates of rows' adapters: `[N, in]` ->
    /// `[N, out of all]`. Layers that are packed together run together.
    pub(crate) fn side_by_side(
        layers: &[&Self],
        x: Tensor<2>,
        dropout: &mut Dropout,
        precision: Precision,
        updates: &[Adapted],
    ) -> Tensor<2> {
        if let Some(packed) = Self::packed_whole(layers) {
            return packed_linear_adapted(x, packed, None, updates);
        }
        if layers.iter().any(|layer| layer.runs_alone()) {
            let parts = layers.iter().map(|layer| layer.alone(x.clone(), dropout, precision));
            return Tensor::cat(parts.collect(), 1);
        }
        let weights: Vec<Tensor<2>> = layers.iter().map(|layer| layer.weight.numbers()).collect();
        let adapted = Self::adapted(layers, &x, dropout, precision);
        linear(x, &weights, Self::biases(layers), adapted, precision)
    }

    /// The matrix that the layers are packed in, if they are.
    ///
    /// # Panics
    /// If other layers lie in it too.
    fn packed_whole<'a>(layers: &[&'a Self]) -> Option<&'a PackedWeight> {
        let Weight::Packed(first) = &layers[0].weight else { return None };
        let end = |layer: &&Self| match &layer.weight {
            Weight::Packed(part) => part.rows().end,
            _ => 0,
        };
        let ends = layers.last().map_or(0, end);
        assert!(
            (first.rows().start, ends) == (0, first.whole().shape()[0]),
            "layers that are packed together run together"
        );
        Some(first.whole())
    }

    /// By itself, in training's forms, whatever it has: `[N, in]` -> `[N, out]`.
    fn alone(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        let added = self.lora.as_ref().map(|lora| lora.forward(x.clone(), dropout, precision));
        let mut y = match (&self.weight, added) {
            (Weight::Frozen(frozen), None) => frozen_linear(x, frozen, precision),
            (Weight::Frozen(frozen), Some(added)) => frozen_linear(x, frozen, precision) + added,
            (weight, added) => linear(x, &[weight.numbers()], None, added, precision),
        };
        if let Some(gain) = self.lora.as_ref().and_then(|lora| lora.gain(|| self.weight.numbers())) {
            y = y * gain.unsqueeze::<2>();
        }
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze::<2>(),
            None => y,
        }
    }

    /// The biases side by side, if any layer has one: `[out of all]`.
    fn biases(layers: &[&Self]) -> Option<Tensor<1>> {
        layers.iter().any(|layer| layer.bias.is_some()).then(|| {
            let parts = layers.iter().map(|layer| match &layer.bias {
                Some(bias) => bias.val(),
                None => Tensor::zeros([layer.weight.shape()[0]], &layer.weight.device()),
            });
            Tensor::cat(parts.collect(), 0)
        })
    }

    /// `residual + dropout(layer(x))`: `[N, in]`, `[N, out]` -> `[N, out]`.
    pub(crate) fn onto(
        &self,
        residual: Tensor<2>,
        x: Tensor<2>,
        dropout: &mut Dropout,
        precision: Precision,
        updates: &[Adapted],
    ) -> Tensor<2> {
        match &self.weight {
            Weight::Packed(part) => packed_linear_adapted(x, part.whole(), Some(residual), updates),
            Weight::Numbers(weight) if self.lora.is_none() && !dropout.drops() => {
                linear(x, &[weight.val()], self.bias.as_ref().map(Param::val), Some(residual), precision)
            }
            _ => {
                let y = self.forward(x, dropout, precision);
                residual + dropout.apply(y)
            }
        }
    }

    /// `function(layer(x))`: `[N, in]` -> `[N, out]`.
    pub(crate) fn activated(
        &self,
        x: Tensor<2>,
        function: Activation,
        dropout: &mut Dropout,
        precision: Precision,
        updates: &[Adapted],
    ) -> Tensor<2> {
        match &self.weight {
            // The kernel does both in one pass, to the same bytes.
            Weight::Packed(part) if updates.is_empty() && !part.whole().is_integers() => {
                packed_affine(x, part.whole(), PackedFinish { activation: Some(function), ..PackedFinish::default() })
            }
            _ => activation(Self::side_by_side(&[self], x, dropout, precision, updates), function),
        }
    }

    /// What the adapters add to the layers' outputs, side by side; none if there are no adapters.
    fn adapted(layers: &[&Self], x: &Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Option<Tensor<2>> {
        layers.iter().any(|layer| layer.lora.is_some()).then(|| {
            let parts = layers.iter().map(|layer| match &layer.lora {
                Some(lora) => lora.forward(x.clone(), dropout, precision),
                None => Tensor::zeros([x.dims()[0], layer.weight.shape()[0]], &x.device()),
            });
            Tensor::cat(parts.collect(), 1)
        })
    }

    /// Adds the adapter into the weight and drops it; frozen weights become numbers.
    pub(crate) fn merge(&mut self) {
        let lora = self.lora.take();
        if lora.is_none() && !matches!(self.weight, Weight::Frozen(_)) {
            return;
        }
        let mut merged = self.weight.numbers();
        if let Some(lora) = lora {
            let gain = lora.gain(|| merged.clone());
            merged = merged + lora.update();
            if let Some(gain) = gain {
                merged = merged * gain.unsqueeze_dim(1);
            }
        }
        self.weight = Weight::new(merged);
    }
}

/// A table of vectors by number: of tokens, positions, segments.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocabulary, hidden]`
    pub weight: Weight,
}

impl Embedding {
    /// With this weight.
    pub fn new(weight: Weight) -> Self {
        Self { weight }
    }

    /// `[B, T]` -> `[B * T, hidden]`
    pub fn forward(&self, tokens_bt: Tensor<2, Int>) -> Tensor<2> {
        let [b, t] = tokens_bt.dims();
        match &self.weight {
            Weight::Numbers(weight) => embedding(weight.val(), tokens_bt.reshape([b * t])),
            Weight::Frozen(packed) => packed_rows(packed, &ids(tokens_bt)),
            Weight::Packed(part) => packed_rows(part.whole(), &ids(tokens_bt)),
        }
    }
}

fn ids(tokens: Tensor<2, Int>) -> Vec<u32> {
    tokens.into_data().iter::<i64>().map(|id| id as u32).collect()
}

/// What a norm takes from a vector, and what it adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormRule {
    /// Divides by the root mean square (Zhang and Sennrich, "RMSNorm", 2019).
    RootMeanSquare,
    /// Takes off the mean and divides by the deviation (Ba et al., "Layer normalization", 2016).
    MeanVariance,
}

/// The norm of vectors.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// `[width]`, of a norm by mean and variance.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the mean square, or to the variance.
    pub eps: f64,
    #[module(skip)]
    rule: NormRule,
}

impl Norm {
    /// With these weights, `[width]` each.
    ///
    /// # Panics
    /// If there is a bias for the root mean square.
    pub fn new(rule: NormRule, weight: Tensor<1>, bias: Option<Tensor<1>>, eps: f64) -> Self {
        assert!(bias.is_none() || rule == NormRule::MeanVariance, "only a norm by mean and variance has a bias");
        Self { weight: Param::from_tensor(weight), bias: bias.map(Param::from_tensor), eps, rule }
    }

    /// `[N, width]` -> `[N, width]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val();
        match self.rule {
            NormRule::RootMeanSquare => rms_norm(x, weight, self.eps),
            NormRule::MeanVariance => {
                let bias = self.bias.as_ref().map_or_else(|| weight.zeros_like(), Param::val);
                layer_norm(x, weight, bias, self.eps)
            }
        }
    }

    /// The same for each of the heads side by side, `[N, heads * width]`.
    pub fn each_head(&self, x: Tensor<2>) -> Tensor<2> {
        let ([n, all], [width]) = (x.dims(), self.weight.dims());
        self.forward(x.reshape([n * all / width, width])).reshape([n, all])
    }
}
