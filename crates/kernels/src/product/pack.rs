//! Packing: operands of a product copied into panels, as the innermost loop reads them.

use super::{Along, Operand, Slab};
use crate::machine::simd::{
    LANES, Lanes, for_each_isa,
    rows::{load_up_to, store},
};

/// `count` indices of an operand's width from `first`, in panels of `used` indices that lie `width` apart: a multiple
/// of 16. Lanes of a panel beyond its indices hold anything: what is computed from them is never stored.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) used: usize,
    pub(super) width: usize,
}

/// Rows ahead of the one being packed that are fetched from memory: they lie too far apart for the processor to guess.
const PREFETCH_ROWS: usize = 8;

/// Packs panels over the depth of a slab: `to[panel][word][width]`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn pack_generic<V: Lanes>(pairs: bool, operand: &Operand, panels: Panels, slab: Slab, to: *mut f32) {
    let Panels { first, count, used, width } = panels;
    let panel_size = width * slab.words;
    // SAFETY: the caller promises that width and depth are inside the operand, and room in `to`.
    unsafe {
        match operand.along {
            // One row after the other, across all panels: rows lie far apart, and their values together.
            Along::Width => {
                let step = if pairs { 2 } else { 1 };
                let filled = slab.len.div_ceil(step);
                for word in 0..slab.words {
                    let depth = slab.first + step * word;
                    if word >= filled {
                        for panel in 0..count.div_ceil(used) {
                            let to = to.add(panel * panel_size + word * width);
                            for lane in (0..width).step_by(LANES) {
                                V::splat(0.0).store(to.add(lane));
                            }
                        }
                        continue;
                    }
                    let row = operand.stack.row(depth).add(first);
                    let last = pairs && depth + 1 == slab.first + slab.len;
                    let next = if pairs && !last { operand.stack.row(depth + 1).add(first) } else { row };
                    if word + PREFETCH_ROWS < filled {
                        // The last row of that word may be missing, so its first and the one before.
                        for back in 0..step {
                            let row = operand.stack.row(depth + step * PREFETCH_ROWS - back).add(first);
                            for i in (0..count).step_by(LANES) {
                                V::prefetch(row.add(i));
                            }
                        }
                    }
                    let mut to = to.add(word * width);
                    let mut index = 0;
                    while index < count {
                        let here = (count - index).min(used);
                        for lane in (0..here).step_by(LANES) {
                            let lanes = (here - lane).min(LANES);
                            let mut values = load_up_to::<V>(row.add(index + lane), lanes);
                            if pairs {
                                let odd =
                                    if last { V::splat(0.0) } else { load_up_to::<V>(next.add(index + lane), lanes) };
                                values = V::pairs_across(values, odd);
                            }
                            values.store(to.add(lane));
                        }
                        index += used;
                        // Past the end after the last panel, so not `add`.
                        to = to.wrapping_add(panel_size);
                    }
                }
            }
            Along::Depth => {
                let step = if pairs { 2 * LANES } else { LANES };
                for (panel, index) in (0..count).step_by(used).enumerate() {
                    let here = (count - index).min(used);
                    for lane in (0..here).step_by(LANES) {
                        // Lanes beyond the last repeat it, so that all sixteen can be read.
                        let mut rows = [std::ptr::null::<f32>(); LANES];
                        for i in 0..LANES {
                            rows[i] = operand.stack.row(first + index + (lane + i).min(here - 1)).add(slab.first);
                        }
                        // Each row is a stretch of memory of its own: the same place of the next panel is fetched
                        // meanwhile.
                        let mut next = rows;
                        for i in 0..LANES {
                            let after = index + used + lane + i;
                            if after < count {
                                next[i] = operand.stack.row(first + after).add(slab.first);
                            }
                        }
                        let to = to.add(panel * panel_size + lane);
                        let mut depth = 0;
                        while depth + step <= slab.len {
                            let mut block = [V::splat(0.0); LANES];
                            for i in 0..LANES {
                                V::prefetch(next[i].add(depth));
                                block[i] = V::load(rows[i].add(depth));
                                if pairs {
                                    V::prefetch(next[i].add(depth + LANES));
                                    block[i] = V::pairs_within(block[i], V::load(rows[i].add(depth + LANES)));
                                }
                            }
                            V::transpose(&mut block);
                            let to = to.add(if pairs { depth / 2 } else { depth } * width);
                            for i in 0..LANES {
                                block[i].store(to.add(i * width));
                            }
                            depth += step;
                        }
                        if depth < slab.len {
                            let left = slab.len - depth;
                            let mut block = [V::splat(0.0); LANES];
                            for i in 0..LANES {
                                block[i] = load_up_to::<V>(rows[i].add(depth), left.min(LANES));
                                if pairs {
                                    let more = left.saturating_sub(LANES);
                                    let second = load_up_to::<V>(rows[i].wrapping_add(depth + LANES), more);
                                    block[i] = V::pairs_within(block[i], second);
                                }
                            }
                            V::transpose(&mut block);
                            let word = if pairs { depth / 2 } else { depth };
                            for i in 0..slab.words - word {
                                block[i].store(to.add((word + i) * width));
                            }
                        }
                    }
                }
            }
        }
    }
}
/// Packs a lone row over the depth of a slab: `to[word]`.
#[inline(always)]
unsafe fn pack_row_generic<V: Lanes>(pairs: bool, row: *const f32, slab: Slab, to: *mut f32) {
    // SAFETY: the caller promises that the depth is inside the row, and room in `to`.
    unsafe {
        let row = row.add(slab.first);
        if !pairs {
            return to.copy_from_nonoverlapping(row, slab.len);
        }
        for depth in (0..slab.len).step_by(2 * LANES) {
            let here = (slab.len - depth).min(2 * LANES);
            let first = load_up_to::<V>(row.add(depth), here.min(LANES));
            let second = load_up_to::<V>(row.wrapping_add(depth + LANES), here.saturating_sub(LANES));
            store(V::pairs_within(first, second), to.add(depth / 2), here.div_ceil(2));
        }
    }
}
for_each_isa! {
    /// See [`pack_row_generic`].
    pub(super) unsafe fn pack_row(pairs: bool, row: *const f32, slab: Slab, to: *mut f32) = pack_row_generic
}
for_each_isa! {
    /// See [`pack_generic`].
    pub(super) unsafe fn pack(pairs: bool, operand: &Operand, panels: Panels, slab: Slab, to: *mut f32) = pack_generic
}
