//! Attention over keys and values that lie in blocks of a pool (Kwon et al., "PagedAttention", 2023): each row is a new
//! position of some sequence, prompts and single tokens mixed; grouped-query heads; a sliding window if asked.
//!
//! What a row computes depends on its own sequence up to its own position only, in chunks and segments of keys that
//! start at fixed positions: its bytes are the same in any batch, in whatever pieces its prompt comes, and on any
//! number of threads. The segments of a lone position are computed side by side (Dao et al., "Flash-Decoding", 2023)
//! and merged in their order.
//!
//! Shapes: N rows, H query heads, K key/value heads, G = H / K, D head width, S positions that a row looks at.
//! Arithmetic: 4 N S D H. Bytes: 2 S K D values read for each tile of rows of one sequence.

mod composed;
mod kernel;
mod sizes;

use crate::{
    flex::{contiguous, dims, filled, is_ours, values},
    machine::{
        parallel::{self, Shared, SharedMut, uninitialised, with_scratch},
        profile::timed,
        simd::LANES,
    },
    operators::attention::Scores,
};
use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Device, Tensor},
};
use kernel::{Job, To, append_bf16, append_f32, attend_bf16, attend_f32, join};
use narthex_base::config::Precision;
use sizes::{SEGMENT, Sizes};
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

/// Positions in a block of keys and values.
pub const KV_BLOCK: usize = LANES;

/// New positions of one sequence that a task handles.
const POSITIONS_PER_TASK: usize = 64;

/// Rows up to which one thread writes all keys and values.
const ROWS_WRITTEN_ALONE: usize = 8;

/// The keys and values of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks of [`KV_BLOCK`] positions.
    pub blocks: usize,
    /// Heads of the keys and values.
    pub kv_heads: usize,
    /// Head width, even.
    pub head_width: usize,
    /// How they are stored, and multiplied.
    pub precision: Precision,
    /// Whether they are stored as 8-bit integers instead, with a scale for each position's key and value of each head:
    /// half the bytes of bf16, for an error of up to 1/254 of the largest component.
    pub int8: bool,
}

impl KvShape {
    /// Bytes of one block on the CPU.
    pub fn block_bytes(&self) -> usize {
        4 * Sizes::new(self).block() * self.kv_heads
    }
}

/// The pool of one layer: made once, written and read by [`paged_attention`]. Clones share it.
#[derive(Clone, Debug)]
pub struct KvLayer {
    shape: KvShape,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug)]
enum Content {
    /// Blocks in the kernel's layout: a block is written before it is read, so it starts as anything.
    Blocks(Vec<f32>),
    /// Keys and values `[positions, K D]` of another device, once there are some.
    Tensors(Option<Box<[Tensor<2>; 2]>>),
}

impl KvLayer {
    /// A pool on this device.
    pub fn new(shape: KvShape, device: &Device) -> Self {
        let content = if *device == Device::flex() {
            Content::Blocks(uninitialised(shape.blocks * shape.kv_heads * Sizes::new(&shape).block()))
        } else {
            Content::Tensors(None)
        };
        Self { shape, content: Arc::new(Mutex::new(content)) }
    }

    /// A pool for the composed form, wherever it is.
    #[cfg(test)]
    pub(crate) fn composed(shape: KvShape) -> Self {
        Self { shape, content: Arc::new(Mutex::new(Content::Tensors(None))) }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// New positions of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedSequence {
    /// Its rows, one for each new position.
    pub rows: Range<usize>,
    /// The position of the first of them.
    pub first_position: usize,
    /// Where its blocks stand in [`PagedBatch::tables`]: those of all positions up to the last new one.
    pub blocks: Range<usize>,
}

/// The rows of a step. Sequences may share full blocks that at most one of them writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagedBatch {
    /// The sequences, in the order of their rows.
    pub sequences: Vec<PagedSequence>,
    /// Numbers of blocks.
    pub tables: Vec<u32>,
}

