//! Low-rank updates of the products of packed weights, each for its own rows (Hu et al., "LoRA", 2021; many at a time
//! as in Chen et al., "Punica", 2024): `y += B A x`, with the gain of DoRA (Liu et al., 2024) if there is one. A row's
//! bytes do not depend on the rows beside it: each sums over its inputs, then over its ranks, in one fixed order.
//!
//! Shapes: I inputs, O outputs, R ranks of all parts of an update, each padded to whole vectors.
//! Arithmetic: 2 R (I + O) for a row. Bytes: R (I + O) values for each update, read again for every four of its rows.

use crate::machine::{
    parallel::{self, Shared, SharedMut, with_scratch},
    simd::{LANES, Lanes, for_each_isa, rows::words_within},
};
use narthex_base::config::Precision;
use std::{fmt, ops::Range, sync::Arc};

/// Rows that a task handles.
const ROWS: usize = 4;

/// Chains of sums over the inputs: enough to hide the latency of one.
const CHAINS: usize = 4;

/// Part of an update: what is added to some of the outputs.
#[derive(Clone, Debug)]
pub struct LowRankPart {
    /// `[rank, I]`
    pub a: Vec<f32>,
    /// `[O of the part, rank]`, scaled.
    pub b: Vec<f32>,
    /// The rank of the part: rows of `a`.
    pub rank: usize,
    /// Where its outputs begin.
    pub column: usize,
    /// Outputs of the part, from there on.
    pub outputs: usize,
    /// What the product itself, without its bias, is multiplied with besides, less 1: `[O of the part]`.
    pub gain: Option<Vec<f32>>,
}

/// The update of one product, in the order in which the kernel reads it.
pub struct LowRank {
    inputs: usize,
    precision: Precision,
    /// `[R / 16][words of I][16]`
    a: Vec<f32>,
    parts: Vec<Part>,
}

struct Part {
    /// Its first rank among all, a multiple of 16.
    first: usize,
    /// Ranks, padded to a multiple of 16.
    ranks: usize,
    column: usize,
    outputs: usize,
    /// `[O / 16][words of ranks][16]`
    b: Vec<f32>,
    gain: Option<Vec<f32>>,
}

impl fmt::Debug for LowRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LowRank({} inputs, {} parts, {:?})", self.inputs, self.parts.len(), self.precision)
    }
}

/// An update and the rows that it is for.
pub type Adapted = (Range<usize>, Arc<LowRank>);

/// What stands at a place of two dimensions, 0 outside.
fn padded(values: &[f32], [rows, width]: [usize; 2], row: usize, column: usize) -> f32 {
    if row < rows && column < width { values[row * width + column] } else { 0.0 }
}

/// Two values as one word of bf16, ties to even.
fn pair(even: f32, odd: f32) -> f32 {
    let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
    f32::from_bits(bits(even) | bits(odd) << 16)
}

impl LowRank {
    /// Packs the parts of an update of a product of `inputs` columns.
    ///
    /// # Panics
    /// If a part's matrices do not have its shapes.
    pub fn new(inputs: usize, parts: &[LowRankPart], precision: Precision) -> Self {
        let pairs = precision == Precision::Bf16;
        let per_word = if pairs { 2 } else { 1 };
        let depth = inputs.next_multiple_of(2 * LANES);
        let word = |get: &dyn Fn(usize) -> f32, i: usize| if pairs { pair(get(2 * i), get(2 * i + 1)) } else { get(i) };
        let (mut a, mut packed, mut first) = (Vec::new(), Vec::new(), 0);
        for part in parts {
            let LowRankPart { rank, column, outputs, .. } = *part;
            assert_eq!((part.a.len(), part.b.len()), (rank * inputs, outputs * rank), "A is [rank, I] and B [O, rank]");
            assert!(part.gain.as_ref().is_none_or(|gain| gain.len() == outputs), "a gain for each output");
            let ranks = rank.next_multiple_of(LANES).max(LANES);
            for tile in (0..ranks).step_by(LANES) {
                for i in 0..depth / per_word {
                    a.extend((tile..tile + LANES).map(|r| word(&|i| padded(&part.a, [rank, inputs], r, i), i)));
                }
            }
            let mut b = Vec::new();
            for tile in (0..outputs).step_by(LANES) {
                for r in 0..ranks / per_word {
                    b.extend((tile..tile + LANES).map(|o| word(&|r| padded(&part.b, [outputs, rank], o, r), r)));
                }
            }
            packed.push(Part { first, ranks, column, outputs, b, gain: part.gain.clone() });
            first += ranks;
        }
        Self { inputs, precision, a, parts: packed }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.b.len() + part.gain.as_ref().map_or(0, Vec::len));
        4 * (self.a.len() + parts.sum::<usize>())
    }

    /// Whether the product itself is changed: then nothing else may have been added to it.
    pub(crate) fn has_gain(&self) -> bool {
        self.parts.iter().any(|part| part.gain.is_some())
    }

    /// Outputs up to the last that it changes.
    pub(crate) fn end(&self) -> usize {
        self.parts.iter().map(|part| part.column + part.outputs).max().unwrap_or(0)
    }

    fn ranks(&self) -> usize {
        self.parts.iter().map(|part| part.ranks).sum()
    }

    fn depth(&self) -> usize {
        self.inputs.next_multiple_of(2 * LANES)
    }

    /// Values of scratch for a row: its words, and what the ranks sum up.
    fn scratch(&self) -> usize {
        self.depth() + self.ranks() + LANES
    }
}

