//! Weights of integers against an f64 reference of the same rounding, and against themselves on other machines.

use crate::{
    Int4Values, Int8Values, Isa, PackedWeight, Quantization, WeightValues,
    machine::simd::dots::USE_DOTS,
    packed_linear, packed_rows,
    testing::{any_isa, normal, on_every_machine, with_isa},
};
use burn::tensor::{Device, Tensor, TensorData};
use half::f16;
use narthex_base::random::Stream;
use std::sync::atomic::Ordering;

fn matrix(values: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().unwrap()
}

fn bits(x: Tensor<2>) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

const KINDS: [Quantization; 4] = [
    Quantization::Int8,
    Quantization::Int4 { group: 32 },
    Quantization::Int4 { group: 64 },
    Quantization::Int4 { group: 128 },
];

/// Rows, inputs, and the outputs of each weight.
const SHAPES: [(usize, usize, &[usize]); 9] = [
    (1, 1, &[1]),
    (1, 128, &[33]),
    (2, 7, &[5, 3]),
    (3, 66, &[17]),
    (8, 256, &[64, 31, 1]),
    (9, 200, &[40]),
    (23, 130, &[96]),
    (285, 70, &[17, 15]),
    (0, 8, &[4]),
];

struct Case {
    x: Vec<f32>,
    weights: Vec<Vec<f32>>,
    residual: Vec<f32>,
}

fn case((n, inputs, outputs): (usize, usize, &[usize])) -> Case {
    let stream = |name: &str| Stream::new(n as u64, name);
    let weights = outputs.iter().enumerate().map(|(i, rows)| normal(stream(&format!("w{i}")), rows * inputs)).collect();
    let all: usize = outputs.iter().sum();
    Case { x: normal(stream("x"), n * inputs), weights, residual: normal(stream("residual"), n * all) }
}

fn quantized(weights: &[Vec<f32>], inputs: usize, kind: Quantization) -> PackedWeight {
    let parts: Vec<WeightValues> = weights.iter().map(|weight| WeightValues::F32(weight)).collect();
    PackedWeight::quantized(&parts, inputs, kind)
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

fn check(shape: (usize, usize, &[usize]), kind: Quantization) {
    let (n, inputs, _) = shape;
    let case = case(shape);
    let weight = quantized(&case.weights, inputs, kind);
    let [outputs, _] = weight.shape();
    let numbers = weight.dequantized();
    let group = if let Quantization::Int4 { group } = kind { group } else { 64 };
    let mut expected = vec![];
    for row in case.x.chunks_exact(inputs) {
        let row = rounded(row, group);
        for numbers in numbers.chunks_exact(inputs) {
            expected.push(row.iter().zip(numbers).map(|(x, w)| x * f64::from(*w)).sum::<f64>());
        }
    }
    let x = matrix(case.x, [n, inputs]);
    let residual = matrix(case.residual.clone(), [n, outputs]);
    for (residual, added) in [(None, None), (Some(residual), Some(&case.residual))] {
        let found = values(packed_linear(x.clone(), &weight, residual));
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let expected = expected + added.map_or(0.0, |added| f64::from(added[i]));
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 2e-5 * (inputs as f64).sqrt(), "{shape:?} {kind:?} at {i}: {found}, not {expected}");
        }
    }
}

#[test]
fn products_are_those_of_the_rounded_numbers() {
    let _guard = any_isa();
    for kind in KINDS {
        SHAPES.into_iter().for_each(|shape| check(shape, kind));
    }
}

/// The codes that round best; rows come back by index, in any order.
#[test]
fn weights_are_near_what_they_were() {
    let _guard = any_isa();
    for (kind, bound) in KINDS.into_iter().zip([0.015, 0.10, 0.115, 0.13]) {
        let weights = vec![normal(Stream::new(1, "w"), 70 * 300)];
        let weight = quantized(&weights, 300, kind);
        let order: Vec<u32> = (0..70).rev().collect();
        let rows = values(packed_rows(&weight, &order));
        let all: Vec<f32> = rows.chunks(300).rev().flatten().copied().collect();
        assert_eq!(all, weight.dequantized());
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut all.iter().zip(&weights[0]).map(|(a, b)| a - b)) / norm(&mut weights[0].iter().copied());
        assert!(error < bound, "{kind:?}: {error}");
        let bits_a_weight = 8.0 * weight.bytes() as f64 / (96.0 * 300.0);
        let expected = [8.2, 4.85, 4.5, 4.3][KINDS.iter().position(|other| *other == kind).unwrap()];
        assert!(bits_a_weight < expected, "{kind:?}: {bits_a_weight}");
    }
}

