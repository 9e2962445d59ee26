//! The operators that decide the speed of training and inference on a CPU, as functions on Burn
//! tensors. Each stands in one file: the reference, composed of Burn's own operations, which also
//! runs on every other device and under its autodiff; the kernel for f32 on the CPU with its
//! handwritten backward pass; the test of one against the other.
//!
//! Five floors, each on those before it: `machine` (lanes, threads, memory), `product` (matrix products), `operators`,
//! `packed` (weights that are packed once) and `paged` (keys and values in blocks of a pool).
//!
//! Kernels give the same bytes whatever the number of threads and the instruction set: see
//! [`isa`]. They know tensors and slices; no models, no files.

pub mod bench;
mod flex;
mod machine;
mod operators;
mod packed;
mod paged;
mod product;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// Threads that stay close at hand, and work spread over those at hand.
pub mod team {
    pub use crate::machine::{parallel::map, team::Team};
}

pub use flex::HostValues;
pub use machine::{
    alloc, memory, probe, processor, profile,
    simd::{ForceIsaError, Isa, activation::Activation, force_isa, isa},
};
pub use narthex_base::config::Precision;
pub use operators::{
    activation::activation,
    adamw::{AdamwStep, SQUARES_BLOCK, adamw, square_sum, square_sums},
    attention::{AttentionDropout, AttentionShape, Scores, causal_attention},
    cross_entropy::{linear_cross_entropy, linear_nats},
    embedding::embedding,
    gated::{gated, swiglu},
    layer_norm::layer_norm,
    linear::linear,
    muon::{MuonStep, muon},
    ragged::{RaggedShape, ragged_attention},
    rms_norm::rms_norm,
    rotary::rotary,
    softmax::softmax,
};
pub use packed::{
    BlockValues, InputStatistics, Int4Values, Int8Values, PackedFinish, PackedWeight,
    frozen::frozen_linear,
    low_rank::{Adapted, LowRank, LowRankPart},
    packed_affine, packed_linear, packed_linear_adapted, packed_rows,
};
pub use paged::{KV_BLOCK, KvLayer, KvShape, PagedBatch, PagedSequence, paged_attention};
pub use product::{
    BlockKind, WeightValues,
    quantize::{self, Quantization},
};
