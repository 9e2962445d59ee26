//! Attention in bf16 on matrix tiles, in the same blocks of 64 queries by 64 keys. Its gradients of keys and values are
//! computed transposed, so that no block of weights needs turning: dVᵀ += dOᵀ P and dKᵀ += Qᵀ dS.
//!
//! The order of a sum is that of tiles over what is added up: head width, or the positions of a block, 32 at a time.

use super::{
    blocks::{BLOCK, Given, Job, Parts, Sizes},
    rows::Rows,
};
use crate::machine::{
    parallel::SharedMut,
    simd::{
        LANES, Lanes,
        amx::{self, Place},
        for_each_isa,
        rows::transpose,
    },
};

/// Values of a tile, and steps of it in a block of positions.
const TILE: usize = amx::SIDE * amx::SIDE;
const BLOCK_STEPS: usize = BLOCK / (2 * amx::SIDE);

/// `[rows, width]` as rows of a product over the width: tiles `[row / 16][step][16][16]`.
#[inline(always)]
unsafe fn rows_over_width<V: Lanes>(from: *const f32, rows: usize, width: usize, to: *mut f32) {
    let steps = width / (2 * LANES);
    // SAFETY: the caller promises both arrays; rows are a multiple of 16, the width of 32.
    unsafe {
        for row in 0..rows {
            let from = from.add(row * width);
            let to = to.add(row / amx::SIDE * steps * TILE + row % amx::SIDE * amx::SIDE);
            for step in 0..steps {
                let from = from.add(step * 2 * LANES);
                V::pairs_within(V::load(from), V::load(from.add(LANES))).store(to.add(step * TILE));
            }
        }
    }
}

/// `[rows, width]` as columns of a product over the width: panels `[row / 32][word][32]`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn columns_over_width<V: Lanes>(from: *const f32, rows: usize, width: usize, to: *mut f32) {
    let words = width / 2;
    // SAFETY: as above; rows are a multiple of 32.
    unsafe {
        for row in (0..rows).step_by(LANES) {
            let to = to.add(row / amx::COLUMNS * words * amx::COLUMNS + row % amx::COLUMNS);
            for word in (0..words).step_by(LANES) {
                let mut block = [V::splat(0.0); LANES];
                for i in 0..LANES {
                    let from = from.add((row + i) * width + 2 * word);
                    block[i] = V::pairs_within(V::load(from), V::load(from.add(LANES)));
                }
                V::transpose(&mut block);
                for i in 0..LANES {
                    block[i].store(to.add((word + i) * amx::COLUMNS));
                }
            }
        }
    }
}

/// `[rows, width]` as columns of a product over the rows: panels `[column / 32][pair of rows][32]`.
#[inline(always)]
unsafe fn columns_over_rows<V: Lanes>(from: *const f32, rows: usize, width: usize, to: *mut f32) {
    // SAFETY: as above.
    unsafe {
        for pair in 0..rows / 2 {
            let from = from.add(2 * pair * width);
            for column in (0..width).step_by(LANES) {
                let to = to.add((column / amx::COLUMNS * (rows / 2) + pair) * amx::COLUMNS + column % amx::COLUMNS);
                V::pairs_across(V::load(from.add(column)), V::load(from.add(width + column))).store(to);
            }
        }
    }
}

/// `[rows, width]`, turned, as rows of a product over the rows: tiles `[column / 16][step][16][16]`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn turned_over_rows<V: Lanes>(from: *const f32, rows: usize, width: usize, to: *mut f32) {
    let steps = rows / (2 * LANES);
    // SAFETY: as above; rows are a multiple of 32.
    unsafe {
        for step in 0..steps {
            for column in (0..width).step_by(LANES) {
                let mut block = [V::splat(0.0); LANES];
                for i in 0..LANES {
                    let from = from.add((step * 2 * LANES + 2 * i) * width + column);
                    block[i] = V::pairs_across(V::load(from), V::load(from.add(width)));
                }
                V::transpose(&mut block);
                let to = to.add((column / amx::SIDE * steps + step) * TILE);
                for i in 0..LANES {
                    block[i].store(to.add(i * amx::SIDE));
                }
            }
        }
    }
}

/// A product of packed arrays in cache.
#[derive(Clone, Copy)]
struct Small {
    /// Rows of the result, a multiple of 32, and its columns, too.
    rows: usize,
    columns: usize,
    /// Steps of 32 values that are added up.
    steps: usize,
    /// Tiles, and values from those of 16 rows to the next.
    a: *const f32,
    a_tile: usize,
    /// Panels, and values from one to the next.
    b: *const f32,
    b_panel: usize,
    /// The result and the distance of its rows.
    c: *mut f32,
    stride: usize,
    go_on: bool,
    part: Part,
}

/// What of a product between a block of queries and a block of keys counts, in halves of 32 of each.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// All of it.
    Whole,
    /// On the diagonal, queries by keys: the second half of keys has no weight for the first of queries.
    ColumnsToRow,
    /// On the diagonal, queries as rows and keys as depth: the first half of queries sees the first of keys.
    DepthToRow,
    /// On the diagonal, keys as columns and queries as depth: only the second half of queries sees the second of keys.
    DepthFromColumn,
}

