//! Low-rank adapters in training (Hu et al., "LoRA", 2021), scaled for large ranks (Kalajdzievski, "rsLoRA", 2023) or
//! with a learned size of each output's weights (Liu et al., "DoRA", 2024).

use crate::{dropout::Dropout, weight::Weight};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use narthex_base::random::Stream;
use narthex_kernels::{Precision, linear};

/// The two matrices of an adapter: the update of the weight is `scale * b a`.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[rank, in]`
    pub lora_a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub lora_b: Param<Tensor<2>>,
    /// In DoRA `[out]`: the size of each output's weights, which otherwise gives their direction only.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// What the product of both is multiplied with.
    pub scale: f64,
    /// Dropout before `a`.
    pub dropout: f64,
}

/// What adapters to add.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// Rank.
    pub rank: usize,
    /// The update is scaled by alpha / rank.
    pub alpha: f64,
    /// Projections by the last part of their name.
    pub targets: Vec<String>,
    /// Dropout before the first matrix.
    pub dropout: f64,
    /// Scaled by alpha / sqrt(rank) instead: rsLoRA.
    pub rank_stabilized: bool,
    /// With a learned size of each output's weights: DoRA.
    pub decomposed: bool,
}

impl From<&narthex_base::config::Lora> for LoraSpec {
    fn from(lora: &narthex_base::config::Lora) -> Self {
        Self {
            rank: lora.rank,
            alpha: lora.alpha,
            targets: lora.targets.clone(),
            dropout: lora.dropout,
            rank_stabilized: lora.use_rslora,
            decomposed: lora.use_dora,
        }
    }
}

impl LoraSpec {
    /// What the product of both matrices is multiplied with.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

impl Lora {
    /// As PEFT starts: `a` uniform in ±1/sqrt(in), `b` zero, sizes those of the weight `[out, in]`. Drawn by counter
    /// from (seed, name).
    pub(crate) fn random(spec: &LoraSpec, seed: u64, name: &str, weight: &Weight) -> Self {
        let ([d_out, d_in], device) = (weight.shape(), &weight.device());
        let stream = Stream::new(seed, &format!("{name}.lora_A"));
        let bound = 1.0 / (d_in as f32).sqrt();
        let values: Vec<f32> =
            (0..(spec.rank * d_in) as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect();
        Self {
            lora_a: Param::from_tensor(Tensor::from_data(TensorData::new(values, [spec.rank, d_in]), device)),
            lora_b: Param::from_tensor(Tensor::zeros([d_out, spec.rank], device)),
            magnitude: spec.decomposed.then(|| Param::from_tensor(sizes(weight.numbers()))),
            scale: spec.scale(),
            dropout: spec.dropout,
        }
    }

    /// `[N, in]` -> `[N, out]`
    pub(crate) fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        let x = dropout.apply_with(x, self.dropout);
        let x = linear(x, &[self.lora_a.val()], None, None, precision);
        linear(x, &[self.lora_b.val()], None, None, precision) * self.scale
    }

    /// `[out, in]`: what the adapter adds to the weight's direction.
    pub(crate) fn update(&self) -> Tensor<2> {
        self.lora_b.val().matmul(self.lora_a.val()) * self.scale
    }

    /// In DoRA, what the outputs of a layer of this weight are multiplied with for the size of their weights to be the
    /// learned one: `[out]`. The size that they have counts as a constant, as in the paper (section 4.3).
    pub(crate) fn gain(&self, numbers: impl FnOnce() -> Tensor<2>) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_ref()?;
        Some(magnitude.val() / sizes((numbers() + self.update()).detach()))
    }
}

/// The Euclidean size of each row.
pub(crate) fn sizes(weight: Tensor<2>) -> Tensor<1> {
    let [rows, _] = weight.dims();
    (weight.clone() * weight).sum_dim(1).sqrt().reshape([rows])
}
