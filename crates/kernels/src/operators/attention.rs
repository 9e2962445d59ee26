//! Causal attention over packed rows (Dao et al., "FlashAttention", 2022): blocks of scores, never all of
//! them; grouped-query heads; rotary embedding on the way in; document borders; dropout.
//!
//! Shapes: B sequences, T positions, N = B T rows, H query heads, K key/value heads, G = H / K, D head width.
//! Arithmetic: 2 N T D H forward and 5 N T D H backward (half of all pairs), plus what lies above the
//! diagonal of diagonal blocks. Bytes: q, k, v and the output once each way; scores stay in cache.

mod blocks;
mod rows;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values},
    machine::{
        parallel::{self, Shared, SharedMut, uninitialised, with_scratch},
        profile::timed,
        simd::{Isa, isa},
    },
    operators::softmax::softmax,
};
use blocks::{Given, Job, Sizes, backward_bf16, backward_f32, forward_bf16, forward_f32};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};
use narthex_base::config::Precision;
use narthex_base::random::Stream;
use std::sync::Arc;

/// What attends to what.
#[derive(Clone, Debug)]
pub struct AttentionShape {
    /// Sequences of the batch.
    pub batch: usize,
    /// Positions of each.
    pub len: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Key/value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Head width, even.
    pub head_width: usize,
    /// For each row `[N]`, the first position of its sequence that it may look at: where its document begins. None for
    /// the start of the sequence.
    pub starts: Option<Arc<[u32]>>,
    /// Dropout of the attention weights.
    pub dropout: Option<AttentionDropout>,
    /// How scores become weights.
    pub scores: Scores,
    /// Whether bytes are to be the same on all instruction sets: then bf16 takes no matrix tiles, which add in an
    /// order of their own.
    pub portable: bool,
}

/// How the products of a query with keys become weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Positions that a row sees, itself included; all before it if none.
    pub window: Option<usize>,
    /// What the products are multiplied with; 1 / sqrt(D) if none.
    pub scale: Option<f32>,
    /// `cap tanh(score / cap)` instead of the score (Gemma team, "Gemma 2", 2024).
    pub softcap: Option<f32>,
}

impl Scores {
    /// What products over heads of this width are multiplied with.
    pub(crate) fn scale(&self, head_width: usize) -> f32 {
        self.scale.unwrap_or_else(|| (head_width as f64).sqrt().recip() as f32)
    }

