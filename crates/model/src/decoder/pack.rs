//! Decoders that are there packed for inference on the CPU.

use super::Decoder;
use crate::{integer_folder::Rounding, weight::Weight};
use narthex_kernels::{Precision, Quantization};

impl Decoder {
    /// The same model packed for inference on the CPU, adapters merged.
    pub fn pack(&self, precision: Precision) -> Self {
        let merged = self.clone().merged();
        Self::packed(self.config(), &merged.tensors(), precision).expect("a model's weights fit its config")
    }

    /// The same with weights rounded to integers as they are packed; embedding and output become int8.
    pub fn pack_rounded(&self, kind: Quantization) -> Self {
        let weights = Rounding { weights: &self.clone().merged().tensors(), kind };
        Self::packed(self.config(), &weights, Precision::Bf16).expect("a model's weights fit its config")
    }

    /// Whether the weights are packed for inference: then there is nothing to train, to write or to convert.
    pub fn is_packed(&self) -> bool {
        matches!(self.model.embed_tokens.weight, Weight::Packed(_))
    }

    /// Values of row `row` of the weight of a packed model's projection, which is no expert's.
    pub(crate) fn packed_row(&self, layer: usize, part: &str, row: usize, to: &mut [f32]) {
        if let Some(Weight::Packed(rows)) = self.model.layers[layer].projection(part).map(|linear| &linear.weight) {
            rows.read_row(row, to);
        }
    }
}
