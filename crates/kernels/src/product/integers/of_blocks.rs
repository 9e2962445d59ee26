//! Panels of integers made of the blocks of a GGUF file.

use super::{
    DEPTH_MAX, Form, Line, Places, QuantizedB,
    tile::{Codes, weights},
};
use crate::{
    machine::{
        parallel,
        simd::{
            LANES,
            dots::{BYTES, Dots, for_each_dots},
        },
    },
    product::{
        TILE_COLUMNS,
        blocks::{BlockKind, Row},
    },
};

impl QuantizedB {
    /// Packs on all threads rows of blocks as they lie in a file.
    ///
    /// # Panics
    /// If a row is not `k` values in whole blocks.
    pub(crate) fn of_blocks<'a>(kind: BlockKind, [n, k]: [usize; 2], row: impl Fn(usize) -> &'a [u8] + Sync) -> Self {
        let (layout, form) = (kind.layout(), Form::Blocks(kind));
        let (lines, upper_bytes) = form.word();
        assert!((1..=DEPTH_MAX).contains(&k) && k.is_multiple_of(layout.values), "whole blocks");
        let (words, groups, blocks, panels) = (k / 4, k / layout.group, k / layout.values, n.div_ceil(TILE_COLUMNS));
        let small = if layout.small_scales.is_some() { groups } else { 0 };
        let small_minimum = if layout.minimum.is_some() { small } else { 0 };
        let minimum = if layout.minimum.is_some() { blocks } else { 0 };
        let mut codes: Vec<Line> = Vec::with_capacity(panels * words * lines);
        let mut upper = vec![0u8; panels * words * upper_bytes];
        let mut scales = vec![0u16; panels * blocks * TILE_COLUMNS];
        let mut minimums = vec![0u16; panels * minimum * TILE_COLUMNS];
        let mut small_scales = vec![0u8; panels * small * TILE_COLUMNS];
        let mut small_minimums = vec![0u8; panels * small_minimum * TILE_COLUMNS];
        let to = (
            Places(codes.as_mut_ptr()),
            Places(upper.as_mut_ptr()),
            [Places(scales.as_mut_ptr()), Places(minimums.as_mut_ptr())],
            [Places(small_scales.as_mut_ptr()), Places(small_minimums.as_mut_ptr())],
        );
        parallel::for_each(panels, |panel| {
            let part = |len: usize| panel * len..(panel + 1) * len;
            // SAFETY: each panel has its own part of every buffer; of `codes` the lines of a panel are reserved and
            // become bytes here.
            let (codes, upper, [scales, minimums], [small_scales, small_minimums]) = unsafe {
                to.0.0.add(panel * words * lines).write_bytes(0, words * lines);
                (
                    to.0.slice(part(words * lines)),
                    to.1.slice(part(words * upper_bytes)),
                    [to.2[0].slice(part(blocks * TILE_COLUMNS)), to.2[1].slice(part(minimum * TILE_COLUMNS))],
                    [to.3[0].slice(part(small * TILE_COLUMNS)), to.3[1].slice(part(small_minimum * TILE_COLUMNS))],
                )
            };
            let mut unpacked = Row::default();
            for column in panel * TILE_COLUMNS..n.min((panel + 1) * TILE_COLUMNS) {
                unpacked.unpack(kind, row(column));
                assert_eq!(unpacked.codes.len(), k, "a row of k values");
                let lane = column % TILE_COLUMNS;
                let (half, lane_of_half) = (lane / LANES, lane % LANES);
                for (step, code) in unpacked.codes.iter().enumerate() {
                    let (word, byte) = (step / 4, 4 * lane_of_half + step % 4);
                    if lines == 2 {
                        codes[2 * word + half].0[byte] = *code;
                        continue;
                    }
                    codes[word].0[byte] |= (code & 15) << (4 * half);
                    let upper = &mut upper[word * upper_bytes..(word + 1) * upper_bytes];
                    match layout.bits {
                        5 => upper[8 * half + byte / 8] |= (code >> 4) << (byte % 8),
                        6 => upper[byte % 32] |= (code >> 4) << (4 * half + 2 * (byte / 32)),
                        _ => {}
                    }
                }
                let across = |to: &mut [u16], from: &[u16]| {
                    from.iter().enumerate().for_each(|(i, value)| to[i * TILE_COLUMNS + lane] = *value);
                };
                across(scales, &unpacked.scales);
                across(minimums, &unpacked.minimums);
                let across = |to: &mut [u8], from: &[u8]| {
                    from.iter().enumerate().for_each(|(i, value)| to[i * TILE_COLUMNS + lane] = *value);
                };
                across(small_scales, &unpacked.small_scales);
                across(small_minimums, &unpacked.small_minimums);
            }
        });
        // SAFETY: every panel has written its lines.
        unsafe { codes.set_len(panels * words * lines) };
        Self {
            form,
            n,
            k,
            group: layout.group,
            codes,
            column_scales: vec![],
            upper,
            group_scales: scales,
            minimums,
            small_scales,
            small_minimums,
            zeros: vec![],
            order: vec![],
        }
    }
}

/// The codes of a panel of blocks as bytes: two lines a word.
#[inline(always)]
unsafe fn spread_panel_generic<D: Dots>(codes: *const u8, upper: *const u8, kind: Codes, words: usize, to: *mut u8) {
    // SAFETY: the caller promises the panel, and room for two lines a word.
    unsafe {
        for word in 0..words {
            let halves = match kind {
                Codes::Block5 => weights::<D, { Codes::Block5 as u8 }>(codes, upper, word),
                Codes::Block6 => weights::<D, { Codes::Block6 as u8 }>(codes, upper, word),
                _ => weights::<D, { Codes::Block4 as u8 }>(codes, upper, word),
            };
            D::store(halves[0], to.add(2 * word * BYTES));
            D::store(halves[1], to.add((2 * word + 1) * BYTES));
        }
    }
}
for_each_dots! {
    /// See [`spread_panel_generic`].
    pub(super) unsafe fn spread_panel(codes: *const u8, upper: *const u8, kind: Codes, words: usize, to: *mut u8) =
        spread_panel_generic
}
