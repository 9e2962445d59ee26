//! Keys and values of what a sequence has seen, one cache a sequence, and the attention context
//! that reads and extends the caches of a batch.
//!
//! Shapes: B sequences, H query heads, K key/value heads, T new positions, S positions in all, D head width.

use burn::tensor::Tensor;
use narthex_model::{AttentionContext, CausalContext, attend};

/// What one sequence has seen: per block, keys and values `[1, K, S, D]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    len: usize,
}

impl KvCache {
    /// Positions seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the new positions of one block and returns all.
    fn extend(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        match self.layers.get_mut(layer) {
            None => self.layers.push((k, v)),
            Some(entry) => {
                *entry = (Tensor::cat(vec![entry.0.clone(), k], 2), Tensor::cat(vec![entry.1.clone(), v], 2))
            }
        }
        self.layers[layer].clone()
    }
}

/// The caches of a batch, all with the same number of new positions: a prompt in one piece, or one token each.
pub struct KvContext<'a> {
    caches: Vec<&'a mut KvCache>,
}

impl<'a> KvContext<'a> {
    /// One cache for each row of the batch.
    pub fn new(caches: Vec<&'a mut KvCache>) -> Self {
        Self { caches }
    }

    /// Counts the new positions as seen, after the last block.
    pub fn advance(&mut self, positions: usize) {
        self.caches.iter_mut().for_each(|cache| cache.len += positions);
    }
}

impl AttentionContext for KvContext<'_> {
    fn attend(&mut self, layer: usize, q_bhtd: Tensor<4>, k_bktd: Tensor<4>, v_bktd: Tensor<4>) -> Tensor<4> {
        let positions = q_bhtd.dims()[2];
        let rows = self.caches.iter_mut().enumerate().map(|(row, cache)| {
            let pick = |x: &Tensor<4>| x.clone().narrow(0, row, 1);
            let (q, k, v) = (pick(&q_bhtd), pick(&k_bktd), pick(&v_bktd));
            if cache.is_empty() {
                // A fresh prompt is plain causal attention.
                let (k, v) = cache.extend(layer, k, v);
                return CausalContext::new(positions, &q.device()).attend(layer, q, k, v);
            }
            assert_eq!(positions, 1, "a sequence in flight grows by one token at a time");
            let (k, v) = cache.extend(layer, k, v);
            attend(q, k, v, None)
        });
        Tensor::cat(rows.collect(), 0)
    }
}
