//! The backward pass of attention over sequences of different lengths: one head of one sequence, in blocks of 64
//! queries whose weights are computed again and stay in cache. Knows slices and sizes; no tape.

use super::{COLUMNS, QUERIES, Rows, each_head, gather, multiply, product_flop, table_values, weigh};
use crate::{
    flex::{dims, filled, values},
    machine::{
        parallel::{Shared, SharedMut},
        profile::timed,
        simd::{
            LANES, Lanes, for_each_isa,
            rows::{for_vectors, load, store, transpose},
        },
    },
    operators::{ragged::RaggedShape, rotary::rotate},
};
use burn::backend::flex::FlexTensor;
use std::ops::Range;

#[derive(Clone, Copy)]
struct Job<'a> {
    shape: &'a RaggedShape,
    qkv: Shared,
    /// Null for none.
    table: *const f32,
    gradient: Shared,
    dqkv: SharedMut,
}

// SAFETY: the table is only read while the caller holds its borrow; the others are `Sync` themselves.
unsafe impl Sync for Job<'_> {}

/// The gradient of qkv `[N, 3 H D]`, from that of the output `[N, H D]`.
pub(super) fn backward(
    qkv: &FlexTensor,
    table: Option<&FlexTensor>,
    gradient: &FlexTensor,
    shape: &RaggedShape,
) -> FlexTensor {
    let [n, width] = dims(qkv);
    timed("ragged attention backward", 5.0 * product_flop(shape), || {
        filled([n, width], |dqkv| {
            let (qkv, table) = (Shared::new(values(qkv)), table_values(table));
            let (gradient, dqkv) = (Shared::new(values(gradient)), SharedMut::new(dqkv));
            let job = &Job { shape, qkv, table, gradient, dqkv };
            each_head(
                shape,
                |len| scratch(len, shape.head_width),
                |first_row, len, head, scratch| {
                    // SAFETY: rows and head are inside, no other task writes them, and the scratch is what the kernel
                    // asks for.
                    unsafe { attend_back(job, first_row, len, head, scratch.as_mut_ptr()) }
                },
            );
        })
    })
}

/// Arrays `[T, D]` of a sequence, `[64, D]` of a block of queries, and `[64, T]` of a block's scores.
const WHOLE: usize = 6;
const BLOCKS: usize = 5;
const SCORES: usize = 4;

/// Values of scratch for a sequence.
fn scratch(len: usize, d: usize) -> usize {
    let (len, d) = (len.next_multiple_of(COLUMNS), d.next_multiple_of(COLUMNS));
    WHOLE * len * d + BLOCKS * QUERIES * d + SCORES * QUERIES * len
}

/// One head of one sequence. With P the weights, O their product with the values V, and dO its gradient: `dV = Pᵀ dO`,
/// `dP = dO Vᵀ`, `dS = P (dP - rows' sums of P dP)`, `dQ = dS K`, `dK = dSᵀ Q`.
///
/// # Safety
/// The rows are inside, nobody else writes that head of them, and `scratch` has as many values as [`scratch()`] says.
#[inline(always)]
unsafe fn attend_back_generic<V: Lanes>(job: &Job, first_row: usize, len: usize, head: usize, scratch: *mut f32) {
    let (h, d) = (job.shape.heads, job.shape.head_width);
    let (row, width) = (3 * h * d, d.next_multiple_of(COLUMNS));
    let padded = len.next_multiple_of(COLUMNS);
    let unturned = std::ptr::null();
    let mut next = scratch;
    let mut take = |len: usize| {
        let part = next;
        next = next.wrapping_add(len);
        part
    };
    let [plain_keys, keys, plain_values, value_columns, dkeys, dvalues] = [(); WHOLE].map(|()| take(padded * width));
    let [plain_queries, queries, plain_gradients, gradients, dqueries] = [(); BLOCKS].map(|()| take(QUERIES * width));
    let [weights, dropped, dscores, turned] = [(); SCORES].map(|()| take(QUERIES * padded));
    // SAFETY: the scratch has the parts taken above; the places are inside the arrays.
    unsafe {
        let place = |number: usize| Rows { first: job.qkv.at(first_row * row + (number * h + head) * d), stride: row };
        let given = Rows { first: job.gradient.at(first_row * h * d + head * d), stride: h * d };
        gather::<V>(place(1), job.table, 0..len, [padded, d], 1.0, plain_keys);
        transpose::<V>(plain_keys, padded, width, keys);
        gather::<V>(place(2), unturned, 0..len, [padded, d], 1.0, plain_values);
        transpose::<V>(plain_values, padded, width, value_columns);
        dkeys.write_bytes(0, padded * width);
        dvalues.write_bytes(0, padded * width);
        for first in (0..len).step_by(QUERIES) {
            let block = first..len.min(first + QUERIES);
            let rows = block.len();
            let tall = rows.next_multiple_of(LANES);
            gather::<V>(place(0), job.table, block.clone(), [tall, d], job.shape.scale(), plain_queries);
            transpose::<V>(plain_queries, tall, width, queries);
            gather::<V>(given, unturned, block.clone(), [tall, d], 1.0, plain_gradients);
            transpose::<V>(plain_gradients, tall, width, gradients);
            let seen = job.shape.keys(&block, len);
            let first_key = seen.start / COLUMNS * COLUMNS;
            let across = (seen.end - first_key).next_multiple_of(COLUMNS);
            for (a, b, c) in [(queries, keys, weights), (gradients, value_columns, dscores)] {
                let factors = [(a.cast_const(), tall), (b.add(first_key).cast_const(), padded)];
                multiply::<V>(rows, across, width, factors, (c, across), false);
            }
            let kept = if job.shape.dropout.is_some() { dropped } else { weights };
            let scores = Scores { weights, dropped, dscores, across, first_key };
            differentiate::<V>(job, first_row, len, head, block.clone(), scores);
            // The depth is the queries of the block.
            for (a, b, c) in [(kept, plain_gradients, dvalues), (dscores, plain_queries, dkeys)] {
                let factors = [(a.cast_const(), across), (b.cast_const(), width)];
                multiply::<V>(across, width, rows, factors, (c.add(first_key * width), width), true);
            }
            // The depth is the keys that the block sees.
            dscores.add(rows * across).write_bytes(0, (tall - rows) * across);
            transpose::<V>(dscores, tall, across, turned);
            let factors = [(turned.cast_const(), tall), (plain_keys.add(first_key * width).cast_const(), width)];
            multiply::<V>(rows, width, seen.end - first_key, factors, (dqueries, width), false);
            scatter::<V>(job, job.shape.scale(), dqueries, block, first_row * row + head * d);
        }
        scatter::<V>(job, 1.0, dkeys, 0..len, first_row * row + (h + head) * d);
        for position in 0..len {
            let to = job.dqkv.at((first_row + position) * row + (2 * h + head) * d);
            to.copy_from_nonoverlapping(dvalues.add(position * width), d);
        }
    }
}
for_each_isa! {
    unsafe fn attend_back(job: &Job, first_row: usize, len: usize, head: usize, scratch: *mut f32) = attend_back_generic
}

