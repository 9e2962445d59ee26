//! Matrix products: `C[m, n] = A[m, k] B[k, n]`, in f32 and in bf16 with f32 sums.
//!
//! Every element of C is one chain of fused multiply-adds over k in ascending order, whatever the
//! shape, the blocking, the number of threads or the instruction set: blocks of k go on from where
//! the last one stopped. So the bytes of a row depend on that row alone (f32), and in bf16 on the
//! same chain of pairs.
//!
//! The blocking is that of Goto and van de Geijn ("Anatomy of high-performance matrix
//! multiplication", 2008): B in packed panels of 32 columns shared by all threads, A packed by each
//! thread in blocks that stay in its L2, a register tile of up to 14 x 32 sums.

use crate::machine::{
    parallel::{self, Shared, SharedMut, with_scratch},
    simd::{
        Isa, LANES, Lanes, for_each_isa, isa,
        rows::{load_up_to, store},
    },
};
use narthex_base::config::Precision;

mod integers;
mod packed;
pub mod quantize;
mod tile;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

pub(crate) use integers::QuantizedB;
pub use packed::WeightValues;
pub(crate) use packed::{PackedB, part_of};
use packed::{ROWS_AT_ONCE, ROWS_PACKED_ALONE};
use tile::Fetch;
pub(crate) use tile::{Tile, tile_of};

/// Columns of a register tile, and of a packed panel of B.
const TILE_COLUMNS: usize = 2 * LANES;

/// Depth of a block in words (an f32, or two bf16): a panel of B of this depth fits L2 with room for the rest.
const DEPTH_WORDS: usize = 384;

/// Register tiles in a task: the packed block of A of that many rows stays in L2.
const BLOCK_TILES: usize = 4;

/// Panels of B that a task packs.
const PANELS_PER_TASK: usize = 4;

/// Words of packed B at a time.
const PACKED_WORDS: usize = 4 << 20;

/// With so few rows of A, B is packed where it is used instead.
const FEW_ROWS: usize = 42;

/// Words ahead of the one in hand that a lone tile fetches from memory.
const WORDS_AHEAD: usize = 32;

/// Most matrices in a stack.
pub(crate) const STACK: usize = 3;

/// Up to three row-major matrices with the same number of columns, read as one below the other.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    parts: [(Shared, usize); STACK],
    columns: usize,
    /// Distance between rows.
    stride: usize,
}

impl Stack {
    /// Matrices of `columns` columns; the length of each gives its rows.
    ///
    /// # Panics
    /// If there are more than three.
    pub(crate) fn new(parts: &[&[f32]], columns: usize) -> Self {
        assert!(parts.len() <= STACK, "a stack holds up to {STACK} matrices");
        let part = |i: usize| {
            let part = parts.get(i).copied().unwrap_or_default();
            (Shared::new(part), part.len().checked_div(columns).unwrap_or(0))
        };
        Self { parts: std::array::from_fn(part), columns, stride: columns }
    }

    /// `columns` columns of one matrix whose rows lie `stride` apart.
    pub(crate) fn strided(values: &[f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || values.len() >= (rows - 1) * stride + columns, "the matrix lies inside its values");
        let empty = (Shared::new(&[]), 0);
        Self { parts: [(Shared::new(values), rows), empty, empty], columns, stride }
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|(_, rows)| rows).sum()
    }

    #[inline(always)]
    fn row(&self, mut i: usize) -> *const f32 {
        for (data, rows) in &self.parts {
            if i < *rows {
                return data.at(i * self.stride);
            }
            i -= rows;
        }
        unreachable!("the row is inside the stack")
    }
}

/// What runs along a row of a stored operand.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Along {
    /// The depth k: rows are rows of A, or columns of B.
    Depth,
    /// The width: rows are steps of k.
    Width,
}

/// A or B as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    stack: Stack,
    along: Along,
}

impl Operand {
    pub(crate) fn new(stack: Stack, along: Along) -> Self {
        Self { stack, along }
    }

