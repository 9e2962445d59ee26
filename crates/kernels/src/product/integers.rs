//! B as small integers, packed once: a row of A is brought to int8 in groups on its way, products of integers are
//! summed exactly within a group, and groups are added up in f32 in ascending order. So the bytes of a row of C depend
//! on that row alone.
//!
//! With x = a s over a group of A's row (a in -127..=127), int8 is `C = t Σ s Σ a w`, with t one scale a column;
//! int4 is `C = Σ s t Σ a (q - z)`, with t and z of the group and the column. Blocks of GGUF files are as int4, or
//! `C = Σ s (t Σ a q + m Σ a)` for those with a minimum m.

mod of_blocks;
mod tile;

use super::{Finish, ROWS_AT_ONCE, ROWS_PACKED_ALONE, TILE_COLUMNS, Target};
use crate::{
    machine::{
        parallel::{self, with_scratch},
        simd::{
            LANES, Lanes,
            dots::{BYTES, Dots, for_each_dots},
        },
    },
    product::{
        blocks::BlockKind,
        quantize::{INT4_GROUPS, Quantization},
    },
};
use half::f16;
use narthex_base::config::Precision;
use of_blocks::spread_panel;
use std::{ops::Range, slice};
use tile::{BlockScales, Codes, Tile, tile_of};

/// Values of A that share a scale where B is int8.
const INT8_GROUP: usize = 64;

/// Values of the longest group that shares a scale.
const GROUP_MAX: usize = 128;

/// What is added to an int8 code to store it as a byte.
const INT8_OFFSET: i32 = 128;

/// What is added to an int4 code less its zero when a panel is unpacked.
const INT4_OFFSET: i32 = 16;

/// Deepest product whose integer sums cannot overflow is far beyond any model: groups are short. This guards the sizes
/// of buffers.
const DEPTH_MAX: usize = 1 << 24;

/// 64 bytes that lie in one line of a cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; BYTES]);

/// Places that tasks write to, each its own.
#[derive(Clone, Copy)]
struct Places<T>(*mut T);
// SAFETY: each task writes the places of its panel only, and the caller holds the borrow meanwhile.
unsafe impl<T: Send> Send for Places<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Places<T> {}
impl<T> Places<T> {
    /// # Safety
    /// The range is inside, and no other task touches it.
    unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// One column of B, to be written.
pub(crate) struct Column<'a> {
    /// `[k]`: of int8 the code + 128, of int4 the code.
    pub(crate) codes: &'a mut [u8],
    /// The scale of a column of int8.
    pub(crate) scale: &'a mut f32,
    /// `[groups]`, of int4.
    pub(crate) scales: &'a mut [f16],
    /// `[groups]`, of int4.
    pub(crate) zeros: &'a mut [u8],
}

/// How B's numbers are small integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Rounded(Quantization),
    Blocks(BlockKind),
}

impl Form {
    /// Lines of codes in a word, and bytes of what does not fit halves of bytes.
    fn word(self) -> (usize, usize) {
        match self {
            Form::Rounded(Quantization::Int8) => (2, 0),
            Form::Rounded(Quantization::Int4 { .. }) => (1, 0),
            Form::Blocks(kind) => match kind.layout().bits {
                8 => (2, 0),
                bits => (1, FIFTH_BITS * (bits as usize - 4)),
            },
        }
    }

    /// As a tile of few rows reads them.
    fn codes(self) -> Codes {
        match self {
            Form::Rounded(Quantization::Int8) => Codes::Int8,
            Form::Rounded(Quantization::Int4 { .. }) => Codes::Nibbles,
            Form::Blocks(kind) => match kind.layout().bits {
                4 => Codes::Block4,
                5 => Codes::Block5,
                6 => Codes::Block6,
                _ => Codes::Block8,
            },
        }
    }
}

/// Bytes that hold one more bit of each code of a word.
const FIFTH_BITS: usize = 4 * TILE_COLUMNS / 8;