impl PagedBatch {
    /// Adds a sequence's new positions.
    pub fn push(&mut self, first_position: usize, positions: usize, blocks: &[u32]) {
        let first_row = self.rows();
        let first_block = self.tables.len();
        self.tables.extend_from_slice(&blocks[..(first_position + positions).div_ceil(KV_BLOCK)]);
        self.sequences.push(PagedSequence {
            rows: first_row..first_row + positions,
            first_position,
            blocks: first_block..self.tables.len(),
        });
    }

    /// New positions in all.
    pub fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |sequence| sequence.rows.end)
    }

    fn check(&self, shape: &KvShape) {
        let mut row = 0;
        for PagedSequence { rows, first_position, blocks } in &self.sequences {
            assert!(rows.start == row && rows.end >= row, "sequences stand in the order of their rows");
            row = rows.end;
            assert!(blocks.end <= self.tables.len(), "blocks stand in the tables");
            assert!(blocks.len() * KV_BLOCK >= first_position + rows.len(), "every position has its block");
        }
        assert!(self.tables.iter().all(|block| (*block as usize) < shape.blocks), "blocks are in the pool");
    }
}

/// Writes the keys and values of the new positions, then looks back: `qkv [N, (H + 2 K) D]` (all queries, then keys,
/// then values, not yet rotated), table `[N, D]` (for each row D/2 cosines, then D/2 sines) -> `[N, H D]`. A row sees
/// its sequence up to its own position, as far back as `scores` lets it.
///
/// # Panics
/// If the shapes do not fit each other, or a block is not in the pool.
pub fn paged_attention(
    qkv: Tensor<2>,
    table: Tensor<2>,
    layer: &KvLayer,
    batch: &Arc<PagedBatch>,
    scores: Scores,
) -> Tensor<2> {
    let KvShape { kv_heads, head_width, .. } = layer.shape;
    let [n, width] = qkv.dims();
    assert_eq!(table.dims(), [n, head_width], "a row of the table for each row");
    assert_eq!(batch.rows(), n, "every row belongs to a sequence");
    assert!(head_width.is_multiple_of(2) && width.is_multiple_of(head_width), "whole heads of even width");
    let heads = (width / head_width).saturating_sub(2 * kv_heads);
    assert!(heads > 0 && heads.is_multiple_of(kv_heads), "whole groups of heads");
    assert!(scores.window != Some(0), "a row sees itself");
    batch.check(&layer.shape);
    let call = Call { layer: layer.clone(), batch: batch.clone(), heads, scores };
    if !is_ours(&qkv) {
        return composed::attend(qkv, table, &call);
    }
    Tensor::from_dispatch(Dispatch::paged_attention(qkv.into_dispatch(), table.into_dispatch(), call))
}

/// What a call needs besides tensors.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    layer: KvLayer,
    batch: Arc<PagedBatch>,
    heads: usize,
    scores: Scores,
}

#[backend_extension(Flex)]
pub(crate) trait PagedAttentionBackend: Backend {
    fn paged_attention(qkv: FloatTensor<Self>, table: FloatTensor<Self>, call: Call) -> FloatTensor<Self>;
}

impl PagedAttentionBackend for Flex {
    fn paged_attention(qkv: FlexTensor, table: FlexTensor, call: Call) -> FlexTensor {
        forward(&contiguous(qkv), &contiguous(table), &call)
    }
}

/// A task: some new positions of a sequence.
struct Piece<'a> {
    first_row: usize,
    first_position: usize,
    positions: usize,
    blocks: &'a [u32],
}

impl Piece<'_> {
    /// The segments that a lone position looks at, if it looks at several.
    fn split(&self, scores: &Scores) -> Option<Range<usize>> {
        let from = scores.start(self.first_position);
        let segments = from / SEGMENT..self.first_position / SEGMENT + 1;
        (self.positions == 1 && segments.len() > 1).then_some(segments)
    }
}

/// What a thread computes: heads of a piece, or one segment of them with its place among the parts.
struct Task {
    piece: usize,
    kv_head: usize,
    part: Option<(usize, usize)>,
}

