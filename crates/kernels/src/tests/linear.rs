//! Linear layers.

use crate::{
    Precision, linear,
    testing::{
        Input, Outcome, View, any_isa, assert_within, check_against_reference, check_gradients, check_same_bytes,
        cotangent, outcome, output, round_to_bf16,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

/// A layer: rows, inputs, outputs of each weight, and what is added.
#[derive(Clone, Debug)]
struct Layer {
    n: usize,
    inputs: usize,
    outputs: Vec<usize>,
    bias: bool,
    residual: bool,
}

impl Layer {
    fn new(n: usize, inputs: usize, outputs: &[usize], bias: bool, residual: bool) -> Self {
        Self { n, inputs, outputs: outputs.to_vec(), bias, residual }
    }

    /// Shapes and layouts from a counter.
    fn random(stream: Stream) -> Self {
        let size = |counter: u64, bounds: &[u64]| {
            let bound = bounds[stream.below(counter, bounds.len() as u64) as usize];
            1 + stream.below(counter + 100, bound) as usize
        };
        let weights = 1 + stream.below(1, 3);
        Self {
            n: size(2, &[1, 16, 42, 120]),
            inputs: size(3, &[8, 64, 400, 900]),
            outputs: (0..weights).map(|i| size(4 + i, &[4, 40, 100])).collect(),
            bias: stream.below(8, 2) == 1,
            residual: stream.below(9, 2) == 1,
        }
    }

    fn width(&self) -> usize {
        self.outputs.iter().sum()
    }

    /// x, weights, bias, residual; scaled so that outputs are about 1.
    fn inputs(&self, stream: Stream, views: impl Fn(usize) -> View) -> Vec<Input> {
        let scale = (self.inputs.max(1) as f32).sqrt().recip();
        let mut shapes = vec![([self.n, self.inputs], 1.0)];
        shapes.extend(self.outputs.iter().map(|rows| ([*rows, self.inputs], scale)));
        shapes.extend(self.bias.then_some(([1, self.width()], 1.0)));
        shapes.extend(self.residual.then_some(([self.n, self.width()], 1.0)));
        let input = |(i, (shape, scale))| Input::normal(stream.at(i as u64), shape, scale).view(views(i));
        shapes.into_iter().enumerate().map(input).collect()
    }

    fn run(&self, tensors: &[Tensor<2>], precision: Precision) -> Tensor<2> {
        let count = self.outputs.len();
        let bias = self.bias.then(|| tensors[1 + count].clone().reshape([self.width() as i64]));
        let residual = self.residual.then(|| tensors[1 + count + usize::from(self.bias)].clone());
        linear(tensors[0].clone(), &tensors[1..=count], bias, residual, precision)
    }
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    let stream = Stream::new(10, "linear gradients");
    for (case, layer) in [
        Layer::new(3, 5, &[4], false, false),
        Layer::new(4, 3, &[2], true, true),
        Layer::new(2, 6, &[3, 5], true, false),
        Layer::new(5, 4, &[1, 3, 2], false, true),
        Layer::new(3, 7, &[4, 2, 2], true, true),
    ]
    .into_iter()
    .enumerate()
    {
        let inputs = layer.inputs(stream.at(case as u64), |_| View::Plain);
        check_gradients(&format!("{layer:?}"), &inputs, &|tensors| layer.run(tensors, Precision::F32));
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..40 {
        let stream = Stream::new(11, "linear shapes").at(case);
        let layer = Layer::random(stream);
        let inputs = layer.inputs(stream, |i| View::ALL[stream.below(50 + i as u64, 3) as usize]);
        let what = format!("case {case}: {layer:?}");
        // Sums of up to 900 products, each rounding relative to a sum of about 1 to 30 (gradients).
        check_against_reference(&what, &inputs, &|tensors| layer.run(tensors, Precision::F32), 1e-5, 4e-5);
    }
}

#[test]
fn no_rows() {
    let _isa = any_isa();
    let layer = Layer::new(0, 5, &[3, 4], true, true);
    let inputs = layer.inputs(Stream::new(12, "no rows"), |_| View::Plain);
    let found = outcome(DType::F32, &inputs, &|tensors| layer.run(tensors, Precision::F32));
    assert!(found.output.is_empty());
    for (input, gradient) in inputs.iter().zip(&found.gradients) {
        assert_eq!(gradient, &vec![0.0; input.values.len()], "{:?}", input.shape);
    }
}

/// A product in f64 and, for each element, the sum of the magnitudes. `a(i, k)`, `b(k, j)`.
fn sums(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> (Vec<f64>, Vec<f64>) {
    let product = |i: usize, j: usize, l: usize| f64::from(a(i, l)) * f64::from(b(l, j));
    let over = |f: &dyn Fn(f64) -> f64| {
        (0..m * n).map(|at| (0..k).map(|l| f(product(at / n, at % n, l))).sum()).collect::<Vec<f64>>()
    };
    (over(&|x| x), over(&f64::abs))
}

/// In bf16, products are exact in f32, so that what is left to compare with a computation in f64 on rounded inputs is
/// the f32 rounding of sums: at most (number of additions) * 2^-24 of the sum of magnitudes.
#[test]
fn bf16_is_a_product_of_rounded_inputs() {
    let _isa = any_isa();
    for case in 0..12 {
        let stream = Stream::new(13, "bf16").at(case);
        let layer = Layer { outputs: vec![1 + stream.below(40, 90) as usize], ..Layer::random(stream) };
        let inputs = layer.inputs(stream, |i| View::ALL[stream.below(50 + i as u64, 3) as usize]);
        let Outcome { output, gradients } =
            outcome(DType::F32, &inputs, &|tensors| layer.run(tensors, Precision::Bf16));
        let ([n, k, o], rounded) = ([layer.n, layer.inputs, layer.outputs[0]], |x: f32| round_to_bf16(x));
        let (x, w) = (&inputs[0].values, &inputs[1].values);
        let g = cotangent(n * o);
        let unit = 2f64.powi(-24);

        let (mut y, mut size) = sums([n, k, o], |i, l| rounded(x[i * k + l]), |l, j| rounded(w[j * k + l]));
        let bias = layer.bias.then(|| &inputs[2].values);
        let residual = layer.residual.then(|| &inputs[inputs.len() - 1].values);
        for (i, (y, size)) in y.iter_mut().zip(&mut size).enumerate() {
            for added in bias.map(|bias| bias[i % o]).into_iter().chain(residual.map(|residual| residual[i])) {
                *y += f64::from(added);
                *size += f64::from(added).abs();
            }
        }
        assert_within(&format!("case {case}: output"), &output, &y, |i| (k + 2) as f64 * unit * size[i]);
        let (dx, size) = sums([n, o, k], |i, l| rounded(g[i * o + l]), |l, j| rounded(w[l * k + j]));
        assert_within(&format!("case {case}: dx"), &gradients[0], &dx, |i| o as f64 * unit * size[i]);
        let (dw, size) = sums([o, n, k], |i, l| rounded(g[l * o + i]), |l, j| rounded(x[l * k + j]));
        assert_within(&format!("case {case}: dw"), &gradients[1], &dw, |i| n as f64 * unit * size[i]);
        let mut next = 2;
        if layer.bias {
            let (db, size) = sums([1, n, o], |_, _| 1.0, |l, j| g[l * o + j]);
            assert_within(&format!("case {case}: db"), &gradients[next], &db, |i| n as f64 * unit * size[i]);
            next += 1;
        }
        if layer.residual {
            let g: Vec<f64> = g.iter().map(|x| f64::from(*x)).collect();
            assert_eq!(gradients[next], g, "case {case}: the residual's gradient is the output's");
        }
    }
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let _isa = any_isa();
    let stream = Stream::new(14, "rows");
    for precision in [Precision::F32, Precision::Bf16] {
        for n in [2, 14, 42, 43, 90] {
            let layer = Layer::new(n, 401, &[37, 60], true, true);
            let inputs = layer.inputs(stream.at(n as u64), |_| View::Plain);
            let all = output(DType::F32, &inputs, &|tensors| layer.run(tensors, precision));
            for row in [0, 1, n / 2, n - 1] {
                let alone: Vec<Input> = inputs
                    .iter()
                    .enumerate()
                    .map(|(i, input)| {
                        if i == 0 || i == inputs.len() - 1 {
                            let width = input.shape[1];
                            Input::new([1, width], input.values[row * width..(row + 1) * width].to_vec())
                        } else {
                            input.clone()
                        }
                    })
                    .collect();
                let alone = output(DType::F32, &alone, &|tensors| layer.run(tensors, precision));
                assert!(alone[..] == all[row * 97..(row + 1) * 97], "{precision:?}: row {row} of {n}");
            }
        }
    }
}

#[test]
fn stacked_weights_equal_separate_ones() {
    let _isa = any_isa();
    let layer = Layer::new(45, 70, &[33, 1, 64], false, false);
    let inputs = layer.inputs(Stream::new(15, "stacked"), |_| View::Plain);
    for precision in [Precision::F32, Precision::Bf16] {
        let stacked = outcome(DType::F32, &inputs, &|tensors| layer.run(tensors, precision));
        let separate = outcome(DType::F32, &inputs, &|tensors| {
            let part =
                |weight: &Tensor<2>| linear(tensors[0].clone(), std::slice::from_ref(weight), None, None, precision);
            Tensor::cat(tensors[1..].iter().map(part).collect(), 1)
        });
        assert!(stacked.output == separate.output, "{precision:?}: output");
        assert!(stacked.gradients[1..] == separate.gradients[1..], "{precision:?}: the weights' gradients");
        // The input's gradient is one chain over all outputs here, and three chains added there.
        let bound = |i: usize| 1e-5 * (1.0 + separate.gradients[0][i].abs());
        assert_within("the input's gradient", &stacked.gradients[0], &separate.gradients[0], bound);
    }
}

#[test]
fn frozen_inputs_get_no_gradient_and_change_nothing() {
    let _isa = any_isa();
    let layer = Layer::new(6, 20, &[8, 9], true, true);
    let inputs = layer.inputs(Stream::new(16, "frozen"), |_| View::Plain);
    let run = |inputs: &[Input]| outcome(DType::F32, inputs, &|tensors| layer.run(tensors, Precision::F32));
    let all = run(&inputs);
    for mask in 0..(1 << inputs.len()) - 1 {
        let frozen = |i: usize| mask >> i & 1 == 1;
        let some: Vec<Input> = inputs
            .iter()
            .enumerate()
            .map(|(i, input)| if frozen(i) { input.clone().frozen() } else { input.clone() })
            .collect();
        let found = run(&some);
        assert!(found.output == all.output);
        for (i, gradient) in found.gradients.iter().enumerate() {
            let expected = if frozen(i) { &Vec::new() } else { &all.gradients[i] };
            assert!(gradient == expected, "input {i} with {mask:b} frozen");
        }
    }
}

#[test]
fn the_same_bytes_on_every_machine() {
    for (case, (n, precision)) in
        [(3, Precision::F32), (3, Precision::Bf16), (61, Precision::F32), (61, Precision::Bf16)].into_iter().enumerate()
    {
        let layer = Layer::new(n, 391, &[37, 60], true, true);
        let stream = Stream::new(17, "machines").at(case as u64);
        let inputs = layer.inputs(stream, |i| View::ALL[(i + case) % 3]);
        check_same_bytes(&format!("{n} rows in {precision:?}"), &inputs, &|tensors| layer.run(tensors, precision));
    }
}