/// B `[k, n]` in panels of 32 columns. A word is four steps of k. int8: `codes[panel][word][32][4]`; int4:
/// `codes[panel][word][16][4]` with columns 0..16 in the low halves of the bytes and 16..32 in the high ones.
///
/// Of blocks with more than 4 bits the upper ones lie apart: `upper[panel][word]` as [`Dots::fifth`] and
/// [`Dots::fifth_and_sixth`] read them.
pub(crate) struct QuantizedB {
    form: Form,
    n: usize,
    k: usize,
    /// Steps of k that share a scale of A.
    group: usize,
    codes: Vec<Line>,
    /// `[n]` of int8, in whole panels.
    column_scales: Vec<f32>,
    upper: Vec<u8>,
    /// `[panel][group][32]` of int4, as bits; `[panel][block][32]` of blocks.
    group_scales: Vec<u16>,
    /// `[panel][block][32]` of blocks, if they have any.
    minimums: Vec<u16>,
    /// `[panel][group][32]` of blocks, if they have any.
    small_scales: Vec<u8>,
    small_minimums: Vec<u8>,
    /// The same; empty if all are 8.
    zeros: Vec<u8>,
    /// Which value of A's row stands at which step of k; empty if they stand as they are.
    order: Vec<u32>,
}

impl QuantizedB {
    /// Packs on all threads what `write` says of each column.
    ///
    /// # Panics
    /// If a group is not one of int4's, or `order` is not a permutation of 0..k.
    pub(crate) fn new(
        kind: Quantization,
        [n, k]: [usize; 2],
        order: Option<&[u32]>,
        write: impl Fn(usize, Column) + Sync,
    ) -> Self {
        let group = match kind {
            Quantization::Int8 => INT8_GROUP,
            Quantization::Int4 { group } => group,
        };
        assert!(kind == Quantization::Int8 || INT4_GROUPS.contains(&group), "groups of 32, 64 or 128");
        assert!((1..=DEPTH_MAX).contains(&k), "a depth");
        let (words, groups, panels) = (k.div_ceil(4), k.div_ceil(group), n.div_ceil(TILE_COLUMNS));
        let int8 = kind == Quantization::Int8;
        let lines = if int8 { 2 * words } else { words };
        let mut codes: Vec<Line> = Vec::with_capacity(panels * lines);
        let mut column_scales = vec![0f32; if int8 { panels * TILE_COLUMNS } else { 0 }];
        let mut group_scales = vec![0u16; if int8 { 0 } else { panels * groups * TILE_COLUMNS }];
        let mut zeros = vec![8u8; group_scales.len()];
        let to = (
            Places(codes.as_mut_ptr()),
            Places(column_scales.as_mut_ptr()),
            Places(group_scales.as_mut_ptr()),
            Places(zeros.as_mut_ptr()),
        );
        parallel::for_each(panels, |panel| {
            // SAFETY: each panel has its own part of every buffer; of `codes` the first `lines` lines past its own are
            // reserved and become bytes here.
            let (lines, column_scales, group_scales, zero_places) = unsafe {
                let lines_at = panel * lines..(panel + 1) * lines;
                to.0.0.add(lines_at.start).write_bytes(0, lines);
                let columns = if int8 { panel * TILE_COLUMNS..(panel + 1) * TILE_COLUMNS } else { 0..0 };
                let places = panel * groups * TILE_COLUMNS..(panel + 1) * groups * TILE_COLUMNS;
                let places = if int8 { 0..0 } else { places };
                (to.0.slice(lines_at), to.1.slice(columns), to.2.slice(places.clone()), to.3.slice(places))
            };
            let mut codes = vec![0u8; k];
            let (mut scales, mut zeros) = (vec![f16::ZERO; groups], vec![8u8; groups]);
            for column in panel * TILE_COLUMNS..n.min((panel + 1) * TILE_COLUMNS) {
                let (lane, mut scale) = (column % TILE_COLUMNS, 0.0);
                let here = Column { codes: &mut codes, scale: &mut scale, scales: &mut scales, zeros: &mut zeros };
                write(column, here);
                let (half, lane_of_half) = (lane / LANES, lane % LANES);
                for (step, code) in codes.iter().enumerate() {
                    let (word, byte) = (step / 4, 4 * lane_of_half + step % 4);
                    if int8 {
                        lines[2 * word + half].0[byte] = *code;
                    } else {
                        lines[word].0[byte] |= code << (4 * half);
                    }
                }
                if int8 {
                    column_scales[lane] = scale;
                    continue;
                }
                for (i, (scale, zero)) in scales.iter().zip(&zeros).enumerate() {
                    group_scales[i * TILE_COLUMNS + lane] = scale.to_bits();
                    zero_places[i * TILE_COLUMNS + lane] = *zero;
                }
            }
        });
        // SAFETY: every panel has written its lines.
        unsafe { codes.set_len(panels * lines) };
        if zeros.iter().all(|zero| *zero == 8) {
            zeros = vec![];
        }
        let order = order.map(<[u32]>::to_vec).unwrap_or_default();
        if !order.is_empty() {
            let mut seen = vec![false; k];
            order.iter().for_each(|i| seen[*i as usize] = true);
            assert!(order.len() == k && seen.iter().all(|seen| *seen), "the order is a permutation");
        }
        let (upper, minimums, small_scales, small_minimums) = (vec![], vec![], vec![], vec![]);
        let form = Form::Rounded(kind);
        Self {
            form,
            n,
            k,
            group,
            codes,
            column_scales,
            upper,
            group_scales,
            minimums,
            small_scales,
            small_minimums,
            zeros,
            order,
        }
    }

