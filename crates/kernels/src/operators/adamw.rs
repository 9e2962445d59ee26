//! AdamW (Loshchilov and Hutter, 2019) as PyTorch computes it, in one pass over a parameter, its gradient
//! and its moments; and the sum of squares that clipping by the norm over all gradients needs.
//!
//! Arithmetic: about 15 operations a value. Bytes: 4 values read and 3 written; it is bound by memory.

use crate::{
    flex::{contiguous, is_ours, values, values_mut},
    machine::{
        parallel::{self, Shared, SharedMut},
        profile::timed,
        simd::{
            Lanes, for_each_isa,
            rows::{for_vectors, load, store},
        },
    },
};
use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;

/// Values that one task handles at a time, and over which squares are summed before they are added up.
const BLOCK: usize = 1 << 14;

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwStep {
    /// The learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What gradients are multiplied by: clipping, and unscaling of a scaled loss.
    pub gradient_scale: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// The constants as the kernel wants them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constants {
    beta1: f32,
    beta2: f32,
    eps: f32,
    keep: f32,
    rate: f32,
    correction2: f32,
    gradient_scale: f32,
}

impl AdamwStep {
    pub(crate) fn constants(&self) -> Constants {
        let correction1 = 1.0 - self.beta1.powi(self.step as i32);
        Constants {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            rate: (self.lr / correction1) as f32,
            correction2: (1.0 - self.beta2.powi(self.step as i32)).sqrt() as f32,
            gradient_scale: self.gradient_scale as f32,
        }
    }
}

/// One step of a parameter: (weights, first moment, second moment), in place where nobody else holds them. None of
/// the tensors may be tracked by autodiff.
pub fn adamw<const D: usize>(
    weights: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: &AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    if !is_ours(&weights) {
        return reference(weights, gradient, moments, step);
    }
    let [first, second] = moments.map(|moment| moment.into_dispatch());
    let (weights, first, second) =
        Dispatch::adamw(weights.into_dispatch(), gradient.into_dispatch(), first, second, step.constants());
    (Tensor::from_dispatch(weights), [Tensor::from_dispatch(first), Tensor::from_dispatch(second)])
}

/// The same composed of Burn's operations.
pub(crate) fn reference<const D: usize>(
    weights: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: &AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let correction1 = 1.0 - step.beta1.powi(step.step as i32);
    let correction2 = (1.0 - step.beta2.powi(step.step as i32)).sqrt();
    let gradient = gradient * step.gradient_scale;
    let first = first * step.beta1 + gradient.clone() * (1.0 - step.beta1);
    let second = second * step.beta2 + gradient.clone() * gradient * (1.0 - step.beta2);
    let denominator = second.clone().sqrt() / correction2 + step.eps;
    let update = first.clone() / denominator * (step.lr / correction1);
    (weights * (1.0 - step.lr * step.weight_decay) - update, [first, second])
}

/// The sum of the squares of a tensor's values, in f64 over blocks of fixed size, added in order.
pub fn square_sum<const D: usize>(x: &Tensor<D>) -> f64 {
    if !is_ours(x) {
        return (x.clone() * x.clone()).sum().into_scalar::<f64>();
    }
    Tensor::<1>::from_dispatch(Dispatch::square_sum(x.clone().into_dispatch())).into_scalar::<f64>()
}

/// The same of values on the CPU, of each block of [`SQUARES_BLOCK`] values alone: added in order they are the
/// [`square_sum`].
pub fn square_sums(x: &[f32]) -> Vec<f64> {
    let work = || x.par_chunks(BLOCK).map(squares).collect();
    timed("gradient norm", 2.0 * x.len() as f64, work)
}

/// Values over which squares are summed before they are added up.
pub const SQUARES_BLOCK: usize = BLOCK;

