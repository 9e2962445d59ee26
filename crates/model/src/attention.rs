//! What a block's attention looks at: it differs between training and serving, and so does the form of the weights;
//! nothing else does.
//!
//! Shapes: B sequences, T new positions, N = B T rows, H query heads, K key/value heads, D head width.

use crate::adapter::Adapter;
use burn::tensor::Tensor;
use narthex_kernels::{AttentionShape, Precision, Scores, causal_attention};
use std::{ops::Range, sync::Arc};

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key/value heads; a divisor of `queries`.
    pub keys: usize,
    /// Width of each.
    pub width: usize,
}

/// The attention of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// The number of the block.
    pub number: usize,
    /// Its heads.
    pub heads: Heads,
    /// How scores become weights.
    pub scores: Scores,
    /// Whether its bytes are to be the same on all instruction sets, as those of products of integers are.
    pub portable: bool,
}

/// What a block's attention looks at.
pub trait AttentionContext {
    /// `qkv [N, (H + 2 K) D]` of the new positions of block `layer`, not yet rotated, and the rotary table `[positions,
    /// D]`
    /// -> `[N, H D]`.
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, precision: Precision) -> Tensor<2>;

    /// Rows that have an adapter of their own, and which. Models packed for inference honour them.
    fn adapters(&self) -> &[(Range<usize>, Arc<Adapter>)] {
        &[]
    }
}

/// Looks back within the sequence, and with documents not across their borders.
pub struct CausalContext {
    len: usize,
    starts: Option<Arc<[u32]>>,
}

impl CausalContext {
    /// Plain causal attention over sequences of `len` positions.
    pub fn new(len: usize) -> Self {
        Self { len, starts: None }
    }

    /// Causal attention that stays within documents: `documents_bt` numbers the document of each position, row by row.
    pub fn within_documents(documents_bt: &[u32], len: usize) -> Self {
        let mut starts = Vec::with_capacity(documents_bt.len());
        for documents in documents_bt.chunks_exact(len) {
            let mut start = 0;
            for (position, document) in documents.iter().enumerate() {
                if position > 0 && documents[position - 1] != *document {
                    start = position as u32;
                }
                starts.push(start);
            }
        }
        Self { len, starts: Some(starts.into()) }
    }
}

impl AttentionContext for CausalContext {
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, precision: Precision) -> Tensor<2> {
        let Layer { heads, scores, .. } = layer;
        let shape = AttentionShape {
            batch: qkv.dims()[0] / self.len,
            len: self.len,
            heads: heads.queries,
            kv_heads: heads.keys,
            head_width: heads.width,
            starts: self.starts.clone(),
            dropout: None,
            scores,
            portable: layer.portable,
        };
        causal_attention(qkv, table, &shape, precision)
    }
}
