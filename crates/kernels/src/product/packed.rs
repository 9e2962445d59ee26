//! B packed once for many products: the weights of a model that is served.

use super::*;
use crate::machine::{
    parallel::uninitialised,
    simd::activation::{Activation, rows_in_place},
};
use half::{bf16, f16};

/// Rows of A at a time: packed, they stay in the last-level cache while all of B passes by once.
pub(super) const ROWS_AT_ONCE: usize = 280;

/// Rows of A up to which one thread packs them.
pub(super) const ROWS_PACKED_ALONE: usize = 16;

/// Values as a file or a tensor holds them, row-major.
#[derive(Clone, Debug)]
pub enum WeightValues<'a> {
    /// Values in single precision.
    F32(&'a [f32]),
    /// Single precision as little-endian bytes, of any alignment.
    F32Bytes(&'a [u8]),
    /// bfloat16 as little-endian bytes.
    Bf16Bytes(&'a [u8]),
    /// Half precision as little-endian bytes.
    F16Bytes(&'a [u8]),
    /// Single precision, put together for the occasion.
    Owned(Vec<f32>),
}

impl<'a> WeightValues<'a> {
    /// Those from `first` on, `len` of them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(self, first: usize, len: usize) -> Self {
        let range = |width: usize| first * width..(first + len) * width;
        match self {
            WeightValues::F32(values) => WeightValues::F32(&values[range(1)]),
            WeightValues::F32Bytes(bytes) => WeightValues::F32Bytes(&bytes[range(4)]),
            WeightValues::Bf16Bytes(bytes) => WeightValues::Bf16Bytes(&bytes[range(2)]),
            WeightValues::F16Bytes(bytes) => WeightValues::F16Bytes(&bytes[range(2)]),
            WeightValues::Owned(values) => WeightValues::Owned(values[range(1)].to_vec()),
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            WeightValues::F32(values) => values.len(),
            WeightValues::Owned(values) => values.len(),
            WeightValues::F32Bytes(bytes) => bytes.len() / 4,
            WeightValues::Bf16Bytes(bytes) | WeightValues::F16Bytes(bytes) => bytes.len() / 2,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the values from `first` on in single precision.
    ///
    /// # Panics
    /// If there are fewer than `to` takes.
    pub fn read(&self, first: usize, to: &mut [f32]) {
        let range = |width: usize| first * width..(first + to.len()) * width;
        match self {
            WeightValues::F32(values) => to.copy_from_slice(&values[range(1)]),
            WeightValues::Owned(values) => to.copy_from_slice(&values[range(1)]),
            WeightValues::F32Bytes(bytes) => {
                let quads = bytes[range(4)].chunks_exact(4);
                to.iter_mut().zip(quads).for_each(|(x, b)| *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            WeightValues::Bf16Bytes(bytes) => {
                let pairs = bytes[range(2)].chunks_exact(2);
                to.iter_mut().zip(pairs).for_each(|(x, b)| *x = bf16::from_le_bytes([b[0], b[1]]).to_f32());
            }
            WeightValues::F16Bytes(bytes) => {
                let pairs = bytes[range(2)].chunks_exact(2);
                to.iter_mut().zip(pairs).for_each(|(x, b)| *x = f16::from_le_bytes([b[0], b[1]]).to_f32());
            }
        }
    }
}

/// B `[k, n]` of a product, made from matrices `[.., k]` that lie one below the other as Bᵀ, in panels of 32 columns:
/// `words[panel][word][32]`.
pub(crate) struct PackedB {
    words: Vec<f32>,
    words_deep: usize,
    precision: Precision,
    n: usize,
    k: usize,
}

impl PackedB {
    /// Packs on all threads.
    ///
    /// # Panics
    /// If a part is not whole rows of `k` values.
    pub(crate) fn new(parts: &[WeightValues], k: usize, precision: Precision) -> Self {
        assert!(k > 0 && parts.iter().all(|part| part.len().is_multiple_of(k)), "parts are rows of k values");
        let n: usize = parts.iter().map(|part| part.len() / k).sum();
        let pairs = precision == Precision::Bf16;
        let words_deep = match pairs {
            // Matrix tiles are whole: what there is no depth for is 0.
            true if isa() == Isa::Amx => k.div_ceil(2).next_multiple_of(LANES),
            true => k.div_ceil(2),
            false => k,
        };
        // Filled by the threads, as it is they who then have the pages cleared.
        let mut words = uninitialised(n.div_ceil(TILE_COLUMNS) * TILE_COLUMNS * words_deep);
        let to = SharedMut::new(&mut words);
        parallel::for_each(n.div_ceil(TILE_COLUMNS), |panel| {
            let columns = panel * TILE_COLUMNS..n.min((panel + 1) * TILE_COLUMNS);
            let size = words_deep * TILE_COLUMNS;
            if columns.len() < TILE_COLUMNS {
                // What a panel has no columns for is read, though nothing comes of it.
                // SAFETY: each panel has its own part of the buffer, `words_deep` x 32.
                unsafe { to.slice(panel * size..(panel + 1) * size) }.fill(0.0);
            }
            with_scratch(columns.len() * k, |rows| {
                for (column, row) in columns.clone().zip(rows.chunks_exact_mut(k)) {
                    let (part, column) = part_of(parts.iter().map(|part| part.len() / k), column);
                    parts[part].read(column * k, row);
                }
                let operand = Operand::new(Stack::strided(rows, columns.len(), k, k), Along::Depth);
                let panels = Panels { first: 0, count: columns.len(), used: TILE_COLUMNS, width: TILE_COLUMNS };
                let slab = Slab { first: 0, len: k, words: words_deep, words_before: 0 };
                // SAFETY: as above.
                unsafe { pack(pairs, &operand, panels, slab, to.at(panel * size)) };
            });
        });
        Self { words, words_deep, precision, n, k }
    }

    /// (n, k)
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * self.words.len()
    }

    /// `C = A B` with `a [m, k]` and `c [m, n]`: the same chains of sums as [`product`]'s, so the same bytes.
    /// A function, if there is one, is applied to each value of C last, while it is in cache.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub(crate) fn multiply(&self, a: &[f32], c: &mut [f32], finish: Finish, activation: Option<Activation>) {
        let m = a.len() / self.k;
        assert_eq!((a.len(), c.len()), (m * self.k, m * self.n), "A is [m, k] and C is [m, n]");
        // Passes of like size: a few rows alone would cost as much reading of B as many.
        let passes = m.div_ceil(ROWS_AT_ONCE).max(1);
        let at_once = m.div_ceil(passes).max(1);
        for first in (0..m).step_by(at_once) {
            let rows = first..m.min(first + at_once);
            let residual = finish.residual.map(|residual| &residual[rows.start * self.n..rows.end * self.n]);
            let c = &mut c[rows.start * self.n..rows.end * self.n];
            self.multiply_rows(
                &a[rows.start * self.k..rows.end * self.k],
                rows.len(),
                c,
                Finish { residual, ..finish },
                activation,
            );
        }
    }

    fn multiply_rows(&self, a: &[f32], m: usize, c: &mut [f32], finish: Finish, activation: Option<Activation>) {
        let target = Target::new(self.precision, c, [self.n, self.k], Start::Zero, finish);
        let slabs = target.slabs();
        // Tiles of like height, too.
        let tiles = m.div_ceil(target.tile_rows());
        let tile_rows = if target.tiles { LANES } else { m.div_ceil(tiles) };
        let operand = Operand::new(Stack::strided(a, m, self.k, self.k), Along::Depth);
        // Words of few rows lie close together: they are read again for every panel, and should stay in the nearest
        // cache.
        let a_word = if tiles == 1 && !target.tiles { m } else { LANES };
        // Packing stores whole vectors; what overlaps the next word is written over by it.
        with_scratch(tiles * a_word * self.words_deep + LANES, |packed| {
            let to = SharedMut::new(packed);
            let pack_tile = |tile: usize| {
                let rows = tile * tile_rows..m.min((tile + 1) * tile_rows);
                let panels = Panels { first: rows.start, count: rows.len(), used: tile_rows, width: a_word };
                for slab in &slabs {
                    if m == 1 && !target.tiles {
                        // SAFETY: the row is in A, and each slab has its own part of the buffer, `words`.
                        unsafe { pack_row(target.pairs, a.as_ptr(), *slab, to.at(slab.words_before)) };
                        continue;
                    }
                    // SAFETY: each (slab, tile) has its own part of the buffer, `words` x `a_word`;
                    // a lone tile's slabs are packed in their order.
                    unsafe {
                        let to = to.at((slab.words_before * tiles + tile * slab.words) * a_word);
                        target.pack_a(&operand, panels, *slab, to);
                    }
                }
            };
            if m <= ROWS_PACKED_ALONE {
                (0..tiles).for_each(pack_tile)
            } else {
                parallel::for_each(tiles, pack_tile)
            }
            let (a, b) = (Shared::of(to), Shared::new(&self.words));
            let panels = self.n.div_ceil(TILE_COLUMNS);
            let panels_per_task = panels.div_ceil(16 * parallel::threads()).max(1);
            parallel::for_blocks(panels, panels_per_task, |panels| {
                // Panels of one slab lie one behind the other, and tiles are set up once for all of them.
                let at_once = if target.tiles && slabs.len() == 1 && activation.is_none() { panels.len() } else { 1 };
                for panel in panels.clone().step_by(at_once) {
                    let columns = panel * TILE_COLUMNS..self.n.min((panel + at_once) * TILE_COLUMNS);
                    for slab in &slabs {
                        let b = b.at((panel * self.words_deep + slab.words_before) * TILE_COLUMNS);
                        // B is one long stretch of memory for a task.
                        let next = b.wrapping_add(slab.words * TILE_COLUMNS);
                        let area = Area { tile_rows, a_word, next, ..target.area(0..m, columns.clone(), *slab) };
                        // SAFETY: A and B hold the packed tiles and the panels; tasks write different columns of C.
                        unsafe { target.multiply_area(area, a.at(slab.words_before * tiles * a_word), b) };
                    }
                    if let Some(function) = activation {
                        let c = target.c.at(columns.start);
                        // SAFETY: as above; the sums of these columns are complete.
                        unsafe { rows_in_place(function, c, m, columns.len(), self.n) };
                    }
                }
            });
        });
    }

    /// Column `column` of B, unpacked: `to` takes k values.
    ///
    /// # Panics
    /// If there is no such column.
    pub(crate) fn column(&self, column: usize, to: &mut [f32]) {
        assert!(column < self.n, "a column of B");
        let first = column / TILE_COLUMNS * self.words_deep * TILE_COLUMNS + column % TILE_COLUMNS;
        let words = self.words[first..].iter().step_by(TILE_COLUMNS);
        if self.precision == Precision::F32 {
            to.iter_mut().zip(words).for_each(|(x, word)| *x = *word);
            return;
        }
        for (pair, word) in to.chunks_mut(2).zip(words) {
            let bits = word.to_bits();
            pair[0] = f32::from_bits(bits << 16);
            if let Some(odd) = pair.get_mut(1) {
                *odd = f32::from_bits(bits & 0xffff_0000);
            }
        }
    }
}

/// The part of a stack that row `row` lies in, by the rows of each part, and which of its rows that is.
pub(crate) fn part_of(parts: impl Iterator<Item = usize>, mut row: usize) -> (usize, usize) {
    for (part, rows) in parts.enumerate() {
        if row < rows {
            return (part, row);
        }
        row -= rows;
    }
    unreachable!("the row is inside the stack")
}
