//! Weights in the blocks of GGUF files, against an f64 reference of the same rounding of inputs, and on other machines.

use crate::{
    BlockKind, BlockValues, Isa, PackedWeight,
    machine::simd::dots::USE_DOTS,
    packed_linear,
    testing::{any_isa, normal, on_every_machine, with_isa},
};
use burn::tensor::{Device, Tensor, TensorData};
use half::f16;
use narthex_base::random::Stream;
use std::sync::atomic::Ordering;

/// Kind, bytes of a block, where its f16 lie, values that share a scale.
const KINDS: [(BlockKind, usize, &[usize], usize); 8] = [
    (BlockKind::Q4_0, 18, &[0], 32),
    (BlockKind::Q4_1, 20, &[0, 2], 32),
    (BlockKind::Q5_0, 22, &[0], 32),
    (BlockKind::Q5_1, 24, &[0, 2], 32),
    (BlockKind::Q8_0, 34, &[0], 32),
    (BlockKind::Q4_K, 144, &[0, 2], 32),
    (BlockKind::Q5_K, 176, &[0, 2], 32),
    (BlockKind::Q6_K, 210, &[208], 16),
];

const INPUTS: usize = 512;

/// Rows of blocks of any bytes, with scales of either sign.
fn rows(kind: BlockKind, block: usize, halves: &[usize], count: usize) -> Vec<u8> {
    let len = kind.row_bytes(INPUTS).unwrap();
    assert!(len.is_multiple_of(block));
    let stream = Stream::new(7, "blocks");
    let mut bytes: Vec<u8> = (0..count * len).map(|i| stream.bits(i as u64) as u8).collect();
    for (number, block) in bytes.chunks_exact_mut(block).enumerate() {
        for (i, at) in halves.iter().enumerate() {
            let value = 0.002 * stream.at(i as u64).normal(number as u64);
            block[*at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    }
    bytes
}

fn packed(kind: BlockKind, bytes: &[u8]) -> PackedWeight {
    let rows: Vec<&[u8]> = bytes.chunks_exact(kind.row_bytes(INPUTS).unwrap()).collect();
    assert!(kind.is_finite(bytes));
    PackedWeight::from_blocks(&[BlockValues { kind, rows: &rows }], INPUTS)
}

fn matrix(values: Vec<f32>, rows: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, INPUTS]), &Device::flex())
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().unwrap()
}

/// Values in groups, each rounded to 127ths of its largest.
fn rounded(row: &[f32], group: usize) -> Vec<f64> {
    let round = |group: &[f32]| {
        let largest = group.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let (inverse, scale) = (127.0 / largest, f64::from(largest / 127.0));
        group.iter().map(|x| f64::from((x * inverse).round_ties_even()) * scale).collect::<Vec<_>>()
    };
    row.chunks(group).flat_map(round).collect()
}

#[test]
fn products_are_those_of_the_blocks_numbers() {
    let _guard = any_isa();
    for (kind, block, halves, group) in KINDS {
        let weight = packed(kind, &rows(kind, block, halves, 71));
        let numbers = weight.dequantized();
        assert!(numbers.iter().any(|x| x.abs() > 1e-3) && weight.shape() == [71, INPUTS] && weight.is_integers());
        for n in [1, 2, 8, 23] {
            let x = normal(Stream::new(n as u64, "x"), n * INPUTS);
            let found = values(packed_linear(matrix(x.clone(), n), &weight, None));
            for (row, found) in x.chunks_exact(INPUTS).zip(found.chunks_exact(71)) {
                let row = rounded(row, group);
                for (numbers, found) in numbers.chunks_exact(INPUTS).zip(found) {
                    let terms = row.iter().zip(numbers).map(|(x, w)| x * f64::from(*w));
                    // The codes are up to 255 times as large as their differences from a minimum.
                    let size = 1.0 + terms.clone().map(f64::abs).sum::<f64>();
                    let error = (f64::from(*found) - terms.sum::<f64>()).abs();
                    assert!(error <= 4e-6 * size, "{kind:?}, {n} rows: off by {error} of {size}");
                }
            }
        }
    }
}

#[test]
fn bytes_do_not_depend_on_the_machine_or_on_other_rows() {
    let x = matrix(normal(Stream::new(40, "x"), 20 * INPUTS), 20);
    let bits = |x: Tensor<2>| values(x).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    for (kind, block, halves, _) in KINDS {
        let bytes = rows(kind, block, halves, 70);
        let run = || {
            let weight = packed(kind, &bytes);
            let alone = [(0, 1), (17, 1), (3, 2), (5, 5), (9, 11)];
            let alone =
                alone.map(|(row, rows)| (row, bits(packed_linear(x.clone().narrow(0, row, rows), &weight, None))));
            (bits(packed_linear(x.clone(), &weight, None)), alone)
        };
        let mut results = on_every_machine(run);
        for isa in Isa::available() {
            let _guard = with_isa(isa);
            USE_DOTS.store(false, Ordering::Relaxed);
            results.push((format!("{} without dot products", isa.name()), run()));
            USE_DOTS.store(true, Ordering::Relaxed);
        }
        let expected = &results[0].1.0;
        for (machine, (found, alone)) in &results {
            assert!(found == expected, "{machine} in {kind:?}");
            for (row, alone) in alone {
                assert!(alone[..] == expected[row * 70..][..alone.len()], "row {row} on {machine} in {kind:?}");
            }
        }
    }
}

/// Scales of 6 bits take a byte each.
#[test]
fn memory_is_that_of_the_blocks() {
    let _guard = any_isa();
    for (kind, block, halves, _) in KINDS {
        let bytes = rows(kind, block, halves, 64);
        let weight = packed(kind, &bytes);
        assert!(weight.bytes() as f64 <= 1.03 * bytes.len() as f64, "{kind:?}: {} of {}", weight.bytes(), bytes.len());
    }
}

#[test]
fn matrices_of_different_kinds_lie_one_below_the_other() {
    let _guard = any_isa();
    let matrices = KINDS.map(|(kind, block, halves, _)| (kind, rows(kind, block, halves, 21)));
    let rows: Vec<Vec<&[u8]>> =
        matrices.iter().map(|(kind, bytes)| bytes.chunks_exact(kind.row_bytes(INPUTS).unwrap()).collect()).collect();
    let parts: Vec<BlockValues> =
        matrices.iter().zip(&rows).map(|((kind, _), rows)| BlockValues { kind: *kind, rows }).collect();
    let whole = PackedWeight::from_blocks(&parts, INPUTS);
    let bias = normal(Stream::new(3, "bias"), whole.shape()[0]);
    let x = matrix(normal(Stream::new(3, "x"), 3 * INPUTS), 3);
    let found = values(packed_linear(x.clone(), &whole.clone().with_bias(bias.clone()), None));
    for (i, (kind, bytes)) in matrices.iter().enumerate() {
        let part = packed(*kind, bytes);
        let alone = values(packed_linear(x.clone(), &part, None));
        for row in 0..3 {
            for j in 0..21 {
                let expected = alone[row * 21 + j] + bias[i * 21 + j];
                assert_eq!(found[row * 8 * 21 + i * 21 + j].to_bits(), expected.to_bits(), "{kind:?}");
            }
        }
        let mut numbers = vec![0f32; INPUTS];
        whole.read_row(i * 21 + 20, &mut numbers);
        assert_eq!(numbers, part.dequantized()[20 * INPUTS..]);
    }
}