/// Adds updates to the rows that they are for: `x [N, I]`, `y [N, O]`.
///
/// # Panics
/// If rows or outputs are not there.
pub(crate) fn update(x: &[f32], y: &mut [f32], outputs: usize, bias: Option<&[f32]>, adapted: &[Adapted]) {
    let mut tasks = Vec::new();
    for (rows, update) in adapted {
        assert!(rows.end * update.inputs <= x.len() && rows.end * outputs <= y.len(), "the rows are there");
        assert!(update.end() <= outputs, "the outputs are there");
        tasks.extend(rows.clone().step_by(ROWS).map(|first| (first..rows.end.min(first + ROWS), update)));
    }
    let (x, y) = (Shared::new(x), SharedMut::new(y));
    parallel::for_each(tasks.len(), |task| {
        let (rows, update) = &tasks[task];
        with_scratch(update.scratch(), |scratch| {
            for row in rows.clone() {
                let (x, y) = (x.at(row * update.inputs), y.at(row * outputs));
                let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
                // SAFETY: rows, outputs and scratch were measured above; tasks have different rows.
                unsafe {
                    match update.precision {
                        Precision::F32 => row_f32(update, x, y, bias, scratch.as_mut_ptr()),
                        Precision::Bf16 => row_bf16(update, x, y, bias, scratch.as_mut_ptr()),
                    }
                }
            }
        });
    });
}

/// The update of one row.
///
/// # Safety
/// `x` has the inputs, `y` the outputs, `bias` as many or is null, the scratch its size.
#[inline(always)]
unsafe fn row_generic<V: Lanes, const PAIRS: bool>(
    update: &LowRank,
    x: *const f32,
    y: *mut f32,
    bias: *const f32,
    scratch: *mut f32,
) {
    // SAFETY: the caller's promises; A and B have the sizes that `new` gave them.
    unsafe {
        let depth = update.depth();
        let words = if PAIRS { depth / 2 } else { depth };
        let sums = scratch.add(depth);
        scratch.copy_from_nonoverlapping(x, update.inputs);
        scratch.add(update.inputs).write_bytes(0, depth - update.inputs);
        // In place: a vector of words is written once both of its vectors of values are read.
        words_within::<V, PAIRS>(scratch, 1, depth, scratch);
        for tile in 0..update.ranks() / LANES {
            let a = update.a.as_ptr().add(tile * words * LANES);
            let mut chains = [V::splat(0.0); CHAINS];
            let mut i = 0;
            while i < words {
                let mut chain = 0;
                while chain < CHAINS {
                    let (factor, column) = (V::splat(*scratch.add(i + chain)), V::load(a.add((i + chain) * LANES)));
                    chains[chain] = match PAIRS {
                        true => chains[chain].dot_pairs(factor, column),
                        false => factor.fma(column, chains[chain]),
                    };
                    chain += 1;
                }
                i += CHAINS;
            }
            chains[0].add(chains[1]).add(chains[2].add(chains[3])).store(sums.add(tile * LANES));
        }
        for part in &update.parts {
            let ranks = if PAIRS { part.ranks / 2 } else { part.ranks };
            let factors = sums.add(part.first);
            if PAIRS {
                let mut r = 0;
                while r < part.ranks {
                    let pairs = V::pairs_within(V::load(factors.add(r)), V::splat(0.0));
                    // Half of the words are of these ranks; the others fall where the next come, or behind the last.
                    pairs.store(scratch);
                    factors.add(r / 2).copy_from_nonoverlapping(scratch, LANES / 2);
                    r += LANES;
                }
            }
            let mut j = 0;
            while j < part.outputs {
                let count = (part.outputs - j).min(LANES);
                let to = y.add(part.column + j);
                let load = |from: *const f32| if count == LANES { V::load(from) } else { V::load_partial(from, count) };
                let mut sum = load(to);
                if let Some(gain) = &part.gain {
                    let product = match bias.is_null() {
                        true => sum,
                        false => sum.sub(load(bias.add(part.column + j))),
                    };
                    sum = load(gain.as_ptr().add(j)).fma(product, sum);
                }
                let b = part.b.as_ptr().add(j / LANES * ranks * LANES);
                let mut r = 0;
                while r < ranks {
                    let (factor, column) = (V::splat(*factors.add(r)), V::load(b.add(r * LANES)));
                    sum = if PAIRS { sum.dot_pairs(factor, column) } else { factor.fma(column, sum) };
                    r += 1;
                }
                if count == LANES {
                    sum.store(to)
                } else {
                    sum.store_partial(to, count)
                }
                j += LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn row_f32_generic<V: Lanes>(update: &LowRank, x: *const f32, y: *mut f32, bias: *const f32, scratch: *mut f32) {
    // SAFETY: the caller's promises are passed on.
    unsafe { row_generic::<V, false>(update, x, y, bias, scratch) }
}
for_each_isa! {
    unsafe fn row_f32(update: &LowRank, x: *const f32, y: *mut f32, bias: *const f32, scratch: *mut f32) = row_f32_generic
}

#[inline(always)]
unsafe fn row_bf16_generic<V: Lanes>(
    update: &LowRank,
    x: *const f32,
    y: *mut f32,
    bias: *const f32,
    scratch: *mut f32,
) {
    // SAFETY: the caller's promises are passed on.
    unsafe { row_generic::<V, true>(update, x, y, bias, scratch) }
}
for_each_isa! {
    unsafe fn row_bf16(update: &LowRank, x: *const f32, y: *mut f32, bias: *const f32, scratch: *mut f32) = row_bf16_generic
}