    /// The first position that the row at `position` sees.
    pub(crate) fn start(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Dropout whose mask comes from a counter: (head, query row, key position) -> kept or not.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDropout {
    /// Where the random numbers come from; one stream for each use.
    pub stream: Stream,
    /// The probability of dropping a weight, below 1.
    pub probability: f32,
}

impl AttentionDropout {
    /// The factor of the weight of this number.
    pub(crate) fn factor(&self, counter: usize) -> f32 {
        if self.stream.uniform(counter as u64) < self.probability { 0.0 } else { 1.0 / (1.0 - self.probability) }
    }
}

impl AttentionShape {
    /// Values in a row of q, k and v side by side.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    fn scale(&self) -> f32 {
        self.scores.scale(self.head_width)
    }

    /// What dropout makes of the weight of key `key` for query row `row` of `head`.
    fn dropped(&self, dropout: &AttentionDropout, head: usize, row: usize, key: usize) -> f32 {
        dropout.factor((row * self.heads + head) * self.len + key)
    }

    fn start(&self, sequence: usize, position: usize) -> usize {
        let document = self.starts.as_ref().map_or(0, |starts| starts[sequence * self.len + position] as usize);
        document.max(self.scores.start(position))
    }
}

/// `qkv [N, (H + 2 K) D]` (all queries, then keys, then values, not yet rotated), table `[T, D]` (for each position D/2
/// cosines, then D/2 sines) -> `[N, H D]`. In bf16 the inputs of all products are rounded to bf16; sums and the softmax
/// are f32.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn causal_attention(qkv: Tensor<2>, table: Tensor<2>, shape: &AttentionShape, precision: Precision) -> Tensor<2> {
    let AttentionShape { batch, len, heads, kv_heads, head_width, starts, .. } = shape;
    assert_eq!(qkv.dims(), [batch * len, shape.width()], "q, k and v side by side");
    assert_eq!(table.dims(), [*len, *head_width], "a row of the table for each position");
    assert!(heads % kv_heads == 0 && head_width % 2 == 0, "whole groups of heads of even width");
    assert!(starts.as_ref().is_none_or(|starts| starts.len() == batch * len), "a start for each row");
    assert!(shape.scores.window != Some(0), "a row sees itself");
    // Models with a cap are few: training them takes the composed form.
    if !is_ours(&qkv) || shape.scores.softcap.is_some() {
        return reference(qkv, table, shape, precision);
    }
    let (qkv, table) = (qkv.into_dispatch(), table.into_dispatch());
    Tensor::from_dispatch(Dispatch::causal_attention(qkv, table, shape.clone(), precision))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(qkv: Tensor<2>, table: Tensor<2>, shape: &AttentionShape, precision: Precision) -> Tensor<2> {
    let AttentionShape { batch: b, len: t, heads: h, kv_heads: k, head_width: d, .. } = *shape;
    let device = qkv.device();
    let dtype = qkv.dtype();
    let round = |x: Tensor<4>| match precision {
        Precision::F32 => x,
        Precision::Bf16 => x.cast(burn::tensor::DType::BF16).cast(dtype),
    };
    let split = |first: usize, heads: usize| qkv.clone().narrow(1, first * d, heads * d);
    let table = table.repeat_dim(0, b);
    let per_head = |x: Tensor<2>, heads: usize| x.reshape([b, t, heads, d]).swap_dims(1, 2);
    let q = per_head(crate::operators::rotary::reference(split(0, h), table.clone()) * shape.scale(), h);
    let keys = per_head(crate::operators::rotary::reference(split(h, k), table), k);
    let v = per_head(split(h + k, k), k);
    let mut mask = vec![0f32; b * t * t];
    let mut kept = vec![1f32; if shape.dropout.is_some() { b * h * t * t } else { 0 }];
    for sequence in 0..b {
        for query in 0..t {
            for key in 0..t {
                if key > query || key < shape.start(sequence, query) {
                    mask[(sequence * t + query) * t + key] = -1e30;
                }
                if let Some(dropout) = &shape.dropout {
                    for head in 0..h {
                        kept[((sequence * h + head) * t + query) * t + key] =
                            shape.dropped(dropout, head, sequence * t + query, key);
                    }
                }
            }
        }
    }
    let constant = |values: Vec<f32>, shape: [usize; 4]| {
        Tensor::<4>::from_data(TensorData::new(values, shape), &device.clone().inner()).cast(dtype)
    };
    let constant = |values, shape| {
        let constant = constant(values, shape);
        if device.is_autodiff() { Tensor::from_inner(constant) } else { constant }
    };
    let mask = constant(mask, [b, 1, t, t]);
    // The queries of one key/value head are rows of one matrix.
    let g = h / k;
    let scores = round(q).reshape([b, k, g * t, d]).matmul(round(keys).swap_dims(2, 3));
    let scores = scores.reshape([b, h, t, t]);
    let scores = match shape.scores.softcap {
        Some(cap) => (scores / cap).tanh() * cap,
        None => scores,
    };
    // Burn's own is another one under autodiff, with other bits.
    let mut weights = softmax((scores + mask).reshape([b * h * t, t])).reshape([b, h, t, t]);
    if shape.dropout.is_some() {
        weights = weights * constant(kept, [b, h, t, t]);
    }
    let y = round(weights).reshape([b, k, g * t, t]).matmul(round(v)).reshape([b, h, t, d]);
    y.swap_dims(1, 2).reshape([b * t, h * d])
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait AttentionBackend: Backend {
    fn causal_attention(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        shape: AttentionShape,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

impl AttentionBackend for Flex {
    fn causal_attention(qkv: FlexTensor, table: FlexTensor, shape: AttentionShape, precision: Precision) -> FlexTensor {
        forward(&contiguous(qkv), &contiguous(table), &shape, precision).0
    }
}

#[derive(Clone, Debug)]
struct Saved {
    qkv: FlexTensor,
    table: FlexTensor,
    output: FlexTensor,
    /// `[B, H, T]`: the logarithm of the sum of the exponentials of a row's scores.
    log_sums: Vec<f32>,
    shape: AttentionShape,
    precision: Precision,
}

impl<C: CheckpointStrategy> AttentionBackend for Autodiff<Flex, C> {
    fn causal_attention(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        shape: AttentionShape,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [qkv.node()];
        let (qkv, table) = (contiguous(qkv.into_primitive()), contiguous(table.into_primitive()));
        let run = move |_| {
            let (output, log_sums) = forward(&qkv, &table, &shape, precision);
            (output.clone(), Some(Saved { qkv, table, output, log_sums, shape, precision }))
        };
        record::<C, _, 1>(nodes, run, |saved, gradient, _| [Some(backward(&saved, &contiguous(gradient)))])
    }
}

/// (output, log-sums)
fn forward(
    qkv: &FlexTensor,
    table: &FlexTensor,
    shape: &AttentionShape,
    precision: Precision,
) -> (FlexTensor, Vec<f32>) {
    let AttentionShape { batch, len, heads, kv_heads, .. } = *shape;
    let sizes = Sizes::new(shape, precision);
    let mut log_sums = uninitialised(batch * heads * len);
    let flop = 2.0 * (batch * len * len * sizes.d * heads) as f64;
    let output = timed("attention forward", flop, || {
        filled([batch * len, sizes.out_row], |output| {
            let (qkv, table) = (Shared::new(values(qkv)), Shared::new(values(table)));
            let (output, log_sums) = (SharedMut::new(output), SharedMut::new(&mut log_sums));
            parallel::for_each(batch * kv_heads, |task| {
                let (sequence, kv_head) = (task / kv_heads, task % kv_heads);
                let job = Job { shape, sizes, sequence, kv_head, qkv, table };
                with_scratch(sizes.forward_scratch(), |scratch| {
                    let scratch = scratch.as_mut_ptr();
                    // SAFETY: the arrays have the shapes that `sizes` says; each task writes the heads of its group.
                    unsafe {
                        match precision {
                            Precision::F32 => forward_f32(&job, output, log_sums, scratch),
                            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                            Precision::Bf16 if isa() == Isa::Amx && !shape.portable => {
                                tiles::forward(&job, output, log_sums, scratch)
                            }
                            Precision::Bf16 => forward_bf16(&job, output, log_sums, scratch),
                        }
                    }
                });
            });
        })
    });
    (output, log_sums)
}

fn backward(saved: &Saved, gradient: &FlexTensor) -> FlexTensor {
    let Saved { qkv, table, output, log_sums, shape, precision } = saved;
    let AttentionShape { batch, len, heads, kv_heads, .. } = *shape;
    let sizes = Sizes::new(shape, *precision);
    let [n, width] = dims(qkv);
    timed("attention backward", 5.0 * (batch * len * len * sizes.d * heads) as f64, || {
        filled([n, width], |dqkv| {
            let (qkv, table) = (Shared::new(values(qkv)), Shared::new(values(table)));
            let (output, log_sums) = (Shared::new(values(output)), Shared::new(log_sums));
            let gradient = Shared::new(values(gradient));
            let dqkv = SharedMut::new(dqkv);
            parallel::for_each(batch * kv_heads, |task| {
                let (sequence, kv_head) = (task / kv_heads, task % kv_heads);
                let job = Job { shape, sizes, sequence, kv_head, qkv, table };
                with_scratch(sizes.backward_scratch(), |scratch| {
                    let scratch = scratch.as_mut_ptr();
                    let given = Given { output, log_sums, gradient };
                    // SAFETY: as above.
                    unsafe {
                        match precision {
                            Precision::F32 => backward_f32(&job, given, dqkv, scratch),
                            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                            Precision::Bf16 if isa() == Isa::Amx && !shape.portable => {
                                tiles::backward(&job, given, dqkv, scratch)
                            }
                            Precision::Bf16 => backward_bf16(&job, given, dqkv, scratch),
                        }
                    }
                });
            });
        })
    })
}
