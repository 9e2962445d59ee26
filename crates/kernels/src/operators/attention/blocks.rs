//! Causal attention of one key/value head of one sequence, in blocks of 64 queries by 64 keys that stay in cache.
//! Knows slices and sizes; no tensors.

use super::{AttentionShape, rows::Rows};
use crate::{
    machine::{
        parallel::{Shared, SharedMut},
        simd::{
            LANES, Lanes, for_each_isa,
            rows::{for_vectors, load, store, transpose, words_within},
        },
    },
    operators::rotary::rotate,
    product::{Tile, tile_of},
};
use narthex_base::config::Precision;

/// Queries, and keys, in a block of scores.
pub(super) const BLOCK: usize = 64;

/// Rows of packed operands are a multiple of this.
const COLUMNS: usize = 2 * LANES;

/// The sizes that a kernel works with.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Positions of the sequence.
    pub(super) t: usize,
    /// Positions rounded up to whole blocks.
    pub(super) t_padded: usize,
    /// Values in a row of one head.
    pub(super) d: usize,
    /// Head width rounded up to whole tiles.
    pub(super) d_padded: usize,
    /// Values in a row of qkv.
    pub(super) row: usize,
    /// Values in a row of the output.
    pub(super) out_row: usize,
    /// Values in a word of packed operands: 1 in f32, 2 in bf16.
    pub(super) per_word: usize,
}

impl Sizes {
    pub(super) fn new(shape: &AttentionShape, precision: Precision) -> Self {
        let (t, d) = (shape.len, shape.head_width);
        let per_word = if precision == Precision::Bf16 { 2 } else { 1 };
        Self {
            t,
            t_padded: t.next_multiple_of(BLOCK),
            d,
            d_padded: d.next_multiple_of(COLUMNS),
            row: shape.width(),
            out_row: shape.heads * d,
            per_word,
        }
    }

    /// Values of scratch that the forward pass needs.
    pub(super) fn forward_scratch(&self) -> usize {
        5 * self.array() + 3 * BLOCK * BLOCK + BLOCK * self.d_padded
    }

    /// Values of scratch that the backward pass needs.
    pub(super) fn backward_scratch(&self) -> usize {
        12 * self.array() + 4 * BLOCK * BLOCK + 2 * self.t_padded
    }

    /// Values of a `[t_padded, d_padded]` array.
    pub(super) fn array(&self) -> usize {
        self.t_padded * self.d_padded
    }
}

/// The work on one key/value head of one sequence, with all query heads of its group.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) sizes: Sizes,
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) qkv: Shared,
    pub(super) table: Shared,
}

/// What the backward pass is given besides.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) output: Shared,
    pub(super) log_sums: Shared,
    pub(super) gradient: Shared,
}

impl Job<'_> {
    pub(super) fn group(&self) -> std::ops::Range<usize> {
        let g = self.shape.heads / self.shape.kv_heads;
        self.kv_head * g..(self.kv_head + 1) * g
    }

    /// Where head `head` of q, k and v counted together starts in the row of `position`.
    pub(super) fn offset(&self, head: usize, position: usize) -> usize {
        (self.sequence * self.sizes.t + position) * self.sizes.row + head * self.sizes.d
    }

    pub(super) fn key_head(&self) -> usize {
        self.shape.heads + self.kv_head
    }

    pub(super) fn value_head(&self) -> usize {
        self.shape.heads + self.shape.kv_heads + self.kv_head
    }

    pub(super) fn out_offset(&self, head: usize, position: usize) -> usize {
        (self.sequence * self.sizes.t + position) * self.sizes.out_row + head * self.sizes.d
    }

    /// The first block of keys that some query of block `block` looks at.
    pub(super) fn first_key_block(&self, block: usize) -> usize {
        let queries = block * BLOCK..self.sizes.t.min((block + 1) * BLOCK);
        queries.map(|query| self.shape.start(self.sequence, query)).min().unwrap_or(0) / BLOCK
    }

    /// Copies a head of all positions to `[t_padded, d_padded]`, rotated if asked, times `scale`; the rest is 0.
    ///
    /// # Safety
    /// `to` has room for that.
    #[inline(always)]
    pub(super) unsafe fn gather<V: Lanes>(&self, head: usize, rotated: bool, scale: f32, to: *mut f32) {
        let Sizes { t, t_padded, d, d_padded, .. } = self.sizes;
        // SAFETY: the head is inside its rows; the caller promises room.
        unsafe {
            for position in 0..t_padded {
                let to = to.add(position * d_padded);
                if position >= t {
                    to.write_bytes(0, d_padded);
                    continue;
                }
                let from = self.qkv.at(self.offset(head, position));
                if rotated {
                    rotate::<V>(from, self.table.at(position * d), to, d, false);
                } else {
                    to.copy_from_nonoverlapping(from, d);
                }
                if scale != 1.0 {
                    let factor = V::splat(scale);
                    for_vectors!(d, |i, count| store(load::<V>(to.add(i), count).mul(factor), to.add(i), count));
                }
                to.add(d).write_bytes(0, d_padded - d);
            }
        }
    }
}

