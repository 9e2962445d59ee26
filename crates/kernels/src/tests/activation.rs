//! Activation functions.

use crate::{
    Activation, activation,
    testing::{
        Input, View, any_isa, assert_close, assert_within, check_against_reference, check_gradients, check_same_bytes,
        constant, cotangent, outcome, values_of,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

const ALL: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];

fn run(tensors: &[Tensor<2>], function: Activation) -> Tensor<2> {
    activation(tensors[0].clone(), function)
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for function in ALL {
        for shape in [[1, 3], [3, 17], [1, 64]] {
            let input = Input::normal(Stream::new(120, "gradients"), shape, 2.0);
            check_gradients(&format!("{function:?} {shape:?}"), &[input], &|tensors| run(tensors, function));
        }
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..30 {
        let (stream, function) = (Stream::new(121, "shapes").at(case), ALL[case as usize % 3]);
        let shape = [1 + stream.below(1, 70) as usize, 1 + stream.below(2, [20, 400][case as usize % 2]) as usize];
        let input = Input::normal(stream, shape, [1.0, 4.0][case as usize % 2]).view(View::ALL[case as usize / 3 % 3]);
        let operator = |tensors: &[Tensor<2>]| run(tensors, function);
        check_against_reference(&format!("case {case}: {function:?} {shape:?}"), &[input], &operator, 1e-6, 1e-6);
    }
}

/// Every 1/512 between -30 and 30: the error relative to the result down to 1e-25, so in the tail too, where `1 + erf`
/// has no digits left. The reference in f64 loses them there itself, so the tail has formulas of its own here.
#[test]
fn accurate_over_the_whole_range() {
    let _isa = any_isa();
    let points: Vec<f32> = (-30 * 512..=30 * 512).map(|i| i as f32 / 512.0).collect();
    let input = Input::new([1, points.len()], points.clone());
    // Φ(-a) = φ(a) times Mills' ratio, by its continued fraction (Laplace) from the far end; from 2.5 on.
    let tail = |a: f64| {
        let ratio = (1..=200).rev().fold(a, |rest, k| a + f64::from(k) / rest).recip();
        (-a * a / 2.0).exp() / std::f64::consts::TAU.sqrt() * ratio
    };
    for function in ALL {
        let (found, reference) = (
            outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, function)),
            outcome(DType::F64, std::slice::from_ref(&input), &|tensors| run(tensors, function)),
        );
        let slopes = |gradients: &[Vec<f64>]| -> Vec<f64> {
            gradients[0].iter().zip(cotangent(points.len())).map(|(x, factor)| x / f64::from(factor)).collect()
        };
        let (mut expected, mut slopes_expected) = (reference.output.clone(), slopes(&reference.gradients));
        for (i, x) in points.iter().map(|x| f64::from(*x)).enumerate() {
            if function == Activation::Gelu && x < -2.5 {
                let bell = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
                assert!((expected[i] - x * tail(-x)).abs() < 1e-14, "the fraction is right: {x}");
                (expected[i], slopes_expected[i]) = (x * tail(-x), tail(-x) + x * bell);
            }
            if function == Activation::GeluTanh && x < -2.5 {
                // (1 + tanh(u)) / 2 = e^2u / (1 + e^2u)
                let c = (2.0 / std::f64::consts::PI).sqrt();
                let e = (2.0 * c * (x + 0.044715 * x.powi(3))).exp();
                let s = e / (1.0 + e);
                (expected[i], slopes_expected[i]) =
                    (x * s, s + x * s / (1.0 + e) * 2.0 * c * (1.0 + 3.0 * 0.044715 * x * x));
            }
        }
        // The exponent, up to 70 here, is rounded to 2^-24 of itself up to three times: 12e-6.
        assert_close(&format!("{function:?}"), &found.output, &expected, 12e-6, 1e-30);
        // And where values matter, it is that of a few operations.
        let near = |i: usize| {
            if points[i] > -3.0 { 3e-7 * (1.0 + expected[i].abs()) } else { 1e-6 * expected[i].abs() + 1e-7 }
        };
        assert_within(&format!("{function:?}"), &found.output, &expected, near);
        // A slope has a zero of its own, where it is a difference of two numbers of its size there: 0.1.
        let slopes_found = slopes(&found.gradients);
        let bound = |i: usize| 12e-6 * slopes_expected[i].abs() + if points[i] > -3.0 { 3e-7 } else { 1e-30 };
        assert_within(&format!("{function:?}: slopes"), &slopes_found, &slopes_expected, bound);
    }
}

#[test]
fn far_away_they_are_nothing_or_the_identity() {
    let _isa = any_isa();
    for function in ALL {
        let input = Input::new([1, 6], vec![-3e38, -1e10, -200.0, 200.0, 1e10, 3e38]);
        let found = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, function));
        for (i, x) in input.values.iter().map(|x| f64::from(*x)).enumerate() {
            let (value, slope) = (found.output[i], found.gradients[0][i] / f64::from(cotangent(6)[i]));
            let (expected, slope_expected) = if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) };
            assert_close(&format!("{function:?} of {x}"), &[value, slope], &[expected, slope_expected], 1e-6, 1e-30);
        }
    }
    let zeros = [Input::new([1, 2], vec![0.0, -0.0])];
    for function in ALL {
        let found = outcome(DType::F32, &zeros, &|tensors| run(tensors, function));
        assert_eq!(found.output, [0.0; 2], "{function:?}");
        assert_close(
            "half",
            &found.gradients[0],
            &cotangent(2).iter().map(|x| f64::from(*x) / 2.0).collect::<Vec<_>>(),
            2e-7,
            0.0,
        );
    }
}

/// The backward pass may work in place of what was saved; not where somebody else still has it.
#[test]
fn inputs_survive() {
    let _isa = any_isa();
    let input = Input::normal(Stream::new(122, "survive"), [3, 12], 1.0);
    let leaf = Tensor::from_inner(input.tensor(DType::F32)).require_grad();
    let shift = constant(&leaf, &[0.5; 36], [3, 12]);
    let x = leaf.clone() + shift.clone();
    let held = activation(x.clone(), Activation::Gelu).sum().backward();
    let alone = activation(leaf.clone() + shift, Activation::Gelu).sum().backward();
    let [held, alone] = [held, alone].map(|gradients| values_of(leaf.grad(&gradients).expect("a gradient")));
    assert_eq!(held, alone);
    assert_eq!(values_of(x), input.values.iter().map(|x| f64::from(x + 0.5)).collect::<Vec<_>>());
}

#[test]
fn no_rows() {
    let _isa = any_isa();
    for function in ALL {
        let found = outcome(DType::F32, &[Input::new([0, 6], vec![])], &|tensors| run(tensors, function));
        assert!(found.output.is_empty() && found.gradients[0].is_empty());
    }
}

#[test]
fn the_same_bytes_on_every_machine() {
    for function in ALL {
        let input = Input::normal(Stream::new(123, "machines"), [30, 601], 4.0);
        check_same_bytes(&format!("{function:?}"), &[input], &|tensors| run(tensors, function));
    }
}
