//! Softmax.

use crate::{
    softmax,
    testing::{
        Input, View, any_isa, assert_close, check_against_reference, check_gradients, check_same_bytes, outcome, output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

fn run(tensors: &[Tensor<2>]) -> Tensor<2> {
    softmax(tensors[0].clone())
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for shape in [[1, 2], [3, 5], [2, 16], [3, 35]] {
        check_gradients(&format!("{shape:?}"), &[Input::normal(Stream::new(110, "gradients"), shape, 1.5)], &run);
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..40 {
        let stream = Stream::new(111, "shapes").at(case);
        let shape = [1 + stream.below(1, 70) as usize, 1 + stream.below(2, [20, 3000][case as usize % 2]) as usize];
        // Up to 20: a row's largest value takes nearly all.
        let input = Input::normal(stream, shape, [1.0, 5.0][case as usize % 2]).view(View::ALL[case as usize % 3]);
        // The absolute error is for gradients, where g - sum(g y) may cancel, with g up to 4.
        check_against_reference(&format!("case {case}: {shape:?}"), &[input], &run, 5e-6, 2e-6);
    }
}

#[test]
fn is_the_share_of_each_exponential() {
    let _isa = any_isa();
    let [n, d] = [4, 37];
    let input = Input::normal(Stream::new(112, "plain"), [n, d], 3.0);
    let mut expected = Vec::new();
    for row in input.values.chunks(d) {
        let exponentials: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        expected.extend(exponentials.iter().map(|x| x / sum));
    }
    assert_close("kernel", &output(DType::F32, std::slice::from_ref(&input), &run), &expected, 2e-6, 0.0);
    assert_close("reference", &output(DType::F64, &[input], &run), &expected, 1e-13, 0.0);
}

#[test]
fn masked_and_extreme_values() {
    let _isa = any_isa();
    let masked = f32::NEG_INFINITY;
    for d in [5, 16, 21] {
        // All but two far below: by a mask, by a large number, and just below where exponentials end.
        let far = [masked, -1e30, -87.4];
        let row: Vec<f32> = (0..d).map(|i| if i == 1 || i == d - 1 { 0.0 } else { far[i % 3] }).collect();
        let found = outcome(DType::F32, &[Input::new([1, d], row)], &run);
        let expected: Vec<f64> = (0..d).map(|i| if i == 1 || i == d - 1 { 0.5 } else { 0.0 }).collect();
        assert_eq!(found.output, expected, "exactly 0");
        assert!(found.gradients[0].iter().all(|x| x.is_finite()));
        assert!((0..d).all(|i| expected[i] != 0.0 || found.gradients[0][i] == 0.0));
    }
    for size in [80.0, 1e4, 3e38] {
        let found = outcome(DType::F32, &[Input::new([2, 2], vec![size, size, -size, -size])], &run);
        assert_eq!(found.output, [0.5; 4]);
        assert!(found.gradients[0].iter().all(|x| x.is_finite()));
        let found = output(DType::F32, &[Input::new([1, 2], vec![size, -size])], &run);
        assert_eq!(found, [1.0, 0.0]);
    }
    let just_inside = output(DType::F32, &[Input::new([1, 2], vec![0.0, -87.2])], &run);
    assert_close("the smallest", &just_inside, &[1.0, (-87.2f32 as f64).exp()], 1e-6, 0.0);
}

#[test]
fn no_rows() {
    let _isa = any_isa();
    let found = outcome(DType::F32, &[Input::new([0, 6], vec![])], &run);
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
}

#[test]
fn the_same_bytes_on_every_machine() {
    for shape in [[1, 32], [70, 531]] {
        check_same_bytes(&format!("{shape:?}"), &[Input::normal(Stream::new(113, "machines"), shape, 3.0)], &run);
    }
}
