//! Layer norm.

use crate::{
    layer_norm,
    testing::{
        Input, View, any_isa, assert_close, check_against_reference, check_gradients, check_same_bytes, outcome, output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

const EPS: f64 = 1e-5;

fn inputs(stream: Stream, [n, d]: [usize; 2]) -> Vec<Input> {
    let row = |i| Input::normal(stream.at(i), [1, d], 1.0);
    vec![Input::normal(stream.at(0), [n, d], 1.0), row(1), row(2)]
}

fn run(tensors: &[Tensor<2>]) -> Tensor<2> {
    let d = tensors[1].dims()[1] as i64;
    layer_norm(tensors[0].clone(), tensors[1].clone().reshape([d]), tensors[2].clone().reshape([d]), EPS)
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for shape in [[2, 3], [3, 5], [2, 16], [4, 19]] {
        check_gradients(&format!("{shape:?}"), &inputs(Stream::new(100, "gradients"), shape), &run);
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..40 {
        let stream = Stream::new(101, "shapes").at(case);
        let shape = [1 + stream.below(1, 200) as usize, 3 + stream.below(2, [40, 800][case as usize % 2]) as usize];
        let mut inputs = inputs(stream, shape);
        let (size, mean) = [(1.0, 0.0), (100.0, -30.0), (0.1, 0.5)][case as usize / 3 % 3];
        inputs[0] = inputs[0].clone().view(View::ALL[case as usize % 3]).map(|x| x * size + mean);
        // The gradients of weight and bias sum up to 200 rows; those of x are large where a row is nearly constant.
        check_against_reference(&format!("case {case}: {shape:?}"), &inputs, &run, 1e-5, 4e-5);
    }
}

#[test]
fn is_what_the_paper_says() {
    let _isa = any_isa();
    let ([n, d], stream) = ([5, 37], Stream::new(102, "plain"));
    let inputs = inputs(stream, [n, d]);
    let [x, w, b] = [0, 1, 2].map(|i| &inputs[i].values);
    let mut expected = Vec::new();
    for row in x.chunks(d) {
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / d as f64;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / d as f64;
        let value = |j: usize| (f64::from(row[j]) - mean) / (variance + EPS).sqrt() * f64::from(w[j]) + f64::from(b[j]);
        expected.extend((0..d).map(value));
    }
    assert_close("kernel", &output(DType::F32, &inputs, &run), &expected, 1e-6, 1e-6);
    assert_close("reference", &output(DType::F64, &inputs, &run), &expected, 1e-13, 1e-14);
}

/// With a mean of 10 000 times the deviation, a sum of squares less the square of the mean would keep no digit in f32.
#[test]
fn a_large_mean_costs_no_digits() {
    let _isa = any_isa();
    for d in [16, 100, 777] {
        let mut inputs = inputs(Stream::new(103, "offset"), [9, d]);
        // Exact in f32, so that the f64 reference sees the same numbers.
        inputs[0] = inputs[0].clone().map(|x| 10_000.0 + (x * 256.0).round() / 256.0);
        let (kernel, reference) = (outcome(DType::F32, &inputs, &run), outcome(DType::F64, &inputs, &run));
        assert_close("output", &kernel.output, &reference.output, 1e-5, 1e-5);
        for i in 0..3 {
            assert_close("gradient", &kernel.gradients[i], &reference.gradients[i], 1e-5, 1e-5);
        }
    }
}

#[test]
fn no_rows_and_constant_rows() {
    let _isa = any_isa();
    let found = outcome(DType::F32, &inputs(Stream::new(104, "none"), [0, 7]), &run);
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
    assert_eq!(found.gradients[1..], [[0.0; 7]; 2]);
    let mut constant = inputs(Stream::new(104, "constant"), [3, 20]);
    constant[0] = constant[0].clone().map(|_| 2.5);
    let bias: Vec<f64> = constant[2].values.iter().map(|x| f64::from(*x)).collect();
    assert_eq!(output(DType::F32, &constant, &run), bias.repeat(3));
    check_against_reference("constant", &constant, &run, 1e-5, 1e-3);
}

#[test]
fn the_same_bytes_on_every_machine() {
    for shape in [[1, 16], [130, 77], [3, 400]] {
        check_same_bytes(&format!("{shape:?}"), &inputs(Stream::new(105, "machines"), shape), &run);
    }
}
