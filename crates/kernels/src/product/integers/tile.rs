//! The innermost loop of products with integers: a register tile of sums.

use super::{ActivationsAt, INT4_OFFSET, INT8_OFFSET};
use crate::{
    machine::simd::{
        LANES, Lanes,
        dots::{BYTES, Dots},
    },
    product::{FinishAt, TILE_COLUMNS, tile::read},
};

/// Bytes ahead of the word in hand that are fetched from memory.
const BYTES_AHEAD: usize = 2048;

/// How a panel's codes lie.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Codes {
    /// Bytes, two lines a word, the code + 128; scales stand by columns.
    Int8,
    /// Halves of bytes, one line a word; scales and zeros stand by groups.
    Nibbles,
    /// Bytes, two lines a word, the code less its zero + 16; scales stand by groups.
    Bytes,
}

/// One register tile: some rows of A times 32 columns of B.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Depth, in words of four.
    pub(super) words: usize,
    pub(super) group_words: usize,
    pub(super) a: ActivationsAt,
    /// Between the words of a row, and between its groups.
    pub(super) a_stride: usize,
    pub(super) codes: *const u8,
    pub(super) kind: Codes,
    /// `[32]`
    pub(super) column_scales: *const f32,
    /// `[group][32]`
    pub(super) group_scales: *const u16,
    /// `[group][32]`; null if all are 8.
    pub(super) zeros: *const u8,
    pub(super) c: *mut f32,
    pub(super) stride: usize,
    /// Columns that count, up to 32.
    pub(super) columns: usize,
    pub(super) finish: FinishAt,
    /// Whether B comes from memory, and goes on behind the panel.
    pub(super) fetch: bool,
}

/// Runs a tile with a number of rows known only now.
///
/// # Safety
/// All of A, B and C that the tile names must be there; `rows` is 1 to `D::TILE_ROWS`.
#[inline(always)]
pub(super) unsafe fn tile_of<D: Dots>(rows: usize, t: Tile) {
    const INT8: u8 = Codes::Int8 as u8;
    const NIBBLES: u8 = Codes::Nibbles as u8;
    const BYTES: u8 = Codes::Bytes as u8;
    // SAFETY: the caller's promises.
    unsafe {
        match t.kind {
            Codes::Int8 => rows_of::<D, INT8>(rows, t),
            Codes::Nibbles => rows_of::<D, NIBBLES>(rows, t),
            Codes::Bytes => rows_of::<D, BYTES>(rows, t),
        }
    }
}

#[inline(always)]
unsafe fn rows_of<D: Dots, const CODES: u8>(rows: usize, t: Tile) {
    // SAFETY: the caller's promises.
    unsafe {
        match rows {
            1 => tile::<D, 1, CODES>(t),
            2 => tile::<D, 2, CODES>(t),
            // Rows that an instruction set's tile never has are not compiled for it.
            _ if D::TILE_ROWS <= 2 => unreachable!(),
            3 => tile::<D, 3, CODES>(t),
            4 => tile::<D, 4, CODES>(t),
            _ if D::TILE_ROWS <= 4 => unreachable!(),
            5 => tile::<D, 5, CODES>(t),
            6 => tile::<D, 6, CODES>(t),
            7 => tile::<D, 7, CODES>(t),
            _ => tile::<D, 8, CODES>(t),
        }
    }
}

/// The two vectors of a word.
#[inline(always)]
unsafe fn weights<D: Dots, const CODES: u8>(codes: *const u8, word: usize) -> [D::Bytes; 2] {
    // SAFETY: the caller promises the word.
    unsafe {
        if CODES == Codes::Nibbles as u8 {
            return D::nibbles(D::load(codes.add(word * BYTES)));
        }
        [D::load(codes.add(2 * word * BYTES)), D::load(codes.add((2 * word + 1) * BYTES))]
    }
}

/// Adds one word to the sums.
// Plain loops over constants, which are unrolled into registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn step<D: Dots, const R: usize, const CODES: u8>(sums: &mut [[D::Sums; 2]; R], t: &Tile, word: usize) {
    // SAFETY: the caller promises the word.
    unsafe {
        let [left, right] = weights::<D, CODES>(t.codes, word);
        if t.fetch {
            let lines = if CODES == Codes::Nibbles as u8 { 1 } else { 2 };
            for line in 0..lines {
                D::Lanes::prefetch(t.codes.wrapping_add((lines * word + line) * BYTES + BYTES_AHEAD).cast());
            }
        }
        let a = t.a.words.add(word * t.a_stride);
        for row in 0..R {
            let x = *a.add(row);
            if CODES == Codes::Int8 as u8 {
                sums[row][0] = D::dot::<true>(sums[row][0], left, x);
                sums[row][1] = D::dot::<true>(sums[row][1], right, x);
            } else {
                sums[row][0] = D::dot::<false>(sums[row][0], left, x);
                sums[row][1] = D::dot::<false>(sums[row][1], right, x);
            }
        }
    }
}