    /// (n, k)
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// What they were rounded to here or by others; none for blocks of a file.
    pub(crate) fn kind(&self) -> Option<Quantization> {
        match self.form {
            Form::Rounded(kind) => Some(kind),
            Form::Blocks(_) => None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.codes[..])
            + size_of_val(&self.column_scales[..])
            + self.upper.len()
            + size_of_val(&self.group_scales[..])
            + size_of_val(&self.minimums[..])
            + self.small_scales.len()
            + self.small_minimums.len()
            + self.zeros.len()
            + size_of_val(&self.order[..])
    }

    fn words(&self) -> usize {
        self.k.div_ceil(4)
    }

    fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// `C = A B` with `a [m, k]`, as the columns of a larger `c [m, of]` from `first` on; what is added at the end has
    /// its shape, too.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub(crate) fn multiply(&self, a: &[f32], c: &mut [f32], [first, of]: [usize; 2], finish: Finish) {
        let m = a.len() / self.k;
        assert_eq!((a.len(), c.len()), (m * self.k, m * of), "A is [m, k] and C is [m, of]");
        assert!(first + self.n <= of, "the columns are C's");
        let passes = m.div_ceil(ROWS_AT_ONCE).max(1);
        let at_once = m.div_ceil(passes).max(1);
        for row in (0..m).step_by(at_once) {
            let rows = row..m.min(row + at_once);
            let residual = finish.residual.map(|residual| &residual[rows.start * of..rows.end * of]);
            let c = &mut c[rows.start * of..rows.end * of];
            let a = &a[rows.start * self.k..rows.end * self.k];
            self.multiply_rows(a, rows.len(), c, [first, of], Finish { residual, ..finish });
        }
    }

    fn multiply_rows(&self, a: &[f32], m: usize, c: &mut [f32], [first_column, of]: [usize; 2], finish: Finish) {
        let target = Target::new(Precision::F32, c, [of, self.k], super::Start::Zero, finish);
        let (words, groups) = (self.words(), self.groups());
        let tiles = m.div_ceil(tile_rows());
        // Tiles of like height.
        let tile_rows = m.div_ceil(tiles.max(1)).max(1);
        let rows = tiles * tile_rows;
        with_scratch(rows * (words + 2 * groups), |packed| {
            // Words, scales and sums of A, each `[tile][word or group][row]`.
            let to = packed.as_mut_ptr();
            let places = ActivationsAt {
                words: to.cast(),
                scales: to.wrapping_add(rows * words),
                sums: to.wrapping_add(rows * (words + groups)).cast(),
            };
            let pack = |row: usize| {
                let (tile, lane) = (row / tile_rows, row % tile_rows);
                let places = places.tile(tile, tile_rows, words, groups).lane(lane);
                let order = if self.order.is_empty() { std::ptr::null() } else { self.order.as_ptr() };
                // SAFETY: the row is in A, and each row has its own places.
                unsafe { pack_row(a.as_ptr().add(row * self.k), self.k, self.group, order, tile_rows, places) };
            };
            if m <= ROWS_PACKED_ALONE {
                (0..m).for_each(pack);
            } else {
                parallel::for_blocks(m, 8, |rows| rows.for_each(pack));
            }
            let panels = self.n.div_ceil(TILE_COLUMNS);
            let panels_per_task = panels.div_ceil(16 * parallel::threads()).max(1);
            parallel::for_blocks(panels, panels_per_task, |panels| {
                // Few rows take the codes as they are; for more, a panel is unpacked first.
                let (lines, upper_bytes) = self.form.word();
                let unpacked = tiles > 1 && lines == 1;
                with_scratch(if unpacked { 2 * LANES * words } else { 0 }, |buffer| {
                    for panel in panels {
                        let columns = TILE_COLUMNS.min(self.n - panel * TILE_COLUMNS);
                        let (mut codes, mut kind) = (self.line(panel * lines * words), self.form.codes());
                        let upper = self.upper.as_ptr().wrapping_add(panel * words * upper_bytes);
                        let (group_scales, blocks) = self.block_scales(panel);
                        let zeros = match self.zeros.get(panel * groups * TILE_COLUMNS..) {
                            Some(zeros) if !self.zeros.is_empty() => zeros.as_ptr(),
                            _ => std::ptr::null(),
                        };
                        if unpacked {
                            let to = buffer.as_mut_ptr().cast::<u8>();
                            // SAFETY: the buffer has room for 128 bytes a word.
                            unsafe {
                                kind = match self.form {
                                    Form::Rounded(_) => {
                                        unpack_panel(codes, zeros, words, self.group / 4, to);
                                        Codes::Bytes
                                    }
                                    Form::Blocks(_) => {
                                        spread_panel(codes, upper, kind, words, to);
                                        Codes::BlockBytes
                                    }
                                };
                            }
                            codes = to;
                        }
                        for tile in 0..tiles {
                            let first = tile * tile_rows;
                            let rows = tile_rows.min(m - first);
                            let a = places.tile(tile, tile_rows, words, groups);
                            let column = panel * TILE_COLUMNS;
                            let column_of_c = first_column + column;
                            let part = Tile {
                                words,
                                group_words: self.group / 4,
                                a,
                                a_stride: tile_rows,
                                codes,
                                kind,
                                column_scales: self.column_scales.as_ptr().wrapping_add(column),
                                group_scales,
                                zeros,
                                upper,
                                blocks,
                                c: target.c.at(first * of + column_of_c),
                                stride: of,
                                columns,
                                finish: target.finish.at(first, column_of_c, of),
                                fetch: tile == 0 && !unpacked,
                            };
                            // SAFETY: A and B hold the packed tile and the panel; tasks write different columns of C.
                            unsafe { multiply_tile(rows, part) };
                        }
                    }
                });
            });
        });
    }

    /// The scales of a panel, and how they are to be read where they are those of blocks.
    fn block_scales(&self, panel: usize) -> (*const u16, BlockScales) {
        fn of<T>(values: &[T], each: usize) -> *const T {
            if values.is_empty() { std::ptr::null() } else { values[each..].as_ptr() }
        }
        let Form::Blocks(kind) = self.form else {
            let first = panel * self.groups() * TILE_COLUMNS;
            return (self.group_scales.as_ptr().wrapping_add(first), BlockScales::none());
        };
        let layout = kind.layout();
        let (block, group) = (panel * (self.k / layout.values) * TILE_COLUMNS, panel * self.groups() * TILE_COLUMNS);
        let scales = BlockScales {
            groups: layout.values / layout.group,
            minus_zero: if layout.minimum.is_some() || layout.bits == 8 { 0.0 } else { -f32::from(layout.zero) },
            minimums: of(&self.minimums, block),
            sign: layout.minimum.unwrap_or(0.0),
            small_scales: of(&self.small_scales, group),
            minus_small: -f32::from(layout.small_scales.unwrap_or(0)),
            small_minimums: of(&self.small_minimums, group),
        };
        (of(&self.group_scales, block), scales)
    }

    fn line(&self, line: usize) -> *const u8 {
        self.codes.as_ptr().wrapping_add(line).cast()
    }

    /// Column `column` of B as numbers, in the order of A's values: `to` takes k.
    ///
    /// # Panics
    /// If there is no such column.
    pub(crate) fn column(&self, column: usize, to: &mut [f32]) {
        assert!(column < self.n, "a column of B");
        let (panel, lane) = (column / TILE_COLUMNS, column % TILE_COLUMNS);
        let (half, lane_of_half) = (lane / LANES, lane % LANES);
        let (words, groups) = (self.words(), self.groups());
        for step in 0..self.k {
            let (word, byte) = (step / 4, 4 * lane_of_half + step % 4);
            let value = match self.form {
                Form::Rounded(Quantization::Int8) => {
                    let code = i32::from(self.codes[2 * (panel * words + word) + half].0[byte]) - INT8_OFFSET;
                    code as f32 * self.column_scales[column]
                }
                Form::Rounded(Quantization::Int4 { .. }) => {
                    let code = i32::from(self.codes[panel * words + word].0[byte] >> (4 * half) & 15);
                    let place = (panel * groups + step / self.group) * TILE_COLUMNS + lane;
                    let zero = self.zeros.get(place).map_or(8, |zero| i32::from(*zero));
                    (code - zero) as f32 * f16::from_bits(self.group_scales[place]).to_f32()
                }
                Form::Blocks(kind) => {
                    let layout = kind.layout();
                    let (lines, upper_bytes) = self.form.word();
                    let at = panel * words + word;
                    let mut code = match lines {
                        2 => self.codes[2 * at + half].0[byte],
                        _ => self.codes[at].0[byte] >> (4 * half) & 15,
                    };
                    let upper = &self.upper[at * upper_bytes..(at + 1) * upper_bytes];
                    match layout.bits {
                        5 => code |= (upper[8 * half + byte / 8] >> (byte % 8) & 1) << 4,
                        6 => code |= (upper[byte % 32] >> (4 * half + 2 * (byte / 32)) & 3) << 4,
                        _ => {}
                    }
                    let block = (panel * (self.k / layout.values) + step / layout.values) * TILE_COLUMNS + lane;
                    let group = (panel * groups + step / layout.group) * TILE_COLUMNS + lane;
                    let mut scale = f16::from_bits(self.group_scales[block]).to_f32();
                    if let Some(offset) = layout.small_scales {
                        scale *= f32::from(self.small_scales[group]) - f32::from(offset);
                    }
                    match layout.minimum {
                        None => (i32::from(code) - i32::from(layout.zero)) as f32 * scale,
                        Some(sign) => {
                            let small = self.small_minimums.get(group).map_or(1.0, |small| f32::from(*small));
                            f32::from(code) * scale + sign * f16::from_bits(self.minimums[block]).to_f32() * small
                        }
                    }
                }
            };
            to[self.order.get(step).map_or(step, |place| *place as usize)] = value;
        }
    }
}

