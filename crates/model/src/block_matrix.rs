//! A matrix in the blocks of a GGUF file, whose bytes stay where they lie until they are packed. Knows rows; no files.

use narthex_base::{Error, Result};
use narthex_kernels::{BlockKind, BlockValues, PackedWeight};

/// `[O, I]` in blocks.
#[derive(Clone, Debug)]
pub struct BlockMatrix<'a> {
    /// What the bytes mean.
    pub kind: BlockKind,
    /// `[O]`, each of whole blocks.
    pub rows: Vec<&'a [u8]>,
}

impl BlockMatrix<'_> {
    /// These rows of it, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn picked(&self, rows: &[usize]) -> Self {
        Self { kind: self.kind, rows: rows.iter().map(|row| self.rows[*row]).collect() }
    }

    /// Packs matrices of `inputs` columns that share their input, one below the other, each as it is.
    ///
    /// # Errors
    /// If a scale is not finite.
    pub(crate) fn pack(parts: &[Self], inputs: usize) -> Result<PackedWeight> {
        let finite = |part: &Self| part.rows.iter().all(|row| part.kind.is_finite(row));
        if !parts.iter().all(finite) {
            return Err(Error::input("a scale of the weights is not a finite number")
                .help("the file is damaged, or its quantization failed: fetch it again"));
        }
        let parts: Vec<BlockValues> =
            parts.iter().map(|part| BlockValues { kind: part.kind, rows: &part.rows }).collect();
        Ok(PackedWeight::from_blocks(&parts, inputs))
    }
}
