//! What makes the parts of a network while it is built: drawn by counter, read as numbers, or packed as they are read.
//! The network says by name and shape what it needs, in one place for all. Knows no architecture.

use crate::{
    config::{ModelConfig, NormKind},
    device::cpu,
    layers::{Embedding, Linear, Norm, NormRule},
    quantize::QuantizedMatrix,
    weight::{PackedRows, Weight},
    weights::WeightSource,
};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::{Result, random::Stream};
use narthex_kernels::Precision;

/// Standard deviation of fresh weights (Hugging Face's `initializer_range`).
pub(crate) const DEVIATION: f32 = 0.02;

/// Of the projections back into the residual stream: smaller by sqrt(2 * layers) (Radford et al., "GPT-2", 2019).
pub(crate) fn residual_deviation(config: &ModelConfig) -> f32 {
    DEVIATION / (2.0 * config.layers as f32).sqrt()
}

/// A layer that a network needs.
#[derive(Clone, Debug)]
pub(crate) struct LinearShape {
    /// The module's name.
    pub(crate) name: String,
    /// `[out, in]`
    pub(crate) shape: [usize; 2],
    pub(crate) bias: bool,
    /// Of a fresh weight.
    pub(crate) deviation: f32,
    /// Whether it is multiplied at full precision, however the others are packed.
    pub(crate) exact: bool,
}

impl LinearShape {
    /// Without a bias, of the usual deviation.
    pub(crate) fn new(name: impl Into<String>, shape: [usize; 2]) -> Self {
        Self { name: name.into(), shape, bias: false, deviation: DEVIATION, exact: false }
    }

    /// With a bias, if so.
    pub(crate) fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// With another deviation when fresh.
    pub(crate) fn deviation(self, deviation: f32) -> Self {
        Self { deviation, ..self }
    }

    /// Multiplied at full precision.
    pub(crate) fn exact(self) -> Self {
        Self { exact: true, ..self }
    }
}

/// A norm that a network needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormShape {
    pub(crate) rule: NormRule,
    pub(crate) width: usize,
    pub(crate) bias: bool,
    pub(crate) eps: f64,
}

impl NormShape {
    /// That of a config, over this width.
    pub(crate) fn of(config: &ModelConfig, width: usize) -> Self {
        let (rule, bias) = match config.design.norm {
            NormKind::Rms | NormKind::RmsLessOne => (NormRule::RootMeanSquare, false),
            NormKind::Layer => (NormRule::MeanVariance, true),
            NormKind::LayerUnbiased => (NormRule::MeanVariance, false),
        };
        Self { rule, width, bias, eps: config.rms_norm_eps }
    }
}

/// Makes parts.
pub(crate) trait Maker {
    /// Layers with the same input, in the order in which they run side by side.
    fn side_by_side(&self, wanted: &[LinearShape]) -> Result<Vec<Linear>>;

    /// A table of vectors by number; `exact` if it is to keep its numbers, however the others are packed.
    fn table(&self, name: &str, shape: [usize; 2], exact: bool) -> Result<Embedding>;

    /// A norm.
    fn norm(&self, name: &str, wanted: NormShape) -> Result<Norm>;

    /// A layer by itself.
    fn linear(&self, wanted: LinearShape) -> Result<Linear> {
        Ok(self.side_by_side(&[wanted])?.remove(0))
    }
}

/// Layers side by side, one for each that is wanted.
pub(crate) fn side_by_side<const N: usize>(maker: &dyn Maker, wanted: [LinearShape; N]) -> Result<[Linear; N]> {
    Ok(maker.side_by_side(&wanted)?.try_into().expect("a maker makes what is wanted"))
}

/// Makes fresh parts: weights normal, drawn by counter from (seed, name); biases 0, norms that change nothing.
pub(crate) struct Fresh<'a> {
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
}

impl Fresh<'_> {
    fn normal(&self, name: &str, shape: [usize; 2], deviation: f32) -> Tensor<2> {
        let stream = Stream::new(self.seed, name);
        let len: usize = shape.iter().product();
        let values: Vec<f32> = (0..len as u64).map(|i| stream.normal(i) * deviation).collect();
        Tensor::from_data(TensorData::new(values, shape), self.device)
    }
}

impl Maker for Fresh<'_> {
    fn side_by_side(&self, wanted: &[LinearShape]) -> Result<Vec<Linear>> {
        let linear = |LinearShape { name, shape, bias, deviation, .. }: &LinearShape| {
            let weight = self.normal(&format!("{name}.weight"), *shape, *deviation);
            Linear::new(Weight::new(weight), bias.then(|| Tensor::zeros([shape[0]], self.device)))
        };
        Ok(wanted.iter().map(linear).collect())
    }

    fn table(&self, name: &str, shape: [usize; 2], _exact: bool) -> Result<Embedding> {
        Ok(Embedding::new(Weight::new(self.normal(&format!("{name}.weight"), shape, DEVIATION))))
    }

    fn norm(&self, _name: &str, NormShape { rule, width, bias, eps }: NormShape) -> Result<Norm> {
        let bias = bias.then(|| Tensor::zeros([width], self.device));
        Ok(Norm::new(rule, Tensor::ones([width], self.device), bias, eps))
    }
}

