//! The operators on shapes of real models, each timed alone.

use crate::{
    AdamwStep, AttentionShape, Precision, adamw, causal_attention, embedding,
    linear::{forward_slices, input_gradient_slices, weight_gradient_slices},
    linear_cross_entropy,
    product::Start,
    rms_norm, swiglu,
};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use std::time::Instant;

/// One operator on one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The operator.
    pub operator: &'static str,
    /// The shape, as text.
    pub shape: String,
    /// The numbers that it multiplies.
    pub precision: Precision,
    /// The median over repetitions.
    pub seconds: f64,
    /// Floating-point operations of one call.
    pub flop: f64,
    /// Bytes that one call must at least read and write.
    pub bytes: f64,
}

/// What a norm, an activation or the optimizer is timed on.
const ROWS: usize = 2048;

/// Times every operator. `repetitions` calls of each after one to warm up.
pub fn operators(repetitions: usize) -> Vec<Timing> {
    let mut timings = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        for [n, inputs, outputs] in [[ROWS, 384, 1536], [ROWS, 768, 2048]] {
            linear(&mut timings, [n, inputs, outputs], precision, repetitions);
        }
        attention(&mut timings, precision, repetitions);
        output(&mut timings, precision, repetitions);
    }
    rows(&mut timings, repetitions);
    timings
}

