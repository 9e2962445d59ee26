//! The kernel of paged attention, in f32 and in bf16 pairs. Knows slices and sizes; no tensors.
//!
//! A block of a key/value head holds its keys as `[words of D][16 positions]`, so that scores of sixteen positions are
//! one vector, then its values as `[words of 16 positions][D]`, so that a weight meets a row of values. A word: an f32
//! or two bf16.
//!
//! Stored in 8 bits, keys are `[D][16 positions]` and values `[16 positions][D]` of integers up to 127, followed by a
//! scale for each position's key and one for its value. Before a chunk is read its integers become words (which hold
//! them exactly); the scales go onto scores and weights.

use super::{
    KV_BLOCK, Piece,
    sizes::{CHUNK, CHUNK_BLOCKS, SEGMENT, SEGMENT_CHUNKS, Sizes},
};
use crate::{
    machine::{
        parallel::{Shared, SharedMut},
        simd::{
            LANES, Lanes, for_each_isa,
            rows::{for_vectors, masked, store, transpose, words_within},
        },
    },
    operators::{attention::Scores, rotary::rotate},
};

/// The largest integer in 8 bits that is used.
const INT8_MAX: f32 = 127.0;

/// What all tasks of a call share.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) sizes: Sizes,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Values in a row of qkv.
    pub(super) width: usize,
    pub(super) qkv: Shared,
    pub(super) table: Shared,
    pub(super) pool: SharedMut,
    pub(super) scores: Scores,
}

impl Job {
    fn block(&self, block: u32, kv_head: usize) -> *mut f32 {
        self.pool.at((block as usize * self.kv_heads + kv_head) * self.sizes.block())
    }
}

/// Writes the rotated keys and the values of a piece into its blocks.
///
/// # Safety
/// The rows are in qkv and the blocks in the pool; nobody else touches the blocks that it writes.
// Plain loops over constants: closures and iterators over arrays need not be inlined into a kernel.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn append_generic<V: Lanes, const PAIRS: bool>(job: &Job, piece: &Piece) {
    let Sizes { d, d_padded, per_word, .. } = job.sizes;
    let mut plain = [0f32; 1024];
    let mut words = [0f32; 1024];
    assert!(d_padded <= plain.len(), "heads are at most 1,024 wide");
    // SAFETY: the caller's promises; both arrays hold a head.
    unsafe {
        for i in 0..piece.positions {
            let (row, position) = (piece.first_row + i, piece.first_position + i);
            let (block, slot) = (piece.blocks[position / KV_BLOCK], position % KV_BLOCK);
            for kv_head in 0..job.kv_heads {
                let to = job.block(block, kv_head);
                if slot == 0 {
                    // Positions that are not there yet count with weight 0, and must be numbers for that.
                    to.write_bytes(0, job.sizes.block());
                }
                let head = |index: usize| job.qkv.at(row * job.width + index * d);
                rotate::<V>(head(job.heads + kv_head), job.table.at(row * d), plain.as_mut_ptr(), d, false);
                if job.sizes.int8 {
                    let (keys, scales) = (to.cast::<i8>(), to.add(job.sizes.scales()));
                    *scales.add(slot) = quantize::<V>(plain.as_mut_ptr(), d_padded, keys.add(slot), KV_BLOCK);
                    plain[..d].copy_from_slice(std::slice::from_raw_parts(head(job.heads + job.kv_heads + kv_head), d));
                    let values = keys.add(KV_BLOCK * d_padded + slot * d_padded);
                    *scales.add(KV_BLOCK + slot) = quantize::<V>(plain.as_mut_ptr(), d_padded, values, 1);
                    continue;
                }
                words_within::<V, PAIRS>(plain.as_ptr(), 1, d_padded, words.as_mut_ptr());
                for word in 0..d_padded / per_word {
                    *to.add(word * KV_BLOCK + slot) = words[word];
                }
                let to = to.add(job.sizes.half());
                let from = head(job.heads + job.kv_heads + kv_head);
                if PAIRS {
                    let to = to.add(slot / 2 * d_padded);
                    plain[..d].copy_from_slice(std::slice::from_raw_parts(from, d));
                    for j in (0..d_padded).step_by(LANES) {
                        let pairs = V::pairs_across(V::load(plain.as_ptr().add(j)), V::splat(0.0));
                        pairs.store(words.as_mut_ptr());
                        for lane in 0..LANES {
                            // The even position in the low half.
                            let half = to.add(j + lane).cast::<u16>();
                            let index = if cfg!(target_endian = "little") { slot % 2 } else { 1 - slot % 2 };
                            *half.add(index) = words[lane].to_bits() as u16;
                        }
                    }
                } else {
                    to.add(slot * d_padded).copy_from_nonoverlapping(from, d);
                }
            }
        }
    }
}