    /// (width, depth)
    fn shape(&self) -> (usize, usize) {
        match self.along {
            Along::Depth => (self.stack.rows(), self.stack.columns),
            Along::Width => (self.stack.columns, self.stack.rows()),
        }
    }
}

/// Where a sum starts.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Start {
    /// Sums begin at 0.
    Zero,
    /// At what C holds: the chain of an earlier product over smaller k goes on.
    Continue,
}

/// What is added once a sum is complete.
#[derive(Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// One value a column.
    pub(crate) bias: Option<&'a [f32]>,
    /// As large as C, added after the bias.
    pub(crate) residual: Option<&'a [f32]>,
}

#[derive(Clone, Copy)]
pub(crate) struct FinishAt {
    bias: *const f32,
    residual: *const f32,
}

// SAFETY: read-only pointers into slices that the caller of `product` borrows for its whole time.
unsafe impl Send for FinishAt {}
// SAFETY: as above.
unsafe impl Sync for FinishAt {}

impl FinishAt {
    #[inline(always)]
    fn at(self, row: usize, column: usize, columns: usize) -> Self {
        let step = |pointer: *const f32, offset| if pointer.is_null() { pointer } else { pointer.wrapping_add(offset) };
        Self { bias: step(self.bias, column), residual: step(self.residual, row * columns + column) }
    }
}

/// `C = A B`, with `c` row-major `[m, n]`.
///
/// # Panics
/// If the shapes do not fit each other.
pub(crate) fn product(precision: Precision, a: Operand, b: Operand, c: &mut [f32], start: Start, finish: Finish) {
    let ((m, k), (n, depth)) = (a.shape(), b.shape());
    assert_eq!(k, depth, "A and B have the same depth");
    assert_eq!(c.len(), m * n, "C is [m, n]");
    if c.is_empty() {
        return;
    }
    let job = Job { a, b, m, to: Target::new(precision, c, [n, k], start, finish) };
    if m <= FEW_ROWS { job.few_rows() } else { job.many_rows() }
}

#[derive(Clone, Copy)]
struct Job {
    a: Operand,
    b: Operand,
    m: usize,
    to: Target,
}

/// C `[m, n]`, and the sums over k that become its elements.
#[derive(Clone, Copy)]
struct Target {
    pairs: bool,
    /// Whether pairs are multiplied on matrix tiles; then A lies in rows.
    tiles: bool,
    c: SharedMut,
    n: usize,
    k: usize,
    start: Start,
    finish: FinishAt,
}

/// Part of the depth.
#[derive(Clone, Copy)]
struct Slab {
    first: usize,
    len: usize,
    words: usize,
    /// Words of the slabs before.
    words_before: usize,
}

impl Target {
    fn new(precision: Precision, c: &mut [f32], [n, k]: [usize; 2], start: Start, finish: Finish) -> Self {
        assert!(finish.bias.is_none_or(|bias| bias.len() == n), "one bias for each column");
        assert!(finish.residual.is_none_or(|residual| residual.len() == c.len()), "the residual has C's shape");
        let address = |values: Option<&[f32]>| values.map_or(std::ptr::null(), |values| values.as_ptr());
        let finish = FinishAt { bias: address(finish.bias), residual: address(finish.residual) };
        let pairs = precision == Precision::Bf16;
        Self { pairs, tiles: pairs && isa() == Isa::Amx, c: SharedMut::new(c), n, k, start, finish }
    }

    fn slabs(&self) -> Vec<Slab> {
        let values_per_word = if self.pairs { 2 } else { 1 };
        let count = self.k.div_ceil(DEPTH_WORDS * values_per_word).max(1);
        // Even, so that pairs never straddle slabs; the chain of each sum is the same for any cut.
        let len = self.k.div_ceil(count).next_multiple_of(2 * LANES);
        let mut slabs = Vec::with_capacity(count);
        let (mut first, mut words_before) = (0, 0);
        loop {
            let len = len.min(self.k - first);
            let words = len.div_ceil(values_per_word);
            slabs.push(Slab { first, len, words, words_before });
            first += len;
            words_before += words;
            if first >= self.k {
                return slabs;
            }
        }
    }

