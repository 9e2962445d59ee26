//! SwiGLU.

use crate::{
    swiglu,
    testing::{
        Input, View, any_isa, assert_close, check_against_reference, check_gradients, check_same_bytes, outcome, output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

fn run(tensors: &[Tensor<2>]) -> Tensor<2> {
    swiglu(tensors[0].clone())
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for shape in [[1, 2], [3, 10], [2, 34]] {
        check_gradients(&format!("{shape:?}"), &[Input::normal(Stream::new(30, "gradients"), shape, 1.5)], &run);
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..40 {
        let stream = Stream::new(31, "shapes").at(case);
        let shape = [1 + stream.below(1, 70) as usize, 2 + 2 * stream.below(2, [20, 300][case as usize % 2]) as usize];
        let input = Input::normal(stream, shape, [1.0, 4.0][case as usize % 2]).view(View::ALL[case as usize % 3]);
        check_against_reference(&format!("case {case}: {shape:?}"), &[input], &run, 2e-6, 1e-6);
    }
}

#[test]
fn is_silu_of_the_gate_times_up() {
    let _isa = any_isa();
    let [n, width] = [4, 21];
    let input = Input::normal(Stream::new(32, "plain"), [n, 2 * width], 3.0);
    let expected: Vec<f64> = (0..n * width)
        .map(|at| {
            let row = at / width * 2 * width + at % width;
            let (gate, up) = (f64::from(input.values[row]), f64::from(input.values[row + width]));
            gate / (1.0 + (-gate).exp()) * up
        })
        .collect();
    assert_close("kernel", &output(DType::F32, std::slice::from_ref(&input), &run), &expected, 1e-6, 1e-7);
    assert_close("reference", &output(DType::F64, &[input], &run), &expected, 1e-13, 1e-14);
}

#[test]
fn no_rows_and_large_gates() {
    let _isa = any_isa();
    let found = outcome(DType::F32, &[Input::new([0, 6], vec![])], &run);
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
    let gates = [-1e30, -200.0, -88.0, -20.0, 0.0, 20.0, 88.0, 200.0];
    let input = Input::new([1, 16], gates.into_iter().chain([1.0; 8]).collect());
    let found = outcome(DType::F32, std::slice::from_ref(&input), &run);
    // Below -88 the exponential is clamped: what is left of such a gate is 1e-38 of it.
    let expected = [0.0, 0.0, 0.0, -20.0 * (-20f64).exp(), 0.0, 20.0, 88.0, 200.0];
    assert_close("output", &found.output, &expected, 1e-6, 1e-7);
    assert!(found.gradients[0].iter().all(|x| x.is_finite()), "{:?}", found.gradients);
}

/// The backward pass may work in place of what was saved; not where somebody else still has it.
#[test]
fn inputs_survive() {
    let _isa = any_isa();
    let input = Input::normal(Stream::new(33, "survive"), [3, 12], 1.0);
    let plain = input.tensor(DType::F32);
    let leaf = Tensor::from_inner(plain.clone()).require_grad();
    // A saved input that only the tape holds, and one that this test holds too.
    for shift in [0.0, 1.0] {
        let x = leaf.clone() + shift;
        let gradients = swiglu(x.clone()).sum().backward();
        let found = leaf.grad(&gradients).expect("a gradient").into_data().try_to_vec::<f32>().unwrap();
        let alone = swiglu(leaf.clone() + shift).sum().backward();
        let alone = leaf.grad(&alone).expect("a gradient").into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(found, alone);
        let after = x.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(after, input.values.iter().map(|x| x + shift).collect::<Vec<f32>>());
    }
    assert_eq!(plain.into_data().try_to_vec::<f32>().unwrap(), input.values);
}

#[test]
fn the_same_bytes_on_every_machine() {
    for shape in [[1, 32], [70, 66]] {
        let input = Input::normal(Stream::new(34, "machines"), shape, 3.0);
        check_same_bytes(&format!("{shape:?}"), &[input], &run);
    }
}