/// Where a tile of A lies, packed.
#[derive(Clone, Copy)]
struct ActivationsAt {
    /// Four codes a word.
    words: *mut i32,
    /// One a group.
    scales: *mut f32,
    /// The sum of a group's codes.
    sums: *mut i32,
}

// SAFETY: each row has its own places, and they are read only when all are written.
unsafe impl Send for ActivationsAt {}
// SAFETY: as above.
unsafe impl Sync for ActivationsAt {}

impl ActivationsAt {
    fn tile(self, tile: usize, rows: usize, words: usize, groups: usize) -> Self {
        Self {
            words: self.words.wrapping_add(tile * rows * words),
            scales: self.scales.wrapping_add(tile * rows * groups),
            sums: self.sums.wrapping_add(tile * rows * groups),
        }
    }

    fn lane(self, lane: usize) -> Self {
        Self {
            words: self.words.wrapping_add(lane),
            scales: self.scales.wrapping_add(lane),
            sums: self.sums.wrapping_add(lane),
        }
    }
}

/// The number of rows of a tile.
fn tile_rows() -> usize {
    #[inline(always)]
    unsafe fn generic<D: Dots>() -> usize {
        D::TILE_ROWS
    }
    for_each_dots! { unsafe fn of_isa() -> usize = generic }
    // SAFETY: reads a constant.
    unsafe { of_isa() }
}

