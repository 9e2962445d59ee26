//! Products in bf16 on matrix tiles: the same packed panels of B, with A in tiles of 16 rows by 16 words.
//!
//! Two by two tiles of sums at a time, over a part of the depth so short that the panel's part stays in the nearest
//! cache while all rows pass by; between the parts the sums wait in a buffer of blocks.

use super::{Along, Area, Operand, Slab, TILE_COLUMNS};
use crate::machine::{
    parallel::with_scratch,
    simd::{
        LANES, Lanes,
        amx::{self, Place},
        for_each_isa,
        rows::{load_up_to, store},
    },
};
use std::ops::Range;

/// Depth of a part in steps of 16 words: a panel of it is half of the nearest cache.
const STEPS_AT_ONCE: usize = 12;

/// Steps of a panel ahead of the one in hand that a lone block fetches from memory.
const STEPS_AHEAD: usize = 2;

/// Lines of a panel in a step.
const PANEL_LINES: usize = 2 * amx::SIDE;

/// Values of a block of sums.
const BLOCK: usize = amx::ROWS * amx::COLUMNS;

/// Multiplies packed rows and panels, as [`super::multiply_generic`] does.
///
/// # Safety
/// The machine has tiles; the depth is a whole number of steps; `a` holds the tiles of the area's rows; `b` holds its
/// panels; nobody else touches that part of C.
pub(super) unsafe fn multiply(area: Area, a: *const f32, b: *const f32) {
    let blocks = area.rows.div_ceil(amx::ROWS);
    // SAFETY: the caller's promises.
    with_scratch(blocks * BLOCK, |sums| unsafe {
        amx::configure();
        for column in (0..area.columns).step_by(TILE_COLUMNS) {
            multiply_panel(&area, column, a, b.wrapping_add(column * area.words), sums);
        }
        amx::release();
    });
}

/// The sums of one panel.
///
/// # Safety
/// As above, with tiles set up; `sums` has room for a block for each 32 rows.
unsafe fn multiply_panel(area: &Area, column: usize, a: *const f32, b: *const f32, sums: &mut [f32]) {
    let steps = area.words / amx::SIDE;
    let blocks = area.rows.div_ceil(amx::ROWS);
    // A lone block reads its panel but once.
    let parts = if blocks == 1 { 1 } else { steps.div_ceil(STEPS_AT_ONCE).max(1) };
    let steps_at_once = steps.div_ceil(parts).max(1);
    let columns = TILE_COLUMNS.min(area.columns - column);
    let adds = !(area.finish.bias.is_null() && area.finish.residual.is_null());
    for first in (0..steps.max(1)).step_by(steps_at_once) {
        let part = first..steps.min(first + steps_at_once);
        let (begins, ends) = (part.start == 0, part.end == steps);
        for (block, sums) in sums.chunks_exact_mut(BLOCK).enumerate() {
            let row = block * amx::ROWS;
            let rows = row..area.rows.min(row + amx::ROWS);
            // Whole tiles to which nothing is added go straight into C, others by way of the buffer.
            let whole = columns == TILE_COLUMNS && rows.len().is_multiple_of(amx::SIDE);
            let buffer = Place::new(sums.as_mut_ptr(), amx::COLUMNS);
            // SAFETY: the caller's promises of the area.
            unsafe {
                let c = Place::new(area.c.add(row * area.stride + column), area.stride);
                let from = match (begins, area.go_on) {
                    (false, _) => buffer,
                    (true, false) => Place::zeros(),
                    (true, true) if whole => c,
                    (true, true) => {
                        take(area, rows.clone(), column, columns, sums);
                        buffer
                    }
                };
                let straight = ends && whole && !adds;
                if part.is_empty() {
                    // Nothing to add up.
                    match area.go_on {
                        true if whole => take(area, rows.clone(), column, columns, sums),
                        true => {}
                        false => sums.fill(0.0),
                    }
                    put(area, rows, column, columns, sums);
                    continue;
                }
                let a = a.wrapping_add(row * area.words + part.start * amx::SIDE * amx::SIDE);
                let panel = b.wrapping_add(part.start * amx::SIDE * TILE_COLUMNS);
                // A lone block waits for its panel itself, and fetches the steps that come; the blocks of a taller
                // area share the fetching of the next panel, which lies behind this one unless the caller knows better.
                let (next, lines) = match blocks {
                    1 => (panel.wrapping_add(STEPS_AHEAD * amx::SIDE * TILE_COLUMNS), PANEL_LINES),
                    _ => {
                        let lines = PANEL_LINES.div_ceil(blocks);
                        let behind = b.wrapping_add(area.words * TILE_COLUMNS);
                        let first = part.start * PANEL_LINES + block * lines * part.len();
                        (behind.wrapping_add(first * LANES), lines)
                    }
                };
                let run = amx::Run {
                    from,
                    to: if straight { c } else { buffer },
                    a,
                    low: a.wrapping_add(amx::SIDE * area.words),
                    b: panel,
                    steps: part.len(),
                    next,
                    lines,
                };
                amx::multiply(&run, rows.len());
                if ends && !straight {
                    put(area, rows, column, columns, sums);
                }
            }
        }
    }
}