/// Words down the columns of `[rows, width]`: in f32 the array itself, in bf16 pairs of rows in half the height.
///
/// # Safety
/// As above; rows are even.
#[inline(always)]
unsafe fn words_across<V: Lanes, const PAIRS: bool>(from: *const f32, rows: usize, width: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        if PAIRS {
            for row in (0..rows).step_by(2) {
                for i in (0..width).step_by(LANES) {
                    let (even, odd) = (V::load(from.add(row * width + i)), V::load(from.add((row + 1) * width + i)));
                    V::pairs_across(even, odd).store(to.add(row / 2 * width + i));
                }
            }
        } else if from != to {
            to.copy_from_nonoverlapping(from, rows * width);
        }
    }
}

/// Which part of a product between a block of queries and a block of keys counts.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// All of it.
    Whole,
    /// On the diagonal, with queries as rows and keys as columns: columns up to the row.
    ColumnsToRow,
    /// On the diagonal, with queries as rows and keys as depth: depth up to the row.
    DepthToRow,
    /// On the diagonal, with keys as rows and queries as depth: depth from the row.
    DepthFromRow,
}

/// A product of small arrays that lie packed in cache. A is stored by depth: value (row, word) at `word * a_word +
/// row`.
#[derive(Clone, Copy)]
struct Small {
    rows: usize,
    columns: usize,
    words: usize,
    a: *const f32,
    a_word: usize,
    b: *const f32,
    b_word: usize,
    c: *mut f32,
    stride: usize,
    go_on: bool,
    part: Part,
}

/// # Safety
/// The arrays are there; columns are a multiple of 32. What is left out of the depth must be 0 in A.
#[inline(always)]
unsafe fn multiply<V: Lanes, const PAIRS: bool>(s: Small) {
    let per_word = if PAIRS { 2 } else { 1 };
    for row in (0..s.rows).step_by(V::TILE_ROWS) {
        let rows = V::TILE_ROWS.min(s.rows - row);
        let (first, last) = match s.part {
            Part::Whole | Part::ColumnsToRow => (0, s.words),
            Part::DepthToRow => (0, s.words.min((row + rows).div_ceil(per_word))),
            Part::DepthFromRow => (row / per_word, s.words),
        };
        let columns = if s.part == Part::ColumnsToRow { s.columns.min(row + rows) } else { s.columns };
        for column in (0..columns).step_by(COLUMNS) {
            let tile = Tile {
                a: s.a.wrapping_add(first * s.a_word + row),
                a_word: s.a_word,
                b: s.b.wrapping_add(first * s.b_word + column),
                b_word: s.b_word,
                c: s.c.wrapping_add(row * s.stride + column),
                stride: s.stride,
                ..Tile::plain(last - first, COLUMNS, s.go_on)
            };
            // SAFETY: the caller's promise.
            unsafe { tile_of::<V, PAIRS>(rows, tile) }
        }
    }
}

/// Parts of a scratch buffer, one after the other.
pub(super) struct Parts(pub(super) *mut f32);

impl Parts {
    pub(super) fn take(&mut self, len: usize) -> *mut f32 {
        let part = self.0;
        self.0 = part.wrapping_add(len);
        part
    }
}

