//! The attention context of a step: sequences of any length, with keys and values in the pool's blocks.

use burn::tensor::Tensor;
use narthex_kernels::{KvLayer, PagedBatch, paged_attention};
use narthex_model::{AttentionContext, Layer, Precision};
use std::sync::Arc;

/// Rows of new positions over a pool for each block of the model.
pub struct PagedContext<'a> {
    layers: &'a [KvLayer],
    batch: Arc<PagedBatch>,
}

impl<'a> PagedContext<'a> {
    /// A pool for each block, and the rows of a step.
    pub fn new(layers: &'a [KvLayer], batch: PagedBatch) -> Self {
        Self { layers, batch: Arc::new(batch) }
    }
}

impl AttentionContext for PagedContext<'_> {
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, _: Precision) -> Tensor<2> {
        paged_attention(qkv, table, &self.layers[layer.number], &self.batch, layer.scores)
    }
}
