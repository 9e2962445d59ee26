//! Between Burn's tensors and slices, and the recording of a handwritten backward pass.

use crate::machine::parallel::uninitialised;
use burn::{
    backend::{
        Autodiff, BackendTensor, Bytes, DType, DispatchTensorKind, Flex, Shape,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        flex::{FlexTensor, Layout},
        tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData},
};
use std::{fmt::Debug, marker::PhantomData, ops::Deref};

/// Whether our kernels take this tensor: f32 on the CPU. Others go through the operator's reference.
pub(crate) fn is_ours<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// The tensor's values in row-major order, without a copy if they lie so already.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a contiguous f32 tensor.
///
/// # Panics
/// If it is another.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous f32 tensor")
}

/// The values of a tensor that nobody else holds, to be changed in place; none if it is shared or a view.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
    let len = tensor.layout().num_elements();
    if !tensor.is_contiguous() || tensor.layout().start_offset() != 0 {
        return None;
    }
    tensor.try_storage_mut::<f32>().filter(|values| values.len() == len)
}

/// A tensor of these values.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::new(shape)), DType::F32)
}

/// `make` fills the values of a new tensor.
pub(crate) fn filled<const D: usize>(shape: [usize; D], make: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut values = uninitialised(shape.iter().product());
    make(&mut values);
    tensor(values, shape)
}

/// The sizes of the tensor's `D` dimensions.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// A tensor's values in row-major order, where they lie: of a contiguous f32 tensor on the CPU nothing is copied.
pub struct HostValues(FlexTensor);

impl HostValues {
    /// Those of a tensor, on any device.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        let tensor = if is_ours(&tensor) { tensor } else { Tensor::from_data(tensor.into_data(), &Device::flex()) };
        let found = match tensor.clone().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Float(found)) => found,
            _ => FlexTensor::from_data(tensor.into_data().convert::<f32>()),
        };
        Self(contiguous(found))
    }
}

impl Deref for HostValues {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        values(&self.0)
    }
}

/// As they lie in memory.
impl AsRef<[u8]> for HostValues {
    fn as_ref(&self) -> &[u8] {
        let start = size_of::<f32>() * self.0.layout().start_offset();
        &self.0.bytes()[start..start + size_of_val(&self[..])]
    }
}

/// The values of an integer tensor.
pub(crate) fn integers(tensor: FlexTensor) -> Vec<i64> {
    let data: TensorData = contiguous(tensor).into_data();
    data.iter::<i64>().collect()
}

/// What a backward pass computes: from the saved state, the gradient of the output, and which of the inputs need one,
/// the gradient of each input.
pub(crate) type BackwardFn<S, const N: usize> = fn(S, FlexTensor, [bool; N]) -> [Option<FlexTensor>; N];

/// A step of the tape.
struct Step<S, const N: usize>(BackwardFn<S, N>, PhantomData<S>);

impl<S, const N: usize> Debug for Step<S, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a kernel's backward step")
    }
}

impl<S: Clone + Send + Debug + 'static, const N: usize> Backward<Flex, N> for Step<S, N> {
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let ids: [Option<NodeId>; N] = ops.parents.map(|parent| parent.map(|node| node.id));
        let found = (self.0)(ops.state, gradient, std::array::from_fn(|i| ids[i].is_some()));
        for (id, gradient) in ids.into_iter().zip(found) {
            if let (Some(id), Some(gradient)) = (id, gradient) {
                gradients.register::<Flex>(id, gradient);
            }
        }
    }
}

/// Runs an operator on tensors that may be differentiated. `forward` is told whether a backward pass may follow, and
/// then also returns what that will need.
pub(crate) fn record<C: CheckpointStrategy, S: Clone + Send + Debug + 'static, const N: usize>(
    inputs: [NodeGuard; N],
    forward: impl FnOnce(bool) -> (FlexTensor, Option<S>),
    backward: BackwardFn<S, N>,
) -> FloatTensor<Autodiff<Flex, C>> {
    match Step(backward, PhantomData).prepare::<C>(inputs).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, state) = forward(true);
            prepared.finish(state.expect("a tracked forward pass saves its state"), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(false).0),
    }
}
