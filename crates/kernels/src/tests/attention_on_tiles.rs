//! The order of sums of attention in bf16 on matrix tiles, written down as plain loops and held against the kernel
//! bit for bit: the output and all gradients.

use super::{
    attention::{qkv, run, shape, with_documents},
    rotary::table,
};
use crate::{
    AttentionShape, Isa, Precision, Scores,
    machine::simd::{LANES, Lanes, Portable},
    testing::{cotangent, outcome, tile_chain, with_isa},
};
use burn::tensor::DType;
use narthex_base::random::Stream;

/// Queries, and keys, in a block.
const BLOCK: usize = 64;

fn exp(x: f32) -> f32 {
    // SAFETY: plain Rust.
    unsafe { Portable::splat(x).exp().largest() }
}

/// The sum over a row as lanes add it: vectors first, then the lanes.
fn lane_sum(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let mut sums = [0f32; LANES];
    for (i, value) in values.enumerate() {
        sums[i % LANES] += value;
    }
    // SAFETY: the array has 16 places.
    unsafe { Portable::load(sums.as_ptr()).sum() }
}

/// A head rotated, or back.
fn rotated(x: &[f32], row: &[f32], back: bool) -> Vec<f32> {
    let half = x.len() / 2;
    let sin = |i: usize| if back { 0.0 - row[half + i] } else { row[half + i] };
    let left = (0..half).map(|i| x[i] * row[i] - x[half + i] * sin(i));
    let right = (0..half).map(|i| x[half + i] * row[i] + x[i] * sin(i));
    left.chain(right).collect()
}

/// `[T]` rows of a head.
type Head = Vec<Vec<f32>>;

/// Column `c` of rows `first..first + 64`; 0 where there are none.
fn column(rows: &Head, first: usize, c: usize) -> Vec<f32> {
    (first..first + BLOCK).map(|row| rows.get(row).map_or(0.0, |row| row[c])).collect()
}