    /// # Safety
    /// `a` and `b` hold the packed rows and columns; nobody else touches that part of C.
    unsafe fn multiply(
        &self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        slab: Slab,
        a: *const f32,
        b: *const f32,
    ) {
        let area = self.area(rows, columns, slab);
        // SAFETY: the caller's promises.
        unsafe { self.multiply_area(area, a, b) }
    }

    /// # Safety
    /// `a` and `b` hold the packed rows and columns of the area; nobody else touches that part of C.
    unsafe fn multiply_area(&self, area: Area, a: *const f32, b: *const f32) {
        // SAFETY: the caller's promises.
        unsafe {
            match (self.pairs, self.tiles) {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                (true, true) => tiles::multiply(area, a, b),
                (true, _) => multiply_pairs(area, a, b),
                (false, _) => multiply_words(area, a, b),
            }
        }
    }

    /// Rows of A that are packed together.
    fn tile_rows(&self) -> usize {
        if self.tiles { LANES } else { tile_rows() }
    }

    /// Packs rows of A: in tiles of 16 x words, or on matrix tiles one row after the other.
    ///
    /// # Safety
    /// `to` has room for 16 x words for each tile of the rows.
    unsafe fn pack_a(&self, a: &Operand, rows: Panels, slab: Slab, to: *mut f32) {
        // SAFETY: the caller's promise; rows and depth are inside A.
        unsafe {
            match self.tiles {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                true => tiles::pack_rows(a, rows.first..rows.first + rows.count, slab, to),
                _ => pack(self.pairs, a, rows, slab, to),
            }
        }
    }

    /// A part of C with A in tiles of the usual height.
    fn area(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, slab: Slab) -> Area {
        let (first, last) = (slab.first == 0, slab.first + slab.len >= self.k);
        let nothing = FinishAt { bias: std::ptr::null(), residual: std::ptr::null() };
        Area {
            rows: rows.len(),
            tile_rows: self.tile_rows(),
            a_word: LANES,
            columns: columns.len(),
            words: slab.words,
            c: self.c.at(rows.start * self.n + columns.start),
            stride: self.n,
            go_on: !first || self.start == Start::Continue,
            finish: if last { self.finish.at(rows.start, columns.start, self.n) } else { nothing },
            next: std::ptr::null(),
        }
    }
}

impl Job {
    /// B packed once and shared; tasks are blocks of rows.
    fn many_rows(self) {
        let slabs = self.to.slabs();
        let words = slabs.last().map_or(0, |slab| slab.words_before + slab.words);
        let tile_rows = self.to.tile_rows();
        let tiles = self.m.div_ceil(tile_rows);
        // At least four tasks a thread, so that an interrupted one holds up little.
        let block_tiles = if self.to.tiles { 4 * BLOCK_TILES } else { BLOCK_TILES };
        let block_rows = tile_rows * (tiles / (4 * parallel::threads())).clamp(1, block_tiles);
        let panels = self.to.n.div_ceil(TILE_COLUMNS);
        let panels_at_once = (PACKED_WORDS / (words.max(1) * TILE_COLUMNS)).clamp(1, panels);
        for first_panel in (0..panels).step_by(panels_at_once) {
            let panels = panels_at_once.min(panels - first_panel);
            with_scratch(panels * words * TILE_COLUMNS, |packed| {
                let to = SharedMut::new(packed);
                parallel::for_blocks(panels, PANELS_PER_TASK, |part| {
                    for slab in &slabs {
                        let column = |panel: usize| self.to.n.min((first_panel + panel) * TILE_COLUMNS);
                        let offset = (slab.words_before * panels + slab.words * part.start) * TILE_COLUMNS;
                        // SAFETY: each (panel, slab) has its own part of the buffer, `words` x 32.
                        unsafe { self.pack_b(column(part.start)..column(part.end), *slab, to.at(offset)) };
                    }
                });
                let packed = Shared::new(packed);
                parallel::for_blocks(self.m, block_rows, |rows| {
                    let tiles = rows.len().div_ceil(tile_rows);
                    let size = tiles * LANES * slabs.iter().map(|slab| slab.words).max().unwrap_or(0);
                    with_scratch(size, |block| {
                        for slab in &slabs {
                            let b = packed.at(slab.words_before * panels * TILE_COLUMNS);
                            let columns =
                                first_panel * TILE_COLUMNS..self.to.n.min((first_panel + panels) * TILE_COLUMNS);
                            // SAFETY: `block` has room for the tiles; `b` holds the packed panels of the slab; tasks
                            // write different rows of C.
                            unsafe {
                                self.pack_a(rows.clone(), *slab, block.as_mut_ptr());
                                self.to.multiply(rows.clone(), columns, *slab, block.as_ptr(), b);
                            }
                        }
                    });
                });
            });
        }
    }

