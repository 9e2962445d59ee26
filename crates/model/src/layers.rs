//! The parts of a decoder that hold weights.

use crate::{Dropout, lora::Lora, weights::WeightSource};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_base::random::Stream;
use narthex_kernels::{
    Adapted, PackedWeight, Precision, embedding, frozen_linear, layer_norm, linear, packed_linear_adapted, packed_rows,
    rms_norm,
};

/// A matrix product with the weight in Hugging Face's layout `[out, in]`, a bias if it has one, and a low-rank adapter in
/// training.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter in training.
    pub lora: Option<Lora>,
    /// In a model packed for inference, instead of `weight`: this layer's weights, and below them those of the layers
    /// that run side by side with it.
    #[module(skip)]
    packed: Option<PackedWeight>,
    /// In a model whose adapters are tuned over integers, instead of `weight`: the weights of this layer alone.
    #[module(skip)]
    frozen: Option<PackedWeight>,
}

impl Linear {
    /// With this weight.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight: Param::from_tensor(weight), bias: None, lora: None, packed: None, frozen: None }
    }

    /// With packed weights that training leaves as they are.
    pub(crate) fn frozen(weight: PackedWeight, device: &Device) -> Self {
        Self { frozen: Some(weight), ..Self::new(Tensor::zeros([0, 0], device)) }
    }

    /// `[out, in]`
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.frozen.as_ref().map_or_else(|| self.weight.dims(), PackedWeight::shape)
    }

    /// The weight as numbers, `[out, in]`.
    pub(crate) fn numbers(&self) -> Tensor<2> {
        match &self.frozen {
            Some(frozen) => {
                Tensor::from_data(TensorData::new(frozen.dequantized(), frozen.shape()), &self.weight.device())
            }
            None => self.weight.val(),
        }
    }

    /// Whether training leaves the weights as they are, packed.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Puts numbers in the place of the weight.
    pub(crate) fn thaw(&mut self, weight: Tensor<2>) {
        self.weight = Param::from_tensor(weight);
        self.frozen = None;
    }

    /// Whether an adapter's learned sizes make its product one of its own, or frozen weights do.
    fn runs_alone(&self) -> bool {
        self.frozen.is_some() || self.lora.as_ref().is_some_and(|lora| lora.magnitude.is_some())
    }

    /// The same with a bias of zeros, if it shall have one.
    pub(crate) fn with_bias(self, has: bool, width: usize, device: &Device) -> Self {
        Self { bias: has.then(|| Param::from_tensor(Tensor::zeros([width], device))), ..self }
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
        let weight = |(name, shape): &(String, [usize; 2])| (format!("{name}.weight"), *shape);
        let mut packed = weights.packed(&names.iter().map(weight).collect::<Vec<_>>(), precision)?;
        if layers.iter().any(|layer| layer.bias.is_some()) {
            let mut biases = Vec::new();
            for (layer, (name, [outputs, _])) in layers.iter().zip(names) {
                let mut bias = vec![0f32; *outputs];
                if layer.bias.is_some() {
                    weights.values(&format!("{name}.bias"), &[*outputs])?.read(0, &mut bias);
                }
                biases.extend(bias);
            }
            packed = packed.with_bias(biases);
        }
        layers[0].packed = Some(packed);
        Ok(())
    }

    /// Normal with the given standard deviation, drawn by counter from (seed, name).
    pub fn random(seed: u64, name: &str, [d_out, d_in]: [usize; 2], deviation: f32, device: &Device) -> Self {
        Self::new(normal(seed, name, [d_out, d_in], deviation, device))
    }

    /// `[N, in]` -> `[N, out]`
    pub fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        Self::side_by_side(&[self], x, dropout, precision, &[])
    }

    /// How it is packed for inference, with those beside it, if it is.
    pub(crate) fn packed(&self) -> Option<&PackedWeight> {
        self.packed.as_ref()
    }

    /// Several layers with the same input as one product, packed ones with the updates of rows' adapters: `[N, in]` ->
    /// `[N, out of all]`.
    pub(crate) fn side_by_side(
        layers: &[&Self],
        x: Tensor<2>,
        dropout: &mut Dropout,
        precision: Precision,
        updates: &[Adapted],
    ) -> Tensor<2> {
        if let Some(packed) = &layers[0].packed {
            return packed_linear_adapted(x, packed, None, updates);
        }
        if layers.iter().any(|layer| layer.runs_alone()) {
            let parts = layers.iter().map(|layer| layer.alone(x.clone(), dropout, precision));
            return Tensor::cat(parts.collect(), 1);
        }
        let weights: Vec<Tensor<2>> = layers.iter().map(|layer| layer.weight.val()).collect();
        let adapted = Self::adapted(layers, &x, dropout, precision);
        linear(x, &weights, Self::biases(layers), adapted, precision)
    }

    /// By itself, whatever it has: `[N, in]` -> `[N, out]`.
    fn alone(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        let added = self.lora.as_ref().map(|lora| lora.forward(x.clone(), dropout, precision));
        let mut y = match (&self.frozen, added) {
            (Some(frozen), None) => frozen_linear(x, frozen, precision),
            (Some(frozen), Some(added)) => frozen_linear(x, frozen, precision) + added,
            (None, added) => linear(x, &[self.weight.val()], None, added, precision),
        };
        if let Some(gain) = self.lora.as_ref().and_then(|lora| lora.gain(self)) {
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
                None => Tensor::zeros([layer.shape()[0]], &layer.weight.device()),
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
        if let Some(packed) = &self.packed {
            return packed_linear_adapted(x, packed, Some(residual), updates);
        }
        if self.lora.is_some() || self.frozen.is_some() || dropout.drops() {
            let y = self.forward(x, dropout, precision);
            return residual + dropout.apply(y);
        }
        linear(x, &[self.weight.val()], self.bias.as_ref().map(Param::val), Some(residual), precision)
    }

    /// What the adapters add to the layers' outputs, side by side; none if there are no adapters.
    fn adapted(layers: &[&Self], x: &Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Option<Tensor<2>> {
        layers.iter().any(|layer| layer.lora.is_some()).then(|| {
            let parts = layers.iter().map(|layer| match &layer.lora {
                Some(lora) => lora.forward(x.clone(), dropout, precision),
                None => Tensor::zeros([x.dims()[0], layer.shape()[0]], &x.device()),
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

/// The norm of vectors: by the root mean square (Zhang and Sennrich, 2019), or with a bias by mean and variance (Ba et al.,
/// "Layer normalization", 2016).
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// `[width]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the mean square, or to the variance.
    pub eps: f64,
}

impl Norm {
    /// Ones, and zeros for a bias.
    pub fn new(width: usize, eps: f64, with_bias: bool, device: &Device) -> Self {
        let bias = with_bias.then(|| Param::from_tensor(Tensor::zeros([width], device)));
        Self { weight: Param::from_tensor(Tensor::ones([width], device)), bias, eps }
    }

    /// Takes the weights from `weights`.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub(crate) fn load(&mut self, name: &str, weights: &dyn WeightSource) -> Result<()> {
        let device = self.weight.device();
        let shape = self.weight.dims();
        let read = |part: &str| -> Result<Param<Tensor<1>>> {
            let mut values = vec![0f32; shape[0]];
            weights.values(&format!("{name}.{part}"), &shape)?.read(0, &mut values);
            Ok(Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device)))
        };
        self.weight = read("weight")?;
        if self.bias.is_some() {
            self.bias = Some(read("bias")?);
        }
        Ok(())
    }

    /// `[N, width]` -> `[N, width]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => layer_norm(x, self.weight.val(), bias.val(), self.eps),
            None => rms_norm(x, self.weight.val(), self.eps),
        }
    }

    /// The same for each of the heads side by side, `[N, heads * width]`.
    pub fn each_head(&self, x: Tensor<2>) -> Tensor<2> {
        let ([n, all], [width]) = (x.dims(), self.weight.dims());
        self.forward(x.reshape([n * all / width, width])).reshape([n, all])
    }
}
