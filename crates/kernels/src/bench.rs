//! The operators on shapes of real models, each timed alone beside the machine's peak at that moment.

use crate::{
    machine::{parallel, probe::flop_per_second_now, simd::activation::Activation, team::Team},
    operators::{
        activation::activation,
        adamw::{AdamwStep, adamw},
        attention::{AttentionShape, Scores, causal_attention},
        cross_entropy::linear_cross_entropy,
        embedding::embedding,
        gated::swiglu,
        layer_norm::layer_norm,
        linear::{forward_slices, input_gradient_slices, weight_gradient_slices},
        rms_norm::rms_norm,
        softmax::softmax,
    },
    packed::{PackedWeight, packed_linear},
    paged::{KV_BLOCK, KvLayer, KvShape, PagedBatch, paged_attention},
    product::{Finish, Start, WeightValues},
};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use narthex_base::config::Precision;
use std::{sync::Arc, time::Instant};

mod decode;

pub use decode::{BenchDecoder, DecoderShape, QWEN3_600M, STORAGES, Storage};

/// One operator on one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The operator's name.
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
    /// Multiply-adds in registers in this precision, measured between the repetitions: the median.
    pub peak_flop_per_second: f64,
}

/// Rows that every operator is timed on: the tokens of a training step.
const ROWS: usize = 2048;

/// Times the operators whose name, shape and precision, in this order, contain the words of `only`, whatever their
/// case. `repetitions` calls of each after one to warm up.
pub fn operators(repetitions: usize, only: &str) -> Vec<Timing> {
    let only = only.to_lowercase().split_whitespace().map(String::from).collect();
    let mut bench = Bench { repetitions: repetitions.max(1), only, timings: vec![] };
    for precision in [Precision::F32, Precision::Bf16] {
        for [inputs, outputs] in [[384, 1536], [768, 2048]] {
            bench.linear([ROWS, inputs, outputs], precision);
        }
        for (batch, len, heads, kv_heads) in [(8, 256, 6, 6), (4, 512, 12, 4)] {
            let shape = AttentionShape {
                batch,
                len,
                heads,
                kv_heads,
                head_width: 64,
                starts: None,
                dropout: None,
                scores: Scores::default(),
                portable: false,
            };
            bench.attention(shape, precision);
        }
        for (width, vocabulary) in [(384, 256), (768, 32_000)] {
            bench.output(width, vocabulary, precision);
        }
    }
    bench.row_by_row();
    // Inference runs on a team; without one to be had, it is timed on rayon's threads.
    match Team::new(parallel::threads(), false) {
        Ok(team) => team.enter(|| bench.inference()),
        Err(_) => bench.inference(),
    }
    bench.timings
}

struct Bench {
    repetitions: usize,
    /// Words that the operators have which are wanted.
    only: Vec<String>,
    timings: Vec<Timing>,
}

/// What a call is counted as: operations, and values read or written.
#[derive(Clone, Copy)]
struct Work {
    flop: f64,
    values: usize,
}

impl Bench {
    fn wants(&self, operator: &str, shape: &str, precision: Precision) -> bool {
        let line = format!("{operator} {shape} {precision:?}").to_lowercase();
        self.only.iter().all(|word| line.contains(word))
    }

    /// Times `work` on what `prepare` makes anew for each repetition.
    fn time<T>(
        &mut self,
        operator: &'static str,
        shape: &str,
        precision: Precision,
        Work { flop, values }: Work,
        mut prepare: impl FnMut() -> T,
        mut work: impl FnMut(T),
    ) {
        if !self.wants(operator, shape, precision) {
            return;
        }
        let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
        work(prepare());
        for _ in 0..self.repetitions {
            let input = prepare();
            let start = Instant::now();
            work(input);
            seconds.push(start.elapsed().as_secs_f64());
            peaks.push(flop_per_second_now(precision));
        }
        self.timings.push(Timing {
            operator,
            shape: shape.into(),
            precision,
            seconds: median(seconds),
            flop,
            bytes: 4.0 * values as f64,
            peak_flop_per_second: median(peaks),
        });
    }