    /// A packed once and shared; tasks are panels of B, packed by the task.
    fn few_rows(self) {
        let slabs = self.to.slabs();
        let tile_rows = self.to.tile_rows();
        let tiles = self.m.div_ceil(tile_rows);
        let words = slabs.last().map_or(0, |slab| slab.words_before + slab.words);
        let deepest = slabs.iter().map(|slab| slab.words).max().unwrap_or(0);
        with_scratch(tiles * LANES * words, |packed| {
            for slab in &slabs {
                let to = &mut packed[slab.words_before * tiles * LANES..];
                // SAFETY: the buffer has room for the tiles of every slab.
                unsafe { self.pack_a(0..self.m, *slab, to.as_mut_ptr()) };
            }
            let a = Shared::new(packed);
            let panels = self.to.n.div_ceil(TILE_COLUMNS);
            let panels_per_task = panels.div_ceil(16 * parallel::threads()).max(1);
            parallel::for_blocks(panels, panels_per_task, |panels| {
                with_scratch(deepest * TILE_COLUMNS, |panel| {
                    for column in panels.map(|panel| panel * TILE_COLUMNS) {
                        for slab in &slabs {
                            // SAFETY: the buffer has room for one panel; tasks write different columns of C.
                            unsafe {
                                let columns = column..self.to.n.min(column + TILE_COLUMNS);
                                self.pack_b(columns.clone(), *slab, panel.as_mut_ptr());
                                let a = a.at(slab.words_before * tiles * LANES);
                                self.to.multiply(0..self.m, columns, *slab, a, panel.as_ptr());
                            }
                        }
                    }
                });
            });
        });
    }

    /// # Safety
    /// `to` has room for a panel of 32 x words for each 32 columns, or part of them.
    unsafe fn pack_b(&self, columns: std::ops::Range<usize>, slab: Slab, to: *mut f32) {
        let panels = Panels { first: columns.start, count: columns.len(), used: TILE_COLUMNS, width: TILE_COLUMNS };
        // SAFETY: the caller's promise; columns and depth are inside B.
        unsafe { pack(self.to.pairs, &self.b, panels, slab, to) }
    }

    /// # Safety
    /// `to` has room for a panel of 16 x words for each tile of the rows.
    unsafe fn pack_a(&self, rows: std::ops::Range<usize>, slab: Slab, to: *mut f32) {
        let panels = Panels { first: rows.start, count: rows.len(), used: self.to.tile_rows(), width: LANES };
        // SAFETY: the caller's promise; rows and depth are inside A.
        unsafe { self.to.pack_a(&self.a, panels, slab, to) }
    }
}

/// `count` indices of an operand's width from `first`, in panels of `used` indices that lie `width` apart: a multiple
/// of 16. Lanes of a panel beyond its indices hold anything: what is computed from them is never stored.
#[derive(Clone, Copy)]
struct Panels {
    first: usize,
    count: usize,
    used: usize,
    width: usize,
}

#[inline(always)]
unsafe fn tile_rows_generic<V: Lanes>() -> usize {
    V::TILE_ROWS
}
for_each_isa! { unsafe fn tile_rows_of_isa() -> usize = tile_rows_generic }

