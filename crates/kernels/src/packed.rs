//! Linear layers and embeddings whose weights are packed once, for inference on the CPU: the same sums in the same order
//! as [`linear`](crate::linear), so the same bytes for a row whatever else is in the batch.
//!
//! Shapes: N rows, I inputs, O outputs of all weights together.
//! Arithmetic: 2 N I O. Bytes: the weights once for every 280 rows, in bf16 half of them.

use crate::{
    Activation, Precision,
    flex::{contiguous, filled, values},
    linear::Maybe,
    product::{Finish, PackedB, WeightValues},
    profile::timed,
};
use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Device, Tensor, TensorData},
};
use std::{fmt, sync::Arc};

/// Weights `[O, I]` in the order in which products read them. Clones share them.
#[derive(Clone)]
pub struct PackedWeight(Arc<PackedB>);

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [outputs, inputs] = self.shape();
        write!(f, "PackedWeight([{outputs}, {inputs}], {:?})", self.precision())
    }
}

impl PackedWeight {
    /// Packs matrices of `inputs` columns that share their input, one below the other, on all threads.
    ///
    /// # Panics
    /// If a part is not whole rows.
    pub fn new(parts: &[WeightValues], inputs: usize, precision: Precision) -> Self {
        Self(Arc::new(PackedB::new(parts, inputs, precision)))
    }

    /// `[O, I]`
    pub fn shape(&self) -> [usize; 2] {
        self.0.shape()
    }

    /// How they are stored, and multiplied.
    pub fn precision(&self) -> Precision {
        self.0.precision()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// `x [N, I]`, weights `[O, I]`, residual `[N, O]` -> `[N, O]`. In bf16 the inputs of the product are rounded to bf16 and
/// its sums and the residual stay f32.
///
/// # Panics
/// If shapes do not fit, or the tensors are not f32 on the CPU.
pub fn packed_linear(x: Tensor<2>, weight: &PackedWeight, residual: Option<Tensor<2>>) -> Tensor<2> {
    let ([n, inputs], [outputs, depth]) = (x.dims(), weight.shape());
    assert_eq!(inputs, depth, "weights are [out, in]");
    assert!(
        residual.as_ref().is_none_or(|residual| residual.dims() == [n, outputs]),
        "the residual has the output's shape"
    );
    let residual = residual.map_or(Maybe::Nothing, |residual| Maybe::Just(residual.into_dispatch()));
    Tensor::from_dispatch(Dispatch::packed_linear(x.into_dispatch(), residual, weight.clone()))
}

/// What follows a product, in this order.
#[derive(Clone, Debug, Default)]
pub struct PackedFinish {
    /// `[O]`, added to each row.
    pub bias: Option<Tensor<1>>,
    /// `[N, O]`, added.
    pub residual: Option<Tensor<2>>,
    /// Applied to each value.
    pub activation: Option<Activation>,
}

/// `x [N, I]`, weights `[O, I]` -> `[N, O]`: [`packed_linear`] with what follows it in the same pass.
///
/// # Panics
/// As [`packed_linear`].
pub fn packed_affine(x: Tensor<2>, weight: &PackedWeight, finish: PackedFinish) -> Tensor<2> {
    let ([n, inputs], [outputs, depth]) = (x.dims(), weight.shape());
    assert_eq!(inputs, depth, "weights are [out, in]");
    let PackedFinish { bias, residual, activation } = finish;
    assert!(residual.as_ref().is_none_or(|r| r.dims() == [n, outputs]), "the residual has the output's shape");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]), "one bias for each output");
    let residual = residual.map_or(Maybe::Nothing, |residual| Maybe::Just(residual.into_dispatch()));
    let bias = bias.map_or(Maybe::Nothing, |bias| Maybe::Just(bias.into_dispatch()));
    let x = x.into_dispatch();
    Tensor::from_dispatch(Dispatch::packed_affine(x, bias, residual, weight.clone(), activation))
}

/// Rows of `[O, I]` by index, as an embedding reads them: `[N]` -> `[N, I]`.
///
/// # Panics
/// If an index is not below O.
pub fn packed_rows(weight: &PackedWeight, indices: &[u32]) -> Tensor<2> {
    let [_, inputs] = weight.shape();
    let mut rows = vec![0f32; indices.len() * inputs];
    for (row, index) in rows.chunks_exact_mut(inputs).zip(indices) {
        weight.0.column(*index as usize, row);
    }
    Tensor::from_data(TensorData::new(rows, [indices.len(), inputs]), &Device::flex())
}

#[backend_extension(Flex)]
pub(crate) trait PackedLinearBackend: Backend {
    fn packed_linear(
        x: FloatTensor<Self>,
        #[extension_type] residual: Maybe<Self>,
        weight: PackedWeight,
    ) -> FloatTensor<Self>;

    fn packed_affine(
        x: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        weight: PackedWeight,
        activation: Option<Activation>,
    ) -> FloatTensor<Self>;
}

impl PackedLinearBackend for Flex {
    fn packed_linear(x: FlexTensor, residual: Maybe<Self>, weight: PackedWeight) -> FlexTensor {
        Self::packed_affine(x, Maybe::Nothing, residual, weight, None)
    }

    fn packed_affine(
        x: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        weight: PackedWeight,
        activation: Option<Activation>,
    ) -> FlexTensor {
        let x = contiguous(x);
        let residual = residual.into_option().map(contiguous);
        let bias = bias.into_option().map(contiguous);
        let [outputs, inputs] = weight.shape();
        let n = values(&x).len() / inputs;
        timed("packed linear", 2.0 * (n * inputs * outputs) as f64, || {
            filled([n, outputs], |y| {
                let finish = Finish { bias: bias.as_ref().map(values), residual: residual.as_ref().map(values) };
                weight.0.multiply(values(&x), y, finish, activation);
            })
        })
    }
}