    fn linear(&mut self, shape: [usize; 3], precision: Precision) {
        let [n, inputs, outputs] = shape;
        let values = |len: usize| (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<f32>>();
        let (x, weight, gradient) = (values(n * inputs), values(outputs * inputs), values(n * outputs));
        let (mut y, mut dx, mut dw) = (gradient.clone(), x.clone(), weight.clone());
        let text = format!("[{n} x {inputs}] [{inputs} x {outputs}]");
        let work =
            Work { flop: 2.0 * (n * inputs * outputs) as f64, values: n * inputs + inputs * outputs + n * outputs };
        let nothing = || ();
        self.time("linear forward", &text, precision, work, nothing, |()| {
            forward_slices(&x, &[&weight], shape, &mut y, Finish::default(), precision)
        });
        self.time("linear dX", &text, precision, work, nothing, |()| {
            input_gradient_slices(&gradient, &[&weight], shape, &mut dx, precision)
        });
        self.time("linear dW", &text, precision, work, nothing, |()| {
            weight_gradient_slices(&gradient, &x, shape, &mut dw, Start::Zero, precision)
        });
    }

    fn attention(&mut self, shape: AttentionShape, precision: Precision) {
        let AttentionShape { batch, len, heads, kv_heads, head_width, .. } = shape;
        let text = format!("{batch} x {len}, {heads} heads on {kv_heads}");
        let pairs = (batch * len * len * heads * head_width) as f64;
        let values = batch * len * (shape.width() + heads * head_width);
        let (qkv, table) = (random([batch * len, shape.width()]), random([len, head_width]));
        let forward = |x: Tensor<2>| {
            let table = if x.device().is_autodiff() { Tensor::from_inner(table.clone()) } else { table.clone() };
            causal_attention(x, table, &shape, precision)
        };
        let works = [Work { flop: 2.0 * pairs, values }, Work { flop: 5.0 * pairs, values: 2 * values }];
        self.both(["attention forward", "attention backward"], &text, precision, works, qkv, forward);
    }

    fn output(&mut self, width: usize, vocabulary: usize, precision: Precision) {
        const NAME: &str = "output and cross-entropy";
        let text = format!("[{ROWS} x {width}] [{width} x {vocabulary}]");
        if !self.wants(NAME, &text, precision) {
            return;
        }
        let hidden = Tensor::from_inner(random([ROWS, width])).require_grad();
        let weight = Tensor::from_inner(random([vocabulary, width]) * 0.02).require_grad();
        let targets: Vec<i64> = (0..ROWS).map(|i| (i * 7919 % vocabulary) as i64).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [ROWS]), &Device::flex().autodiff());
        let work =
            Work { flop: 6.0 * (ROWS * width * vocabulary) as f64, values: 2 * ROWS * width + 2 * width * vocabulary };
        self.time(
            NAME,
            &text,
            precision,
            work,
            || (),
            |()| {
                drop(linear_cross_entropy(hidden.clone(), weight.clone(), targets.clone(), 1.0, precision).backward());
            },
        );
    }

    /// What a served model runs, in steps of one token, of some sequences, and of prompts.
    fn inference(&mut self) {
        for precision in [Precision::F32, Precision::Bf16] {
            let [inputs, outputs] = [768, 2048];
            let values: Vec<f32> = (0..outputs * inputs).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            // As many as the layers of a model, so that none is in cache when its turn comes.
            let pack = |_| PackedWeight::new(&[WeightValues::F32(&values)], inputs, precision);
            let weights: Vec<PackedWeight> = (0..24).map(pack).collect();
            for rows in [1, 8, 32, 256] {
                let x = random([rows, inputs]);
                let count = weights.len();
                let text = format!("{count} x [{rows} x {inputs}] [{inputs} x {outputs}]");
                let bytes: usize = weights.iter().map(PackedWeight::bytes).sum();
                let work = Work {
                    flop: 2.0 * (count * rows * inputs * outputs) as f64,
                    values: bytes / 4 + count * rows * (inputs + outputs),
                };
                self.time(
                    "packed linear",
                    &text,
                    precision,
                    work,
                    || (),
                    |()| {
                        weights.iter().for_each(|weight| drop(packed_linear(x.clone(), weight, None)));
                    },
                );
            }
            self.paged([32, 512, 1], precision, false);
            self.paged([1, 512, 256], precision, false);
            self.paged([1, 16384, 1], precision, false);
        }
        self.paged([32, 512, 1], Precision::Bf16, true);
        self.paged([1, 512, 256], Precision::Bf16, true);
        self.paged([1, 16384, 1], Precision::Bf16, true);
    }

    /// Sequences of so many positions of which the last ones are new.
    fn paged(&mut self, [sequences, len, new]: [usize; 3], precision: Precision, int8: bool) {
        let (heads, kv_heads, d) = (12, 4, 64);
        let blocks = sequences * len / KV_BLOCK;
        let shape = KvShape { blocks, kv_heads, head_width: d, precision, int8 };
        let layer = KvLayer::new(shape, &Device::flex());
        let batch = |first: usize, new: usize| {
            let mut batch = PagedBatch::default();
            for sequence in 0..sequences {
                let blocks: Vec<u32> = (0..len / KV_BLOCK).map(|i| (i * sequences + sequence) as u32).collect();
                batch.push(first, new, &blocks);
            }
            Arc::new(batch)
        };
        let input =
            |batch: &PagedBatch| (random([batch.rows(), (heads + 2 * kv_heads) * d]), random([batch.rows(), d]));
        let all = batch(0, len);
        let (qkv, table) = input(&all);
        drop(paged_attention(qkv, table, &layer, &all, Scores::default()));
        let batch = batch(len - new, new);
        let (qkv, table) = input(&batch);
        let seen: usize = (len - new + 1..=len).sum();
        let work = Work {
            flop: 4.0 * (sequences * seen * heads * d) as f64,
            values: blocks * shape.block_bytes() / size_of::<f32>(),
        };
        let stored = if int8 { ", int8" } else { "" };
        let text = format!("{sequences} x {new} of {len}, {heads} heads on {kv_heads}{stored}");
        self.time(
            "paged attention",
            &text,
            precision,
            work,
            || (),
            |()| {
                drop(paged_attention(qkv.clone(), table.clone(), &layer, &batch, Scores::default()));
            },
        );
    }

    /// The forward and the backward pass of an operator.
    fn both(
        &mut self,
        [ahead, back]: [&'static str; 2],
        shape: &str,
        precision: Precision,
        works: [Work; 2],
        input: Tensor<2>,
        forward: impl Fn(Tensor<2>) -> Tensor<2>,
    ) {
        self.time(ahead, shape, precision, works[0], || input.clone(), |x| drop(forward(x)));
        let leaf = Tensor::from_inner(input.clone()).require_grad();
        self.time(back, shape, precision, works[1], || forward(leaf.clone()).sum(), |sum| drop(sum.backward()));
    }

    /// What is bound by memory.
    fn row_by_row(&mut self) {
        let precision = Precision::F32;
        for width in [384, 768] {
            let size = ROWS * width;
            let shape = format!("[{ROWS} x {width}]");
            let input = random([ROWS, width]);
            let (weight, bias): (Tensor<1>, Tensor<1>) = (random([width]), random([width]));
            let vector = |vector: &Tensor<1>, x: &Tensor<2>| match x.device().is_autodiff() {
                true => Tensor::from_inner(vector.clone()).require_grad(),
                false => vector.clone(),
            };
            let works = |ahead, back| {
                let work = |flop, values| Work { flop: flop * size as f64, values: values * size };
                [work(ahead, 2), work(back, 4)]
            };
            let norm = |x: Tensor<2>| rms_norm(x.clone(), vector(&weight, &x), 1e-6);
            let names = ["RMSNorm forward", "RMSNorm backward"];
            self.both(names, &shape, precision, works(4.0, 10.0), input.clone(), norm);
            let norm = |x: Tensor<2>| layer_norm(x.clone(), vector(&weight, &x), vector(&bias, &x), 1e-5);
            let names = ["LayerNorm forward", "LayerNorm backward"];
            self.both(names, &shape, precision, works(8.0, 14.0), input.clone(), norm);
            self.both(["softmax forward", "softmax backward"], &shape, precision, works(25.0, 4.0), input, softmax);
        }
        for width in [1024, 2048] {
            let size = ROWS * width;
            let shape = format!("[{ROWS} x {width}]");
            let work = |flop, values| Work { flop: flop * size as f64, values: values * size };
            let input = random([ROWS, 2 * width]);
            let names = ["SwiGLU forward", "SwiGLU backward"];
            self.both(names, &shape, precision, [work(25.0, 3), work(35.0, 5)], input, swiglu);
            let input = random([ROWS, width]);
            let works = [work(30.0, 2), work(40.0, 3)];
            for (names, kind) in [
                (["GELU forward", "GELU backward"], Activation::Gelu),
                (["GELU (tanh) forward", "GELU (tanh) backward"], Activation::GeluTanh),
                (["SiLU forward", "SiLU backward"], Activation::Silu),
            ] {
                self.both(names, &shape, precision, works, input.clone(), |x| activation(x, kind));
            }
        }
        let indices: Vec<i64> = (0..ROWS).map(|i| (i * 7919 % 32_000) as i64).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [ROWS]), &Device::flex());
        let work = Work { flop: 0.0, values: 2 * ROWS * 768 };
        let input = random([32_000, 768]);
        let shape = format!("{ROWS} of [32000 x 768]");
        self.time(
            "embedding forward",
            &shape,
            precision,
            work,
            || input.clone(),
            |x| drop(embedding(x, indices.clone())),
        );
        const PARAMETERS: usize = 10 << 20;
        let work = Work { flop: 15.0 * PARAMETERS as f64, values: 7 * PARAMETERS };
        let gradient = random([PARAMETERS]);
        let mut state = Some((random([PARAMETERS]), [random([PARAMETERS]).abs(), random([PARAMETERS]).abs()]));
        let step = AdamwStep {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            gradient_scale: 1.0,
            step: 10,
        };
        self.time(
            "AdamW",
            &format!("{PARAMETERS} parameters"),
            precision,
            work,
            || (),
            |()| {
                let (weights, moments) = state.take().expect("put back below");
                state = Some(adamw(weights, gradient.clone(), moments, &step));
            },
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}
