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
    simd::{Isa, LANES, Lanes, for_each_isa, isa},
};
use narthex_base::config::Precision;

mod blocks;
mod integers;
mod pack;
mod packed;
pub mod quantize;
mod tile;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

pub use blocks::BlockKind;
pub(crate) use integers::QuantizedB;
use pack::{Panels, pack, pack_row};
pub use packed::WeightValues;
pub(crate) use packed::{PackedB, part_of};
use packed::{ROWS_AT_ONCE, ROWS_PACKED_ALONE};
use tile::Fetch;
pub(crate) use tile::{Tile, tile_of};

/// Columns of a register tile, and of a packed panel of B.
const TILE_COLUMNS: usize = 2 * LANES;

/// Depth of a block in words (an f32, or two bf16): a panel of B of this depth fits L2 with room for the rest.
const DEPTH_WORDS: usize = 384;

/// The same on matrix tiles, which come with a larger L2, and read and write C again for each block.
const TILES_DEPTH_WORDS: usize = 1024;

/// Words of packed A in a task on matrix tiles: half of L2.
const TILES_BLOCK_WORDS: usize = 256 << 10;

/// Register tiles in a task: the packed block of A of that many rows stays in L2.
const BLOCK_TILES: usize = 4;

/// Panels of B that a task packs, and tiles of A.
const PANELS_PER_TASK: usize = 4;
const TILES_PER_TASK: usize = 8;

/// Tasks of a product for each thread.
const TASKS_PER_THREAD: usize = 8;

/// Depth in words that is packed at a time.
const WORDS_AT_ONCE: usize = 2048;

/// Words of packed A, and of packed B, at a time.
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

/// A part of both operands, and where it lies packed.
struct Packing<'a> {
    slabs: &'a [Slab],
    rows: std::ops::Range<usize>,
    /// Panels of 32 columns.
    panels: std::ops::Range<usize>,
    /// `[slab][tile][16 x words]`
    a: SharedMut,
    /// `[slab][panel][32 x words]`
    b: SharedMut,
}

/// How a part is split: blocks of rows times groups of panels.
#[derive(Clone, Copy)]
struct Tasks {
    /// Register tiles of rows in a block.
    block_tiles: usize,
    blocks: usize,
    /// Panels in a group.
    panels: usize,
    groups: usize,
}

/// Words of the deepest slab.
fn deepest(slabs: &[Slab]) -> usize {
    slabs.iter().map(|slab| slab.words).max().unwrap_or(0)
}

