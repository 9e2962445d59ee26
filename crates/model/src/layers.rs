//! The parts of a decoder that hold weights, and the rotary embedding.

use crate::{Dropout, lora::Lora};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData, module::embedding},
};
use narthex_base::random::Stream;

/// A matrix product with the weight in Hugging Face's layout `[out, in]`, and an optional low-rank adapter.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// The adapter in training.
    pub lora: Option<Lora>,
}

impl Linear {
    /// Normal with the given standard deviation, drawn by counter from (seed, name).
    pub fn random(seed: u64, name: &str, [d_out, d_in]: [usize; 2], deviation: f32, device: &Device) -> Self {
        Self { weight: Param::from_tensor(normal(seed, name, [d_out, d_in], deviation, device)), lora: None }
    }

    /// `[N, in]` -> `[N, out]`
    pub fn forward(&self, x: Tensor<2>, dropout: &mut Dropout) -> Tensor<2> {
        let y = x.clone().matmul(self.weight.val().transpose());
        match &self.lora {
            Some(lora) => y + lora.forward(x, dropout),
            None => y,
        }
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
}

impl Embedding {
    /// `[B, T]` -> `[B * T, hidden]`
    pub fn forward(&self, tokens_bt: Tensor<2, Int>) -> Tensor<2> {
        let [b, t] = tokens_bt.dims();
        let weight = self.weight.val();
        let width = weight.dims()[1];
        embedding(weight, tokens_bt).reshape([b * t, width])
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

    /// `[N, hidden]` -> `[N, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let scale = (mean_square + self.eps).sqrt().recip();
        x * scale * self.weight.val().unsqueeze::<2>()
    }
}

/// Rotary position embedding (Su et al., 2021) in Hugging Face's half-split layout: cosines and sines of the
/// positions in hand, `[1 or B, 1, T, D / 2]`.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    /// For `rows` rows of positions, all of the same length.
    pub fn new(rows: &[&[usize]], head_width: usize, theta: f64, device: &Device) -> Self {
        let (half, len) = (head_width / 2, rows.first().map_or(0, |row| row.len()));
        // In single precision, as the reference computes them.
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_width as f32)).collect();
        let angles =
            rows.iter().flat_map(|row| row.iter()).flat_map(|p| frequencies.iter().map(move |f| *p as f32 * f));
        let angles: Vec<f32> = angles.collect();
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [rows.len(), 1, len, half]), device);
        Self {
            cos: tensor(angles.iter().map(|a| a.cos()).collect()),
            sin: tensor(angles.iter().map(|a| a.sin()).collect()),
        }
    }

    /// `[B, heads, T, D]` -> the same, rotated.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (left, right) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = left.clone() * cos.clone() - right.clone() * sin.clone();
        let second = right * cos + left * sin;
        Tensor::cat(vec![first, second], 3)
    }
}