/// Output and gradient of qkv, as the kernel computes them.
fn plain(values: &[f32], shape: &AttentionShape) -> [Vec<f32>; 2] {
    let AttentionShape { batch, len: t, heads: h, kv_heads: k, head_width: d, .. } = *shape;
    let (table, width) = (table(t, d), shape.width());
    let scale = shape.scores.scale(d);
    let gradient = cotangent(batch * t * h * d);
    let (mut output, mut dqkv) = (vec![0f32; batch * t * h * d], vec![0f32; values.len()]);
    for (sequence, kv_head) in (0..batch).flat_map(|sequence| (0..k).map(move |head| (sequence, head))) {
        let at = |head: usize, row: usize| (sequence * t + row) * width + head * d;
        let part = |head: usize| -> Head { (0..t).map(|row| values[at(head, row)..][..d].to_vec()).collect() };
        let turned = |rows: Head| -> Head {
            rows.iter().enumerate().map(|(row, x)| rotated(x, &table[row * d..][..d], false)).collect()
        };
        let start = |row: usize| {
            let document = shape.starts.as_ref().map_or(0, |starts| starts[sequence * t + row] as usize);
            document.max(shape.scores.start(row))
        };
        let (keys, given) = (turned(part(h + kv_head)), part(h + k + kv_head));
        let (mut dkeys, mut dvalues) = (vec![vec![0f32; d]; t], vec![vec![0f32; d]; t]);
        for head in kv_head * (h / k)..(kv_head + 1) * (h / k) {
            let queries: Head =
                turned(part(head)).into_iter().map(|row| row.into_iter().map(|x| x * scale).collect()).collect();
            let out = |row: usize| ((sequence * t + row) * h + head) * d;
            let mut log_sums = vec![0f32; t];
            let first_block =
                |block: usize| (block * BLOCK..t.min((block + 1) * BLOCK)).map(start).min().unwrap() / BLOCK;
            for row in 0..t {
                let (mut largest, mut total, mut sums) = (f32::NEG_INFINITY, 0f32, vec![0f32; d]);
                for block in first_block(row / BLOCK)..=row / BLOCK {
                    let first = block * BLOCK;
                    let seen = start(row).max(first)..(row + 1).min(first + BLOCK);
                    let mut weights = vec![0f32; BLOCK];
                    let mut shrink = 1.0;
                    if !seen.is_empty() {
                        let scores: Vec<f32> =
                            seen.clone().map(|key| tile_chain(0.0, &queries[row], &keys[key])).collect();
                        let now = scores.iter().copied().fold(largest, f32::max);
                        for (key, score) in seen.zip(scores) {
                            weights[key - first] = exp(score - now);
                        }
                        shrink = match largest {
                            f32::NEG_INFINITY => 0.0,
                            before if before == now => 1.0,
                            before => exp(before - now),
                        };
                        largest = now;
                    }
                    total = total * shrink + lane_sum(weights.iter().copied());
                    let begins = block == first_block(row / BLOCK);
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let before = if begins { 0.0 } else { *sum * shrink };
                        *sum = tile_chain(before, &weights, &column(&given, first, c));
                    }
                }
                log_sums[row] = largest + total.ln();
                sums.iter().enumerate().for_each(|(c, sum)| output[out(row) + c] = sum * (1.0 / total));
            }
            // Back.
            let slopes: Head = (0..t).map(|row| gradient[out(row)..][..d].to_vec()).collect();
            let dot = |row: usize| {
                let mut sums = [0f32; LANES];
                for c in 0..d {
                    sums[c % LANES] = slopes[row][c].mul_add(output[out(row) + c], sums[c % LANES]);
                }
                // SAFETY: the array has 16 places.
                unsafe { Portable::load(sums.as_ptr()).sum() }
            };
            let dots: Vec<f32> = (0..t).map(dot).collect();
            let mut dqueries = vec![vec![0f32; d]; t];
            for block in 0..t.div_ceil(BLOCK) {
                let rows = block * BLOCK..t.min((block + 1) * BLOCK);
                for key_block in first_block(block)..=block {
                    let first = key_block * BLOCK;
                    let (mut weights, mut dscores) = (vec![vec![0f32; BLOCK]; BLOCK], vec![vec![0f32; BLOCK]; BLOCK]);
                    for row in rows.clone() {
                        for key in start(row).max(first)..(row + 1).min(first + BLOCK) {
                            let weight = exp(tile_chain(0.0, &queries[row], &keys[key]) - log_sums[row]);
                            let dweight = tile_chain(0.0, &slopes[row], &given[key]);
                            weights[row - rows.start][key - first] = weight;
                            dscores[row - rows.start][key - first] = (dweight - dots[row]) * weight;
                        }
                    }
                    for key in first..t.min(first + BLOCK) {
                        let of_key = |all: &Head| -> Vec<f32> { all.iter().map(|row| row[key - first]).collect() };
                        for c in 0..d {
                            let from = column(&slopes, rows.start, c);
                            dvalues[key][c] = tile_chain(dvalues[key][c], &from, &of_key(&weights));
                            let from = column(&queries, rows.start, c);
                            dkeys[key][c] = tile_chain(dkeys[key][c], &from, &of_key(&dscores));
                        }
                    }
                    for row in rows.clone() {
                        for (c, sum) in dqueries[row].iter_mut().enumerate() {
                            *sum = tile_chain(*sum, &dscores[row - rows.start], &column(&keys, first, c));
                        }
                    }
                }
            }
            for (row, dquery) in dqueries.into_iter().enumerate() {
                let scaled: Vec<f32> = dquery.into_iter().map(|x| x * scale).collect();
                dqkv[at(head, row)..][..d].copy_from_slice(&rotated(&scaled, &table[row * d..][..d], true));
            }
        }
        for row in 0..t {
            let back = rotated(&dkeys[row], &table[row * d..][..d], true);
            dqkv[at(h + kv_head, row)..][..d].copy_from_slice(&back);
            dqkv[at(h + k + kv_head, row)..][..d].copy_from_slice(&dvalues[row]);
        }
    }
    [output, dqkv]
}

#[test]
fn attention_on_tiles_adds_in_this_order() {
    if !Isa::Amx.is_available() {
        return;
    }
    let _guard = with_isa(Isa::Amx);
    let window = Scores { window: Some(70), scale: Some(0.3), softcap: None };
    for (case, shape) in [
        shape(1, 3, [1, 1], 16),
        shape(2, 66, [2, 1], 40),
        with_documents(shape(1, 150, [2, 2], 32), Stream::new(8, "documents")),
        AttentionShape { scores: window, ..shape(1, 200, [1, 1], 64) },
    ]
    .into_iter()
    .enumerate()
    {
        let input = qkv(Stream::new(91, "order").at(case as u64), &shape, 1.2);
        let operator = |tensors: &[_]| run(tensors, &shape, Precision::Bf16);
        let found = outcome(DType::F32, std::slice::from_ref(&input), &operator);
        let [output, gradient] = plain(&input.values, &shape);
        for (what, found, expected) in
            [("output", &found.output, &output), ("gradient", &found.gradients[0], &gradient)]
        {
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                // A zero has no sign here: what is left out adds nothing, where the loops above add a zero.
                assert!(*found == f64::from(*expected), "{shape:?}: {what} {i}: {found}, not {expected}");
            }
        }
    }
}