fn median(repetitions: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..repetitions.max(1))
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn linear(timings: &mut Vec<Timing>, shape: [usize; 3], precision: Precision, repetitions: usize) {
    let [n, inputs, outputs] = shape;
    let values = |len: usize| (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<f32>>();
    let (x, weight, gradient) = (values(n * inputs), values(outputs * inputs), values(n * outputs));
    let (mut y, mut dx, mut dw) = (gradient.clone(), x.clone(), weight.clone());
    let flop = 2.0 * (n * inputs * outputs) as f64;
    let bytes = 4.0 * (n * inputs + inputs * outputs + n * outputs) as f64;
    let text = format!("[{n} x {inputs}] [{inputs} x {outputs}]");
    let mut add = |operator, seconds| {
        timings.push(Timing { operator, shape: text.clone(), precision, seconds, flop, bytes });
    };
    add("linear forward", median(repetitions, || forward_slices(&x, &weight, shape, &mut y, precision)));
    add("linear dX", median(repetitions, || input_gradient_slices(&gradient, &weight, shape, &mut dx, precision)));
    let run = || weight_gradient_slices(&gradient, &x, shape, &mut dw, Start::Zero, precision);
    add("linear dW", median(repetitions, run));
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

/// The seconds of a forward pass, and of the backward pass after it.
fn both<const D: usize>(repetitions: usize, input: Tensor<D>, forward: impl Fn(Tensor<D>) -> Tensor<D>) -> [f64; 2] {
    let plain = input.clone();
    let ahead = median(repetitions, || drop(forward(plain.clone())));
    let leaf = Tensor::from_inner(input).require_grad();
    let mut times = Vec::new();
    for _ in 0..repetitions.max(1) {
        let sum = forward(leaf.clone()).sum();
        let start = Instant::now();
        drop(sum.backward());
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    [ahead, times[times.len() / 2]]
}

fn attention(timings: &mut Vec<Timing>, precision: Precision, repetitions: usize) {
    for (batch, len, heads, kv_heads) in [(8, 256, 6, 6), (4, 512, 12, 4)] {
        let shape = AttentionShape { batch, len, heads, kv_heads, head_width: 64, starts: None, dropout: None };
        let (qkv, table) = (random([batch * len, shape.width()]), random([len, 64]));
        let plain = table.clone();
        let ahead = median(repetitions, || drop(causal_attention(qkv.clone(), plain.clone(), &shape, precision)));
        let (leaf, table) = (Tensor::from_inner(qkv.clone()).require_grad(), Tensor::from_inner(table));
        let mut times = Vec::new();
        for _ in 0..repetitions.max(1) {
            let sum = causal_attention(leaf.clone(), table.clone(), &shape, precision).sum();
            let start = Instant::now();
            drop(sum.backward());
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let text = format!("{batch} x {len}, {heads} heads on {kv_heads}");
        let pairs = (batch * len * len * heads * 64) as f64;
        let bytes = 4.0 * (batch * len * (shape.width() + heads * 64)) as f64;
        for (operator, seconds, flop, bytes) in [
            ("attention forward", ahead, 2.0 * pairs, bytes),
            ("attention backward", times[times.len() / 2], 5.0 * pairs, 2.0 * bytes),
        ] {
            timings.push(Timing { operator, shape: text.clone(), precision, seconds, flop, bytes });
        }
    }
}

fn output(timings: &mut Vec<Timing>, precision: Precision, repetitions: usize) {
    for (width, vocabulary) in [(384, 256), (768, 32_000)] {
        let repetitions = if vocabulary > 1000 { repetitions.min(3) } else { repetitions };
        let hidden = Tensor::from_inner(random([ROWS, width])).require_grad();
        let weight = Tensor::from_inner(random([vocabulary, width]) * 0.02).require_grad();
        let targets: Vec<i64> = (0..ROWS).map(|i| (i * 7919 % vocabulary) as i64).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [ROWS]), &Device::flex().autodiff());
        let seconds = median(repetitions, || {
            drop(linear_cross_entropy(hidden.clone(), weight.clone(), targets.clone(), 1.0, precision).backward());
        });
        timings.push(Timing {
            operator: "output and cross-entropy",
            shape: format!("[{ROWS} x {width}] [{width} x {vocabulary}]"),
            precision,
            seconds,
            flop: 6.0 * (ROWS * width * vocabulary) as f64,
            bytes: 4.0 * (2 * ROWS * width + 2 * width * vocabulary) as f64,
        });
    }
}

/// What is bound by memory.
fn rows(timings: &mut Vec<Timing>, repetitions: usize) {
    let precision = Precision::F32;
    let mut add = |operator, shape: String, seconds, values: usize, flop: f64| {
        let bytes = 4.0 * values as f64;
        timings.push(Timing { operator, shape, precision, seconds, flop, bytes });
    };
    for width in [384, 768] {
        let size = ROWS * width;
        let shape = format!("[{ROWS} x {width}]");
        let weight: Tensor<1> = random([width]);
        let tracked: Tensor<1> = Tensor::from_inner(weight.clone());
        let norm = |x: Tensor<2>| {
            let weight = if x.device().is_autodiff() { tracked.clone() } else { weight.clone() };
            rms_norm(x, weight, 1e-6)
        };
        let [ahead, back] = both(repetitions, random([ROWS, width]), norm);
        add("RMSNorm forward", shape.clone(), ahead, 2 * size, 4.0 * size as f64);
        add("RMSNorm backward", shape, back, 4 * size, 10.0 * size as f64);
    }
    for width in [1024, 2048] {
        let size = ROWS * width;
        let shape = format!("[{ROWS} x {width}]");
        let [ahead, back] = both(repetitions, random([ROWS, 2 * width]), swiglu);
        add("SwiGLU forward", shape.clone(), ahead, 3 * size, 25.0 * size as f64);
        add("SwiGLU backward", shape, back, 5 * size, 35.0 * size as f64);
    }
    let indices: Vec<i64> = (0..ROWS).map(|i| (i * 7919 % 32_000) as i64).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [ROWS]), &Device::flex());
    let weight = random([32_000, 768]);
    let seconds = median(repetitions, || drop(embedding(weight.clone(), indices.clone())));
    add("embedding forward", format!("{ROWS} of [32000 x 768]"), seconds, 2 * ROWS * 768, 0.0);
    const PARAMETERS: usize = 10 << 20;
    let gradient = random([PARAMETERS]);
    let mut state = Some((random([PARAMETERS]), [random([PARAMETERS]).abs(), random([PARAMETERS]).abs()]));
    let step =
        AdamwStep { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, gradient_scale: 1.0, step: 10 };
    let seconds = median(repetitions, || {
        let (weights, moments) = state.take().expect("put back below");
        state = Some(adamw(weights, gradient.clone(), moments, &step));
    });
    add("AdamW", format!("{PARAMETERS} parameters"), seconds, 7 * PARAMETERS, 15.0 * PARAMETERS as f64);
}
