//! Rotary position embedding.

use crate::{
    rotary,
    testing::{
        Input, View, any_isa, assert_close, check_against_reference, check_gradients, check_same_bytes, constant,
        outcome, output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

/// For each position D/2 cosines, then D/2 sines, at base 10 (so that short tests see several turns).
pub(super) fn table(positions: usize, d: usize) -> Vec<f32> {
    let angle = |position: usize, i: usize| position as f64 * 10f64.powf(-2.0 * i as f64 / d as f64);
    let value = |position: usize, i: usize| {
        if i < d / 2 { angle(position, i).cos() } else { angle(position, i - d / 2).sin() }
    };
    (0..positions * d).map(|at| value(at / d, at % d) as f32).collect()
}

fn run(tensors: &[Tensor<2>], d: usize) -> Tensor<2> {
    let [n, _] = tensors[0].dims();
    rotary(tensors[0].clone(), constant(&tensors[0], &table(n, d), [n, d]))
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    for ([n, heads], d) in [([3, 1], 2), ([2, 3], 6), ([4, 2], 34)] {
        let input = Input::normal(Stream::new(40, "gradients"), [n, heads * d], 1.0);
        check_gradients(&format!("{n} rows, {heads} heads of {d}"), &[input], &|tensors| run(tensors, d));
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..30 {
        let stream = Stream::new(41, "shapes").at(case);
        let d = 2 + 2 * stream.below(1, 70) as usize;
        let shape = [1 + stream.below(2, 80) as usize, d * (1 + stream.below(3, 4) as usize)];
        let input = Input::normal(stream, shape, 1.0).view(View::ALL[case as usize % 3]);
        check_against_reference(
            &format!("case {case}: {shape:?}, {d}"),
            &[input],
            &|tensors| run(tensors, d),
            1e-6,
            1e-6,
        );
    }
}

#[test]
fn turns_pairs_half_a_head_apart() {
    let _isa = any_isa();
    let (n, heads, d) = (5, 3, 10);
    let input = Input::normal(Stream::new(42, "plain"), [n, heads * d], 1.0);
    let table = table(n, d);
    let expected: Vec<f64> = (0..n * heads * d)
        .map(|at| {
            let (row, i) = (at / (heads * d), at % d);
            let (cos, sin) = (f64::from(table[row * d + i % 5]), f64::from(table[row * d + 5 + i % 5]));
            let x = |at: usize| f64::from(input.values[at]);
            if i < 5 { x(at) * cos - x(at + 5) * sin } else { x(at) * cos + x(at - 5) * sin }
        })
        .collect();
    for (dtype, error) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
        assert_close(
            "rotated",
            &output(dtype, std::slice::from_ref(&input), &|tensors| run(tensors, d)),
            &expected,
            error,
            error,
        );
    }
}

#[test]
fn no_rows() {
    let _isa = any_isa();
    let found = outcome(DType::F32, &[Input::new([0, 8], vec![])], &|tensors| run(tensors, 4));
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
}

#[test]
fn the_same_bytes_on_every_machine() {
    let input = Input::normal(Stream::new(43, "machines"), [70, 3 * 38], 1.0);
    check_same_bytes("3 heads of 38", &[input], &|tensors| run(tensors, 38));
}