#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn tile<D: Dots, const R: usize, const CODES: u8>(t: Tile) {
    // SAFETY: the caller of `tile_of` promises that A, B and C are there.
    unsafe {
        let mut totals = [[D::Lanes::splat(0.0); 2]; R];
        for (group, first) in (0..t.words).step_by(t.group_words).enumerate() {
            let last = t.words.min(first + t.group_words);
            let mut sums = [[D::sums(0); 2]; R];
            for row in 0..R {
                // What the codes are too large by, times the sum of A's.
                let offset = match CODES {
                    _ if CODES == Codes::Int8 as u8 => D::WIDE_OFFSET.min(INT8_OFFSET),
                    _ if CODES == Codes::Bytes as u8 => INT4_OFFSET,
                    _ => 0,
                };
                if offset != 0 {
                    sums[row] = [D::sums(-offset * *t.a.sums.add(group * t.a_stride + row)); 2];
                }
            }
            let mut word = first;
            if R <= 2 {
                // A lone row's sums wait for each other: twice as many do not. Integers may be added in any order.
                let mut more = [[D::sums(0); 2]; R];
                while word + 2 <= last {
                    step::<D, R, CODES>(&mut sums, &t, word);
                    step::<D, R, CODES>(&mut more, &t, word + 1);
                    word += 2;
                }
                for row in 0..R {
                    for half in 0..2 {
                        sums[row][half] = D::add(sums[row][half], more[row][half]);
                    }
                }
            }
            while word < last {
                step::<D, R, CODES>(&mut sums, &t, word);
                word += 1;
            }
            for half in 0..2 {
                let place = group * TILE_COLUMNS + half * LANES;
                let scales = match CODES {
                    _ if CODES == Codes::Int8 as u8 => D::Lanes::splat(1.0),
                    _ => D::load_f16(t.group_scales.add(place)),
                };
                let minus_zeros = match CODES {
                    _ if CODES != Codes::Nibbles as u8 => D::Lanes::splat(0.0),
                    _ if t.zeros.is_null() => D::Lanes::splat(-8.0),
                    _ => D::Lanes::splat(0.0).sub(D::load_u8(t.zeros.add(place))),
                };
                for row in 0..R {
                    let at = group * t.a_stride + row;
                    let mut sum = D::to_f32(sums[row][half]);
                    let mut scale = D::Lanes::splat(*t.a.scales.add(at));
                    if CODES == Codes::Nibbles as u8 {
                        // Still an integer below 2^24, as it is with the zeros taken off before.
                        sum = D::Lanes::splat(*t.a.sums.add(at) as f32).fma(minus_zeros, sum);
                    }
                    if CODES != Codes::Int8 as u8 {
                        scale = scale.mul(scales);
                    }
                    totals[row][half] = sum.fma(scale, totals[row][half]);
                }
            }
        }
        let full = t.columns == TILE_COLUMNS;
        let counts = [t.columns.min(LANES), t.columns.saturating_sub(LANES)];
        for half in 0..2 {
            if CODES == Codes::Int8 as u8 {
                let scale = D::Lanes::load(t.column_scales.add(half * LANES));
                for row in 0..R {
                    totals[row][half] = totals[row][half].mul(scale);
                }
            }
            if !t.finish.bias.is_null() {
                let bias = read::<D::Lanes>(t.finish.bias, half, full, counts);
                for row in 0..R {
                    totals[row][half] = totals[row][half].add(bias);
                }
            }
            if !t.finish.residual.is_null() {
                for row in 0..R {
                    let residual = read::<D::Lanes>(t.finish.residual.add(row * t.stride), half, full, counts);
                    totals[row][half] = totals[row][half].add(residual);
                }
            }
            for row in 0..R {
                let to = t.c.add(row * t.stride).wrapping_add(half * LANES);
                if full {
                    totals[row][half].store(to);
                } else {
                    totals[row][half].store_partial(to, counts[half]);
                }
            }
        }
    }
}