/// Writes values as integers `stride` apart and returns what one of them stands for.
#[inline(always)]
unsafe fn quantize<V: Lanes>(values: *mut f32, count: usize, to: *mut i8, stride: usize) -> f32 {
    // SAFETY: the caller promises `count` values, a multiple of 16, and as many places.
    unsafe {
        let mut largest = V::splat(0.0);
        for_vectors!(count, |j, _count| {
            let x = V::load(values.add(j));
            largest = largest.max(x).max(V::splat(0.0).sub(x));
        });
        let scale = largest.largest() / INT8_MAX;
        if scale < f32::MIN_POSITIVE {
            for j in 0..count {
                *to.add(j * stride) = 0;
            }
            return 0.0;
        }
        for_vectors!(count, |j, _count| {
            V::load(values.add(j)).div(V::splat(scale)).round().store(values.add(j));
        });
        for j in 0..count {
            *to.add(j * stride) = *values.add(j) as i8;
        }
        scale
    }
}

/// A block's integers as the words of a block that holds none.
#[inline(always)]
unsafe fn widen<V: Lanes, const PAIRS: bool>(from: *const f32, sizes: Sizes, to: *mut f32) {
    let d_padded = sizes.d_padded;
    // SAFETY: the caller promises a block of integers and room for one of words.
    unsafe {
        let (keys, values) = (from.cast::<i8>(), from.cast::<i8>().add(KV_BLOCK * d_padded));
        if PAIRS {
            for word in 0..d_padded / 2 {
                let row = keys.add(2 * word * KV_BLOCK);
                V::pairs_across(V::load_i8(row), V::load_i8(row.add(KV_BLOCK))).store(to.add(word * KV_BLOCK));
            }
        } else {
            for word in 0..d_padded {
                V::load_i8(keys.add(word * KV_BLOCK)).store(to.add(word * KV_BLOCK));
            }
        }
        let to = to.add(sizes.half());
        for word in 0..KV_BLOCK / sizes.per_word {
            for j in (0..d_padded).step_by(LANES) {
                let from = values.add(word * sizes.per_word * d_padded + j);
                let row = if PAIRS {
                    V::pairs_across(V::load_i8(from), V::load_i8(from.add(d_padded)))
                } else {
                    V::load_i8(from)
                };
                row.store(to.add(word * d_padded + j));
            }
        }
    }
}

/// What rows know of the keys seen so far.
struct Seen {
    largest: [f32; LANES],
    total: [f32; LANES],
}

impl Seen {
    const NOTHING: Seen = Seen { largest: [f32::NEG_INFINITY; LANES], total: [0.0; LANES] };
}

/// Adds what a row saw in one segment to what it saw in those before.
#[inline(always)]
unsafe fn merge<V: Lanes>(
    before: (&mut f32, &mut f32),
    sums: *mut f32,
    found: (f32, f32),
    found_sums: *const f32,
    count: usize,
) {
    let ((largest, total), (found_largest, found_total)) = (before, found);
    if found_largest == f32::NEG_INFINITY {
        return;
    }
    // SAFETY: the caller promises `count` sums of each, a multiple of 16.
    unsafe {
        if *largest == f32::NEG_INFINITY {
            (*largest, *total) = found;
            sums.copy_from_nonoverlapping(found_sums, count);
            return;
        }
        let now = largest.max(found_largest);
        let mut factors = [0f32; LANES];
        factors[0] = *largest - now;
        factors[1] = found_largest - now;
        V::load(factors.as_ptr()).exp().store(factors.as_mut_ptr());
        (*largest, *total) = (now, *total * factors[0] + found_total * factors[1]);
        let (old, new) = (V::splat(factors[0]), V::splat(factors[1]));
        for_vectors!(count, |j, _count| {
            V::load(found_sums.add(j)).fma(new, V::load(sums.add(j)).mul(old)).store(sums.add(j));
        });
    }
}

