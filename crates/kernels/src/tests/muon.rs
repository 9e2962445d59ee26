//! Muon.

use crate::{
    MuonStep, muon,
    operators::muon::orthogonal,
    testing::{Input, View, any_isa, assert_close, assert_near, on_every_machine, values_of},
};
use burn::tensor::DType;
use narthex_base::random::Stream;

const STEP: MuonStep = MuonStep { lr: 0.02, momentum: 0.95, weight_decay: 0.1, gradient_scale: 0.5 };

/// `x [m, k]` times `y [k, n]`.
fn product(x: &[f64], y: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|l| x[at / n * k + l] * y[l * n + at % n]).sum()).collect()
}

fn transposed(x: &[f64], [m, n]: [usize; 2]) -> Vec<f64> {
    (0..m * n).map(|at| x[at % m * n + at / m]).collect()
}

/// Newton-Schulz as in the reference implementation: with X the wider form, `X = a X + (b A + c A A) X`, `A = X Xᵀ`.
fn newton_schulz(x: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    let [m, n] = [rows.min(columns), rows.max(columns)];
    let mut x = if rows > columns { transposed(x, [rows, columns]) } else { x.to_vec() };
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
    x.iter_mut().for_each(|x| *x /= norm);
    for _ in 0..5 {
        let gram = product(&x, &transposed(&x, [m, n]), [m, n, m]);
        let square = product(&gram, &gram, [m, m, m]);
        let mix: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
        let mixed = product(&mix, &x, [m, m, n]);
        x.iter_mut().zip(mixed).for_each(|(x, mixed)| *x = a * *x + mixed);
    }
    if rows > columns { transposed(&x, [m, n]) } else { x }
}

/// Weights and momentum after three steps.
fn three_steps(dtype: DType, stream: Stream, shape: [usize; 2], view: View) -> [Vec<f64>; 2] {
    let mut weights = Input::normal(stream.at(0), shape, 1.0).view(view).tensor(dtype);
    let mut momentum = weights.zeros_like();
    for number in 1..=3 {
        let gradient = Input::normal(stream.at(number), shape, 0.3).view(view).tensor(dtype);
        (weights, momentum) = muon(weights, gradient, momentum, &STEP);
    }
    [weights, momentum].map(values_of)
}

#[test]
fn three_steps_match_the_papers() {
    let _isa = any_isa();
    for (case, shape) in [[1, 1], [1, 9], [7, 20], [20, 7], [33, 65], [50, 16]].into_iter().enumerate() {
        let stream = Stream::new(130, "muon").at(case as u64);
        let mut w: Vec<f64> = Input::normal(stream.at(0), shape, 1.0).values.into_iter().map(f64::from).collect();
        let mut m = vec![0.0; w.len()];
        let MuonStep { lr, momentum, weight_decay, gradient_scale } = STEP;
        for number in 1..=3 {
            let gradient = Input::normal(stream.at(number), shape, 0.3).values;
            let gradient: Vec<f64> = gradient.into_iter().map(|g| f64::from(g) * gradient_scale).collect();
            m.iter_mut().zip(&gradient).for_each(|(m, g)| *m += (g - *m) * (1.0 - momentum));
            let ahead: Vec<f64> = m.iter().zip(&gradient).map(|(m, g)| g + (m - g) * momentum).collect();
            let size = 0.2 * (shape[0].max(shape[1]) as f64).sqrt();
            for (w, update) in w.iter_mut().zip(newton_schulz(&ahead, shape)) {
                *w = *w * (1.0 - lr * weight_decay) - lr * size * update;
            }
        }
        for view in View::ALL {
            let found = three_steps(DType::F64, stream, shape, view);
            assert_close(&format!("{shape:?} {view:?} weights in f64"), &found[0], &w, 1e-10, 1e-10);
            assert_close(&format!("{shape:?} {view:?} momentum in f64"), &found[1], &m, 1e-13, 1e-14);
            let found = three_steps(DType::F32, stream, shape, view);
            // Five iterations multiply the rounding of small singular values by up to 3.4445^5 = 485: 3e-5 of an
            // update, whose size here is 0.02 * 0.2 * sqrt(65) = 0.03.
            assert_close(&format!("{shape:?} {view:?} weights in f32"), &found[0], &w, 1e-6, 2e-6);
            assert_close(&format!("{shape:?} {view:?} momentum in f32"), &found[1], &m, 1e-5, 1e-7);
        }
    }
}