/// Brings a row of A to int8: the largest value of a group becomes 127. A value that is not finite makes its group's
/// scale not a number, so that it shows in the result.
#[inline(always)]
unsafe fn pack_row_generic<D: Dots>(
    x: *const f32,
    k: usize,
    group: usize,
    order: *const u32,
    stride: usize,
    to: ActivationsAt,
) {
    // SAFETY: the caller promises the row, an order of its values or null, and the places.
    unsafe {
        let zero = D::Lanes::splat(0.0);
        let mut gathered = [0f32; GROUP_MAX];
        for (number, first) in (0..k).step_by(group).enumerate() {
            let len = group.min(k - first);
            let mut from = x.add(first);
            if !order.is_null() || !len.is_multiple_of(LANES) {
                gathered.fill(0.0);
                for (i, value) in gathered[..len].iter_mut().enumerate() {
                    *value = *x.add(if order.is_null() { first + i } else { *order.add(first + i) as usize });
                }
                from = gathered.as_ptr();
            }
            let (mut largest, mut finite) = (zero, zero);
            for i in (0..len).step_by(LANES) {
                let value = D::Lanes::load(from.add(i));
                largest = largest.max(value).max(zero.sub(value));
                finite = value.fma(zero, finite);
            }
            let largest = largest.largest();
            let usable = largest > 127.0 * f32::MIN_POSITIVE;
            let scale = largest / 127.0 + finite.sum();
            let inverse = D::Lanes::splat(if usable { 127.0 / largest } else { 0.0 });
            let mut sums = zero;
            for i in (0..len).step_by(LANES) {
                let codes = D::Lanes::load(from.add(i)).mul(inverse).round();
                sums = sums.add(codes);
                let word = (first + i) / 4;
                let left = (len - i).div_ceil(4).min(4);
                for (j, packed) in D::narrow(codes).into_iter().enumerate().take(left) {
                    *to.words.add((word + j) * stride) = packed;
                }
            }
            *to.scales.add(number * stride) = scale;
            *to.sums.add(number * stride) = sums.sum() as i32;
        }
    }
}
for_each_dots! {
    /// See [`pack_row_generic`].
    unsafe fn pack_row(x: *const f32, k: usize, group: usize, order: *const u32, stride: usize, to: ActivationsAt) =
        pack_row_generic
}