/// Where what rows found goes.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// Into the output of all segments.
    Output(SharedMut),
    /// As the part of this one segment, [`Sizes::part`] values.
    Part(usize, *mut f32),
}

/// The rows of some new positions and one group of heads: all that they see, or of a lone position one segment of it.
///
/// # Safety
/// The rows are in qkv and the output, the blocks in the pool; the scratch and the part have the sizes that `Sizes`
/// says; nobody else writes these heads of these rows, or this part, and nobody writes the pool.
// Plain loops over constants: closures and iterators over arrays need not be inlined into a kernel.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn attend_generic<V: Lanes, const PAIRS: bool>(
    job: &Job,
    piece: &Piece,
    kv_head: usize,
    target: To,
    scratch: *mut f32,
) {
    let Sizes { d, d_padded, per_word, int8 } = job.sizes;
    let group = job.heads / job.kv_heads;
    let words = d_padded / per_word;
    let scale = job.scores.scale(d);
    let plain = scratch;
    let within = plain.wrapping_add(LANES * d_padded);
    let queries = within.wrapping_add(LANES * d_padded);
    let sums = queries.wrapping_add(LANES * d_padded);
    let whole_sums = sums.wrapping_add(LANES * d_padded);
    let scores = whole_sums.wrapping_add(LANES * d_padded);
    let weights = scores.wrapping_add(LANES * CHUNK);
    let widened = weights.wrapping_add(LANES * CHUNK);
    let rows_in_all = piece.positions * group;
    // SAFETY: the caller's promises; the parts of the scratch lie one behind the other.
    unsafe {
        for first in (0..rows_in_all).step_by(V::TILE_ROWS) {
            let rows = V::TILE_ROWS.min(rows_in_all - first);
            for i in 0..rows {
                let (position, head) = ((first + i) / group, kv_head * group + (first + i) % group);
                let row = piece.first_row + position;
                let to = plain.add(i * d_padded);
                rotate::<V>(job.qkv.at(row * job.width + head * d), job.table.at(row * d), to, d, false);
                to.add(d).write_bytes(0, d_padded - d);
                for j in (0..d_padded).step_by(LANES) {
                    V::load(to.add(j)).mul(V::splat(scale)).store(to.add(j));
                }
            }
            words_within::<V, PAIRS>(plain, LANES, d_padded, within);
            transpose::<V>(if PAIRS { within } else { plain }, LANES, words, queries);
            let mut whole = Seen::NOTHING;
            let position_of = |i: usize| piece.first_position + (first + i) / group;
            let (lowest, highest) = (position_of(0), position_of(rows - 1));
            let from = job.scores.start(lowest);
            let segments = match target {
                To::Output(_) => from / SEGMENT..highest / SEGMENT + 1,
                To::Part(segment, _) => segment..segment + 1,
            };
            for segment in segments {
                let mut seen = Seen::NOTHING;
                sums.write_bytes(0, rows * d_padded);
                let chunks = (from / CHUNK).max(segment * SEGMENT_CHUNKS)
                    ..(highest / CHUNK + 1).min((segment + 1) * SEGMENT_CHUNKS);
                for chunk in chunks {
                    let first_block = chunk * CHUNK_BLOCKS;
                    let blocks = CHUNK_BLOCKS.min(highest / KV_BLOCK + 1 - first_block);
                    let mut stored = [std::ptr::null::<f32>(); CHUNK_BLOCKS];
                    let mut keys = stored;
                    for i in 0..blocks {
                        stored[i] = job.block(piece.blocks[first_block + i], kv_head);
                        keys[i] = stored[i];
                        if int8 {
                            let words = widened.add(i * 2 * job.sizes.half());
                            widen::<V, PAIRS>(stored[i], job.sizes, words);
                            keys[i] = words;
                        }
                    }
                    for i in (0..blocks).step_by(2) {
                        // With an odd number of blocks the last is taken twice, and its second scores are masked.
                        let pair = [keys[i], keys[(i + 1).min(blocks - 1)]];
                        score::<V, PAIRS>(rows, queries, words, pair, scores.add(i * KV_BLOCK));
                    }
                    if int8 {
                        scale_by::<V>(scores, rows, &stored[..blocks], job.sizes.scales());
                    }
                    let width = blocks.next_multiple_of(2) * KV_BLOCK;
                    if let Some(cap) = job.scores.softcap {
                        for i in 0..rows {
                            soften::<V>(scores.add(i * CHUNK), width, cap);
                        }
                    }
                    for i in 0..rows {
                        let position = position_of(i);
                        let to = (position + 1).saturating_sub(chunk * CHUNK).min(width);
                        let from = job.scores.start(position);
                        let from = from.saturating_sub(chunk * CHUNK).min(to);
                        let (scores, sums) = (scores.add(i * CHUNK), sums.add(i * d_padded));
                        weigh::<V>(scores, width, from, to, &mut seen, i, sums, d_padded);
                    }
                    if int8 {
                        scale_by::<V>(scores, rows, &stored[..blocks], job.sizes.scales() + KV_BLOCK);
                    }
                    pack_weights::<V, PAIRS>(scores, width, weights);
                    for column in (0..d_padded).step_by(2 * LANES) {
                        let mut values = [std::ptr::null::<f32>(); CHUNK_BLOCKS];
                        for i in 0..blocks {
                            values[i] = keys[i].add(job.sizes.half() + column);
                        }
                        let of = Values { blocks: &values[..blocks], words: KV_BLOCK / per_word, stride: d_padded };
                        sum::<V, PAIRS>(rows, weights, of, sums.add(column));
                    }
                }
                for i in 0..rows {
                    let (found, found_sums) = ((seen.largest[i], seen.total[i]), sums.add(i * d_padded));
                    match target {
                        To::Output(_) => {
                            let before = (&mut whole.largest[i], &mut whole.total[i]);
                            merge::<V>(before, whole_sums.add(i * d_padded), found, found_sums, d_padded);
                        }
                        To::Part(_, to) => {
                            let to = to.add((first + i) * (d_padded + 2));
                            to.copy_from_nonoverlapping(found_sums, d_padded);
                            (*to.add(d_padded), *to.add(d_padded + 1)) = found;
                        }
                    }
                }
            }
            let To::Output(output) = target else { continue };
            for i in 0..rows {
                let (position, head) = ((first + i) / group, kv_head * group + (first + i) % group);
                let to = output.at(((piece.first_row + position) * job.heads + head) * d);
                finish::<V>(whole.total[i], whole_sums.add(i * d_padded), to, d);
            }
        }
    }
}