#[test]
fn codes_are_taken_as_they_are() {
    let _guard = any_isa();
    let (inputs, outputs, group) = (150, 37, 64);
    let stream = Stream::new(2, "codes");
    let number = |i: usize, below: u64| stream.bits(i as u64) % below;
    let codes: Vec<u8> = (0..outputs * inputs).map(|i| number(i, 16) as u8).collect();
    let scales: Vec<f16> = (0..outputs * 3).map(|i| f16::from_f32(1e-3 * (1 + number(i, 999)) as f32)).collect();
    let zeros: Vec<u8> = (0..outputs * 3).map(|i| number(i + 7, 16) as u8).collect();
    let mut order: Vec<u32> = (0..inputs as u32).collect();
    order.sort_by_key(|i| number(*i as usize, 1000));
    let x = normal(Stream::new(2, "x"), 11 * inputs);
    for (zeros, order) in [(None, None), (Some(&zeros[..]), None), (Some(&zeros[..]), Some(&order[..]))] {
        let weight =
            PackedWeight::from_int4(&[Int4Values { codes: &codes, scales: &scales, zeros }], inputs, group, order);
        let mut numbers = vec![0f32; outputs * inputs];
        for (i, code) in codes.iter().enumerate() {
            let (row, column) = (i / inputs, i % inputs);
            let place = row * 3 + column / group;
            let zero = zeros.map_or(8, |zeros| zeros[place]);
            let column = order.map_or(column, |order| order[column] as usize);
            numbers[row * inputs + column] = f32::from(i16::from(*code) - i16::from(zero)) * scales[place].to_f32();
        }
        assert_eq!(weight.dequantized(), numbers);
        let plain = PackedWeight::new(&[WeightValues::F32(&numbers)], inputs, crate::Precision::F32);
        let x = matrix(x.clone(), [11, inputs]);
        let error = packed_linear(x.clone(), &weight, None) - packed_linear(x.clone(), &plain, None);
        let size: f32 = packed_linear(x, &plain, None).abs().mean().into_scalar();
        let error: f32 = error.abs().mean().into_scalar();
        assert!(error < 0.01 * size, "{error} of {size}");
    }
    let codes: Vec<i8> = codes.iter().enumerate().map(|(i, _)| (number(i, 255) as i64 - 127) as i8).collect();
    let scales: Vec<f32> = scales[..outputs].iter().map(|scale| scale.to_f32()).collect();
    let weight = PackedWeight::from_int8(&[Int8Values { codes: &codes, scales: &scales }], inputs);
    let numbers: Vec<f32> = codes.iter().enumerate().map(|(i, code)| f32::from(*code) * scales[i / inputs]).collect();
    assert_eq!(weight.dequantized(), numbers);
}

#[test]
fn watched_weights_count_their_inputs() {
    let _guard = any_isa();
    let seen = std::sync::Arc::new(crate::InputStatistics::default());
    assert_eq!(seen.means(), (vec![], vec![]));
    let weight = quantized(&[vec![1.0; 6]], 2, Quantization::Int8).watched(seen.clone());
    for rows in [vec![1.0, 2.0, -3.0, 0.0], vec![2.0, -4.0]] {
        let n = rows.len() / 2;
        packed_linear(matrix(rows, [n, 2]), &weight.clone(), None);
    }
    assert_eq!(seen.means(), (vec![14.0 / 3.0, 20.0 / 3.0], vec![2.0, 2.0]));
}

#[test]
fn what_is_not_finite_shows() {
    let _guard = any_isa();
    for kind in KINDS {
        let weight = quantized(&[vec![1.0; 40 * 160]], 160, kind);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 3 * 160];
            x[160 + 90] = bad;
            let y = values(packed_linear(matrix(x, [3, 160]), &weight, None));
            assert!(y[40..80].iter().all(|y| y.is_nan()), "{kind:?} {bad}");
            assert!(y[..40].iter().chain(&y[80..]).all(|y| y.is_finite()), "{kind:?} {bad}");
        }
    }
}

#[test]
fn bytes_do_not_depend_on_the_machine_or_on_other_rows() {
    let case = case((40, 300, &[70, 30]));
    let x = matrix(case.x, [40, 300]);
    for kind in KINDS {
        let run = || {
            let weight = quantized(&case.weights, 300, kind);
            let some = [(0, 1), (17, 1), (39, 1), (3, 2), (4, 3), (5, 5), (11, 7), (20, 8), (9, 13)];
            let rows =
                some.map(|(row, rows)| (row, bits(packed_linear(x.clone().narrow(0, row, rows), &weight, None))));
            (bits(packed_linear(x.clone(), &weight, None)), rows)
        };
        let mut results = on_every_machine(run);
        // The ways without instructions for dot products of bytes. Nobody else looks while a set is forced.
        for isa in Isa::available() {
            let _guard = with_isa(isa);
            USE_DOTS.store(false, Ordering::Relaxed);
            results.push((format!("{} without dot products", isa.name()), run()));
            USE_DOTS.store(true, Ordering::Relaxed);
        }
        let expected = &results[0].1.0;
        for (machine, (found, rows)) in &results {
            assert_eq!(found, expected, "{machine} in {kind:?}");
            for (row, alone) in rows {
                assert_eq!(alone[..], expected[row * 100..][..alone.len()], "row {row} on {machine} in {kind:?}");
            }
        }
    }
}