/// # Safety
/// Tiles are set up, and the arrays are there.
#[inline(always)]
unsafe fn multiply(s: Small) {
    for row in (0..s.rows).step_by(amx::ROWS) {
        for column in (0..s.columns).step_by(amx::COLUMNS) {
            let (first, last) = match s.part {
                Part::Whole => (0, s.steps),
                Part::ColumnsToRow if column > row => continue,
                Part::ColumnsToRow => (0, s.steps),
                Part::DepthToRow => (0, (row / amx::ROWS + 1).min(s.steps)),
                Part::DepthFromColumn => (column / amx::COLUMNS, s.steps),
            };
            let a = s.a.wrapping_add(row / amx::SIDE * s.a_tile + first * TILE);
            let to = Place::new(s.c.wrapping_add(row * s.stride + column), s.stride);
            let run = amx::Run {
                from: if s.go_on { to } else { Place::zeros() },
                to,
                a,
                low: a.wrapping_add(s.a_tile),
                b: s.b.wrapping_add(column / amx::COLUMNS * s.b_panel + first * amx::SIDE * amx::COLUMNS),
                steps: last - first,
                next: a,
                lines: 0,
            };
            // SAFETY: the caller's promise.
            unsafe { amx::multiply(&run, amx::ROWS) }
        }
    }
}

#[inline(always)]
unsafe fn forward_generic<V: Lanes>(job: &Job, output: SharedMut, log_sums: SharedMut, scratch: *mut f32) {
    let sizes = job.sizes;
    let Sizes { t_padded, d_padded, .. } = sizes;
    let (width_steps, len_words) = (d_padded / (2 * amx::SIDE), t_padded / 2);
    let mut parts = Parts(scratch);
    let plain = parts.take(sizes.array());
    let keys = parts.take(sizes.array());
    let values = parts.take(sizes.array());
    let queries = parts.take(sizes.array());
    let scores = parts.take(BLOCK * BLOCK);
    let weights = parts.take(BLOCK * BLOCK);
    let sums = parts.take(BLOCK * d_padded);
    // SAFETY: the scratch has the parts taken above, which is what the caller made it for; offsets are inside; the set
    // in use has tiles.
    unsafe {
        amx::configure();
        job.gather::<V>(job.key_head(), true, 1.0, plain);
        columns_over_width::<V>(plain, t_padded, d_padded, keys);
        job.gather::<V>(job.value_head(), false, 1.0, plain);
        columns_over_rows::<V>(plain, t_padded, d_padded, values);
        for head in job.group() {
            job.gather::<V>(head, true, job.shape.scale(), plain);
            rows_over_width::<V>(plain, t_padded, d_padded, queries);
            for block in 0..t_padded / BLOCK {
                let first_query = block * BLOCK;
                let mut rows = Rows::new(sums);
                let first_key_block = job.first_key_block(block);
                for key_block in first_key_block..=block {
                    let first_key = key_block * BLOCK;
                    let go_on = key_block > first_key_block;
                    let on_diagonal = |part| if key_block == block { part } else { Part::Whole };
                    multiply(Small {
                        rows: BLOCK,
                        columns: BLOCK,
                        steps: width_steps,
                        a: queries.add(first_query / 2 * d_padded),
                        a_tile: width_steps * TILE,
                        b: keys.add(first_key / 2 * d_padded),
                        b_panel: d_padded / 2 * amx::COLUMNS,
                        c: scores,
                        stride: BLOCK,
                        go_on: false,
                        part: on_diagonal(Part::ColumnsToRow),
                    });
                    job.weigh_block::<V>(head, [first_query, first_key], go_on, scores, &mut rows);
                    rows_over_width::<V>(scores, BLOCK, BLOCK, weights);
                    multiply(Small {
                        rows: BLOCK,
                        columns: d_padded,
                        steps: BLOCK_STEPS,
                        a: weights,
                        a_tile: BLOCK_STEPS * TILE,
                        b: values.add(first_key / 2 * amx::COLUMNS),
                        b_panel: len_words * amx::COLUMNS,
                        c: sums,
                        stride: d_padded,
                        go_on,
                        part: on_diagonal(Part::DepthToRow),
                    });
                }
                job.write_rows::<V>(head, first_query, &rows, output, log_sums);
            }
        }
        amx::release();
    }
}

