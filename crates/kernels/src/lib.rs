//! The operators that decide the speed of training and inference on a CPU, as functions on Burn
//! tensors. Each stands in one file: the reference, composed of Burn's own operations, which also
//! runs on every other device and under its autodiff; the kernel for f32 on the CPU with its
//! handwritten backward pass; the test of one against the other.
//!
//! Kernels give the same bytes whatever the number of threads and the instruction set: see
//! [`isa`]. They know tensors and slices; no models, no files.

mod activation;
mod adamw;
pub mod alloc;
mod attention;
pub mod bench;
mod cross_entropy;
mod embedding;
mod flex;
mod frozen;
mod gated;
mod layer_norm;
mod linear;
mod low_rank;
pub mod memory;
mod muon;
mod packed;
mod paged;
mod parallel;
pub mod probe;
mod product;
pub mod profile;
pub mod quantize;
mod ragged;
mod rms_norm;
mod rotary;
mod simd;
mod softmax;
pub mod team;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use activation::{Activation, activation};
pub use adamw::{AdamwStep, adamw, square_sum};
pub use attention::{AttentionDropout, AttentionShape, Scores, causal_attention};
pub use cross_entropy::linear_cross_entropy;
pub use embedding::embedding;
pub use frozen::frozen_linear;
pub use gated::{gated, swiglu};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use low_rank::{Adapted, LowRank, LowRankPart};
pub use muon::{MuonStep, muon};
pub use narthex_base::config::Precision;
pub use packed::{
    InputStatistics, Int4Values, Int8Values, PackedFinish, PackedWeight, packed_affine, packed_linear,
    packed_linear_adapted, packed_rows,
};
pub use paged::{KV_BLOCK, KvLayer, KvShape, PagedBatch, PagedSequence, paged_attention};
pub use product::WeightValues;
pub use quantize::Quantization;
pub use ragged::{RaggedShape, ragged_attention};
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use simd::{ForceIsaError, Isa, force_isa, isa};
pub use softmax::softmax;