/// Int4 codes of a panel less their zeros, plus 16, as bytes: two lines a word.
#[inline(always)]
unsafe fn unpack_panel_generic<D: Dots>(
    codes: *const u8,
    zeros: *const u8,
    words: usize,
    group_words: usize,
    to: *mut u8,
) {
    // SAFETY: the caller promises the panel and its zeros, or null, and room for two lines a word.
    unsafe {
        for (group, first) in (0..words).step_by(group_words).enumerate() {
            let mut shift = [[(INT4_OFFSET - 8) as u8; LANES]; 2];
            if !zeros.is_null() {
                for (i, shift) in shift.as_flattened_mut().iter_mut().enumerate() {
                    *shift = INT4_OFFSET as u8 - *zeros.add(group * TILE_COLUMNS + i);
                }
            }
            let shifts = [D::spread(shift[0].as_ptr()), D::spread(shift[1].as_ptr())];
            for word in first..words.min(first + group_words) {
                let halves = D::nibbles(D::load(codes.add(word * BYTES)));
                D::store(D::add_bytes(halves[0], shifts[0]), to.add(2 * word * BYTES));
                D::store(D::add_bytes(halves[1], shifts[1]), to.add((2 * word + 1) * BYTES));
            }
        }
    }
}
for_each_dots! {
    /// See [`unpack_panel_generic`].
    unsafe fn unpack_panel(codes: *const u8, zeros: *const u8, words: usize, group_words: usize, to: *mut u8) =
        unpack_panel_generic
}
for_each_dots! {
    /// See [`tile_of`].
    unsafe fn multiply_tile(rows: usize, tile: Tile) = tile_of
}