#[inline(always)]
unsafe fn backward_generic<V: Lanes>(job: &Job, given: Given, dqkv: SharedMut, scratch: *mut f32) {
    let sizes = job.sizes;
    let Sizes { t_padded, d_padded, .. } = sizes;
    let (width_steps, len_steps, len_words) = (d_padded / (2 * amx::SIDE), t_padded / (2 * amx::SIDE), t_padded / 2);
    let mut parts = Parts(scratch);
    let plain = parts.take(sizes.array());
    let keys = parts.take(sizes.array());
    let keys_down = parts.take(sizes.array());
    let values = parts.take(sizes.array());
    let queries = parts.take(sizes.array());
    let queries_turned = parts.take(sizes.array());
    let gradients = parts.take(sizes.array());
    let gradients_turned = parts.take(sizes.array());
    // The gradients of keys and values turned, in blocks of 64 positions: `[block][d_padded][64]`.
    let dkeys = parts.take(sizes.array());
    let dvalues = parts.take(sizes.array());
    let dqueries = parts.take(sizes.array());
    let scores = parts.take(BLOCK * BLOCK);
    let dscores = parts.take(BLOCK * BLOCK);
    let packed = parts.take(BLOCK * BLOCK);
    let log_sums = parts.take(t_padded);
    let dots = parts.take(t_padded);
    // SAFETY: as above.
    unsafe {
        amx::configure();
        job.gather::<V>(job.key_head(), true, 1.0, plain);
        columns_over_width::<V>(plain, t_padded, d_padded, keys);
        columns_over_rows::<V>(plain, t_padded, d_padded, keys_down);
        job.gather::<V>(job.value_head(), false, 1.0, plain);
        columns_over_width::<V>(plain, t_padded, d_padded, values);
        dkeys.write_bytes(0, sizes.array());
        dvalues.write_bytes(0, sizes.array());
        for head in job.group() {
            job.gather::<V>(head, true, job.shape.scale(), plain);
            rows_over_width::<V>(plain, t_padded, d_padded, queries);
            turned_over_rows::<V>(plain, t_padded, d_padded, queries_turned);
            dqueries.write_bytes(0, sizes.array());
            job.gather_gradient::<V>(head, given, plain, [log_sums, dots]);
            rows_over_width::<V>(plain, t_padded, d_padded, gradients);
            turned_over_rows::<V>(plain, t_padded, d_padded, gradients_turned);
            for block in 0..t_padded / BLOCK {
                let first_query = block * BLOCK;
                for key_block in job.first_key_block(block)..=block {
                    let first_key = key_block * BLOCK;
                    let on_diagonal = |part| if key_block == block { part } else { Part::Whole };
                    let block_of = |a: *const f32, b: *const f32, c| Small {
                        rows: BLOCK,
                        columns: BLOCK,
                        steps: width_steps,
                        a: a.add(first_query / 2 * d_padded),
                        a_tile: width_steps * TILE,
                        b: b.add(first_key / 2 * d_padded),
                        b_panel: d_padded / 2 * amx::COLUMNS,
                        c,
                        stride: BLOCK,
                        go_on: false,
                        part: on_diagonal(Part::ColumnsToRow),
                    };
                    multiply(block_of(queries, keys, scores));
                    multiply(block_of(gradients, values, dscores));
                    job.differentiate_block::<V>(head, [first_query, first_key], scores, dscores, [log_sums, dots]);
                    // dVᵀ += dOᵀ P, dKᵀ += Qᵀ dS: the depth is the queries of the block.
                    let turned = |a: *const f32, c: *mut f32| Small {
                        rows: d_padded,
                        columns: BLOCK,
                        steps: BLOCK_STEPS,
                        a: a.add(block * BLOCK_STEPS * TILE),
                        a_tile: len_steps * TILE,
                        b: packed,
                        b_panel: BLOCK / 2 * amx::COLUMNS,
                        c: c.add(first_key * d_padded),
                        stride: BLOCK,
                        go_on: true,
                        part: on_diagonal(Part::DepthFromColumn),
                    };
                    columns_over_rows::<V>(scores, BLOCK, BLOCK, packed);
                    multiply(turned(gradients_turned, dvalues));
                    columns_over_rows::<V>(dscores, BLOCK, BLOCK, packed);
                    multiply(turned(queries_turned, dkeys));
                    // dQ += dS K: the depth is the keys of the block.
                    rows_over_width::<V>(dscores, BLOCK, BLOCK, packed);
                    multiply(Small {
                        rows: BLOCK,
                        columns: d_padded,
                        steps: BLOCK_STEPS,
                        a: packed,
                        a_tile: BLOCK_STEPS * TILE,
                        b: keys_down.add(first_key / 2 * amx::COLUMNS),
                        b_panel: len_words * amx::COLUMNS,
                        c: dqueries.add(first_query * d_padded),
                        stride: d_padded,
                        go_on: true,
                        part: on_diagonal(Part::DepthToRow),
                    });
                }
            }
            job.write_query_gradient::<V>(head, dqueries, dqkv);
        }
        amx::release();
        // Nobody needs these any more.
        let (dkeys_down, dvalues_down) = (keys, values);
        for first in (0..t_padded * d_padded).step_by(BLOCK * d_padded) {
            transpose::<V>(dkeys.add(first), d_padded, BLOCK, dkeys_down.add(first));
            transpose::<V>(dvalues.add(first), d_padded, BLOCK, dvalues_down.add(first));
        }
        job.write_key_gradients::<V>(dkeys_down, dvalues_down, dqkv);
    }
}

for_each_isa! {
    pub(super) unsafe fn forward(job: &Job, output: SharedMut, log_sums: SharedMut, scratch: *mut f32) = forward_generic
}
for_each_isa! {
    pub(super) unsafe fn backward(job: &Job, given: Given, dqkv: SharedMut, scratch: *mut f32) = backward_generic
}
