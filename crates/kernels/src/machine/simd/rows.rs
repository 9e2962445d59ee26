//! Rows of values in pieces of a vector: reading and writing their ends, words of them, turning them round, and sums
//! over them. Knows lanes; no operators.

use super::{LANES, Lanes};

/// Rows that are summed before their sum is added to the others'.
const SUMMED_ROWS: usize = 64;

/// Runs a body for each vector of a row, with its offset and how many of its lanes count. A macro, because a closure
/// that the compiler does not inline is compiled without the kernel's instructions.
macro_rules! for_vectors {
    ($len:expr, |$i:ident, $count:ident| $body:expr) => {{
        let len: usize = $len;
        let mut $i = 0;
        while $i < len {
            let $count = (len - $i).min($crate::machine::simd::LANES);
            $body;
            $i += $crate::machine::simd::LANES;
        }
    }};
}
pub(crate) use for_vectors;

/// Reads up to 16 values.
///
/// # Safety
/// `count` values are readable; `count` <= 16.
#[inline(always)]
pub(crate) unsafe fn load<V: Lanes>(from: *const f32, count: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe { if count == LANES { V::load(from) } else { V::load_partial(from, count) } }
}

/// Writes up to 16 values.
///
/// # Safety
/// `count` places are writable; `count` <= 16.
#[inline(always)]
pub(crate) unsafe fn store<V: Lanes>(x: V, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { if count == LANES { x.store(to) } else { x.store_partial(to, count) } }
}

/// Reads up to 16 values; the other lanes are 0.
///
/// # Safety
/// `count` values are readable; `count` <= 16.
#[inline(always)]
pub(crate) unsafe fn load_up_to<V: Lanes>(from: *const f32, count: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            LANES => V::load(from),
            0 => V::splat(0.0),
            _ => V::load_partial(from, count),
        }
    }
}

/// Words along the rows of `[rows, width]`: in f32 the array itself, in bf16 pairs in half the width.
///
/// # Safety
/// `to` has room for `rows * width` values; width is a multiple of 32.
#[inline(always)]
pub(crate) unsafe fn words_within<V: Lanes, const PAIRS: bool>(
    from: *const f32,
    rows: usize,
    width: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if PAIRS {
            for i in (0..rows * width).step_by(2 * LANES) {
                V::pairs_within(V::load(from.add(i)), V::load(from.add(i + LANES))).store(to.add(i / 2));
            }
        } else if from != to {
            to.copy_from_nonoverlapping(from, rows * width);
        }
    }
}

/// `[rows, words]` -> `[words, rows]`; both multiples of 16.
///
/// # Safety
/// Both arrays have that size and do not overlap.
// Plain loops over constants: closures and iterators over arrays need not be inlined into a kernel.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(crate) unsafe fn transpose<V: Lanes>(from: *const f32, rows: usize, words: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in (0..rows).step_by(LANES) {
            for word in (0..words).step_by(LANES) {
                let mut block = [V::splat(0.0); LANES];
                for i in 0..LANES {
                    block[i] = V::load(from.add((row + i) * words + word));
                }
                V::transpose(&mut block);
                for i in 0..LANES {
                    block[i].store(to.add((word + i) * rows + row));
                }
            }
        }
    }
}

/// The vector with the lanes outside `from..to` replaced.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
pub(crate) unsafe fn masked<V: Lanes>(x: V, (from, to): (usize, usize), other: f32) -> V {
    if (from, to) == (0, LANES) {
        return x;
    }
    let mut lanes = [other; LANES];
    // SAFETY: `to` is at most 16, and the array has as many places.
    unsafe {
        let mut values = [0f32; LANES];
        x.store(values.as_mut_ptr());
        lanes[from..to.max(from)].copy_from_slice(&values[from..to.max(from)]);
        V::load(lanes.as_ptr())
    }
}

/// Sums over the rows of `[rows, columns]`, in ascending order in blocks of 64, then over the blocks.
pub(crate) fn column_sums(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut sums = vec![0f32; columns];
    for block in x[..rows * columns].chunks(SUMMED_ROWS * columns.max(1)) {
        let mut part = vec![0f32; columns];
        for row in block.chunks_exact(columns) {
            part.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}
