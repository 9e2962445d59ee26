//! Rows by index.

use crate::{
    embedding,
    testing::{
        Input, View, any_isa, check_against_reference, check_gradients, check_same_bytes, cotangent, indices, outcome,
        output,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

fn run(tensors: &[Tensor<2>], rows: &[usize]) -> Tensor<2> {
    embedding(tensors[0].clone(), indices(&tensors[0], rows))
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    let input = Input::normal(Stream::new(50, "gradients"), [5, 3], 1.0);
    check_gradients("repeated rows", &[input], &|tensors| run(tensors, &[4, 1, 1, 0, 4, 4]));
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..30 {
        let stream = Stream::new(51, "shapes").at(case);
        let shape = [1 + stream.below(1, 50) as usize, 1 + stream.below(2, 200) as usize];
        let rows: Vec<usize> =
            (0..stream.below(3, 300)).map(|i| stream.below(10 + i, shape[0] as u64) as usize).collect();
        let input = Input::normal(stream, shape, 1.0).view(View::ALL[case as usize % 3]);
        // With one row in the table, up to 300 values are added to each place.
        let what = format!("case {case}: {shape:?} by {}", rows.len());
        check_against_reference(&what, &[input], &|tensors| run(tensors, &rows), 1e-5, 1e-5);
    }
}

#[test]
fn rows_are_copied_and_gradients_added_in_order() {
    let _isa = any_isa();
    let ([v, d], rows) = ([7, 70], [6, 2, 2, 0, 6, 2, 5, 2]);
    let input = Input::normal(Stream::new(52, "order"), [v, d], 1.0);
    let found = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &rows));
    let row = |i: usize| input.values[i * d..(i + 1) * d].iter().map(|x| f64::from(*x));
    assert_eq!(found.output, rows.iter().flat_map(|i| row(*i)).collect::<Vec<f64>>());
    let (mut sums, g) = (vec![0f32; v * d], cotangent(rows.len() * d));
    for (i, row) in rows.into_iter().enumerate() {
        (0..d).for_each(|j| sums[row * d + j] += g[i * d + j]);
    }
    assert_eq!(found.gradients[0], sums.into_iter().map(f64::from).collect::<Vec<_>>(), "bit for bit, in order");
}

#[test]
fn no_indices_and_wrong_ones() {
    let _isa = any_isa();
    let input = Input::normal(Stream::new(53, "none"), [4, 3], 1.0);
    let found = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &[]));
    assert_eq!((found.output, found.gradients), (vec![], vec![vec![0.0; 12]]));
    let outside = || output(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &[0, 4]));
    assert!(std::panic::catch_unwind(outside).is_err(), "an index outside is noticed");
}

#[test]
fn the_same_bytes_on_every_machine() {
    let rows: Vec<usize> = (0..300).map(|i| i * i % 11).collect();
    let input = Input::normal(Stream::new(54, "machines"), [11, 150], 1.0);
    check_same_bytes("11 rows", &[input], &|tensors| run(tensors, &rows));
}
