//! Linear layers: `y = x Wᵀ + bias + residual`, with the weight as Hugging Face stores it, `[out, in]`.
//! Up to three weights that share their input run as one product (q, k, v; gate and up).
//!
//! Shapes: N rows, I inputs, O outputs of all weights together.
//! Arithmetic: 2 N I O forward, and again for each gradient. Bytes: N I + I O + N O values.

use crate::{
    flex::{self, contiguous, dims, filled, is_ours, record, values},
    machine::{profile::timed, simd::rows::column_sums},
    product::{Along, Finish, Operand, STACK, Stack, Start, product},
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, ExtensionType, Flex, Shape,
        autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension,
        flex::{FlexTensor, Layout},
        tensor::FloatTensor,
    },
    tensor::{DType, Tensor},
};
use narthex_base::config::Precision;

/// `x [N, I]`, weights `[O_i, I]`, bias `[O]`, residual `[N, O]` -> `[N, O]`: the outputs of the weights side by side.
/// In bf16 the inputs of the product are rounded to bf16 and its sums, the bias and the residual stay f32.
///
/// # Panics
/// If there are no weights or more than three, or shapes do not fit.
pub fn linear(
    x: Tensor<2>,
    weights: &[Tensor<2>],
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
    precision: Precision,
) -> Tensor<2> {
    assert!((1..=STACK).contains(&weights.len()), "one to three weights");
    if !is_ours(&x) {
        return reference(x, weights, bias, residual, precision);
    }
    let weight = |i: usize| weights[i].clone().into_dispatch();
    let weights = match weights.len() {
        1 => Weights::One(weight(0)),
        2 => Weights::Two(weight(0), weight(1)),
        _ => Weights::Three(weight(0), weight(1), weight(2)),
    };
    let bias = bias.map_or(Maybe::Nothing, |bias| Maybe::Just(bias.into_dispatch()));
    let residual = residual.map_or(Maybe::Nothing, |residual| Maybe::Just(residual.into_dispatch()));
    Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weights, bias, residual, precision))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(
    x: Tensor<2>,
    weights: &[Tensor<2>],
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
    precision: Precision,
) -> Tensor<2> {
    let dtype = x.dtype();
    let narrow = |x: Tensor<2>| match precision {
        Precision::F32 => x,
        Precision::Bf16 => x.cast(DType::BF16),
    };
    let x = narrow(x);
    let parts = weights.iter().map(|weight| x.clone().matmul(narrow(weight.clone()).transpose()).cast(dtype));
    let mut y = Tensor::cat(parts.collect(), 1);
    if let Some(bias) = bias {
        y = y + bias.unsqueeze::<2>();
    }
    match residual {
        Some(residual) => y + residual,
        None => y,
    }
}