impl Packing<'_> {
    /// Columns of B, of `n` altogether, in `count` panels from the part's panel `first` on.
    fn columns(&self, first: usize, count: usize, n: usize) -> std::ops::Range<usize> {
        let column = |panel: usize| n.min((self.panels.start + panel) * TILE_COLUMNS);
        column(first)..column(self.panels.len().min(first + count))
    }

    /// Words of the slabs before this part's.
    fn words_before(&self) -> usize {
        self.slabs.first().map_or(0, |slab| slab.words_before)
    }
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
        let depth_words = if self.tiles { TILES_DEPTH_WORDS } else { DEPTH_WORDS };
        let count = self.k.div_ceil(depth_words * values_per_word).max(1);
        // Even, so that pairs never straddle slabs; the chain of each sum is the same for any cut.
        let len = self.k.div_ceil(count).next_multiple_of(2 * LANES);
        let mut slabs = Vec::with_capacity(count);
        let (mut first, mut words_before) = (0, 0);
        loop {
            let len = len.min(self.k - first);
            let words = len.div_ceil(values_per_word);
            // Tiles are whole: what there is no depth for is 0.
            let words = if self.tiles { words.next_multiple_of(LANES) } else { words };
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
    /// Both packed once and shared, as much at a time as stays in cache; tasks are blocks of rows times some panels.
    fn many_rows(self) {
        let slabs = self.to.slabs();
        let (mut first, mut words) = (0, 0);
        for (last, slab) in slabs.iter().enumerate() {
            words += slab.words;
            if last + 1 == slabs.len() || words + slab.words > WORDS_AT_ONCE {
                self.slabs_at_once(&slabs[first..=last], words);
                (first, words) = (last + 1, 0);
            }
        }
    }

    /// Part of the depth, of so many words together.
    fn slabs_at_once(&self, slabs: &[Slab], words: usize) {
        let tile_rows = self.to.tile_rows();
        let panels = self.to.n.div_ceil(TILE_COLUMNS);
        let tiles_at_once = (PACKED_WORDS / (words.max(1) * LANES)).max(2) & !1;
        let panels_at_once = (PACKED_WORDS / (words.max(1) * TILE_COLUMNS)).max(1);
        let rows_at_once = tiles_at_once * tile_rows;
        for first_row in (0..self.m).step_by(rows_at_once) {
            let rows = first_row..self.m.min(first_row + rows_at_once);
            // Where each block of rows is one task's alone, the task packs it.
            let shared = self.tasks(slabs, rows.len(), panels.min(panels_at_once)).groups > 1;
            let tiles = if shared { rows.len().div_ceil(tile_rows) } else { 0 };
            with_scratch(tiles * words * LANES, |a| {
                let a = SharedMut::new(a);
                for first_panel in (0..panels).step_by(panels_at_once) {
                    let panels = first_panel..panels.min(first_panel + panels_at_once);
                    with_scratch(panels.len() * words * TILE_COLUMNS, |b| {
                        let part = Packing { slabs, rows: rows.clone(), panels, a, b: SharedMut::new(b) };
                        self.pack_both(&part, shared && first_panel == 0);
                        self.multiply_packed(&part, shared);
                    });
                }
            });
        }
    }

    /// How a part of so many rows and panels is split.
    fn tasks(&self, slabs: &[Slab], rows: usize, panels: usize) -> Tasks {
        let tiles = rows.div_ceil(self.to.tile_rows());
        let most = match self.to.tiles {
            true => ((TILES_BLOCK_WORDS / (LANES * deepest(slabs).max(1))) & !1).max(2),
            false => BLOCK_TILES,
        };
        let block_tiles = most.min(tiles.next_multiple_of(2));
        let blocks = tiles.div_ceil(block_tiles);
        // Some tasks a thread, so that an interrupted one holds up little.
        let groups = (TASKS_PER_THREAD * parallel::threads()).div_ceil(blocks).min(panels).max(1);
        let panels_each = panels.div_ceil(groups).max(1);
        Tasks { block_tiles, blocks, panels: panels_each, groups: panels.div_ceil(panels_each) }
    }

    /// Packs the panels of a part, and its rows if asked.
    fn pack_both(&self, part: &Packing, rows_too: bool) {
        let Packing { slabs, rows, panels, a, b } = part;
        let (tile_rows, before) = (self.to.tile_rows(), part.words_before());
        let tiles = rows.len().div_ceil(tile_rows);
        let rows_tasks = if rows_too { tiles.div_ceil(TILES_PER_TASK) } else { 0 };
        let panels_tasks = panels.len().div_ceil(PANELS_PER_TASK);
        parallel::for_each(rows_tasks + panels_tasks, |task| {
            for slab in *slabs {
                let words_before = slab.words_before - before;
                if task < rows_tasks {
                    let tile = task * TILES_PER_TASK;
                    let first = rows.start + tile * tile_rows;
                    let here = first..rows.end.min(first + TILES_PER_TASK * tile_rows);
                    let to = a.at((words_before * tiles + tile * slab.words) * LANES);
                    // SAFETY: each (tile, slab) has its own part of the buffer, `words` x 16.
                    unsafe { self.pack_a(here, *slab, to) };
                } else {
                    let panel = (task - rows_tasks) * PANELS_PER_TASK;
                    let columns = part.columns(panel, PANELS_PER_TASK, self.to.n);
                    let to = b.at((words_before * panels.len() + panel * slab.words) * TILE_COLUMNS);
                    // SAFETY: each (panel, slab) has its own part of the buffer, `words` x 32.
                    unsafe { self.pack_b(columns, *slab, to) };
                }
            }
        });
    }

    /// Multiplies packed panels with rows that are packed too, if `shared`, or that each task packs.
    fn multiply_packed(&self, part: &Packing, shared: bool) {
        let Packing { slabs, rows, panels, a, b } = part;
        let tasks = self.tasks(slabs, rows.len(), panels.len());
        let (tile_rows, before) = (self.to.tile_rows(), part.words_before());
        let tiles = rows.len().div_ceil(tile_rows);
        let (a, b) = (Shared::of(*a), Shared::of(*b));
        let panel_at = |slab: &Slab, panel| {
            b.at(((slab.words_before - before) * panels.len() + panel * slab.words) * TILE_COLUMNS)
        };
        parallel::for_each(tasks.blocks * tasks.groups, |task| {
            let (tile, panel) = (task / tasks.groups * tasks.block_tiles, task % tasks.groups * tasks.panels);
            let first = rows.start + tile * tile_rows;
            let here = first..rows.end.min(first + tasks.block_tiles * tile_rows);
            let columns = part.columns(panel, tasks.panels, self.to.n);
            if shared {
                for slab in *slabs {
                    let a = a.at(((slab.words_before - before) * tiles + tile * slab.words) * LANES);
                    // SAFETY: `a` and `b` hold the packed tiles and panels of the slab; tasks write different parts
                    // of C.
                    unsafe { self.to.multiply(here.clone(), columns.clone(), *slab, a, panel_at(slab, panel)) };
                }
                return;
            }
            // Nobody else needs these rows: packed now, they are still in cache.
            with_scratch(here.len().div_ceil(tile_rows) * LANES * deepest(slabs), |block| {
                let block = block.as_mut_ptr();
                for slab in *slabs {
                    // SAFETY: `block` has room for the tiles; the rest as above.
                    unsafe {
                        self.pack_a(here.clone(), *slab, block);
                        self.to.multiply(here.clone(), columns.clone(), *slab, block, panel_at(slab, panel));
                    }
                }
            });
        });
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
