//! The parts of a decoder that hold weights, and the rotary embedding.

use crate::{Dropout, lora::Lora, weights::WeightSource};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_base::random::Stream;
use narthex_kernels::{PackedWeight, Precision, embedding, linear, packed_linear, packed_rows, rms_norm, rotary};

/// A matrix product with the weight in Hugging Face's layout `[out, in]`, and an optional low-rank adapter.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// The adapter in training.
    pub lora: Option<Lora>,
    /// In a model packed for inference, instead of `weight`: this layer's weights, and below them those of the layers
    /// that run side by side with it.
    #[module(skip)]
    packed: Option<PackedWeight>,
}

impl Linear {
    /// With this weight.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight: Param::from_tensor(weight), lora: None, packed: None }
    }

    /// Packs layers that run side by side, named with their shapes.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub(crate) fn pack(
        layers: &mut [&mut Self],
        names: &[(String, [usize; 2])],
        weights: &dyn WeightSource,
        precision: Precision,
    ) -> Result<()> {
        layers[0].packed = Some(weights.packed(names, precision)?);
        Ok(())
    }

    /// Normal with the given standard deviation, drawn by counter from (seed, name).
    pub fn random(seed: u64, name: &str, [d_out, d_in]: [usize; 2], deviation: f32, device: &Device) -> Self {
        Self::new(normal(seed, name, [d_out, d_in], deviation, device))
    }

    /// `[N, in]` -> `[N, out]`
    pub fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        Self::side_by_side(&[self], x, dropout, precision)
    }

    /// Several layers with the same input as one product: `[N, in]` -> `[N, out of all]`.
    pub fn side_by_side(layers: &[&Self], x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        if let Some(packed) = &layers[0].packed {
            return packed_linear(x, packed, None);
        }
        let weights: Vec<Tensor<2>> = layers.iter().map(|layer| layer.weight.val()).collect();
        let adapted = Self::adapted(layers, &x, dropout, precision);
        linear(x, &weights, None, adapted, precision)
    }

    /// `residual + dropout(layer(x))`: `[N, in]`, `[N, out]` -> `[N, out]`.
    pub fn onto(&self, residual: Tensor<2>, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        if let Some(packed) = &self.packed {
            return packed_linear(x, packed, Some(residual));
        }
        if self.lora.is_some() || dropout.drops() {
            let y = self.forward(x, dropout, precision);
            return residual + dropout.apply(y);
        }
        linear(x, &[self.weight.val()], None, Some(residual), precision)
    }

    /// What the adapters add to the layers' outputs, side by side; none if there are no adapters.
    fn adapted(layers: &[&Self], x: &Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Option<Tensor<2>> {
        layers.iter().any(|layer| layer.lora.is_some()).then(|| {
            let parts = layers.iter().map(|layer| match &layer.lora {
                Some(lora) => lora.forward(x.clone(), dropout, precision),
                None => Tensor::zeros([x.dims()[0], layer.weight.dims()[0]], &x.device()),
            });
            Tensor::cat(parts.collect(), 1)
        })
    }
}