#[inline(always)]
unsafe fn forward_generic<V: Lanes, const PAIRS: bool>(
    job: &Job,
    output: SharedMut,
    log_sums: SharedMut,
    scratch: *mut f32,
) {
    let sizes = job.sizes;
    let Sizes { t_padded, d_padded, per_word, .. } = sizes;
    let width_words = d_padded / per_word;
    let mut parts = Parts(scratch);
    let plain = parts.take(sizes.array());
    let columns = parts.take(sizes.array());
    let within = parts.take(sizes.array());
    let queries = parts.take(sizes.array());
    let values = parts.take(sizes.array());
    let scores = parts.take(BLOCK * BLOCK);
    let packed = parts.take(BLOCK * BLOCK);
    let weights = parts.take(BLOCK * BLOCK);
    let sums = parts.take(BLOCK * d_padded);
    // SAFETY: the scratch has the parts taken above, which is what the caller made it for; offsets are inside.
    unsafe {
        job.gather::<V>(job.key_head(), true, 1.0, plain);
        words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
        transpose::<V>(within, t_padded, width_words, columns);
        job.gather::<V>(job.value_head(), false, 1.0, plain);
        words_across::<V, PAIRS>(plain, t_padded, d_padded, values);
        for head in job.group() {
            job.gather::<V>(head, true, job.shape.scale(), plain);
            words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
            transpose::<V>(within, t_padded, width_words, queries);
            for block in 0..t_padded / BLOCK {
                let first_query = block * BLOCK;
                let mut rows = Rows::new(sums);
                let first_key_block = job.first_key_block(block);
                for key_block in first_key_block..=block {
                    let first_key = key_block * BLOCK;
                    multiply::<V, PAIRS>(Small {
                        rows: BLOCK,
                        columns: BLOCK,
                        words: width_words,
                        a: queries.add(first_query),
                        a_word: t_padded,
                        b: columns.add(first_key),
                        b_word: t_padded,
                        c: scores,
                        stride: BLOCK,
                        go_on: false,
                        part: if key_block == block { Part::ColumnsToRow } else { Part::Whole },
                    });
                    job.weigh_block::<V>(
                        head,
                        [first_query, first_key],
                        key_block > first_key_block,
                        scores,
                        &mut rows,
                    );
                    words_within::<V, PAIRS>(scores, BLOCK, BLOCK, packed);
                    transpose::<V>(packed, BLOCK, BLOCK / per_word, weights);
                    multiply::<V, PAIRS>(Small {
                        rows: BLOCK,
                        columns: d_padded,
                        words: BLOCK / per_word,
                        a: weights,
                        a_word: BLOCK,
                        b: values.add(first_key / per_word * d_padded),
                        b_word: d_padded,
                        c: sums,
                        stride: d_padded,
                        go_on: key_block > first_key_block,
                        part: if key_block == block { Part::DepthToRow } else { Part::Whole },
                    });
                }
                job.write_rows::<V>(head, first_query, &rows, output, log_sums);
            }
        }
    }
}