/// The segments of a lone position and one group of heads, whose parts lie one behind the other.
struct Split {
    row: usize,
    kv_head: usize,
    parts: Range<usize>,
}

fn forward(qkv: &FlexTensor, table: &FlexTensor, call: &Call) -> FlexTensor {
    let Call { layer, batch, heads, scores } = call;
    let KvShape { kv_heads, head_width: d, precision, .. } = layer.shape;
    let [n, width] = dims(qkv);
    let mut content = layer.lock();
    let Content::Blocks(pool) = &mut *content else { panic!("the pool of another device") };
    let pool = SharedMut::new(pool);
    let (qkv, table) = (Shared::new(values(qkv)), Shared::new(values(table)));
    let job =
        Job { sizes: Sizes::new(&layer.shape), heads: *heads, kv_heads, width, qkv, table, pool, scores: *scores };
    let (mut pieces, mut flop) = (Vec::new(), 0.0);
    for PagedSequence { rows, first_position, blocks } in &batch.sequences {
        let mut done = 0;
        while done < rows.len() {
            // Pieces end with a block, so that no two write into one.
            let first_position = first_position + done;
            let positions = (POSITIONS_PER_TASK - first_position % POSITIONS_PER_TASK).min(rows.len() - done);
            let blocks = &batch.tables[blocks.clone()];
            pieces.push(Piece { first_row: rows.start + done, first_position, positions, blocks });
            done += positions;
        }
        flop += 4.0 * ((first_position + rows.len()) * rows.len() * heads * d) as f64;
    }
    timed("paged attention", flop, || {
        // All are written before any is read: sequences of one step may share blocks.
        let append = |piece: &Piece| {
            // SAFETY: rows, positions and blocks were checked; tasks write different blocks.
            unsafe {
                match precision {
                    Precision::F32 => append_f32(&job, piece),
                    Precision::Bf16 => append_bf16(&job, piece),
                }
            }
        };
        if n <= ROWS_WRITTEN_ALONE {
            pieces.iter().for_each(append);
        } else {
            parallel::for_each(pieces.len(), |i| append(&pieces[i]));
        }
        let (mut tasks, mut splits, mut parts) = (Vec::new(), Vec::new(), 0);
        let part = job.sizes.part(heads / kv_heads);
        for (number, piece) in pieces.iter().enumerate() {
            let segments = piece.split(scores);
            for kv_head in 0..kv_heads {
                let Some(segments) = segments.clone() else {
                    tasks.push(Task { piece: number, kv_head, part: None });
                    continue;
                };
                splits.push(Split { row: piece.first_row, kv_head, parts: parts..parts + segments.len() * part });
                for segment in segments {
                    tasks.push(Task { piece: number, kv_head, part: Some((segment, parts)) });
                    parts += part;
                }
            }
        }
        let mut parts = uninitialised(parts);
        filled([n, heads * d], |output| {
            let output = SharedMut::new(output);
            let shared = SharedMut::new(&mut parts);
            parallel::for_each(tasks.len(), |i| {
                let Task { piece, kv_head, part } = tasks[i];
                let to = part.map_or(To::Output(output), |(segment, at)| To::Part(segment, shared.at(at)));
                with_scratch(job.sizes.scratch(), |scratch| {
                    let scratch = scratch.as_mut_ptr();
                    // SAFETY: as above; tasks write different rows or heads of the output, or different parts.
                    unsafe {
                        match precision {
                            Precision::F32 => attend_f32(&job, &pieces[piece], kv_head, to, scratch),
                            Precision::Bf16 => attend_bf16(&job, &pieces[piece], kv_head, to, scratch),
                        }
                    }
                });
            });
            for Split { row, kv_head, parts: range } in splits {
                with_scratch(job.sizes.scratch(), |scratch| {
                    // SAFETY: every part is written, and no other thread is left.
                    unsafe { join(&job, row, kv_head, &parts[range], output, scratch.as_mut_ptr()) }
                });
            }
        })
    })
}