/// `cap tanh(score / cap)` instead of each score: tanh(x) is 1 - 2 / (1 + e^2x).
#[inline(always)]
unsafe fn soften<V: Lanes>(scores: *mut f32, width: usize, cap: f32) {
    // SAFETY: the caller promises `width` scores, a multiple of 16.
    unsafe {
        let (one, two, cap_each) = (V::splat(1.0), V::splat(2.0), V::splat(cap));
        for j in (0..width).step_by(LANES) {
            let x = V::load(scores.add(j)).mul(V::splat(2.0 / cap)).exp();
            cap_each.mul(one.sub(two.div(one.add(x)))).store(scores.add(j));
        }
    }
}

/// Divides sums by their total.
#[inline(always)]
unsafe fn finish<V: Lanes>(total: f32, sums: *const f32, to: *mut f32, d: usize) {
    // SAFETY: the caller promises `d` values of both.
    unsafe {
        let factor = V::splat(1.0 / total);
        for_vectors!(d, |j, count| store(V::load(sums.add(j)).mul(factor), to.add(j), count));
    }
}

/// Merges the parts `[segments][part]` of a lone position and one group of heads, in their order, into the output.
///
/// # Safety
/// The parts are written; nobody else writes these heads of this row; the scratch has the size that `Sizes` says.
#[inline(always)]
unsafe fn join_generic<V: Lanes>(
    job: &Job,
    row: usize,
    kv_head: usize,
    parts: &[f32],
    output: SharedMut,
    scratch: *mut f32,
) {
    let Sizes { d, d_padded, .. } = job.sizes;
    let group = job.heads / job.kv_heads;
    // SAFETY: the caller's promises.
    unsafe {
        for i in 0..group {
            let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
            for part in parts.chunks_exact(job.sizes.part(group)) {
                let part = part.as_ptr().add(i * (d_padded + 2));
                let found = (*part.add(d_padded), *part.add(d_padded + 1));
                merge::<V>((&mut largest, &mut total), scratch, found, part, d_padded);
            }
            finish::<V>(total, scratch, output.at((row * job.heads + kv_head * group + i) * d), d);
        }
    }
}
for_each_isa! {
    pub(super) unsafe fn join(
        job: &Job, row: usize, kv_head: usize, parts: &[f32], output: SharedMut, scratch: *mut f32,
    ) = join_generic
}