#[inline(always)]
unsafe fn backward_generic<V: Lanes, const PAIRS: bool>(job: &Job, given: Given, dqkv: SharedMut, scratch: *mut f32) {
    let sizes = job.sizes;
    let Sizes { t_padded, d_padded, per_word, .. } = sizes;
    let width_words = d_padded / per_word;
    let mut parts = Parts(scratch);
    let plain = parts.take(sizes.array());
    let within = parts.take(sizes.array());
    let keys_down = parts.take(sizes.array());
    let key_columns = parts.take(sizes.array());
    let value_columns = parts.take(sizes.array());
    let queries = parts.take(sizes.array());
    let queries_down = parts.take(sizes.array());
    let gradients = parts.take(sizes.array());
    let gradients_down = parts.take(sizes.array());
    let dkeys = parts.take(sizes.array());
    let dvalues = parts.take(sizes.array());
    let dqueries = parts.take(sizes.array());
    let scores = parts.take(BLOCK * BLOCK);
    let dscores = parts.take(BLOCK * BLOCK);
    let packed = parts.take(BLOCK * BLOCK);
    let packed_down = parts.take(BLOCK * BLOCK);
    let log_sums = parts.take(t_padded);
    let dots = parts.take(t_padded);
    // SAFETY: the scratch has the parts taken above, which is what the caller made it for; offsets are inside.
    unsafe {
        job.gather::<V>(job.key_head(), true, 1.0, plain);
        words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
        transpose::<V>(within, t_padded, width_words, key_columns);
        words_across::<V, PAIRS>(plain, t_padded, d_padded, keys_down);
        job.gather::<V>(job.value_head(), false, 1.0, plain);
        words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
        transpose::<V>(within, t_padded, width_words, value_columns);
        dkeys.write_bytes(0, sizes.array());
        dvalues.write_bytes(0, sizes.array());
        for head in job.group() {
            job.gather::<V>(head, true, job.shape.scale(), plain);
            words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
            transpose::<V>(within, t_padded, width_words, queries);
            words_across::<V, PAIRS>(plain, t_padded, d_padded, queries_down);
            dqueries.write_bytes(0, sizes.array());
            job.gather_gradient::<V>(head, given, plain, [log_sums, dots]);
            words_within::<V, PAIRS>(plain, t_padded, d_padded, within);
            transpose::<V>(within, t_padded, width_words, gradients);
            words_across::<V, PAIRS>(plain, t_padded, d_padded, gradients_down);
            for block in 0..t_padded / BLOCK {
                let first_query = block * BLOCK;
                for key_block in job.first_key_block(block)..=block {
                    let first_key = key_block * BLOCK;
                    let on_diagonal = |part| if key_block == block { part } else { Part::Whole };
                    let block_of = |a: *const f32, b: *const f32, c| Small {
                        rows: BLOCK,
                        columns: BLOCK,
                        words: width_words,
                        a: a.add(first_query),
                        a_word: t_padded,
                        b: b.add(first_key),
                        b_word: t_padded,
                        c,
                        stride: BLOCK,
                        go_on: false,
                        part: on_diagonal(Part::ColumnsToRow),
                    };
                    multiply::<V, PAIRS>(block_of(queries, key_columns, scores));
                    multiply::<V, PAIRS>(block_of(gradients, value_columns, dscores));
                    job.differentiate_block::<V>(head, [first_query, first_key], scores, dscores, [log_sums, dots]);
                    // dV += Pᵀ dO, dK += dSᵀ Q: the depth is the queries of the block.
                    let down = |weights: *const f32, b: *const f32, c: *mut f32| Small {
                        rows: BLOCK,
                        columns: d_padded,
                        words: BLOCK / per_word,
                        a: weights,
                        a_word: BLOCK,
                        b: b.add(first_query / per_word * d_padded),
                        b_word: d_padded,
                        c: c.add(first_key * d_padded),
                        stride: d_padded,
                        go_on: true,
                        part: on_diagonal(Part::DepthFromRow),
                    };
                    let weights = if PAIRS { packed_down } else { scores };
                    words_across::<V, PAIRS>(scores, BLOCK, BLOCK, weights);
                    multiply::<V, PAIRS>(down(weights, gradients_down, dvalues));
                    let weights = if PAIRS { packed_down } else { dscores };
                    words_across::<V, PAIRS>(dscores, BLOCK, BLOCK, weights);
                    multiply::<V, PAIRS>(down(weights, queries_down, dkeys));
                    // dQ += dS K: the depth is the keys of the block.
                    words_within::<V, PAIRS>(dscores, BLOCK, BLOCK, packed);
                    transpose::<V>(packed, BLOCK, BLOCK / per_word, scores);
                    multiply::<V, PAIRS>(Small {
                        rows: BLOCK,
                        columns: d_padded,
                        words: BLOCK / per_word,
                        a: scores,
                        a_word: BLOCK,
                        b: keys_down.add(first_key / per_word * d_padded),
                        b_word: d_padded,
                        c: dqueries.add(first_query * d_padded),
                        stride: d_padded,
                        go_on: true,
                        part: on_diagonal(Part::DepthToRow),
                    });
                }
            }
            job.write_query_gradient::<V>(head, dqueries, dqkv);
        }
        job.write_key_gradients::<V>(dkeys, dvalues, dqkv);
    }
}

macro_rules! both_precisions {
    ($generic:ident, $f32_generic:ident, $f32:ident, $bf16_generic:ident, $bf16:ident, ($($arg:ident: $ty:ty),*)) => {
        #[inline(always)]
        unsafe fn $f32_generic<V: Lanes>($($arg: $ty),*) {
            // SAFETY: the caller's promises.
            unsafe { $generic::<V, false>($($arg),*) }
        }
        #[inline(always)]
        unsafe fn $bf16_generic<V: Lanes>($($arg: $ty),*) {
            // SAFETY: the caller's promises.
            unsafe { $generic::<V, true>($($arg),*) }
        }
        for_each_isa! { pub(super) unsafe fn $f32($($arg: $ty),*) = $f32_generic }
        for_each_isa! { pub(super) unsafe fn $bf16($($arg: $ty),*) = $bf16_generic }
    };
}
both_precisions! {
    forward_generic, forward_f32_generic, forward_f32, forward_bf16_generic, forward_bf16,
    (job: &Job, output: SharedMut, log_sums: SharedMut, scratch: *mut f32)
}
both_precisions! {
    backward_generic, backward_f32_generic, backward_f32, backward_bf16_generic, backward_bf16,
    (job: &Job, given: Given, dqkv: SharedMut, scratch: *mut f32)
}
