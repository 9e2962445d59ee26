//! A whole decoder's step at a time, with its weights in each form, on the shape of a small model that people use.

use super::{median, random};
use crate::{
    operators::{attention::Scores, gated::swiglu, rms_norm::rms_norm},
    packed::{PackedWeight, packed_linear, packed_rows},
    paged::{KV_BLOCK, KvLayer, KvShape, PagedBatch, paged_attention},
    product::{WeightValues, quantize::Quantization},
};
use burn::tensor::{Device, Tensor};
use narthex_base::config::Precision;
use narthex_base::random::Stream;
use std::{sync::Arc, time::Instant};

/// Widths and counts of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct DecoderShape {
    /// Values of a token's state.
    pub hidden: usize,
    /// Values between the feed-forward products.
    pub feed_forward: usize,
    /// Blocks of attention and feed-forward.
    pub layers: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_width: usize,
    /// Tokens, whose embedding is the output's weight too.
    pub vocabulary: usize,
}

/// The shape of Qwen3-0.6B.
pub const QWEN3_600M: DecoderShape = DecoderShape {
    hidden: 1024,
    feed_forward: 3072,
    layers: 28,
    heads: 16,
    kv_heads: 8,
    head_width: 128,
    vocabulary: 151_936,
};

/// What the weights are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// As in a report.
    pub name: &'static str,
    /// Of the layers: integers, or bf16.
    pub layers: Option<Quantization>,
    /// Of the embedding and the output.
    pub head: Option<Quantization>,
}

/// What there is to compare.
pub const STORAGES: [Storage; 4] = [
    Storage { name: "bf16", layers: None, head: None },
    Storage { name: "int8", layers: Some(Quantization::Int8), head: Some(Quantization::Int8) },
    Storage {
        name: "int4, output int8",
        layers: Some(Quantization::Int4 { group: 64 }),
        head: Some(Quantization::Int8),
    },
    Storage {
        name: "int4",
        layers: Some(Quantization::Int4 { group: 64 }),
        head: Some(Quantization::Int4 { group: 64 }),
    },
];

/// A decoder with random weights, packed.
pub struct BenchDecoder {
    shape: DecoderShape,
    layers: Vec<Layer>,
    head: PackedWeight,
    norm: Tensor<1>,
}

struct Layer {
    qkv: PackedWeight,
    out: PackedWeight,
    gate_up: PackedWeight,
    down: PackedWeight,
    kv: KvLayer,
}

/// Positions that each sequence has room for.
const ROOM: usize = 512;

impl BenchDecoder {
    /// With key-value caches for so many sequences.
    pub fn new(shape: DecoderShape, storage: Storage, sequences: usize) -> Self {
        let DecoderShape { hidden: c, feed_forward: f, heads, kv_heads, head_width: d, .. } = shape;
        let pack = |outputs: usize, inputs: usize, kind: Option<Quantization>| {
            let stream = Stream::new(1, "bench decoder");
            let values: Vec<f32> = (0..(outputs * inputs) as u64).map(|i| 0.07 * (stream.uniform(i) - 0.5)).collect();
            let parts = [WeightValues::F32(&values)];
            match kind {
                None => PackedWeight::new(&parts, inputs, Precision::Bf16),
                Some(kind) => PackedWeight::quantized(&parts, inputs, kind),
            }
        };
        let kv = KvShape {
            blocks: sequences * ROOM / KV_BLOCK,
            kv_heads,
            head_width: d,
            precision: Precision::Bf16,
            int8: false,
        };
        let layer = |_| Layer {
            qkv: pack((heads + 2 * kv_heads) * d, c, storage.layers),
            out: pack(c, heads * d, storage.layers),
            gate_up: pack(2 * f, c, storage.layers),
            down: pack(c, f, storage.layers),
            kv: KvLayer::new(kv, &Device::flex()),
        };
        let layers = (0..shape.layers).map(layer).collect();
        let head = pack(shape.vocabulary, c, storage.head);
        Self { shape, layers, head, norm: Tensor::ones([c], &Device::flex()) }
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            [&layer.qkv, &layer.out, &layer.gate_up, &layer.down].map(PackedWeight::bytes).into_iter().sum::<usize>()
        };
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes()
    }

    /// `new` tokens of each of `sequences`, from position `first` on: the scores of the last of each.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn step(&self, sequences: usize, first: usize, new: usize) -> Tensor<2> {
        let mut batch = PagedBatch::default();
        for sequence in 0..sequences {
            let blocks = sequence * ROOM / KV_BLOCK..(sequence + 1) * ROOM / KV_BLOCK;
            batch.push(first, new, &blocks.map(|block| block as u32).collect::<Vec<_>>());
        }
        let batch = Arc::new(batch);
        let table: Tensor<2> = random([batch.rows(), self.shape.head_width]);
        let tokens: Vec<u32> = (0..batch.rows()).map(|i| (i * 7919 % self.shape.vocabulary) as u32).collect();
        let norm = |x: &Tensor<2>| rms_norm(x.clone(), self.norm.clone(), 1e-6);
        let mut x = packed_rows(&self.head, &tokens);
        for layer in &self.layers {
            let qkv = packed_linear(norm(&x), &layer.qkv, None);
            let seen = paged_attention(qkv, table.clone(), &layer.kv, &batch, Scores::default());
            x = packed_linear(seen, &layer.out, Some(x));
            let gated = swiglu(packed_linear(norm(&x), &layer.gate_up, None));
            x = packed_linear(gated, &layer.down, Some(x));
        }
        let last: Vec<Tensor<2>> = (1..=sequences).map(|i| x.clone().narrow(0, i * new - 1, 1)).collect();
        packed_linear(norm(&Tensor::cat(last, 0)), &self.head, None)
    }

    /// Tokens a second of so many sequences together, each a token a step: the median over steps.
    pub fn decode_tokens_per_second(&self, sequences: usize, steps: usize) -> f64 {
        let mut seconds = vec![];
        for step in 0..steps + 2 {
            let start = Instant::now();
            drop(self.step(sequences, step, 1));
            // The first ones find nothing warm.
            if step >= 2 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        sequences as f64 / median(seconds)
    }

    /// Tokens a second of a prompt.
    pub fn prefill_tokens_per_second(&self, tokens: usize, repetitions: usize) -> f64 {
        let time = |_| {
            let start = Instant::now();
            drop(self.step(1, 0, tokens));
            start.elapsed().as_secs_f64()
        };
        tokens as f64 / median((0..repetitions).map(time).collect())
    }
}
