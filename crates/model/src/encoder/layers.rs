//! The parts that encoders are made of, and the reading of their weights. Knows no architecture.

use super::EncoderInput;
use crate::weights::{StoredWeights, WeightSource};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::Result;
use narthex_kernels::{
    Activation, PackedFinish, PackedWeight, Precision, RaggedShape, WeightValues, layer_norm, packed_affine,
    ragged_attention,
};
use std::sync::Arc;

/// Reads tensors whose names may have a prefix.
pub(super) struct Loader<'a> {
    weights: &'a StoredWeights,
    prefix: &'a str,
    pub(super) precision: Precision,
}

impl<'a> Loader<'a> {
    /// With the last of `prefixes` that some tensor has.
    pub(super) fn new(weights: &'a StoredWeights, prefixes: &[&'a str], precision: Precision) -> Self {
        let has = |prefix: &&&str| weights.names().any(|name| name.starts_with(**prefix));
        let prefix = prefixes.iter().filter(|prefix| !prefix.is_empty()).rfind(has).copied().unwrap_or("");
        Self { weights, prefix, precision }
    }

    /// For tensors of a head, which never have the prefix.
    pub(super) fn head(&self) -> Self {
        Self { prefix: "", ..*self }
    }

    /// `[rows, width]` as it is.
    pub(super) fn table(&self, name: &str, [rows, width]: [usize; 2]) -> Result<Table> {
        let mut values = vec![0f32; rows * width];
        self.values(name, &[rows, width])?.read(0, &mut values);
        Ok(Table { values, width })
    }

    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Tensor<1>> {
        let mut values = vec![0f32; len];
        self.values(name, &[len])?.read(0, &mut values);
        Ok(Tensor::from_data(TensorData::new(values, [len]), &Device::flex()))
    }

    /// Layers with the same input side by side: `NAME.weight` of `[outputs, inputs]` each and, if asked, `NAME.bias`.
    pub(super) fn affine(&self, names: &[String], [outputs, inputs]: [usize; 2], bias: bool) -> Result<Affine> {
        let parts = names.iter().map(|name| self.values(&format!("{name}.weight"), &[outputs, inputs]));
        let parts: Vec<WeightValues> = parts.collect::<Result<_>>()?;
        let weight = PackedWeight::new(&parts, inputs, self.precision);
        let biases = names.iter().map(|name| self.vector(&format!("{name}.bias"), outputs));
        let bias = if bias { Some(Tensor::cat(biases.collect::<Result<_>>()?, 0)) } else { None };
        Ok(Affine { weight, bias })
    }

    /// A norm whose weight and, if asked, bias are `NAME.weight` and `NAME.bias`.
    pub(super) fn norm(&self, name: &str, width: usize, eps: f64, bias: bool) -> Result<Norm> {
        let weight = self.vector(&format!("{name}.weight"), width)?;
        let bias = match bias {
            true => self.vector(&format!("{name}.bias"), width)?,
            false => Tensor::zeros([width], &Device::flex()),
        };
        Ok(Norm { weight, bias, eps })
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        self.weights.values(&format!("{}{name}", self.prefix), shape)
    }
}

/// Rows to be looked up.
pub(super) struct Table {
    values: Vec<f32>,
    width: usize,
}

impl Table {
    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

/// A matrix product with a bias, for inference.
pub(super) struct Affine {
    weight: PackedWeight,
    bias: Option<Tensor<1>>,
}

impl Affine {
    /// `[N, inputs]` -> `[N, outputs]`
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        packed_affine(x, &self.weight, PackedFinish { bias: self.bias.clone(), ..PackedFinish::default() })
    }

    /// The same through a function.
    pub(super) fn activated(&self, x: Tensor<2>, function: Activation) -> Tensor<2> {
        let finish = PackedFinish { bias: self.bias.clone(), activation: Some(function), residual: None };
        packed_affine(x, &self.weight, finish)
    }

    /// `residual + layer(x)`
    pub(super) fn onto(&self, residual: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let finish = PackedFinish { bias: self.bias.clone(), residual: Some(residual), activation: None };
        packed_affine(x, &self.weight, finish)
    }
}

/// Layer norm.
pub(super) struct Norm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}

impl Norm {
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.weight.clone(), self.bias.clone(), self.eps)
    }
}

/// Sequences one behind the other.
pub(super) struct Batch<'a> {
    pub(super) inputs: &'a [&'a EncoderInput],
    pub(super) lengths: Arc<[usize]>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(inputs: &'a [&'a EncoderInput]) -> Self {
        Self { inputs, lengths: inputs.iter().map(|input| input.ids.len()).collect() }
    }

    /// A row for each token, filled by `fill` with the token's sequence and place in it.
    pub(super) fn rows(&self, width: usize, fill: impl Fn(&EncoderInput, usize, &mut [f32])) -> Tensor<2> {
        let count: usize = self.lengths.iter().sum();
        let mut rows = vec![0f32; count * width];
        let places = self.inputs.iter().flat_map(|input| (0..input.ids.len()).map(move |at| (input, at)));
        for (row, (input, at)) in rows.chunks_exact_mut(width).zip(places) {
            fill(input, at, row);
        }
        Tensor::from_data(TensorData::new(rows, [count, width]), &Device::flex())
    }

    /// Attention within each sequence.
    pub(super) fn attend(
        &self,
        qkv: Tensor<2>,
        [heads, head_width]: [usize; 2],
        window: Option<usize>,
        table: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let shape = RaggedShape { lengths: self.lengths.clone(), heads, head_width, window };
        ragged_attention(qkv, table, &shape)
    }
}