/// Reads a block of C.
#[inline(always)]
unsafe fn take_generic<V: Lanes>(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &mut [f32]) {
    for (to, row) in sums.chunks_exact_mut(amx::COLUMNS).zip(rows) {
        // SAFETY: the caller promises that part of C.
        unsafe {
            let from = area.c.add(row * area.stride + column);
            load_up_to::<V>(from, columns.min(LANES)).store(to.as_mut_ptr());
            load_up_to::<V>(from.wrapping_add(LANES), columns.saturating_sub(LANES)).store(to[LANES..].as_mut_ptr());
        }
    }
}
for_each_isa! {
    /// See [`take_generic`].
    unsafe fn take(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &mut [f32]) = take_generic
}

/// Writes a block of C, with what is added at the end.
#[inline(always)]
unsafe fn put_generic<V: Lanes>(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &[f32]) {
    for (from, row) in sums.chunks_exact(amx::COLUMNS).zip(rows) {
        for half in (0..columns).step_by(LANES) {
            let count = (columns - half).min(LANES);
            // SAFETY: the caller promises that part of C, and of what is added.
            unsafe {
                let mut value = V::load(from[half..].as_ptr());
                let finish = area.finish.at(row, column + half, area.stride);
                if !finish.bias.is_null() {
                    value = value.add(load_up_to::<V>(finish.bias, count));
                }
                if !finish.residual.is_null() {
                    value = value.add(load_up_to::<V>(finish.residual, count));
                }
                store(value, area.c.add(row * area.stride + column + half), count);
            }
        }
    }
}
for_each_isa! {
    /// See [`put_generic`].
    unsafe fn put(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &[f32]) = put_generic
}

/// Packs rows of A over the depth of a slab in tiles: `to[tile][step][row][word]`, what there is no depth for as 0.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn pack_rows_generic<V: Lanes>(operand: &Operand, rows: Range<usize>, slab: Slab, to: *mut f32) {
    let tile = amx::SIDE * slab.words;
    // SAFETY: the caller promises that rows and depth are inside the operand, and room in `to`.
    unsafe {
        if operand.along == Along::Depth {
            for (i, row) in rows.enumerate() {
                let from = operand.stack.row(row).add(slab.first);
                let to = to.add(i / amx::SIDE * tile + i % amx::SIDE * amx::SIDE);
                for (step, depth) in (0..slab.len).step_by(2 * LANES).enumerate() {
                    let here = slab.len - depth;
                    let pairs = match here >= 2 * LANES {
                        true => V::pairs_within(V::load(from.add(depth)), V::load(from.add(depth + LANES))),
                        false => V::pairs_within(
                            load_up_to::<V>(from.add(depth), here.min(LANES)),
                            load_up_to::<V>(from.wrapping_add(depth + LANES), here.saturating_sub(LANES)),
                        ),
                    };
                    pairs.store(to.add(step * amx::SIDE * amx::SIDE));
                }
            }
            return;
        }
        for word in (0..slab.words).step_by(LANES) {
            for first in (0..rows.len()).step_by(LANES) {
                let here = (rows.len() - first).min(LANES);
                let mut block = [V::splat(0.0); LANES];
                for i in 0..LANES {
                    let depth = 2 * (word + i);
                    // Rows lie far apart, too far for the processor to guess the next ones.
                    for ahead in depth + 2 * LANES..depth + 2 * LANES + 2 {
                        if ahead < slab.len {
                            V::prefetch(operand.stack.row(slab.first + ahead).add(rows.start + first));
                        }
                    }
                    let line = |depth: usize| match depth < slab.len {
                        true => load_up_to::<V>(operand.stack.row(slab.first + depth).add(rows.start + first), here),
                        false => V::splat(0.0),
                    };
                    block[i] = V::pairs_across(line(depth), line(depth + 1));
                }
                V::transpose(&mut block);
                let to = to.add(first / amx::SIDE * tile + word * amx::SIDE);
                for i in 0..LANES {
                    block[i].store(to.add(i * amx::SIDE));
                }
            }
        }
    }
}
for_each_isa! {
    /// See [`pack_rows_generic`].
    pub(super) unsafe fn pack_rows(operand: &Operand, rows: Range<usize>, slab: Slab, to: *mut f32) = pack_rows_generic
}
