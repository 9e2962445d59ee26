//! The attention context of a step: sequences of any length, with keys and values in the pool's blocks.

use burn::tensor::Tensor;
use narthex_kernels::{KvLayer, PagedBatch, paged_attention};
use narthex_model::{Adapter, AttentionContext, Layer, Precision};
use std::{ops::Range, sync::Arc};

/// Rows of new positions over a pool for each block of the model.
pub struct PagedContext<'a> {
    layers: &'a [KvLayer],
    batch: Arc<PagedBatch>,
    adapters: Vec<(Range<usize>, Arc<Adapter>)>,
}

impl<'a> PagedContext<'a> {
    /// A pool for each block, the rows of a step, and those of them that have an adapter.
    pub fn new(layers: &'a [KvLayer], batch: PagedBatch, adapters: Vec<(Range<usize>, Arc<Adapter>)>) -> Self {
        Self { layers, batch: Arc::new(batch), adapters }
    }
}

impl AttentionContext for PagedContext<'_> {
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, _: Precision) -> Tensor<2> {
        paged_attention(qkv, table, &self.layers[layer.number], &self.batch, layer.scores)
    }

    fn adapters(&self) -> &[(Range<usize>, Arc<Adapter>)] {
        &self.adapters
    }
}