/// Normal random numbers drawn by counter.
pub(crate) fn normal<const D: usize>(
    seed: u64,
    name: &str,
    shape: [usize; D],
    deviation: f32,
    device: &Device,
) -> Tensor<D> {
    let stream = Stream::new(seed, name);
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len as u64).map(|i| stream.normal(i) * deviation).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Token id -> vector.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocabulary, hidden]`
    pub weight: Param<Tensor<2>>,
    /// In a model packed for inference, instead of `weight`.
    #[module(skip)]
    pub packed: Option<PackedWeight>,
}

impl Embedding {
    /// With this weight.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight: Param::from_tensor(weight), packed: None }
    }

    /// `[B, T]` -> `[B * T, hidden]`
    pub fn forward(&self, tokens_bt: Tensor<2, Int>) -> Tensor<2> {
        let [b, t] = tokens_bt.dims();
        if let Some(packed) = &self.packed {
            let ids: Vec<u32> = tokens_bt.into_data().iter::<i64>().map(|id| id as u32).collect();
            return packed_rows(packed, &ids);
        }
        embedding(self.weight.val(), tokens_bt.reshape([b * t]))
    }
}

/// Root-mean-square norm (Zhang and Sennrich, 2019).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[hidden]`
    pub weight: Param<Tensor<1>>,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// All ones.
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self { weight: Param::from_tensor(Tensor::ones([width], device)), eps }
    }

    /// Takes the weight from `weights`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub(crate) fn load(&mut self, name: &str, weights: &dyn WeightSource) -> Result<()> {
        let shape = self.weight.dims();
        let mut values = vec![0f32; shape[0]];
        weights.values(name, &shape)?.read(0, &mut values);
        self.weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.weight.device()));
        Ok(())
    }

    /// `[N, hidden]` -> `[N, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.eps)
    }
}

/// Rotary position embedding (Su et al., 2021) in Hugging Face's half-split layout: for each position in hand D / 2
/// cosines, then D / 2 sines.
#[derive(Clone, Debug)]
pub struct Rotary {
    table: Tensor<2>,
}

impl Rotary {
    /// For rows of positions, one row after the other.
    pub fn new(rows: &[&[usize]], head_width: usize, theta: f64, device: &Device) -> Self {
        let frequencies = frequencies(head_width, theta);
        let mut table = Vec::new();
        for position in rows.iter().flat_map(|row| row.iter()) {
            extend_table(&mut table, *position, &frequencies);
        }
        Self::of_table(table, head_width, device)
    }

    /// `[positions, D]`
    pub fn table(&self) -> Tensor<2> {
        self.table.clone()
    }

    /// With rows that a [`RotaryCache`] holds.
    fn of_table(table: Vec<f32>, head_width: usize, device: &Device) -> Self {
        let positions = table.len() / head_width;
        Self { table: Tensor::from_data(TensorData::new(table, [positions, head_width]), device) }
    }

    /// The part for `len` positions from the `first`.
    pub fn part(&self, first: usize, len: usize) -> Self {
        Self { table: self.table().narrow(0, first, len) }
    }

    /// `[positions, heads * D]` -> the same, rotated.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rotary(x, self.table())
    }
}

/// Radians a position for each pair of values of a head; in single precision, as the reference computes them.
fn frequencies(head_width: usize, theta: f64) -> Vec<f32> {
    (0..head_width / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_width as f32)).collect()
}

fn extend_table(table: &mut Vec<f32>, position: usize, frequencies: &[f32]) {
    let angle = |frequency: &f32| position as f32 * frequency;
    table.extend(frequencies.iter().map(|frequency| angle(frequency).cos()));
    table.extend(frequencies.iter().map(|frequency| angle(frequency).sin()));
}

/// The rotary embedding of all positions met so far, for a model that is asked for the same ones over and over.
#[derive(Clone, Debug)]
pub struct RotaryCache {
    frequencies: Vec<f32>,
    /// `[positions, D]`
    table: Vec<f32>,
}

impl RotaryCache {
    /// Nothing yet.
    pub(crate) fn new(head_width: usize, theta: f64) -> Self {
        Self { frequencies: frequencies(head_width, theta), table: vec![] }
    }

    /// A row for each of the positions.
    pub fn rows(&mut self, positions: &[usize], device: &Device) -> Rotary {
        let width = 2 * self.frequencies.len();
        let needed = positions.iter().max().map_or(0, |position| position + 1);
        for position in self.table.len() / width..needed {
            extend_table(&mut self.table, position, &self.frequencies);
        }
        let rows = positions.iter().flat_map(|position| &self.table[position * width..(position + 1) * width]);
        Rotary::of_table(rows.copied().collect(), width, device)
    }
}
