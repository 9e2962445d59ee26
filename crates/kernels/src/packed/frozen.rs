//! Linear layers in training whose weights stay as they are, packed and mostly of integers: what is trained lies before
//! or beside them (Dettmers et al., "QLoRA", 2023).
//!
//! Shapes: N rows, I inputs, O outputs.
//! Arithmetic: 2 N I O forward, as much for the gradient. Bytes: the packed weights; on the way back, besides, one
//! weight at a time as numbers.

use crate::{
    flex::{contiguous, dims, filled, record, values},
    machine::profile::timed,
    operators::linear::{Maybe, input_gradient_slices},
    packed::{PackedLinearBackend, PackedWeight},
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};
use narthex_base::config::Precision;

/// `x [N, I]`, weights `[O, I]` -> `[N, O]`, with gradients for `x`. The product is that of
/// [`packed_linear`](crate::packed_linear), to the byte: what is trained sees what will be served. The gradient is that
/// of the product with the weights as numbers, computed in `precision`: rounding the inputs to integers counts as none
/// (a straight-through estimate; Bengio et al., 2013).
///
/// # Panics
/// If shapes do not fit, or the tensors are not f32 on the CPU.
pub fn frozen_linear(x: Tensor<2>, weight: &PackedWeight, precision: Precision) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.shape()[1], "weights are [out, in]");
    Tensor::from_dispatch(Dispatch::frozen_linear(x.into_dispatch(), weight.clone(), precision))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait FrozenLinearBackend: Backend {
    fn frozen_linear(x: FloatTensor<Self>, weight: PackedWeight, precision: Precision) -> FloatTensor<Self>;
}

impl FrozenLinearBackend for Flex {
    fn frozen_linear(x: FlexTensor, weight: PackedWeight, _precision: Precision) -> FlexTensor {
        Flex::packed_linear(x, Maybe::Nothing, weight, vec![])
    }
}

impl<C: CheckpointStrategy> FrozenLinearBackend for Autodiff<Flex, C> {
    fn frozen_linear(x: FloatTensor<Self>, weight: PackedWeight, precision: Precision) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let run = move |tracked: bool| {
            let y = Flex::packed_linear(x, Maybe::Nothing, weight.clone(), vec![]);
            (y, tracked.then_some((weight, precision)))
        };
        record::<C, (PackedWeight, Precision), 1>([node], run, backward)
    }
}

fn backward(
    (weight, precision): (PackedWeight, Precision),
    gradient: FlexTensor,
    needed: [bool; 1],
) -> [Option<FlexTensor>; 1] {
    let gradient = contiguous(gradient);
    let ([n, outputs], [_, inputs]) = (dims(&gradient), weight.shape());
    let input_gradient = || {
        let numbers = weight.dequantized();
        timed("frozen linear dX", 2.0 * (n * inputs * outputs) as f64, || {
            filled([n, inputs], |dx| {
                input_gradient_slices(values(&gradient), &[&numbers], [n, inputs, outputs], dx, precision);
            })
        })
    };
    [needed[0].then(input_gradient)]
}
