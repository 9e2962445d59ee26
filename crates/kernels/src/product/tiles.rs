//! Products in bf16 on matrix tiles: the same packed panels of B, with A in rows of words.

use super::{Along, Area, Operand, Slab, TILE_COLUMNS, pack_row_generic};
use crate::machine::simd::{
    LANES, Lanes, amx, for_each_isa,
    rows::{load_up_to, store},
};
use std::ops::Range;

/// Multiplies packed rows and panels, as [`super::multiply_generic`] does.
///
/// # Safety
/// The machine has tiles; `a` holds the rows of the area, `words` apart, and is readable up to a multiple of 16 rows;
/// `b` holds its panels; nobody else touches that part of C.
pub(super) unsafe fn multiply(area: Area, a: *const f32, b: *const f32) {
    let (whole, rest) = (area.words / amx::SIDE, area.words % amx::SIDE);
    // SAFETY: the caller's promises.
    unsafe {
        if whole > 0 || rest == 0 {
            amx::configure(amx::SIDE);
            run(&area, area.go_on, rest == 0, a, b, whole);
        }
        if rest > 0 {
            // The last block has fewer words; tiles lose what they hold when they change their shape.
            amx::configure(rest);
            let done = whole * amx::SIDE;
            run(&area, area.go_on || whole > 0, true, a.wrapping_add(done), b.wrapping_add(done * TILE_COLUMNS), 1);
        }
        amx::release();
    }
}

/// All blocks of sums of an area, over part of its words.
unsafe fn run(area: &Area, go_on: bool, finishes: bool, a: *const f32, b: *const f32, blocks: usize) {
    let mut sums = amx::Sums([[0.0; amx::COLUMNS]; amx::ROWS]);
    for column in (0..area.columns).step_by(TILE_COLUMNS) {
        let columns = TILE_COLUMNS.min(area.columns - column);
        let b = b.wrapping_add(column * area.words);
        for row in (0..area.rows).step_by(amx::ROWS) {
            let rows = row..area.rows.min(row + amx::ROWS);
            let a = a.wrapping_add(row * area.words);
            // Whole tiles to which nothing is added go straight into C, others by way of a buffer.
            let adds = finishes && !(area.finish.bias.is_null() && area.finish.residual.is_null());
            let whole = columns == TILE_COLUMNS && rows.len().is_multiple_of(amx::SIDE);
            // SAFETY: the caller's promises of the area.
            unsafe {
                if whole && !adds && blocks > 0 {
                    let to = area.c.add(row * area.stride + column);
                    let sums = amx::Block { to, stride: area.stride, rows: rows.len(), fresh: !go_on };
                    amx::multiply(sums, a, area.words, b, blocks);
                    continue;
                }
                let fresh = !go_on && blocks > 0;
                match go_on {
                    true => take(area, rows.clone(), column, columns, &mut sums),
                    false if blocks == 0 => sums.0.fill([0.0; amx::COLUMNS]),
                    false => {}
                }
                if blocks > 0 {
                    let to = sums.0.as_mut_ptr().cast();
                    let sums = amx::Block { to, stride: amx::COLUMNS, rows: rows.len(), fresh };
                    amx::multiply(sums, a, area.words, b, blocks);
                }
                put(area, rows, column, columns, finishes, &sums);
            }
        }
    }
}

/// Reads a block of C.
#[inline(always)]
unsafe fn take_generic<V: Lanes>(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &mut amx::Sums) {
    for (to, row) in sums.0.iter_mut().zip(rows) {
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
    unsafe fn take(area: &Area, rows: Range<usize>, column: usize, columns: usize, sums: &mut amx::Sums) = take_generic
}

/// Writes a block of C, with what is added at the end.
#[inline(always)]
unsafe fn put_generic<V: Lanes>(
    area: &Area,
    rows: Range<usize>,
    column: usize,
    columns: usize,
    finishes: bool,
    sums: &amx::Sums,
) {
    for (from, row) in sums.0.iter().zip(rows) {
        for half in (0..columns).step_by(LANES) {
            let count = (columns - half).min(LANES);
            // SAFETY: the caller promises that part of C, and of what is added.
            unsafe {
                let mut value = V::load(from[half..].as_ptr());
                if finishes {
                    let finish = area.finish.at(row, column + half, area.stride);
                    if !finish.bias.is_null() {
                        value = value.add(load_up_to::<V>(finish.bias, count));
                    }
                    if !finish.residual.is_null() {
                        value = value.add(load_up_to::<V>(finish.residual, count));
                    }
                }
                store(value, area.c.add(row * area.stride + column + half), count);
            }
        }
    }
}
for_each_isa! {
    /// See [`put_generic`].
    unsafe fn put(area: &Area, rows: Range<usize>, column: usize, columns: usize, finishes: bool, sums: &amx::Sums) = put_generic
}

/// Packs rows of A over the depth of a slab: `to[row][word]`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn pack_rows_generic<V: Lanes>(operand: &Operand, rows: Range<usize>, slab: Slab, to: *mut f32) {
    // SAFETY: the caller promises that rows and depth are inside the operand, and room in `to`.
    unsafe {
        if operand.along == Along::Depth {
            for (i, row) in rows.enumerate() {
                pack_row_generic::<V>(true, operand.stack.row(row), slab, to.add(i * slab.words));
            }
            return;
        }
        for first in (0..rows.len()).step_by(LANES) {
            let here = (rows.len() - first).min(LANES);
            for word in (0..slab.words).step_by(LANES) {
                let words = (slab.words - word).min(LANES);
                let mut block = [V::splat(0.0); LANES];
                for i in 0..words {
                    let depth = 2 * (word + i);
                    let line = |depth: usize| match depth < slab.len {
                        true => load_up_to::<V>(operand.stack.row(slab.first + depth).add(rows.start + first), here),
                        false => V::splat(0.0),
                    };
                    block[i] = V::pairs_across(line(depth), line(depth + 1));
                }
                V::transpose(&mut block);
                for i in 0..here {
                    store(block[i], to.add((first + i) * slab.words + word), words);
                }
            }
        }
    }
}
for_each_isa! {
    /// See [`pack_rows_generic`].
    pub(super) unsafe fn pack_rows(operand: &Operand, rows: Range<usize>, slab: Slab, to: *mut f32) = pack_rows_generic
}
