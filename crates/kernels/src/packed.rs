//! Linear layers and embeddings whose weights are packed once, for inference on the CPU: the same sums in the same order
//! as [`linear`](crate::linear), so the same bytes for a row whatever else is in the batch.
//!
//! Shapes: N rows, I inputs, O outputs of all weights together.
//! Arithmetic: 2 N I O. Bytes: the weights once for every 280 rows, in bf16 half of them.

use crate::{
    Precision,
    flex::{contiguous, filled, values},
    linear::Maybe,
    low_rank::{self, Adapted},
    product::{Finish, PackedB, WeightValues},
    profile::timed,
};
use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Device, Tensor, TensorData},
};
use std::{fmt, sync::Arc};

/// Weights `[O, I]` in the order in which products read them, and a bias `[O]`. Clones share them.
#[derive(Clone)]
pub struct PackedWeight {
    matrix: Arc<PackedB>,
    bias: Option<Arc<[f32]>>,
}

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
        Self { matrix: Arc::new(PackedB::new(parts, inputs, precision)), bias: None }
    }

    /// The same with a bias `[O]`.
    ///
    /// # Panics
    /// If it has another length.
    pub fn with_bias(self, bias: Vec<f32>) -> Self {
        assert_eq!(bias.len(), self.shape()[0], "a value for each output");
        Self { bias: Some(bias.into()), ..self }
    }

    /// `[O, I]`
    pub fn shape(&self) -> [usize; 2] {
        self.matrix.shape()
    }

    /// How they are stored, and multiplied.
    pub fn precision(&self) -> Precision {
        self.matrix.precision()
    }

    /// Row `row` as numbers: `to` takes I.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read_row(&self, row: usize, to: &mut [f32]) {
        self.matrix.column(row, to);
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }
}

/// `x [N, I]`, weights `[O, I]`, residual `[N, O]` -> `[N, O]`, with the weights' bias. In bf16 the inputs of the product are rounded to bf16 and
/// its sums and the residual stay f32.
///
/// # Panics
/// If shapes do not fit, or the tensors are not f32 on the CPU.
pub fn packed_linear(x: Tensor<2>, weight: &PackedWeight, residual: Option<Tensor<2>>) -> Tensor<2> {
    packed_linear_adapted(x, weight, residual, &[])
}

/// The same with low-rank updates, each for its own rows.
///
/// # Panics
/// As above, or if an update's rows or outputs are not there.
pub fn packed_linear_adapted(
    x: Tensor<2>,
    weight: &PackedWeight,
    residual: Option<Tensor<2>>,
    adapted: &[Adapted],
) -> Tensor<2> {
    let ([n, inputs], [outputs, depth]) = (x.dims(), weight.shape());
    assert_eq!(inputs, depth, "weights are [out, in]");
    assert!(
        residual.as_ref().is_none_or(|residual| residual.dims() == [n, outputs]),
        "the residual has the output's shape"
    );
    let residual = residual.map_or(Maybe::Nothing, |residual| Maybe::Just(residual.into_dispatch()));
    Tensor::from_dispatch(Dispatch::packed_linear(x.into_dispatch(), residual, weight.clone(), adapted.to_vec()))
}

/// Rows of `[O, I]` by index, as an embedding reads them: `[N]` -> `[N, I]`.
///
/// # Panics
/// If an index is not below O.
pub fn packed_rows(weight: &PackedWeight, indices: &[u32]) -> Tensor<2> {
    let [_, inputs] = weight.shape();
    let mut rows = vec![0f32; indices.len() * inputs];
    for (row, index) in rows.chunks_exact_mut(inputs).zip(indices) {
        weight.matrix.column(*index as usize, row);
    }
    Tensor::from_data(TensorData::new(rows, [indices.len(), inputs]), &Device::flex())
}

#[backend_extension(Flex)]
pub(crate) trait PackedLinearBackend: Backend {
    fn packed_linear(
        x: FloatTensor<Self>,
        #[extension_type] residual: Maybe<Self>,
        weight: PackedWeight,
        adapted: Vec<Adapted>,
    ) -> FloatTensor<Self>;
}

impl PackedLinearBackend for Flex {
    fn packed_linear(x: FlexTensor, residual: Maybe<Self>, weight: PackedWeight, adapted: Vec<Adapted>) -> FlexTensor {
        let x = contiguous(x);
        let residual = residual.into_option().map(contiguous);
        let [outputs, inputs] = weight.shape();
        let n = values(&x).len() / inputs;
        timed("packed linear", 2.0 * (n * inputs * outputs) as f64, || {
            filled([n, outputs], |y| {
                let (bias, residual) = (weight.bias.as_deref(), residual.as_ref().map(values));
                // What an update multiplies the product with must not reach the residual.
                let later = adapted.iter().any(|(_, update)| update.has_gain());
                weight.matrix.multiply(values(&x), y, Finish { bias, residual: residual.filter(|_| !later) });
                if !adapted.is_empty() {
                    low_rank::update(values(&x), y, outputs, bias, &adapted);
                }
                if let (true, Some(residual)) = (later, residual) {
                    y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
                }
            })
        })
    }
}
