//! What stands between the products of attention: rows of scores become weights, and weights gradients; inputs are
//! gathered and results written. Knows how a job's arrays lie; nothing of how products are computed.

use super::blocks::{BLOCK, Given, Job, Sizes};
use crate::{
    machine::{
        parallel::SharedMut,
        simd::{
            LANES, Lanes,
            rows::{for_vectors, load, masked, store},
        },
    },
    operators::rotary::rotate,
};

/// A block of queries on its way over the keys.
pub(super) struct Rows {
    /// The largest score of each row so far.
    largest: [f32; BLOCK],
    /// The sum of the exponentials relative to it.
    totals: [f32; BLOCK],
    /// `[64, d_padded]`: the sums of values so far, weighed by them.
    sums: *mut f32,
}

impl Rows {
    /// At the first block of keys.
    pub(super) fn new(sums: *mut f32) -> Self {
        Self { largest: [f32::NEG_INFINITY; BLOCK], totals: [0.0; BLOCK], sums }
    }
}

impl Job<'_> {
    /// Makes weights of a block of scores `[64, 64]`, and scales what was summed before to the new largest.
    ///
    /// # Safety
    /// The arrays are there.
    #[inline(always)]
    pub(super) unsafe fn weigh_block<V: Lanes>(
        &self,
        head: usize,
        [first_query, first_key]: [usize; 2],
        go_on: bool,
        scores: *mut f32,
        rows: &mut Rows,
    ) {
        let Sizes { t, d_padded, .. } = self.sizes;
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..BLOCK {
                let position = (first_query + i).min(t - 1);
                let start = self.shape.start(self.sequence, position);
                let (from, to) = (start.max(first_key) - first_key, (position + 1).min(first_key + BLOCK) - first_key);
                let row = scores.add(i * BLOCK);
                let (new, total, shrink) = weigh::<V>(row, from, to, rows.largest[i]);
                rows.largest[i] = new;
                rows.totals[i] = rows.totals[i] * shrink + total;
                if let Some(dropout) = &self.shape.dropout {
                    for key in from.min(BLOCK)..to {
                        *row.add(key) *=
                            self.shape.dropped(dropout, head, self.sequence * t + position, first_key + key);
                    }
                }
                if go_on && shrink != 1.0 {
                    let (shrink, sums) = (V::splat(shrink), rows.sums.add(i * d_padded));
                    for j in (0..d_padded).step_by(LANES) {
                        V::load(sums.add(j)).mul(shrink).store(sums.add(j));
                    }
                }
            }
        }
    }

    /// Writes a block of queries that have seen all their keys.
    ///
    /// # Safety
    /// The arrays have the job's shape, and nobody else writes these rows of this head.
    #[inline(always)]
    pub(super) unsafe fn write_rows<V: Lanes>(
        &self,
        head: usize,
        first_query: usize,
        rows: &Rows,
        output: SharedMut,
        log_sums: SharedMut,
    ) {
        let Sizes { t, d, d_padded, .. } = self.sizes;
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..BLOCK.min(t - first_query) {
                let position = first_query + i;
                let log_sum = rows.largest[i] + rows.totals[i].ln();
                *log_sums.at((self.sequence * self.shape.heads + head) * t + position) = log_sum;
                let (factor, sums) = (V::splat(1.0 / rows.totals[i]), rows.sums.add(i * d_padded));
                let to = output.at(self.out_offset(head, position));
                for_vectors!(d, |j, count| store(V::load(sums.add(j)).mul(factor), to.add(j), count));
            }
        }
    }

    /// Copies the gradient of a head's outputs to `[t_padded, d_padded]`, and beside it each row's log-sum and the
    /// product of its gradient with its output.
    ///
    /// # Safety
    /// The arrays are there.
    #[inline(always)]
    pub(super) unsafe fn gather_gradient<V: Lanes>(
        &self,
        head: usize,
        given: Given,
        to: *mut f32,
        [log_sums, dots]: [*mut f32; 2],
    ) {
        let Sizes { t, t_padded, d, d_padded, .. } = self.sizes;
        // SAFETY: the caller's promise.
        unsafe {
            for position in 0..t_padded {
                let row = to.add(position * d_padded);
                row.write_bytes(0, d_padded);
                *log_sums.add(position) = 0.0;
                *dots.add(position) = 0.0;
                if position < t {
                    let at = self.out_offset(head, position);
                    row.copy_from_nonoverlapping(given.gradient.at(at), d);
                    *log_sums.add(position) =
                        *given.log_sums.at((self.sequence * self.shape.heads + head) * t + position);
                    let mut dot = V::splat(0.0);
                    for_vectors!(d, |j, count| {
                        dot = load::<V>(row.add(j), count).fma(load(given.output.at(at + j), count), dot);
                    });
                    *dots.add(position) = dot.sum();
                }
            }
        }
    }

    /// Makes weights of a block of scores, and of the gradients of weights those of scores.
    ///
    /// # Safety
    /// The arrays are there.
    #[inline(always)]
    pub(super) unsafe fn differentiate_block<V: Lanes>(
        &self,
        head: usize,
        [first_query, first_key]: [usize; 2],
        scores: *mut f32,
        dscores: *mut f32,
        [log_sums, dots]: [*mut f32; 2],
    ) {
        let t = self.sizes.t;
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..BLOCK {
                let position = (first_query + i).min(t - 1);
                let start = self.shape.start(self.sequence, position);
                let from = (start.max(first_key) - first_key).min(BLOCK);
                let to = (position + 1).min(first_key + BLOCK) - first_key;
                let (row, drow) = (scores.add(i * BLOCK), dscores.add(i * BLOCK));
                let log_sum = V::splat(*log_sums.add(first_query + i));
                let dot = V::splat(*dots.add(first_query + i));
                let dropped =
                    |dropout, key| self.shape.dropped(dropout, head, self.sequence * t + position, first_key + key);
                if let Some(dropout) = &self.shape.dropout {
                    for key in from..to {
                        *drow.add(key) *= dropped(dropout, key);
                    }
                }
                for j in (0..BLOCK).step_by(LANES) {
                    let lanes = lanes_within(j, from, to);
                    let (mut weight, mut dscore) = (V::splat(0.0), V::splat(0.0));
                    if lanes.0 < lanes.1 {
                        weight = masked(V::load(row.add(j)).sub(log_sum).exp(), lanes, 0.0);
                        dscore = masked(V::load(drow.add(j)).sub(dot).mul(weight), lanes, 0.0);
                    }
                    weight.store(row.add(j));
                    dscore.store(drow.add(j));
                }
                if let Some(dropout) = &self.shape.dropout {
                    for key in from..to {
                        *row.add(key) *= dropped(dropout, key);
                    }
                }
            }
        }
    }

    /// Writes the gradient of a head's queries, `[t_padded, d_padded]`, scaled and turned back.
    ///
    /// # Safety
    /// The arrays are there, and nobody else writes this head.
    #[inline(always)]
    pub(super) unsafe fn write_query_gradient<V: Lanes>(&self, head: usize, dqueries: *mut f32, dqkv: SharedMut) {
        let Sizes { t, d, d_padded, .. } = self.sizes;
        // SAFETY: the caller's promise.
        unsafe {
            let scale = V::splat(self.shape.scale());
            for position in 0..t {
                let row = dqueries.add(position * d_padded);
                for_vectors!(d, |j, count| store(load::<V>(row.add(j), count).mul(scale), row.add(j), count));
                rotate::<V>(row, self.table.at(position * d), dqkv.at(self.offset(head, position)), d, true);
            }
        }
    }

    /// Writes the gradients of the job's keys, turned back, and of its values, both `[t_padded, d_padded]`.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    pub(super) unsafe fn write_key_gradients<V: Lanes>(&self, dkeys: *const f32, dvalues: *const f32, dqkv: SharedMut) {
        let Sizes { t, d, d_padded, .. } = self.sizes;
        // SAFETY: the caller's promise.
        unsafe {
            for position in 0..t {
                let (dkey, dvalue) = (dkeys.add(position * d_padded), dvalues.add(position * d_padded));
                let to = |head| dqkv.at(self.offset(head, position));
                rotate::<V>(dkey, self.table.at(position * d), to(self.key_head()), d, true);
                to(self.value_head()).copy_from_nonoverlapping(dvalue, d);
            }
        }
    }
}