/// The singular values by one-sided Jacobi rotations (Hestenes, 1958) of the rows of a wide matrix.
fn singular_values(x: &[f64], [m, n]: [usize; 2]) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = x.chunks(n).map(<[f64]>::to_vec).collect();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..30 {
        let mut largest = 0f64;
        for i in 0..m {
            for j in i + 1..m {
                let (a, b, c) = (dot(&rows[i], &rows[i]), dot(&rows[j], &rows[j]), dot(&rows[i], &rows[j]));
                largest = largest.max(c.abs() / (a * b).sqrt());
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cos = 1.0 / (1.0 + t * t).sqrt();
                let (before, after) = rows.split_at_mut(j);
                for (x, y) in before[i].iter_mut().zip(&mut after[0]) {
                    (*x, *y) = (cos * (*x - t * *y), cos * (t * *x + *y));
                }
            }
        }
        if largest < 1e-12 {
            return rows.iter().map(|row| dot(row, row).sqrt()).collect();
        }
    }
    panic!("the rotations do not converge");
}

#[test]
fn updates_are_nearly_orthogonal() {
    let _isa = any_isa();
    // Known: rows of a diagonal matrix, mixed.
    let known = singular_values(&[3.0, 0.0, 0.0, 4.0 * 0.6, 4.0 * 0.8, 0.0], [2, 3]);
    assert!((known[0] * known[1] - 3.0 * 4.0 * 0.8).abs() < 1e-9, "{known:?}");
    for (shape, scale) in [([24, 60], 1.0), ([60, 24], 1e-4), ([16, 200], 1e4)] {
        let input = Input::normal(Stream::new(131, "orthogonal"), shape, scale);
        let found = values_of(orthogonal(input.tensor(DType::F32)));
        let wide = [shape[0].min(shape[1]), shape[0].max(shape[1])];
        let rows = |x: &[f64]| if shape[0] > shape[1] { transposed(x, shape) } else { x.to_vec() };
        let before: Vec<f64> = input.values.iter().map(|x| f64::from(*x)).collect();
        let (before, after) = (singular_values(&rows(&before), wide), singular_values(&rows(&found), wide));
        let range =
            |x: &[f64]| (x.iter().copied().fold(f64::INFINITY, f64::min), x.iter().copied().fold(0.0, f64::max));
        let (low, high) = range(&after);
        assert!(low > 0.65 && high < 1.25, "{shape:?}: singular values {low}..{high}");
        let (low, high) = range(&before);
        assert!(high / low > 1.5, "the input's singular values differ: {low}..{high}");
        // And the size of the input does not matter.
        let plain = Input::normal(Stream::new(131, "orthogonal"), shape, 1.0);
        assert_near("scaled", &found, &values_of(orthogonal(plain.tensor(DType::F32))), 1e-3);
    }
}

#[test]
fn a_gradient_of_zeros_only_decays() {
    let _isa = any_isa();
    let weights = Input::normal(Stream::new(132, "zeros"), [4, 6], 1.0);
    let zeros = weights.clone().map(|_| 0.0);
    let [w, z] = [&weights, &zeros].map(|input| input.tensor(DType::F32));
    let (found, momentum) = muon(w, z.clone(), z, &STEP);
    let expected: Vec<f64> = weights.values.iter().map(|x| f64::from(*x) * (1.0 - 0.02 * 0.1)).collect();
    assert_close("weights", &values_of(found), &expected, 1e-6, 0.0);
    assert_eq!(values_of(momentum), [0.0; 24]);
}

#[test]
fn the_same_bytes_on_every_machine() {
    for shape in [[45, 130], [130, 45]] {
        let results = on_every_machine(|| {
            let bits = |x: Vec<f64>| x.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            three_steps(DType::F32, Stream::new(133, "machines"), shape, View::Plain).map(bits)
        });
        for (machine, found) in &results {
            assert!(*found == results[0].1, "{shape:?}: {machine} not as {}", results[0].0);
        }
    }
}