/// Multiplies rows of scores or weights by the scales of their positions, which stand in each block at `offset`.
#[inline(always)]
unsafe fn scale_by<V: Lanes>(scores: *mut f32, rows: usize, blocks: &[*const f32], offset: usize) {
    // SAFETY: the caller promises the rows and the blocks.
    unsafe {
        for (i, block) in blocks.iter().enumerate() {
            let scale = V::load(block.add(offset));
            for row in 0..rows {
                let at = scores.add(row * CHUNK + i * KV_BLOCK);
                V::load(at).mul(scale).store(at);
            }
        }
    }
}

/// Turns scores `from..to` of a row into weights relative to the largest so far, the others into 0, and rescales what
/// the row has summed.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn weigh<V: Lanes>(
    row: *mut f32,
    width: usize,
    from: usize,
    to: usize,
    seen: &mut Seen,
    i: usize,
    sums: *mut f32,
    d_padded: usize,
) {
    // SAFETY: the caller promises `width` scores and `d_padded` sums.
    unsafe {
        if from >= to {
            row.write_bytes(0, width);
            return;
        }
        let lanes = |j: usize| (from.saturating_sub(j).min(LANES), to.saturating_sub(j).min(LANES));
        let mut largest = V::splat(f32::NEG_INFINITY);
        let (first, end) = (from / LANES * LANES, to.next_multiple_of(LANES));
        let mut j = first;
        while j < end {
            largest = largest.max(masked(V::load(row.add(j)), lanes(j), f32::NEG_INFINITY));
            j += LANES;
        }
        let before = seen.largest[i];
        let now = before.max(largest.largest());
        row.write_bytes(0, first);
        let mut total = V::splat(0.0);
        j = first;
        while j < end {
            let weight = masked(V::load(row.add(j)).sub(V::splat(now)).exp(), lanes(j), 0.0);
            weight.store(row.add(j));
            total = total.add(weight);
            j += LANES;
        }
        row.add(end).write_bytes(0, width - end);
        seen.largest[i] = now;
        if now != before && before != f32::NEG_INFINITY {
            let mut shrink = [0f32; LANES];
            V::splat(before - now).exp().store(shrink.as_mut_ptr());
            let factor = V::splat(shrink[0]);
            seen.total[i] *= shrink[0];
            j = 0;
            while j < d_padded {
                V::load(sums.add(j)).mul(factor).store(sums.add(j));
                j += LANES;
            }
        }
        seen.total[i] += total.sum();
    }
}

/// Weights `[16 rows][CHUNK]`, of which `width` count -> `[words][16 rows]`. Width is a multiple of 32.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn pack_weights<V: Lanes, const PAIRS: bool>(scores: *const f32, width: usize, to: *mut f32) {
    let step = if PAIRS { 2 * LANES } else { LANES };
    // SAFETY: the caller promises both arrays.
    unsafe {
        for (block, j) in (0..width).step_by(step).enumerate() {
            let mut words = [V::splat(0.0); LANES];
            for i in 0..LANES {
                let from = scores.add(i * CHUNK + j);
                words[i] = V::load(from);
                if PAIRS {
                    words[i] = V::pairs_within(words[i], V::load(from.add(LANES)));
                }
            }
            V::transpose(&mut words);
            for i in 0..LANES {
                words[i].store(to.add((block * LANES + i) * LANES));
            }
        }
    }
}

/// Calls a function with the number of rows as a constant.
macro_rules! with_rows {
    ($v:ident, $rows:expr, $function:ident, $pairs:ident, ($($arg:expr),*)) => {
        match $rows {
            1 => $function::<$v, 1, $pairs>($($arg),*),
            2 => $function::<$v, 2, $pairs>($($arg),*),
            3 => $function::<$v, 3, $pairs>($($arg),*),
            // Rows that an instruction set's tile never has are not compiled for it.
            _ if $v::TILE_ROWS <= 3 => unreachable!(),
            4 => $function::<$v, 4, $pairs>($($arg),*),
            _ if $v::TILE_ROWS <= 4 => unreachable!(),
            5 => $function::<$v, 5, $pairs>($($arg),*),
            6 => $function::<$v, 6, $pairs>($($arg),*),
            7 => $function::<$v, 7, $pairs>($($arg),*),
            8 => $function::<$v, 8, $pairs>($($arg),*),
            9 => $function::<$v, 9, $pairs>($($arg),*),
            10 => $function::<$v, 10, $pairs>($($arg),*),
            11 => $function::<$v, 11, $pairs>($($arg),*),
            12 => $function::<$v, 12, $pairs>($($arg),*),
            13 => $function::<$v, 13, $pairs>($($arg),*),
            _ => $function::<$v, 14, $pairs>($($arg),*),
        }
    };
}