/// The arrays of a block of queries, `[64, across]`, whose first column is key `first_key`.
#[derive(Clone, Copy)]
struct Scores {
    weights: *mut f32,
    /// With dropout, the weights that it leaves.
    dropped: *mut f32,
    dscores: *mut f32,
    across: usize,
    first_key: usize,
}

/// Turns scores into weights, and the gradients of weights into those of scores.
///
/// # Safety
/// The arrays have rows for the block.
#[inline(always)]
unsafe fn differentiate<V: Lanes>(
    job: &Job,
    first_row: usize,
    len: usize,
    head: usize,
    block: Range<usize>,
    Scores { weights, dropped, dscores, across, first_key }: Scores,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (i, query) in block.enumerate() {
            let (row, dropped, drow) = (weights.add(i * across), dropped.add(i * across), dscores.add(i * across));
            let own = job.shape.keys(&(query..query + 1), len);
            weigh::<V>(row, across, own.start - first_key..own.end - first_key);
            if let Some(dropout) = &job.shape.dropout {
                dropped.write_bytes(0, across);
                for key in own {
                    let factor = job.shape.dropped(dropout, head, first_row + query, key);
                    *dropped.add(key - first_key) = *row.add(key - first_key) * factor;
                    *drow.add(key - first_key) *= factor;
                }
            }
            let mut dot = V::splat(0.0);
            for at in (0..across).step_by(LANES) {
                dot = V::load(row.add(at)).fma(V::load(drow.add(at)), dot);
            }
            let dot = V::splat(dot.sum());
            for at in (0..across).step_by(LANES) {
                V::load(drow.add(at)).sub(dot).mul(V::load(row.add(at))).store(drow.add(at));
            }
        }
    }
}

/// Puts rows `[positions, width]` times `scale` in their places of the gradient, turned back.
///
/// # Safety
/// The rows are there, and the places are inside.
#[inline(always)]
unsafe fn scatter<V: Lanes>(job: &Job, scale: f32, from: *mut f32, positions: Range<usize>, place: usize) {
    let d = job.shape.head_width;
    let (stride, width) = (3 * job.shape.heads * d, d.next_multiple_of(COLUMNS));
    // SAFETY: the caller's promise.
    unsafe {
        let factor = V::splat(scale);
        for (i, position) in positions.enumerate() {
            let (from, to) = (from.add(i * width), job.dqkv.at(place + position * stride));
            if job.table.is_null() {
                for_vectors!(d, |j, count| store(load::<V>(from.add(j), count).mul(factor), to.add(j), count));
            } else {
                for_vectors!(d, |j, count| store(load::<V>(from.add(j), count).mul(factor), from.add(j), count));
                rotate::<V>(from, job.table.add(position * d), to, d, true);
            }
        }
    }
}