#[backend_extension(Flex)]
pub(crate) trait AdamwBackend: Backend {
    fn adamw(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        constants: Constants,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// One value in f64.
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl AdamwBackend for Flex {
    fn adamw(
        weights: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        constants: Constants,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let gradient = contiguous(gradient);
        let (mut weights, mut first, mut second) = (own(weights), own(first), own(second));
        let places = [&mut weights, &mut first, &mut second]
            .map(|tensor| SharedMut::new(values_mut(tensor).expect("the tensor was made our own")));
        let gradient_values = values(&gradient);
        let len = gradient_values.len();
        let gradient_values = Shared::new(gradient_values);
        timed("AdamW", 15.0 * len as f64, || {
            parallel::for_blocks(len, BLOCK, |block| {
                let [weights, first, second] = places.map(|place| place.at(block.start));
                // SAFETY: the block is inside all four arrays, and no other task writes it.
                unsafe { update(weights, gradient_values.at(block.start), first, second, block.len(), constants) }
            });
        });
        (weights, first, second)
    }

    fn square_sum(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let sum = timed("gradient norm", 2.0 * x.layout().num_elements() as f64, || squares(values(&x)));
        FlexTensor::from_data(TensorData::new(vec![sum], [1]))
    }
}

/// The tensor, copied if somebody else holds it too.
fn own(mut tensor: FlexTensor) -> FlexTensor {
    if values_mut(&mut tensor).is_some() {
        return tensor;
    }
    let shape = tensor.layout().shape().clone();
    let copy = values(&contiguous(tensor)).to_vec();
    crate::flex::tensor(copy, [shape.num_elements()]).reshape(shape)
}

fn squares(x: &[f32]) -> f64 {
    let shared = Shared::new(x);
    // SAFETY: the block is inside.
    parallel::sum_blocks(x.len(), BLOCK, |block| unsafe { block_squares(shared.at(block.start), block.len()) })
}

#[inline(always)]
unsafe fn update_generic<V: Lanes>(
    weights: *mut f32,
    gradient: *const f32,
    first: *mut f32,
    second: *mut f32,
    len: usize,
    constants: Constants,
) {
    let Constants { beta1, beta2, eps, keep, rate, correction2, gradient_scale } = constants;
    // SAFETY: the caller promises `len` values behind each pointer.
    unsafe {
        for_vectors!(len, |i, count| {
            let g = load::<V>(gradient.add(i), count).mul(V::splat(gradient_scale));
            let m: V = load(first.add(i), count);
            let v: V = load(second.add(i), count);
            let w: V = load(weights.add(i), count);
            let m = m.mul(V::splat(beta1)).add(g.mul(V::splat(1.0 - beta1)));
            let v = v.mul(V::splat(beta2)).add(g.mul(g).mul(V::splat(1.0 - beta2)));
            let denominator = v.sqrt().div(V::splat(correction2)).add(V::splat(eps));
            let w = w.mul(V::splat(keep)).sub(m.mul(V::splat(rate)).div(denominator));
            store(m, first.add(i), count);
            store(v, second.add(i), count);
            store(w, weights.add(i), count);
        });
    }
}
for_each_isa! {
    unsafe fn update(weights: *mut f32, gradient: *const f32, first: *mut f32, second: *mut f32, len: usize, constants: Constants) = update_generic
}

/// Squares rounded to f32, and added in f64 sixteen at a time.
#[inline(always)]
unsafe fn block_squares_generic<V: Lanes>(x: *const f32, len: usize) -> f64 {
    let mut total = 0.0;
    // SAFETY: the caller promises `len` values.
    unsafe {
        // 64 vectors in f32 lose nothing that matters, and then one addition in f64.
        const RUN: usize = 64 * crate::machine::simd::LANES;
        for start in (0..len).step_by(RUN) {
            let mut sum = V::splat(0.0);
            for_vectors!(RUN.min(len - start), |i, count| {
                let x: V = load(x.add(start + i), count);
                sum = x.fma(x, sum);
            });
            total += f64::from(sum.sum());
        }
    }
    total
}
for_each_isa! { unsafe fn block_squares(x: *const f32, len: usize) -> f64 = block_squares_generic }
