//! Root-mean-square norm.

use crate::{
    rms_norm,
    testing::{
        Input, View, any_isa, assert_close, check_against_reference, check_gradients, check_same_bytes, outcome, output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

const EPS: f64 = 1e-5;

fn inputs(stream: Stream, [n, d]: [usize; 2]) -> Vec<Input> {
    vec![Input::normal(stream.at(0), [n, d], 1.0), Input::normal(stream.at(1), [1, d], 1.0)]
}

fn run(tensors: &[Tensor<2>]) -> Tensor<2> {
    let d = tensors[1].dims()[1] as i64;
    rms_norm(tensors[0].clone(), tensors[1].clone().reshape([d]), EPS)
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for shape in [[1, 2], [3, 5], [2, 16], [4, 19]] {
        check_gradients(&format!("{shape:?}"), &inputs(Stream::new(20, "rms gradients"), shape), &run);
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..40 {
        let stream = Stream::new(21, "rms shapes").at(case);
        let shape = [1 + stream.below(1, 200) as usize, 1 + stream.below(2, [40, 800][case as usize % 2]) as usize];
        let mut inputs = inputs(stream, shape);
        inputs[0] = inputs[0].clone().view(View::ALL[case as usize % 3]);
        // Rows of any size: the norm takes it away, and the gradient has its inverse.
        let size = [1.0, 1000.0, 0.1][case as usize / 3 % 3];
        inputs[0] = inputs[0].clone().map(|x| x * size);
        // The weight's gradient sums up to 200 rows.
        check_against_reference(&format!("case {case}: {shape:?}"), &inputs, &run, 1e-5, 2e-5);
    }
}

#[test]
fn is_what_the_paper_says() {
    let _isa = any_isa();
    let ([n, d], stream) = ([5, 37], Stream::new(22, "rms plain"));
    let inputs = inputs(stream, [n, d]);
    let (x, w) = (&inputs[0].values, &inputs[1].values);
    let row = |i: usize| (0..d).map(move |j| f64::from(x[i * d + j]));
    let scale = |i: usize| 1.0 / (row(i).map(|x| x * x).sum::<f64>() / d as f64 + EPS).sqrt();
    let expected: Vec<f64> = (0..n * d).map(|at| f64::from(x[at]) * scale(at / d) * f64::from(w[at % d])).collect();
    assert_close("kernel", &output(DType::F32, &inputs, &run), &expected, 1e-6, 1e-7);
    assert_close("reference", &output(DType::F64, &inputs, &run), &expected, 1e-14, 1e-14);
}

#[test]
fn no_rows_and_rows_of_zeros() {
    let _isa = any_isa();
    let found = outcome(DType::F32, &inputs(Stream::new(23, "none"), [0, 7]), &run);
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
    assert_eq!(found.gradients[1], [0.0; 7]);
    let zeros: Vec<Input> = inputs(Stream::new(23, "zeros"), [3, 20]);
    let zeros = [zeros[0].clone().map(|_| 0.0), zeros[1].clone()];
    assert_eq!(output(DType::F32, &zeros, &run), [0.0; 60]);
    check_against_reference("zeros", &zeros, &run, 1e-5, 1e-5);
}

#[test]
fn the_same_bytes_on_every_machine() {
    for shape in [[1, 16], [130, 77], [3, 400]] {
        check_same_bytes(&format!("{shape:?}"), &inputs(Stream::new(24, "rms machines"), shape), &run);
    }
}