/// Scores of rows against two blocks of keys: `queries [words][16 rows]` -> `to [rows][CHUNK]`, 32 of each row.
#[inline(always)]
unsafe fn score<V: Lanes, const PAIRS: bool>(
    rows: usize,
    queries: *const f32,
    words: usize,
    keys: [*const f32; 2],
    to: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe { with_rows!(V, rows, score_rows, PAIRS, (queries, words, keys, to)) }
}

#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn score_rows<V: Lanes, const R: usize, const PAIRS: bool>(
    queries: *const f32,
    words: usize,
    keys: [*const f32; 2],
    to: *mut f32,
) {
    // SAFETY: the caller promises `words` words of 16 rows and of 16 positions, and room for the scores.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        for word in 0..words {
            let (left, right) = (V::load(keys[0].add(word * KV_BLOCK)), V::load(keys[1].add(word * KV_BLOCK)));
            for row in 0..R {
                let factor = V::splat(*queries.add(word * LANES + row));
                if PAIRS {
                    sums[row][0] = sums[row][0].dot_pairs(factor, left);
                    sums[row][1] = sums[row][1].dot_pairs(factor, right);
                } else {
                    sums[row][0] = factor.fma(left, sums[row][0]);
                    sums[row][1] = factor.fma(right, sums[row][1]);
                }
            }
        }
        for row in 0..R {
            sums[row][0].store(to.add(row * CHUNK));
            sums[row][1].store(to.add(row * CHUNK + KV_BLOCK));
        }
    }
}

/// 32 columns of the values of a chunk.
#[derive(Clone, Copy)]
struct Values<'a> {
    blocks: &'a [*const f32],
    /// Words of positions in a block, `stride` apart.
    words: usize,
    stride: usize,
}

/// Weighted sums of values: `weights [words][16 rows]`, added to 32 columns of `sums [rows][stride]`.
#[inline(always)]
unsafe fn sum<V: Lanes, const PAIRS: bool>(rows: usize, weights: *const f32, values: Values, sums: *mut f32) {
    // SAFETY: the caller's promises.
    unsafe { with_rows!(V, rows, sum_rows, PAIRS, (weights, values, sums)) }
}

#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn sum_rows<V: Lanes, const R: usize, const PAIRS: bool>(weights: *const f32, values: Values, to: *mut f32) {
    // SAFETY: the caller promises a weight for each row and word, and the blocks.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        for row in 0..R {
            sums[row][0] = V::load(to.add(row * values.stride));
            sums[row][1] = V::load(to.add(row * values.stride + LANES));
        }
        let mut weights = weights;
        for block in values.blocks {
            for word in 0..values.words {
                let from = block.add(word * values.stride);
                let (left, right) = (V::load(from), V::load(from.add(LANES)));
                for row in 0..R {
                    let factor = V::splat(*weights.add(row));
                    if PAIRS {
                        sums[row][0] = sums[row][0].dot_pairs(factor, left);
                        sums[row][1] = sums[row][1].dot_pairs(factor, right);
                    } else {
                        sums[row][0] = factor.fma(left, sums[row][0]);
                        sums[row][1] = factor.fma(right, sums[row][1]);
                    }
                }
                weights = weights.wrapping_add(LANES);
            }
        }
        for row in 0..R {
            sums[row][0].store(to.add(row * values.stride));
            sums[row][1].store(to.add(row * values.stride + LANES));
        }
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
    append_generic, append_f32_generic, append_f32, append_bf16_generic, append_bf16,
    (job: &Job, piece: &Piece)
}
both_precisions! {
    attend_generic, attend_f32_generic, attend_f32, attend_bf16_generic, attend_bf16,
    (job: &Job, piece: &Piece, kv_head: usize, target: To, scratch: *mut f32)
}