/// Reads parts as numbers.
pub(crate) struct Stored<'a> {
    pub(crate) weights: &'a dyn WeightSource,
    pub(crate) device: Device,
    /// Layers whose names begin so stay integers, if they are held as such.
    pub(crate) frozen: Option<&'static str>,
}

impl Stored<'_> {
    fn numbers<const D: usize>(&self, name: String, shape: [usize; D]) -> Result<Tensor<D>> {
        Ok(Tensor::from_data(TensorData::new(values(self.weights, &name, &shape)?, shape), &self.device))
    }

    fn weight(&self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        let named = format!("{name}.weight");
        let integers = match self.frozen.filter(|prefix| name.starts_with(prefix)) {
            Some(_) => self.weights.matrix(&named, shape)?,
            None => None,
        };
        Ok(match integers {
            Some(matrix) => Weight::Frozen(QuantizedMatrix::pack(vec![matrix], shape[1])?),
            None => Weight::new(self.numbers(named, shape)?),
        })
    }
}

impl Maker for Stored<'_> {
    fn side_by_side(&self, wanted: &[LinearShape]) -> Result<Vec<Linear>> {
        let linear = |LinearShape { name, shape, bias, .. }: &LinearShape| {
            let weight = self.weight(name, *shape)?;
            let bias = if *bias { Some(self.numbers(format!("{name}.bias"), [shape[0]])?) } else { None };
            Ok(Linear::new(weight, bias))
        };
        wanted.iter().map(linear).collect()
    }

    fn table(&self, name: &str, shape: [usize; 2], _exact: bool) -> Result<Embedding> {
        Ok(Embedding::new(Weight::new(self.numbers(format!("{name}.weight"), shape)?)))
    }

    fn norm(&self, name: &str, NormShape { rule, width, bias, eps }: NormShape) -> Result<Norm> {
        let weight = self.numbers(format!("{name}.weight"), [width])?;
        let bias = if bias { Some(self.numbers(format!("{name}.bias"), [width])?) } else { None };
        Ok(Norm::new(rule, weight, bias, eps))
    }
}

/// Packs parts for inference on the CPU as they are read: what runs side by side as one matrix, with its biases.
pub(crate) struct Packing<'a> {
    pub(crate) weights: &'a dyn WeightSource,
    pub(crate) precision: Precision,
}

impl Maker for Packing<'_> {
    fn side_by_side(&self, wanted: &[LinearShape]) -> Result<Vec<Linear>> {
        let named = |wanted: &LinearShape| (format!("{}.weight", wanted.name), wanted.shape);
        let names: Vec<_> = wanted.iter().map(named).collect();
        let exact = wanted.iter().any(|wanted| wanted.exact);
        let mut packed = self.weights.packed(&names, if exact { Precision::F32 } else { self.precision })?;
        if wanted.iter().any(|wanted| wanted.bias) {
            let mut biases = Vec::new();
            for LinearShape { name, shape: [outputs, _], bias, .. } in wanted {
                match bias {
                    true => biases.extend(values(self.weights, &format!("{name}.bias"), &[*outputs])?),
                    false => biases.resize(biases.len() + outputs, 0.0),
                }
            }
            packed = packed.with_bias(biases);
        }
        let heights: Vec<usize> = wanted.iter().map(|wanted| wanted.shape[0]).collect();
        Ok(Linear::packed(&packed, &heights))
    }

    fn table(&self, name: &str, shape: [usize; 2], exact: bool) -> Result<Embedding> {
        if exact {
            return self.stored().table(name, shape, exact);
        }
        let packed = self.weights.packed(&[(format!("{name}.weight"), shape)], self.precision)?;
        Ok(Embedding::new(Weight::Packed(PackedRows::share(&packed, &[shape[0]]).remove(0))))
    }

    fn norm(&self, name: &str, wanted: NormShape) -> Result<Norm> {
        self.stored().norm(name, wanted)
    }
}

impl Packing<'_> {
    /// What is not packed.
    fn stored(&self) -> Stored<'_> {
        Stored { weights: self.weights, device: cpu(), frozen: None }
    }
}

/// The values of a tensor, all of them.
fn values(weights: &dyn WeightSource, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let found = weights.values(name, shape)?;
    let mut values = vec![0f32; found.len()];
    found.read(0, &mut values);
    Ok(values)
}
