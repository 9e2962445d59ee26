//! The innermost loop of products: a register tile of sums.

use super::{FinishAt, TILE_COLUMNS};
use crate::machine::simd::{LANES, Lanes};

/// One register tile: up to 14 rows of A times 32 columns of B.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Depth in words.
    pub(crate) words: usize,
    /// A: value (row, word) is at `word * a_word + row`.
    pub(crate) a: *const f32,
    pub(crate) a_word: usize,
    /// B: 32 values a word, `b_word` apart; all are read even if fewer count.
    pub(crate) b: *const f32,
    pub(crate) b_word: usize,
    /// C and the distance of its rows.
    pub(crate) c: *mut f32,
    pub(crate) stride: usize,
    /// Columns that count, up to 32.
    pub(crate) columns: usize,
    /// Whether the sums go on from what C holds.
    pub(crate) go_on: bool,
    /// What is added at the end.
    pub(crate) finish: FinishAt,
    /// What to fetch from memory meanwhile.
    pub(crate) next: Fetch,
}

/// Words of A, and of B, that are fetched ahead into the nearest cache: processors do not guess from loads alone how
/// much is wanted in how short a time.
const A_AHEAD: usize = 12;
const B_AHEAD: usize = 32;

/// What will be read after a tile, in lines of 16 values.
#[derive(Clone, Copy)]
pub(crate) enum Fetch {
    /// Nobody knows, so what comes next of B itself.
    Nothing,
    /// As much as B has: two lines for each word.
    All(*const f32),
    /// Half of that.
    Half(*const f32),
}

impl Tile {
    /// Nothing is added at the end.
    pub(crate) fn plain(words: usize, columns: usize, go_on: bool) -> Self {
        let finish = FinishAt { bias: std::ptr::null(), residual: std::ptr::null() };
        let (a, b, c) = (std::ptr::null(), std::ptr::null(), std::ptr::null_mut());
        Self { words, a, a_word: 0, b, b_word: 0, c, stride: 0, columns, go_on, finish, next: Fetch::Nothing }
    }
}

/// Runs a tile with a number of rows known only now.
///
/// # Safety
/// All of A, B and C that the tile names must be there; `rows` is 1 to `V::TILE_ROWS`.
#[inline(always)]
pub(crate) unsafe fn tile_of<V: Lanes, const PAIRS: bool>(rows: usize, t: Tile) {
    // SAFETY: the caller's promises.
    unsafe {
        match rows {
            1 => tile::<V, 1, PAIRS>(t),
            2 => tile::<V, 2, PAIRS>(t),
            3 => tile::<V, 3, PAIRS>(t),
            // Rows that an instruction set's tile never has are not compiled for it.
            _ if V::TILE_ROWS <= 3 => unreachable!(),
            4 => tile::<V, 4, PAIRS>(t),
            _ if V::TILE_ROWS <= 4 => unreachable!(),
            5 => tile::<V, 5, PAIRS>(t),
            6 => tile::<V, 6, PAIRS>(t),
            7 => tile::<V, 7, PAIRS>(t),
            8 => tile::<V, 8, PAIRS>(t),
            9 => tile::<V, 9, PAIRS>(t),
            10 => tile::<V, 10, PAIRS>(t),
            11 => tile::<V, 11, PAIRS>(t),
            12 => tile::<V, 12, PAIRS>(t),
            13 => tile::<V, 13, PAIRS>(t),
            _ => tile::<V, 14, PAIRS>(t),
        }
    }
}

// Plain loops over constants, which are unrolled into registers; iterators over arrays by value go by way of memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const PAIRS: bool>(t: Tile) {
    // SAFETY: the caller of `tile_of` promises that A, B and C are there.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        // What will be written is wanted in cache by then.
        for row in 0..R {
            V::prefetch(t.c.wrapping_add(row * t.stride));
            V::prefetch(t.c.wrapping_add(row * t.stride + LANES));
        }
        let full = t.columns == TILE_COLUMNS;
        let counts = [t.columns.min(LANES), t.columns.saturating_sub(LANES)];
        if t.go_on {
            for row in 0..R {
                for half in 0..2 {
                    sums[row][half] = read::<V>(t.c.add(row * t.stride), half, full, counts);
                }
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        let a_ahead = A_AHEAD * t.a_word;
        let (mut next, second, next_word) = match t.next {
            Fetch::Nothing => (t.b.wrapping_add(B_AHEAD * t.b_word), LANES, t.b_word),
            Fetch::All(next) => (next, LANES, TILE_COLUMNS),
            Fetch::Half(next) => (next, 0, LANES),
        };
        for _ in 0..t.words {
            V::prefetch(next);
            V::prefetch(next.wrapping_add(second));
            V::prefetch(a.wrapping_add(a_ahead));
            next = next.wrapping_add(next_word);
            let (left, right) = (V::load(b), V::load(b.add(LANES)));
            for row in 0..R {
                let factor = V::splat(*a.add(row));
                if PAIRS {
                    sums[row][0] = sums[row][0].dot_pairs(factor, left);
                    sums[row][1] = sums[row][1].dot_pairs(factor, right);
                } else {
                    sums[row][0] = factor.fma(left, sums[row][0]);
                    sums[row][1] = factor.fma(right, sums[row][1]);
                }
            }
            a = a.wrapping_add(t.a_word);
            b = b.wrapping_add(t.b_word);
        }
        if !t.finish.bias.is_null() {
            for half in 0..2 {
                let bias = read::<V>(t.finish.bias, half, full, counts);
                for row in 0..R {
                    sums[row][half] = sums[row][half].add(bias);
                }
            }
        }
        if !t.finish.residual.is_null() {
            for row in 0..R {
                for half in 0..2 {
                    let residual = read::<V>(t.finish.residual.add(row * t.stride), half, full, counts);
                    sums[row][half] = sums[row][half].add(residual);
                }
            }
        }
        if full {
            for row in 0..R {
                let to = t.c.add(row * t.stride);
                sums[row][0].store(to);
                sums[row][1].store(to.add(LANES));
            }
        } else {
            for row in 0..R {
                let to = t.c.add(row * t.stride);
                sums[row][0].store_partial(to, counts[0]);
                sums[row][1].store_partial(to.wrapping_add(LANES), counts[1]);
            }
        }
    }
}

/// Half a row of a tile of C, or of what is added to it.
///
/// # Safety
/// The columns that count are there.
#[inline(always)]
pub(super) unsafe fn read<V: Lanes>(from: *const f32, half: usize, full: bool, counts: [usize; 2]) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        if full {
            V::load(from.add(half * LANES))
        } else {
            V::load_partial(from.wrapping_add(half * LANES), counts[half])
        }
    }
}