/// The lanes of vector `j` of a row that lie in `from..to` of the row.
#[inline(always)]
fn lanes_within(j: usize, from: usize, to: usize) -> (usize, usize) {
    (from.saturating_sub(j).min(LANES), to.saturating_sub(j).min(LANES))
}

/// Turns scores `from..to` of a row of 64 into exponentials relative to the largest so far, and the others into 0:
/// (the largest now, the sum of the exponentials, the factor for what was summed before).
///
/// # Safety
/// `row` has 64 values.
#[inline(always)]
unsafe fn weigh<V: Lanes>(row: *mut f32, from: usize, to: usize, before: f32) -> (f32, f32, f32) {
    // SAFETY: the caller's promise.
    unsafe {
        if from >= to {
            row.write_bytes(0, BLOCK);
            return (before, 0.0, 1.0);
        }
        let mut largest = V::splat(before);
        for j in (0..BLOCK).step_by(LANES) {
            let lanes = lanes_within(j, from, to);
            if lanes.0 < lanes.1 {
                largest = largest.max(masked(V::load(row.add(j)), lanes, f32::NEG_INFINITY));
            }
        }
        let now = largest.largest();
        let (mut total, shift) = (V::splat(0.0), V::splat(now));
        for j in (0..BLOCK).step_by(LANES) {
            let lanes = lanes_within(j, from, to);
            let mut weights = V::splat(0.0);
            if lanes.0 < lanes.1 {
                weights = masked(V::load(row.add(j)).sub(shift).exp(), lanes, 0.0);
            }
            weights.store(row.add(j));
            total = total.add(weights);
        }
        let shrink = match before {
            f32::NEG_INFINITY => 0.0,
            _ if before == now => 1.0,
            _ => V::splat(before - now).exp().largest(),
        };
        (now, total.sum(), shrink)
    }
}