/// Rows of a register tile.
fn tile_rows() -> usize {
    // SAFETY: reads a constant.
    unsafe { tile_rows_of_isa() }
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
                for word in 0..slab.words {
                    let depth = slab.first + step * word;
                    let row = operand.stack.row(depth).add(first);
                    let last = pairs && depth + 1 == slab.first + slab.len;
                    let next = if pairs && !last { operand.stack.row(depth + 1).add(first) } else { row };
                    if word + PREFETCH_ROWS < slab.words {
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
                        let to = to.add(panel * panel_size + lane);
                        let mut depth = 0;
                        while depth + step <= slab.len {
                            let mut block = [V::splat(0.0); LANES];
                            for i in 0..LANES {
                                block[i] = V::load(rows[i].add(depth));
                                if pairs {
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
    unsafe fn pack_row(pairs: bool, row: *const f32, slab: Slab, to: *mut f32) = pack_row_generic
}
for_each_isa! {
    /// See [`pack_generic`].
    unsafe fn pack(pairs: bool, operand: &Operand, panels: Panels, slab: Slab, to: *mut f32) = pack_generic
}

/// A part of C and what becomes of it.
#[derive(Clone, Copy)]
struct Area {
    rows: usize,
    /// Rows of A in a packed tile, up to those of a register tile.
    tile_rows: usize,
    /// Values between the words of a packed tile.
    a_word: usize,
    columns: usize,
    words: usize,
    c: *mut f32,
    stride: usize,
    go_on: bool,
    finish: FinishAt,
    /// What will be read next instead of B, to be fetched from memory meanwhile; null if that is not known.
    next: *const f32,
}

impl Area {
    #[inline(always)]
    fn tiles(&self) -> usize {
        self.rows.div_ceil(self.tile_rows)
    }
}

/// Tiles of packed rows times packed panels.
#[inline(always)]
unsafe fn multiply_generic<V: Lanes, const PAIRS: bool>(area: Area, a: *const f32, b: *const f32) {
    // SAFETY: the caller promises packed tiles and panels for the area, and that it owns that part of C.
    unsafe {
        for column in (0..area.columns).step_by(TILE_COLUMNS) {
            let columns = TILE_COLUMNS.min(area.columns - column);
            let b = b.add(column * area.words);
            for (tile, row) in (0..area.rows).step_by(area.tile_rows).enumerate() {
                let rows = area.tile_rows.min(area.rows - row);
                let a = a.add(tile * area.a_word * area.words);
                let part = Tile {
                    words: area.words,
                    a,
                    a_word: area.a_word,
                    b,
                    b_word: TILE_COLUMNS,
                    c: area.c.add(row * area.stride + column),
                    stride: area.stride,
                    columns,
                    go_on: area.go_on,
                    finish: area.finish.at(row, column, area.stride),
                    // The first tile waits for B itself; the last two have it in cache, and share the fetching. A lone
                    // one reads memory as fast as it comes, and looks across the borders of pages, which hardware does
                    // not.
                    next: match area.tiles() - tile {
                        _ if area.next.is_null() => Fetch::Nothing,
                        1 if tile == 0 => Fetch::All(b.wrapping_add(WORDS_AHEAD * TILE_COLUMNS)),
                        _ if tile == 0 => Fetch::Nothing,
                        1 if tile == 1 => Fetch::All(area.next),
                        1 => Fetch::Half(area.next.wrapping_add(area.words * LANES)),
                        2 => Fetch::Half(area.next),
                        _ => Fetch::Nothing,
                    },
                };
                tile_of::<V, PAIRS>(rows, part);
            }
        }
    }
}
#[inline(always)]
unsafe fn multiply_words_generic<V: Lanes>(area: Area, a: *const f32, b: *const f32) {
    // SAFETY: the caller's promises.
    unsafe { multiply_generic::<V, false>(area, a, b) }
}
#[inline(always)]
unsafe fn multiply_pairs_generic<V: Lanes>(area: Area, a: *const f32, b: *const f32) {
    // SAFETY: the caller's promises.
    unsafe { multiply_generic::<V, true>(area, a, b) }
}
for_each_isa! { unsafe fn multiply_words(area: Area, a: *const f32, b: *const f32) = multiply_words_generic }
for_each_isa! { unsafe fn multiply_pairs(area: Area, a: *const f32, b: *const f32) = multiply_pairs_generic }
