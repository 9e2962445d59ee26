//! Activation functions, value by value: GELU (Hendrycks and Gimpel, 2016), exact and in its approximation by tanh, and
//! SiLU.
//!
//! Arithmetic: about 30 operations a value (an exponential) forward, 40 backward. Bytes: 2 values read or written
//! for each forward, 3 backward; it is bound by memory.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values, values_mut},
    machine::{
        parallel::{self, Shared, SharedMut},
        profile::timed,
        simd::activation::{Activation, values_backward, values_forward},
    },
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{
        Tensor,
        activation::{gelu, gelu_approximate, silu},
    },
};

/// Values that a task handles.
const BLOCK: usize = 1 << 13;

/// Applies the function to each value of `[N, D]`.
pub fn activation(x: Tensor<2>, function: Activation) -> Tensor<2> {
    if !is_ours(&x) {
        return reference(x, function);
    }
    Tensor::from_dispatch(Dispatch::activation(x.into_dispatch(), function))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(x: Tensor<2>, function: Activation) -> Tensor<2> {
    match function {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_approximate(x),
        Activation::Silu => silu(x),
    }
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait ActivationBackend: Backend {
    fn activation(x: FloatTensor<Self>, function: Activation) -> FloatTensor<Self>;
}

impl ActivationBackend for Flex {
    fn activation(x: FlexTensor, function: Activation) -> FlexTensor {
        forward(&contiguous(x), function)
    }
}

impl<C: CheckpointStrategy> ActivationBackend for Autodiff<Flex, C> {
    fn activation(x: FloatTensor<Self>, function: Activation) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = contiguous(x.into_primitive());
        let run = move |_| (forward(&x, function), Some((x, function)));
        record::<C, _, 1>(nodes, run, |(x, function), gradient, _| [Some(backward(x, &contiguous(gradient), function))])
    }
}

fn forward(x: &FlexTensor, function: Activation) -> FlexTensor {
    let [n, d] = dims(x);
    timed("activation forward", 30.0 * (n * d) as f64, || {
        filled([n, d], |y| {
            let (x, y) = (Shared::new(values(x)), SharedMut::new(y));
            parallel::for_blocks(n * d, BLOCK, |block| {
                // SAFETY: the block is inside, and no other task writes it.
                unsafe { values_forward(function, x.at(block.start), y.at(block.start), block.len()) }
            });
        })
    })
}

/// In place of the saved input if nobody else holds it.
fn backward(mut x: FlexTensor, gradient: &FlexTensor, function: Activation) -> FlexTensor {
    let [n, d] = dims(&x);
    let run = |x: Shared, dx: SharedMut| {
        let gradient = Shared::new(values(gradient));
        parallel::for_blocks(n * d, BLOCK, |block| {
            let at = block.start;
            // SAFETY: the block is inside, and no other task writes it. `dx` may be `x`: every vector is read before it
            // is written.
            unsafe { values_backward(function, x.at(at), gradient.at(at), dx.at(at), block.len()) }
        });
    };
    timed("activation backward", 40.0 * (n * d) as f64, || {
        if let Some(place) = values_mut(&mut x) {
            let dx = SharedMut::new(place);
            run(Shared::of(dx), dx);
            return x;
        }
        filled([n, d], |dx| run(Shared::new(values(&x)), SharedMut::new(dx)))
    })
}
