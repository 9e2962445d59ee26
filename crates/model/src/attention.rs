//! Attention behind a context: training looks back within the sequence, inference looks into its
//! cache, and the model's definition knows neither.
//!
//! Shapes: B batch, H query heads, K key/value heads, G = H / K queries per key/value head,
//! T new positions, S positions looked at, D head width.

use burn::tensor::{Device, Tensor, TensorData, activation};

/// What a block's attention looks at.
pub trait AttentionContext {
    /// `q_bhtd`, `k_bktd` and `v_bktd` of the new positions of block `layer`, rotated already -> `[B, H, T, D]`.
    fn attend(&mut self, layer: usize, q_bhtd: Tensor<4>, k_bktd: Tensor<4>, v_bktd: Tensor<4>) -> Tensor<4>;
}

/// Low enough that its exponential is exactly 0 beside any real score.
const MASKED: f32 = -1e30;

/// Scaled dot-product attention. `mask_bits` is added to the scores: `[1 or B, 1, T, S]`, 0 or a very negative number.
pub fn attend(q_bhtd: Tensor<4>, k_bksd: Tensor<4>, v_bksd: Tensor<4>, mask: Option<Tensor<4>>) -> Tensor<4> {
    let [b, h, t, d] = q_bhtd.dims();
    let [_, k, s, _] = k_bksd.dims();
    let g = h / k;
    // The queries of one key/value head are rows of one matrix: keys and values are never repeated.
    let q = (q_bhtd * (d as f64).sqrt().recip()).reshape([b, k, g * t, d]);
    let mut scores = q.matmul(k_bksd.swap_dims(2, 3));
    if let Some(mask) = mask {
        let rows = mask.dims()[0];
        let mask = mask.expand([rows, g, t, s]).reshape([rows, 1, g * t, s]);
        scores = scores + mask;
    }
    activation::softmax(scores, 3).matmul(v_bksd).reshape([b, h, t, d])
}

/// Looks back within the sequence, and with `documents` not across document borders.
pub struct CausalContext {
    mask: Tensor<4>,
}

impl CausalContext {
    /// Plain causal attention over `len` positions.
    pub fn new(len: usize, device: &Device) -> Self {
        let mask = (0..len * len).map(|i| if i % len <= i / len { 0.0 } else { MASKED }).collect();
        Self::from_mask(mask, [1, 1, len, len], device)
    }

    /// Causal attention that stays within documents: `documents_bt` numbers the document of each position, row by row.
    pub fn within_documents(documents_bt: &[u32], len: usize, device: &Device) -> Self {
        let rows = documents_bt.len() / len;
        let mut mask = Vec::with_capacity(rows * len * len);
        for documents in documents_bt.chunks_exact(len) {
            for t in 0..len {
                mask.extend((0..len).map(|s| if s <= t && documents[s] == documents[t] { 0.0 } else { MASKED }));
            }
        }
        Self::from_mask(mask, [rows, 1, len, len], device)
    }

    fn from_mask(mask: Vec<f32>, shape: [usize; 4], device: &Device) -> Self {
        Self { mask: Tensor::from_data(TensorData::new(mask, shape), device) }
    }
}

impl AttentionContext for CausalContext {
    fn attend(&mut self, _layer: usize, q_bhtd: Tensor<4>, k_bktd: Tensor<4>, v_bktd: Tensor<4>) -> Tensor<4> {
        attend(q_bhtd, k_bktd, v_bktd, Some(self.mask.clone()))
    }
}
