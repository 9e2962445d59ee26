//! The innermost loop of products with integers: a register tile of sums.

use super::{ActivationsAt, FIFTH_BITS, INT4_OFFSET, INT8_OFFSET};
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
    /// Blocks of 4 bits: halves of bytes, one line a word.
    Block4,
    /// Of 5 and of 6 bits: the upper ones lie apart.
    Block5,
    Block6,
    /// Of 8 bits: bytes, two lines a word, the code + 128.
    Block8,
    /// Blocks of 4 to 6 bits, unpacked to bytes, two lines a word.
    BlockBytes,
}

impl Codes {
    const fn is_wide(code: u8) -> bool {
        code == Codes::Int8 as u8 || code == Codes::Block8 as u8
    }

    const fn is_block(code: u8) -> bool {
        code >= Codes::Block4 as u8
    }

    /// Lines of a word.
    const fn lines(code: u8) -> usize {
        let halves = code == Codes::Nibbles as u8
            || code == Codes::Block4 as u8
            || code == Codes::Block5 as u8
            || code == Codes::Block6 as u8;
        if halves { 1 } else { 2 }
    }
}

/// How the scales of blocks are read; `[..][32]` each, and null where there are none.
#[derive(Clone, Copy)]
pub(super) struct BlockScales {
    /// Groups of a block.
    pub(super) groups: usize,
    /// Added to codes.
    pub(super) minus_zero: f32,
    /// One a block.
    pub(super) minimums: *const u16,
    /// Of the minimums.
    pub(super) sign: f32,
    /// One a group,
    pub(super) small_scales: *const u8,
    /// to which this is added.
    pub(super) minus_small: f32,
    pub(super) small_minimums: *const u8,
}

impl BlockScales {
    /// Of what is in no blocks.
    pub(super) fn none() -> Self {
        let nothing = std::ptr::null();
        Self {
            groups: 1,
            minus_zero: 0.0,
            minimums: std::ptr::null(),
            sign: 0.0,
            small_scales: nothing,
            minus_small: 0.0,
            small_minimums: nothing,
        }
    }
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
    /// The upper bits of blocks of 5 and 6.
    pub(super) upper: *const u8,
    pub(super) blocks: BlockScales,
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
    const BLOCK4: u8 = Codes::Block4 as u8;
    const BLOCK5: u8 = Codes::Block5 as u8;
    const BLOCK6: u8 = Codes::Block6 as u8;
    const BLOCK8: u8 = Codes::Block8 as u8;
    const BLOCK_BYTES: u8 = Codes::BlockBytes as u8;
    // SAFETY: the caller's promises.
    unsafe {
        match t.kind {
            Codes::Int8 => rows_of::<D, INT8>(rows, t),
            Codes::Nibbles => rows_of::<D, NIBBLES>(rows, t),
            Codes::Bytes => rows_of::<D, BYTES>(rows, t),
            Codes::Block4 => rows_of::<D, BLOCK4>(rows, t),
            Codes::Block5 => rows_of::<D, BLOCK5>(rows, t),
            Codes::Block6 => rows_of::<D, BLOCK6>(rows, t),
            Codes::Block8 => rows_of::<D, BLOCK8>(rows, t),
            Codes::BlockBytes => rows_of::<D, BLOCK_BYTES>(rows, t),
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
pub(super) unsafe fn weights<D: Dots, const CODES: u8>(
    codes: *const u8,
    upper: *const u8,
    word: usize,
) -> [D::Bytes; 2] {
    // SAFETY: the caller promises the word.
    unsafe {
        if Codes::lines(CODES) == 2 {
            return [D::load(codes.add(2 * word * BYTES)), D::load(codes.add((2 * word + 1) * BYTES))];
        }
        let [left, right] = D::nibbles(D::load(codes.add(word * BYTES)));
        if CODES == Codes::Block5 as u8 {
            let bits = upper.add(word * FIFTH_BITS);
            return [D::add_bytes(left, D::fifth(bits)), D::add_bytes(right, D::fifth(bits.add(FIFTH_BITS / 2)))];
        }
        if CODES == Codes::Block6 as u8 {
            let [first, second] = D::fifth_and_sixth(upper.add(word * 2 * FIFTH_BITS));
            return [D::add_bytes(left, first), D::add_bytes(right, second)];
        }
        [left, right]
    }
}

/// Adds one word to the sums.
// Plain loops over constants, which are unrolled into registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn step<D: Dots, const R: usize, const CODES: u8>(sums: &mut [[D::Sums; 2]; R], t: &Tile, word: usize) {
    // SAFETY: the caller promises the word.
    unsafe {
        let [left, right] = weights::<D, CODES>(t.codes, t.upper, word);
        if t.fetch {
            let lines = Codes::lines(CODES);
            for line in 0..lines {
                D::Lanes::prefetch(t.codes.wrapping_add((lines * word + line) * BYTES + BYTES_AHEAD).cast());
            }
        }
        let a = t.a.words.add(word * t.a_stride);
        for row in 0..R {
            let x = *a.add(row);
            if Codes::is_wide(CODES) {
                sums[row][0] = D::dot::<true>(sums[row][0], left, x);
                sums[row][1] = D::dot::<true>(sums[row][1], right, x);
            } else {
                sums[row][0] = D::dot::<false>(sums[row][0], left, x);
                sums[row][1] = D::dot::<false>(sums[row][1], right, x);
            }
        }
    }
}

/// Adds the sums of a group of a block to the totals, once scaled.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_group<D: Dots, const R: usize>(
    totals: &mut [[D::Lanes; 2]; R],
    sums: &[[D::Sums; 2]; R],
    t: &Tile,
    group: usize,
) {
    let BlockScales { groups, minus_zero, minimums, sign, small_scales, minus_small, small_minimums } = t.blocks;
    // SAFETY: the caller promises scales and sums.
    unsafe {
        for half in 0..2 {
            let (block, place) = (group / groups * TILE_COLUMNS + half * LANES, group * TILE_COLUMNS + half * LANES);
            let mut scales = D::load_f16(t.group_scales.add(block));
            if !small_scales.is_null() {
                scales = scales.mul(D::load_u8(small_scales.add(place)).add(D::Lanes::splat(minus_small)));
            }
            if minimums.is_null() {
                for row in 0..R {
                    let at = group * t.a_stride + row;
                    // Still an integer below 2^24.
                    let zeros = D::Lanes::splat(*t.a.sums.add(at) as f32 * minus_zero);
                    let sum = D::to_f32(sums[row][half]).add(zeros);
                    let scale = D::Lanes::splat(*t.a.scales.add(at)).mul(scales);
                    totals[row][half] = sum.fma(scale, totals[row][half]);
                }
                continue;
            }
            let mut lowest = D::load_f16(minimums.add(block)).mul(D::Lanes::splat(sign));
            if !small_minimums.is_null() {
                lowest = lowest.mul(D::load_u8(small_minimums.add(place)));
            }
            for row in 0..R {
                let at = group * t.a_stride + row;
                let (scale, all) = (*t.a.scales.add(at), *t.a.sums.add(at) as f32);
                let (scale, all) = (D::Lanes::splat(scale), D::Lanes::splat(all));
                let total = D::to_f32(sums[row][half]).fma(scale.mul(scales), totals[row][half]);
                totals[row][half] = all.fma(scale.mul(lowest), total);
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
                    _ if Codes::is_wide(CODES) => D::WIDE_OFFSET.min(INT8_OFFSET),
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
            if Codes::is_block(CODES) {
                add_group::<D, R>(&mut totals, &sums, &t, group);
                continue;
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
