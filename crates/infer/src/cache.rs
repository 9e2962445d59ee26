//! Keys and values of what a sequence has seen, one cache a sequence, and the attention context
//! that reads and extends the caches of a batch.
//!
//! Shapes: B sequences, H query heads, K key/value heads, T new positions, S positions in all, D head width.

use burn::tensor::{Tensor, activation::softmax};
use narthex_model::{AttentionContext, CausalContext, Heads, Precision, Rotary};

/// What one sequence has seen: per block, keys (rotated) and values `[K, S, D]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<(Tensor<3>, Tensor<3>)>,
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
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        match self.layers.get_mut(layer) {
            None => self.layers.push((k, v)),
            Some(entry) => {
                *entry = (Tensor::cat(vec![entry.0.clone(), k], 1), Tensor::cat(vec![entry.1.clone(), v], 1))
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
    fn attend(
        &mut self,
        layer: usize,
        qkv: Tensor<2>,
        heads: Heads,
        rotary: &Rotary,
        precision: Precision,
    ) -> Tensor<2> {
        let Heads { queries: h, keys: k, width: d } = heads;
        let positions = qkv.dims()[0] / self.caches.len();
        let q = rotary.forward(qkv.clone().narrow(1, 0, h * d));
        let keys = rotary.forward(qkv.clone().narrow(1, h * d, k * d));
        let values = qkv.clone().narrow(1, (h + k) * d, k * d);
        let rows = self.caches.iter_mut().enumerate().map(|(row, cache)| {
            let pick = |x: &Tensor<2>| x.clone().narrow(0, row * positions, positions);
            let per_head = |x: &Tensor<2>, heads| pick(x).reshape([positions, heads, d]).swap_dims(0, 1);
            let fresh = cache.is_empty();
            let (keys, values) = cache.extend(layer, per_head(&keys, k), per_head(&values, k));
            if fresh {
                // A fresh prompt is plain causal attention.
                let rotary = rotary.part(row * positions, positions);
                return CausalContext::new(positions).attend(layer, pick(&qkv), heads, &rotary, precision);
            }
            assert_eq!(positions, 1, "a sequence in flight grows by one token at a time");
            // The queries of one key/value head are rows of one matrix: keys and values are never repeated.
            let q = pick(&q).reshape([k, h / k, d]) * (d as f64).sqrt().recip();
            let weights = softmax(q.matmul(keys.swap_dims(1, 2)), 2);
            weights.matmul(values).reshape([1, h * d])
        });
        Tensor::cat(rows.collect(), 0)
    }
}
