//! The output projection and its cross-entropy.

use crate::{
    Precision, flex, linear_cross_entropy, linear_nats,
    operators::cross_entropy,
    testing::{
        Input, Outcome, View, any_isa, assert_close, assert_within, check_against_reference, check_gradients,
        check_same_bytes, cotangent, indices, normal, outcome, output, round_to_bf16,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

/// hidden `[n, d]` and weight `[v, d]`, so that logits are about 2.
fn inputs(stream: Stream, [n, d, v]: [usize; 3]) -> Vec<Input> {
    let scale = 2.0 / (d as f32).sqrt();
    vec![Input::normal(stream.at(0), [n, d], 1.0), Input::normal(stream.at(1), [v, d], scale)]
}

fn targets(stream: Stream, n: usize, v: usize) -> Vec<usize> {
    (0..n).map(|i| stream.at(2).below(i as u64, v as u64) as usize).collect()
}

fn run(tensors: &[Tensor<2>], targets: &[usize], scale: f64, precision: Precision) -> Tensor<2> {
    let targets = indices(&tensors[0], targets);
    linear_cross_entropy(tensors[0].clone(), tensors[1].clone(), targets, scale, precision).reshape([1, 1])
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    let stream = Stream::new(70, "gradients");
    for (case, [n, d, v]) in [[1, 2, 3], [4, 3, 7], [3, 5, 18]].into_iter().enumerate() {
        let stream = stream.at(case as u64);
        let targets = targets(stream, n, v);
        // The gradient of the loss is the first cotangent, which is not 1; the scale is another factor.
        for scale in [1.0, 0.7] {
            let operator = |tensors: &[Tensor<2>]| run(tensors, &targets, scale, Precision::F32);
            check_gradients(&format!("[{n}, {d}] [{d}, {v}] scale {scale}"), &inputs(stream, [n, d, v]), &operator);
        }
    }
    assert!((f64::from(cotangent(1)[0]) - 1.0).abs() > 0.1);
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..30 {
        let stream = Stream::new(71, "shapes").at(case);
        let n = 1 + stream.below(10, 150) as usize;
        let d = 1 + stream.below(11, [30, 450][case as usize % 2]) as usize;
        let v = 1 + stream.below(12, [40, 1000][case as usize / 2 % 2]) as usize;
        let targets = targets(stream, n, v);
        let mut inputs = inputs(stream, [n, d, v]);
        for (i, input) in inputs.iter_mut().enumerate() {
            *input = input.clone().view(View::ALL[(case as usize + i) % 3]);
        }
        let operator = |tensors: &[Tensor<2>]| run(tensors, &targets, 1.0 / n as f64, Precision::F32);
        check_against_reference(&format!("case {case}: [{n}, {d}] [{d}, {v}]"), &inputs, &operator, 1e-5, 2e-6);
    }
}

/// The loss and its gradients from their definition, in f64: also the sums of magnitudes that bound rounding.
struct Plain {
    loss: f64,
    gradients: [Vec<f64>; 2],
    magnitudes: [Vec<f64>; 2],
}

fn plain(hidden: &[f32], weight: &[f32], targets: &[usize], d: usize, scale: f64) -> Plain {
    let (n, v) = (hidden.len() / d, weight.len() / d);
    let mut loss = 0.0;
    let (mut gradients, mut magnitudes) = ([vec![0.0; n * d], vec![0.0; v * d]], [vec![0.0; n * d], vec![0.0; v * d]]);
    for row in 0..n {
        let logit =
            |j: usize| (0..d).map(|l| f64::from(hidden[row * d + l]) * f64::from(weight[j * d + l])).sum::<f64>();
        let logits: Vec<f64> = (0..v).map(logit).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        loss += (sum.ln() + largest - logits[targets[row]]) * scale;
        for j in 0..v {
            let slope = ((logits[j] - largest).exp() / sum - f64::from(j == targets[row])) * scale;
            for l in 0..d {
                let (h, w) = (f64::from(hidden[row * d + l]), f64::from(weight[j * d + l]));
                gradients[0][row * d + l] += slope * w;
                gradients[1][j * d + l] += slope * h;
                magnitudes[0][row * d + l] += (slope * w).abs();
                magnitudes[1][j * d + l] += (slope * h).abs();
            }
        }
    }
    Plain { loss, gradients, magnitudes }
}

/// In bf16 the logits are sums of exact products of rounded inputs; for the gradients each slope is rounded once more,
/// by at most 2^-8 of itself (8 bits of precision, to the nearest), so the sums are off by at most that part of the sum
/// of magnitudes. For f32 rounding another 2^-17 is allowed (about 100 additions).
#[test]
fn bf16_is_a_computation_on_rounded_inputs() {
    let _isa = any_isa();
    for (case, [n, d, v]) in [[1, 1, 2], [7, 33, 50], [60, 65, 101]].into_iter().enumerate() {
        let stream = Stream::new(72, "bf16").at(case as u64);
        let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
        let Outcome { output, gradients } =
            outcome(DType::F32, &inputs, &|tensors| run(tensors, &targets, 1.0, Precision::Bf16));
        let rounded = |input: &Input| input.values.iter().map(|x| round_to_bf16(*x)).collect::<Vec<f32>>();
        let expected = plain(&rounded(&inputs[0]), &rounded(&inputs[1]), &targets, d, 1.0);
        assert_close("loss", &output, &[expected.loss], 1e-5, 1e-6);
        let unit = 2f64.powi(-8) + 2f64.powi(-17);
        let factor = f64::from(cotangent(1)[0]);
        for (i, found) in gradients.iter().enumerate() {
            let scaled: Vec<f64> = expected.gradients[i].iter().map(|x| x * factor).collect();
            let bound = |at: usize| unit * factor.abs() * expected.magnitudes[i][at];
            assert_within(&format!("case {case}: gradient {i}"), found, &scaled, bound);
        }
    }
}

#[test]
fn is_the_negative_log_likelihood() {
    let _isa = any_isa();
    let ([n, d, v], stream) = ([9, 20, 37], Stream::new(73, "plain"));
    let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
    let expected = plain(&inputs[0].values, &inputs[1].values, &targets, d, 0.3);
    for (dtype, error) in [(DType::F32, 1e-6), (DType::F64, 1e-13)] {
        let found = output(dtype, &inputs, &|tensors| run(tensors, &targets, 0.3, Precision::F32));
        assert_close("loss", &found, &[expected.loss], error, error);
    }
}

#[test]
fn chunks_change_no_bit() {
    let _isa = any_isa();
    for precision in [Precision::F32, Precision::Bf16] {
        for [n, d, v] in [[64, 24, 70], [300, 17, 33], [130, 400, 5]] {
            let stream = Stream::new(74, "chunks");
            let hidden = flex::tensor(normal(stream.at(0), n * d), [n, d]);
            let weight = flex::tensor(normal(stream.at(1), v * d), [v, d]);
            let targets: Vec<i64> = targets(stream, n, v).into_iter().map(|i| i as i64).collect();
            let run = |logits_max: usize| {
                let (loss, gradients) =
                    cross_entropy::run(&hidden, &weight, &targets, 0.5, precision, logits_max, [true; 2]);
                let [dhidden, dweight] = gradients.map(|gradient| gradient.expect("gradients were asked for"));
                [loss, dhidden, dweight].map(|x| flex::values(&x).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            let whole = run(n * v);
            // The least chunk is 64 rows.
            for logits_max in [0, 64 * v, 128 * v, 200 * v] {
                assert!(run(logits_max) == whole, "{precision:?} [{n}, {d}] [{d}, {v}] by {logits_max}");
            }
        }
    }
}

/// As adapters leave the output projection: its gradient is not computed, and nothing else changes.
#[test]
fn frozen_inputs_get_no_gradient_and_change_nothing() {
    let _isa = any_isa();
    let ([n, d, v], stream) = ([70, 20, 33], Stream::new(76, "frozen"));
    let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
    let run = |inputs: &[Input]| outcome(DType::F32, inputs, &|tensors| run(tensors, &targets, 1.0, Precision::F32));
    let all = run(&inputs);
    for frozen in 0..2 {
        let mut some = inputs.clone();
        some[frozen] = some[frozen].clone().frozen();
        let found = run(&some);
        assert!(found.output == all.output && found.gradients[1 - frozen] == all.gradients[1 - frozen]);
        assert!(found.gradients[frozen].is_empty() && !all.gradients[frozen].is_empty());
    }
    let hidden = flex::tensor(normal(stream, n * d), [n, d]);
    let weight = flex::tensor(normal(stream, v * d), [v, d]);
    let targets = vec![1; n];
    let (_, gradients) = cross_entropy::run(&hidden, &weight, &targets, 1.0, Precision::F32, n * v, [true, false]);
    assert!(gradients[0].is_some() && gradients[1].is_none());
}

/// A vocabulary whose logits do not fit one chunk of the size in use. The gradient of a hidden value is one chain of
/// f32 over it, whose later terms (1/V each) are below the rounding of the sum so far: 3e-4 of the sum of magnitudes is
/// lost.
#[test]
fn a_huge_vocabulary() {
    let _isa = any_isa();
    let ([n, d, v], stream) = ([70, 3, 200_000], Stream::new(75, "huge"));
    let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
    let scale = 1.0 / n as f64;
    let found = outcome(DType::F32, &inputs, &|tensors| run(tensors, &targets, scale, Precision::F32));
    let factor = f64::from(cotangent(1)[0]);
    let expected = plain(&inputs[0].values, &inputs[1].values, &targets, d, scale * factor);
    assert_close("loss", &found.output, &[expected.loss / factor], 1e-6, 0.0);
    let bound = |i: usize| 1e-3 * expected.magnitudes[0][i];
    assert_within("dhidden", &found.gradients[0], &expected.gradients[0], bound);
    let bound = |i: usize| 5e-5 * expected.magnitudes[1][i];
    assert_within("dweight", &found.gradients[1], &expected.gradients[1], bound);
}

#[test]
fn extreme_logits_stay_finite() {
    let _isa = any_isa();
    let v = 21;
    for (precision, at_target, others) in [
        (Precision::F32, 80.0, -80.0),
        (Precision::F32, -80.0, 80.0),
        (Precision::Bf16, 80.0, -80.0),
        (Precision::Bf16, -80.0, 80.0),
        (Precision::F32, 1e4, -1e4),
        (Precision::F32, -1e4, 1e4),
    ] {
        // One hidden value of 1, so that the weights are the logits.
        let hidden = Input::new([2, 1], vec![1.0, 1.0]);
        let weight = Input::new([v, 1], (0..v).map(|i| if i == 4 { at_target } else { others }).collect());
        let found = outcome(DType::F32, &[hidden, weight], &|tensors| run(tensors, &[4, 4], 1.0, precision));
        let expected = if at_target > others { 0.0 } else { 2.0 * (f64::from(others - at_target) + 20f64.ln()) };
        assert_close("loss", &found.output, &[expected], 1e-6, 1e-30);
        assert!(found.gradients.concat().iter().all(|x| x.is_finite()), "{found:?}");
        let slope = if at_target > others { 0.0 } else { 2.0 * f64::from(cotangent(1)[0]) };
        assert_close("slopes of the logits", &found.gradients[1][4..5], &[-slope], 1e-5, 1e-5);
        // 1/20 rounded to bf16 is off by up to 2^-8 of itself.
        assert_close("slopes of the logits", &found.gradients[1][5..6], &[slope / 20.0], 2f64.powi(-8), 1e-5);
    }
}

#[test]
fn a_loss_gradient_of_one_takes_the_short_way() {
    let _isa = any_isa();
    let ([n, d, v], stream) = ([5, 8, 30], Stream::new(76, "one"));
    let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
    let leaves: Vec<Tensor<2>> =
        inputs.iter().map(|input| Tensor::from_inner(input.tensor(DType::F32)).require_grad()).collect();
    let gradients = run(&leaves, &targets, 2.0, Precision::F32).sum().backward();
    let expected = plain(&inputs[0].values, &inputs[1].values, &targets, d, 2.0);
    for (leaf, expected) in leaves.iter().zip(&expected.gradients) {
        let found: Vec<f64> = leaf.grad(&gradients).expect("a gradient").into_data().iter::<f64>().collect();
        assert_close("gradient", &found, expected, 1e-5, 1e-6);
    }
}

#[test]
fn no_rows_and_wrong_targets() {
    let _isa = any_isa();
    let inputs = inputs(Stream::new(77, "none"), [0, 3, 5]);
    let found = outcome(DType::F32, &inputs, &|tensors| run(tensors, &[], 1.0, Precision::F32));
    assert_eq!((found.output, found.gradients), (vec![0.0], vec![vec![], vec![0.0; 15]]));
    let one = [Input::new([1, 3], vec![1.0; 3]), inputs[1].clone()];
    let outside = || output(DType::F32, &one, &|tensors| run(tensors, &[5], 1.0, Precision::F32));
    assert!(std::panic::catch_unwind(outside).is_err(), "a target outside is noticed");
}

/// Each row's loss, as a column: `check_gradients` weighs every row differently.
fn run_each(tensors: &[Tensor<2>], targets: &[usize], precision: Precision) -> Tensor<2> {
    let rows = indices(&tensors[0], targets);
    linear_nats(tensors[0].clone(), tensors[1].clone(), rows, precision).reshape([targets.len(), 1])
}

#[test]
fn each_row_on_its_own() {
    let _isa = any_isa();
    for (case, [n, d, v]) in [[1, 2, 3], [5, 3, 7], [70, 33, 130], [130, 8, 300]].into_iter().enumerate() {
        let stream = Stream::new(79, "each").at(case as u64);
        let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
        let operator = |tensors: &[Tensor<2>]| run_each(tensors, &targets, Precision::F32);
        if n < 10 {
            check_gradients(&format!("[{n}, {d}] [{d}, {v}]"), &inputs, &operator);
        }
        check_against_reference(&format!("[{n}, {d}] [{d}, {v}]"), &inputs, &operator, 1e-5, 2e-6);
        let rows = output(DType::F32, &inputs, &operator);
        for (row, loss) in rows.iter().enumerate() {
            let one = plain(&inputs[0].values[row * d..(row + 1) * d], &inputs[1].values, &targets[row..=row], d, 1.0);
            assert_close("row", &[*loss], &[one.loss], 1e-5, 1e-6);
        }
        for precision in [Precision::F32, Precision::Bf16] {
            let frozen = [inputs[0].clone(), inputs[1].clone().frozen()];
            let whole = outcome(DType::F32, &inputs, &|tensors| run_each(tensors, &targets, precision));
            let found = outcome(DType::F32, &frozen, &|tensors| run_each(tensors, &targets, precision));
            assert!(found.output == whole.output && found.gradients[0] == whole.gradients[0]);
        }
    }
}

#[test]
fn the_same_bytes_on_every_machine() {
    let ([n, d, v], stream) = ([70, 41, 130], Stream::new(78, "machines"));
    let (inputs, targets) = (inputs(stream, [n, d, v]), targets(stream, n, v));
    for precision in [Precision::F32, Precision::Bf16] {
        check_same_bytes(&format!("{precision:?}"), &inputs, &|tensors| run(tensors, &targets, 0.1, precision));
        check_same_bytes(&format!("{precision:?}"), &inputs, &|tensors| run_each(tensors, &targets, precision));
    }
}
