//! The sizes of what paged attention stores, reads and puts aside. Knows numbers only.

use super::{KV_BLOCK, KvShape};
use crate::machine::simd::LANES;
use narthex_base::config::Precision;

/// Positions whose scores are weighed together; chunks start at its multiples.
pub(super) const CHUNK: usize = 256;

/// Blocks in a chunk.
pub(super) const CHUNK_BLOCKS: usize = CHUNK / KV_BLOCK;

/// Chunks that are summed one after the other. What whole segments give is merged in their order, whoever computed
/// them.
pub(super) const SEGMENT_CHUNKS: usize = if cfg!(test) { 2 } else { 8 };

/// Positions of a segment; segments start at its multiples.
pub(super) const SEGMENT: usize = SEGMENT_CHUNKS * CHUNK;

/// The sizes that the kernel works with.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Values in a row of one head.
    pub(super) d: usize,
    /// Head width rounded up to whole vectors of words, two by two.
    pub(super) d_padded: usize,
    /// Values in a word.
    pub(super) per_word: usize,
    /// Whether blocks hold integers and scales.
    pub(super) int8: bool,
}

impl Sizes {
    pub(super) fn new(shape: &KvShape) -> Self {
        let per_word = if shape.precision == Precision::Bf16 { 2 } else { 1 };
        let d_padded = shape.head_width.next_multiple_of(2 * LANES);
        Self { d: shape.head_width, d_padded, per_word, int8: shape.int8 }
    }

    /// Words of the keys, or of the values, of a block of one head, as they are multiplied.
    pub(super) fn half(&self) -> usize {
        KV_BLOCK * self.d_padded / self.per_word
    }

    /// Values of four bytes that a block of one head takes.
    pub(super) fn block(&self) -> usize {
        if self.int8 { self.scales() + 2 * KV_BLOCK } else { 2 * self.half() }
    }

    /// Values of four bytes before the scales.
    pub(super) fn scales(&self) -> usize {
        2 * KV_BLOCK * self.d_padded / size_of::<f32>()
    }

    /// Values of scratch that a task needs.
    pub(super) fn scratch(&self) -> usize {
        let words = if self.int8 { CHUNK_BLOCKS * 2 * self.half() } else { 0 };
        5 * LANES * self.d_padded + 2 * LANES * CHUNK + words
    }

    /// Values that the part of a segment takes: for each row its sums, its largest score and its total.
    pub(super) fn part(&self, group: usize) -> usize {
        group * (self.d_padded + 2)
    }
}