/// The weights that share an input.
#[derive(ExtensionType)]
pub(crate) enum Weights<B: Backend> {
    One(FloatTensor<B>),
    Two(FloatTensor<B>, FloatTensor<B>),
    Three(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
}

/// A tensor or none.
#[derive(ExtensionType)]
pub(crate) enum Maybe<B: Backend> {
    Nothing,
    Just(FloatTensor<B>),
}

impl<B: Backend> Weights<B> {
    fn into_vec(self) -> Vec<FloatTensor<B>> {
        match self {
            Weights::One(a) => vec![a],
            Weights::Two(a, b) => vec![a, b],
            Weights::Three(a, b, c) => vec![a, b, c],
        }
    }
}

impl<B: Backend> Maybe<B> {
    pub(crate) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Maybe::Nothing => None,
            Maybe::Just(tensor) => Some(tensor),
        }
    }
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearBackend: Backend {
    fn linear(
        x: FloatTensor<Self>,
        #[extension_type] weights: Weights<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

impl LinearBackend for Flex {
    fn linear(
        x: FlexTensor,
        weights: Weights<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        precision: Precision,
    ) -> FlexTensor {
        let weights: Vec<FlexTensor> = weights.into_vec().into_iter().map(contiguous).collect();
        let (bias, residual) = (bias.into_option().map(contiguous), residual.into_option().map(contiguous));
        forward(&contiguous(x), &weights, bias.as_ref(), residual.as_ref(), precision)
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Saved {
    /// The input, if a weight needs its gradient.
    x: Option<FlexTensor>,
    weights: Vec<FlexTensor>,
    bias: bool,
    residual: bool,
    precision: Precision,
}

impl<C: CheckpointStrategy> LinearBackend for Autodiff<Flex, C> {
    fn linear(
        x: FloatTensor<Self>,
        weights: Weights<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let (weights, bias, residual) = (weights.into_vec(), bias.into_option(), residual.into_option());
        // The inputs in the order x, weights, bias, residual; absent ones are left out.
        let mut nodes = vec![x.node()];
        nodes.extend(weights.iter().map(|weight| weight.node()));
        nodes.extend(bias.iter().chain(&residual).map(|tensor| tensor.node()));
        let x_needed = weights.iter().any(|weight| weight.is_tracked());
        let x = contiguous(x.into_primitive());
        let weights: Vec<FlexTensor> = weights.into_iter().map(|weight| contiguous(weight.into_primitive())).collect();
        let bias = bias.map(|bias| contiguous(bias.into_primitive()));
        let residual = residual.map(|residual| contiguous(residual.into_primitive()));
        let run = move |tracked: bool| {
            let y = forward(&x, &weights, bias.as_ref(), residual.as_ref(), precision);
            let (bias, residual) = (bias.is_some(), residual.is_some());
            (y, tracked.then(|| Saved { x: x_needed.then_some(x), weights, bias, residual, precision }))
        };
        macro_rules! with_inputs {
            ($($n:literal),*) => {
                match nodes.len() {
                    $($n => {
                        let Ok(nodes) = <[_; $n]>::try_from(nodes) else { unreachable!("the length was matched") };
                        record::<C, Saved, $n>(nodes, run, backward)
                    })*
                    _ => unreachable!("an input, one to three weights, at most a bias and a residual"),
                }
            };
        }
        with_inputs!(2, 3, 4, 5, 6)
    }
}

fn backward<const N: usize>(saved: Saved, gradient: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N] {
    let gradient = contiguous(gradient);
    let count = saved.weights.len();
    let mut found = std::array::from_fn(|_| None);
    if needed[1..=count].iter().any(|needed| *needed) {
        let x = saved.x.as_ref().expect("the input is saved where a weight is trained");
        let rows: Vec<usize> = saved.weights.iter().map(|weight| dims::<2>(weight)[0]).collect();
        for (slot, part) in found[1..].iter_mut().zip(weight_gradients(x, &gradient, &rows, saved.precision)) {
            *slot = Some(part);
        }
    }
    drop(saved.x);
    if needed[0] {
        found[0] = Some(input_gradient(&gradient, &saved.weights, saved.precision));
    }
    let mut next = 1 + count;
    if saved.bias {
        found[next] = needed[next].then(|| bias_gradient(&gradient));
        next += 1;
    }
    if saved.residual {
        found[next] = Some(gradient);
    }
    found
}

fn forward(
    x: &FlexTensor,
    weights: &[FlexTensor],
    bias: Option<&FlexTensor>,
    residual: Option<&FlexTensor>,
    precision: Precision,
) -> FlexTensor {
    let [n, inputs] = dims(x);
    let parts: Vec<&[f32]> = weights.iter().map(values).collect();
    let outputs: usize = weights.iter().map(|weight| dims::<2>(weight)[0]).sum();
    assert!(weights.iter().all(|weight| dims::<2>(weight)[1] == inputs), "weights are [out, in]");
    timed("linear forward", 2.0 * (n * inputs * outputs) as f64, || {
        filled([n, outputs], |y| {
            let finish = Finish { bias: bias.map(values), residual: residual.map(values) };
            forward_slices(values(x), &parts, [n, inputs, outputs], y, finish, precision);
        })
    })
}

fn input_gradient(gradient: &FlexTensor, weights: &[FlexTensor], precision: Precision) -> FlexTensor {
    let ([n, outputs], [_, inputs]) = (dims(gradient), dims(&weights[0]));
    let parts: Vec<&[f32]> = weights.iter().map(values).collect();
    timed("linear dX", 2.0 * (n * inputs * outputs) as f64, || {
        filled([n, inputs], |dx| input_gradient_slices(values(gradient), &parts, [n, inputs, outputs], dx, precision))
    })
}

/// For all weights at once; the parts are views of one buffer.
fn weight_gradients(x: &FlexTensor, gradient: &FlexTensor, rows: &[usize], precision: Precision) -> Vec<FlexTensor> {
    let ([n, inputs], [_, outputs]) = (dims(x), dims(gradient));
    let all = timed("linear dW", 2.0 * (n * inputs * outputs) as f64, || {
        filled([outputs, inputs], |dw| {
            weight_gradient_slices(values(gradient), values(x), [n, inputs, outputs], dw, Start::Zero, precision)
        })
    });
    let mut first = 0;
    let part = |rows: &usize| {
        let layout = Layout::new(Shape::new([*rows, inputs]), vec![inputs as isize, 1], first * inputs);
        first += rows;
        FlexTensor::from_arc(all.data_arc(), layout, all.dtype())
    };
    rows.iter().map(part).collect()
}

/// The sum over rows.
fn bias_gradient(gradient: &FlexTensor) -> FlexTensor {
    let [n, outputs] = dims(gradient);
    let gradient = values(gradient);
    flex::tensor(column_sums(gradient, n, outputs), [outputs])
}

/// `Y = X Wᵀ` on slices: `x [n, inputs]`, weights `[.., inputs]` with `outputs` rows together -> `y [n, outputs]`.
pub(crate) fn forward_slices(
    x: &[f32],
    weights: &[&[f32]],
    [n, inputs, outputs]: [usize; 3],
    y: &mut [f32],
    finish: Finish,
    precision: Precision,
) {
    debug_assert_eq!(weights.iter().map(|weight| weight.len()).sum::<usize>(), outputs * inputs);
    let a = Operand::new(Stack::strided(x, n, inputs, inputs), Along::Depth);
    let b = Operand::new(Stack::new(weights, inputs), Along::Depth);
    product(precision, a, b, y, Start::Zero, finish);
}

/// `dX = dY W` on slices: `gradient [n, outputs]` -> `dx [n, inputs]`.
pub(crate) fn input_gradient_slices(
    gradient: &[f32],
    weights: &[&[f32]],
    [n, inputs, outputs]: [usize; 3],
    dx: &mut [f32],
    precision: Precision,
) {
    let a = Operand::new(Stack::strided(gradient, n, outputs, outputs), Along::Depth);
    let b = Operand::new(Stack::new(weights, inputs), Along::Width);
    product(precision, a, b, dx, Start::Zero, Finish::default());
}

/// `dW = dYᵀ X` on slices: `gradient [n, outputs]`, `x [n, inputs]` -> `dw [outputs, inputs]`, which may hold the sums
/// over earlier rows.
pub(crate) fn weight_gradient_slices(
    gradient: &[f32],
    x: &[f32],
    [n, inputs, outputs]: [usize; 3],
    dw: &mut [f32],
    start: Start,
    precision: Precision,
) {
    let a = Operand::new(Stack::strided(gradient, n, outputs, outputs), Along::Width);
    let b = Operand::new(Stack::strided(x, n, inputs, inputs), Along::Width);
    product(precision, a, b, dw, start, Finish::default());
}
