//! Weights packed once give the bytes of the linear layer that packs them each time.

use crate::{
    Isa, PackedWeight, Precision, WeightValues, linear, packed_linear, packed_rows,
    testing::{any_isa, normal, on_every_machine, round_to_bf16, with_isa},
};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::random::Stream;

fn matrix(values: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn bits(x: Tensor<2>) -> Vec<u32> {
    x.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Rows, inputs, and the outputs of each weight.
const SHAPES: [(usize, usize, &[usize]); 8] = [
    (1, 1, &[1]),
    (1, 64, &[33]),
    (2, 7, &[5, 3]),
    (13, 768, &[64, 31, 1]),
    (16, 900, &[40]),
    (43, 130, &[96]),
    (260, 65, &[17, 15]),
    (0, 8, &[4]),
];

fn inputs((n, inputs, outputs): (usize, usize, &[usize])) -> (Tensor<2>, Vec<Vec<f32>>, Tensor<2>) {
    let stream = |name: &str| Stream::new(n as u64, name);
    let weights = outputs.iter().enumerate().map(|(i, rows)| normal(stream(&format!("w{i}")), rows * inputs)).collect();
    let all: usize = outputs.iter().sum();
    let x = matrix(normal(stream("x"), n * inputs), [n, inputs]);
    (x, weights, matrix(normal(stream("residual"), n * all), [n, all]))
}

fn packed(weights: &[Vec<f32>], inputs: usize, precision: Precision) -> PackedWeight {
    let parts: Vec<WeightValues> = weights.iter().map(|weight| WeightValues::F32(weight)).collect();
    PackedWeight::new(&parts, inputs, precision)
}

fn check(shape: (usize, usize, &[usize])) {
    let (x, weights, residual) = inputs(shape);
    let tensors: Vec<Tensor<2>> =
        weights.iter().map(|weight| matrix(weight.clone(), [weight.len() / shape.1, shape.1])).collect();
    for precision in PRECISIONS {
        let weight = packed(&weights, shape.1, precision);
        for residual in [None, Some(residual.clone())] {
            let expected = linear(x.clone(), &tensors, None, residual.clone(), precision);
            let found = packed_linear(x.clone(), &weight, residual.clone());
            assert_eq!(bits(found), bits(expected), "{shape:?} in {precision:?} on {}", crate::isa().name());
            let bias = normal(Stream::new(1, "bias"), weight.shape()[0]);
            let with_bias = Tensor::from_data(TensorData::new(bias.clone(), [bias.len()]), &x.device());
            let expected = linear(x.clone(), &tensors, Some(with_bias), residual.clone(), precision);
            let found = packed_linear(x.clone(), &weight.clone().with_bias(bias), residual);
            assert_eq!(bits(found), bits(expected), "{shape:?} with a bias in {precision:?}");
        }
    }
}

#[test]
fn bytes_are_those_of_the_linear_layer() {
    for isa in Isa::available() {
        let _guard = with_isa(isa);
        SHAPES.into_iter().for_each(check);
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_other_rows() {
    let (x, weights, _) = inputs((40, 300, &[70, 30]));
    for precision in PRECISIONS {
        let results = on_every_machine(|| {
            let weight = packed(&weights, 300, precision);
            let rows = [0, 17, 39].map(|row| bits(packed_linear(x.clone().narrow(0, row, 1), &weight, None)));
            (bits(packed_linear(x.clone(), &weight, None)), rows)
        });
        let expected = &results[0].1.0;
        for (machine, (found, rows)) in &results {
            assert_eq!(found, expected, "{machine} in {precision:?}");
            for (row, alone) in [0, 17, 39].into_iter().zip(rows) {
                assert_eq!(alone, &expected[row * 100..(row + 1) * 100], "row {row} on {machine} in {precision:?}");
            }
        }
    }
}

#[test]
fn every_stored_form_is_read() {
    let _guard = any_isa();
    let values: Vec<f32> = normal(Stream::new(4, "stored"), 35 * 9).into_iter().map(round_to_bf16).collect();
    let expected = packed(std::slice::from_ref(&values), 9, Precision::F32);
    // An odd start, so that nothing relies on alignment.
    let bytes = |each: &dyn Fn(f32) -> Vec<u8>| -> Vec<u8> {
        std::iter::once(0).chain(values.iter().flat_map(|x| each(*x))).collect()
    };
    let single = bytes(&|x| x.to_le_bytes().to_vec());
    let brain = bytes(&|x| half::bf16::from_f32(x).to_le_bytes().to_vec());
    let short = bytes(&|x| half::f16::from_f32(x).to_le_bytes().to_vec());
    let all: Vec<u32> = (0..35).collect();
    for (name, stored, tolerance) in [
        ("f32", WeightValues::F32Bytes(&single[1..]), 0.0),
        ("bf16", WeightValues::Bf16Bytes(&brain[1..]), 0.0),
        ("f16", WeightValues::F16Bytes(&short[1..]), 1e-3),
    ] {
        assert_eq!(stored.len(), values.len());
        let weight = PackedWeight::new(&[stored], 9, Precision::F32);
        let (found, expected) = (packed_rows(&weight, &all), packed_rows(&expected, &all));
        let error: f32 = (found - expected).abs().max().into_scalar();
        assert!(error <= tolerance, "{name}: {error}");
    }
}

#[test]
fn rows_come_back_as_they_went_in() {
    let _guard = any_isa();
    for (rows, width) in [(1, 1), (33, 7), (64, 40), (70, 65)] {
        let values = normal(Stream::new(5, "rows"), rows * width);
        for precision in PRECISIONS {
            let weight = packed(std::slice::from_ref(&values), width, precision);
            let order: Vec<u32> = (0..rows as u32).rev().collect();
            let found = packed_rows(&weight, &order).into_data().try_to_vec::<f32>().unwrap();
            let expected = (0..rows).rev().flat_map(|row| &values[row * width..(row + 1) * width]);
            let round = |x: &f32| if precision == Precision::Bf16 { round_to_bf16(*x) } else { *x };
            assert_eq!(found, expected.map(round).collect::<Vec<_>>(), "[{rows}, {width}] in {precision:?}");
        }
    }
}
