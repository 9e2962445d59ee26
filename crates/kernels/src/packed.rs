//! Linear layers and embeddings whose weights are packed once, for inference on the CPU: the same sums in the same
//! order as [`linear`](crate::linear), so the same bytes for a row whatever else is in the batch.
//!
//! Shapes: N rows, I inputs, O outputs of all weights together.
//! Arithmetic: 2 N I O. Bytes: the weights once for every 280 rows, in bf16 half of them, in int8 a quarter, in int4
//! little more than an eighth.

use crate::{
    flex::{contiguous, filled, values},
    machine::{
        parallel::{self, SharedMut},
        profile::timed,
        simd::activation::Activation,
    },
    operators::linear::Maybe,
    product::{
        BlockKind, Finish, PackedB, QuantizedB, WeightValues, part_of,
        quantize::{INT4_ZERO, Quantization, int4_group, int8_row},
    },
};
use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Device, Tensor, TensorData},
};
use half::f16;
use low_rank::Adapted;
use narthex_base::config::Precision;
use std::{
    fmt,
    sync::{Arc, Mutex},
};

pub(crate) mod frozen;
pub(crate) mod low_rank;

/// Weights `[O, I]` in the order in which products read them, and a bias `[O]`. Clones share them.
#[derive(Clone)]
pub struct PackedWeight {
    stored: Arc<Stored>,
    bias: Option<Arc<[f32]>>,
    /// Where what is multiplied with the weights is counted.
    seen: Option<Arc<InputStatistics>>,
}

/// What the rows that a weight was multiplied with looked like, input by input: what rounding it well must know.
#[derive(Debug, Default)]
pub struct InputStatistics(Mutex<Sums>);

#[derive(Clone, Debug, Default)]
struct Sums {
    rows: usize,
    /// `[I]`
    squares: Vec<f64>,
    /// `[I]`
    sizes: Vec<f64>,
}

impl InputStatistics {
    /// The mean square of each input, and its mean size; empty before the first row.
    pub fn means(&self) -> (Vec<f32>, Vec<f32>) {
        let sums = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let mean = |sums: Vec<f64>, rows: usize| sums.into_iter().map(|sum| (sum / rows as f64) as f32).collect();
        (mean(sums.squares, sums.rows), mean(sums.sizes, sums.rows))
    }

    fn add(&self, x: &[f32], inputs: usize) {
        let mut sums = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        sums.squares.resize(inputs, 0.0);
        sums.sizes.resize(inputs, 0.0);
        let Sums { rows, squares, sizes } = &mut *sums;
        for row in x.chunks_exact(inputs) {
            *rows += 1;
            for ((square, size), x) in squares.iter_mut().zip(sizes.iter_mut()).zip(row) {
                *square += f64::from(*x) * f64::from(*x);
                *size += f64::from(x.abs());
            }
        }
    }
}

enum Stored {
    Numbers(PackedB),
    Integers(QuantizedB),
    /// Matrices in blocks of different kinds, one below the other.
    Stacked(Vec<QuantizedB>),
}

/// Rows of a matrix in blocks of one kind, as they lie in a GGUF file.
#[derive(Clone, Copy, Debug)]
pub struct BlockValues<'a> {
    /// What the bytes mean.
    pub kind: BlockKind,
    /// `[O]`, each of whole blocks, with finite scales ([`BlockKind::is_finite`]).
    pub rows: &'a [&'a [u8]],
}

/// A matrix `[O, I]` in int8: a weight is scale x code.
#[derive(Clone, Copy, Debug)]
pub struct Int8Values<'a> {
    /// `[O, I]`, of -127..=127; -128 is taken too.
    pub codes: &'a [i8],
    /// `[O]`
    pub scales: &'a [f32],
}

/// A matrix `[O, I]` in int4: a weight is scale x (code - zero).
#[derive(Clone, Copy, Debug)]
pub struct Int4Values<'a> {
    /// `[O, I]`, one a byte, of 0..=15.
    pub codes: &'a [u8],
    /// `[O, groups]`, finite.
    pub scales: &'a [f16],
    /// `[O, groups]`, of 0..=15; 8 if none are given.
    pub zeros: Option<&'a [u8]>,
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [outputs, inputs] = self.shape();
        match (self.quantization(), self.is_integers()) {
            (Some(kind), _) => write!(f, "PackedWeight([{outputs}, {inputs}], {kind:?})"),
            (None, true) => write!(f, "PackedWeight([{outputs}, {inputs}], blocks)"),
            (None, false) => write!(f, "PackedWeight([{outputs}, {inputs}], {:?})", self.precision()),
        }
    }
}

impl PackedWeight {
    /// Packs matrices of `inputs` columns that share their input, one below the other, on all threads.
    ///
    /// # Panics
    /// If a part is not whole rows.
    pub fn new(parts: &[WeightValues], inputs: usize, precision: Precision) -> Self {
        Self::of(Stored::Numbers(PackedB::new(parts, inputs, precision)))
    }

    /// The same with the weights rounded to integers.
    ///
    /// # Panics
    /// If a part is not whole rows, or a group is not 32, 64 or 128.
    pub fn quantized(parts: &[WeightValues], inputs: usize, kind: Quantization) -> Self {
        assert!(inputs > 0 && parts.iter().all(|part| part.len().is_multiple_of(inputs)), "parts are whole rows");
        let outputs = parts.iter().map(|part| part.len() / inputs).sum();
        Self::of_integers(QuantizedB::new(kind, [outputs, inputs], None, |output, to| {
            let (part, row) = part_of(parts.iter().map(|part| part.len() / inputs), output);
            let mut values = vec![0f32; inputs];
            parts[part].read(row * inputs, &mut values);
            match kind {
                Quantization::Int8 => {
                    let mut codes = vec![0i8; inputs];
                    *to.scale = int8_row(&values, &mut codes);
                    to.codes.iter_mut().zip(codes).for_each(|(to, code)| *to = code as u8 ^ 128);
                }
                Quantization::Int4 { group } => {
                    let groups = values.chunks(group).zip(to.codes.chunks_mut(group));
                    for ((values, codes), (scale, zero)) in groups.zip(to.scales.iter_mut().zip(to.zeros)) {
                        (*scale, *zero) = (int4_group(values, &[], codes), INT4_ZERO);
                    }
                }
            }
        }))
    }

    /// Matrices in int8 that share their `inputs`, one below the other.
    ///
    /// # Panics
    /// If a part is not whole rows with a scale each.
    pub fn from_int8(parts: &[Int8Values], inputs: usize) -> Self {
        let fits = |part: &Int8Values| part.codes.len() == part.scales.len() * inputs;
        assert!(inputs > 0 && parts.iter().all(fits), "parts are whole rows with a scale each");
        let outputs = parts.iter().map(|part| part.scales.len()).sum();
        Self::of_integers(QuantizedB::new(Quantization::Int8, [outputs, inputs], None, |output, to| {
            let (part, row) = part_of(parts.iter().map(|part| part.scales.len()), output);
            let codes = &parts[part].codes[row * inputs..(row + 1) * inputs];
            to.codes.iter_mut().zip(codes).for_each(|(to, code)| *to = *code as u8 ^ 128);
            *to.scale = parts[part].scales[row];
        }))
    }

    /// Matrices in int4 that share their `inputs`, one below the other, in groups of 32, 64 or 128 along them. With an
    /// `order`, the i-th column of the codes is multiplied with input `order[i]`.
    ///
    /// # Panics
    /// If a part is not whole rows with whole groups of scales and zeros, a code or zero is above 15, a scale is not
    /// finite, or the order is no permutation.
    pub fn from_int4(parts: &[Int4Values], inputs: usize, group: usize, order: Option<&[u32]>) -> Self {
        let kind = Quantization::Int4 { group };
        assert!(inputs > 0 && group > 0, "inputs in groups");
        let (groups, rows) = (kind.groups(inputs), |part: &Int4Values| part.codes.len() / inputs);
        for part in parts {
            let scales = rows(part) * groups;
            assert_eq!((part.codes.len(), part.scales.len()), (rows(part) * inputs, scales), "whole rows");
            assert!(part.zeros.is_none_or(|zeros| zeros.len() == scales && zeros.iter().all(|zero| *zero <= 15)));
            assert!(part.scales.iter().all(|scale| scale.is_finite()), "finite scales");
        }
        let outputs = parts.iter().map(rows).sum();
        Self::of_integers(QuantizedB::new(kind, [outputs, inputs], order, |output, to| {
            let (part, row) = part_of(parts.iter().map(rows), output);
            let part = &parts[part];
            to.codes.copy_from_slice(&part.codes[row * inputs..(row + 1) * inputs]);
            assert!(to.codes.iter().all(|code| *code <= 15), "codes of 4 bits");
            let here = row * groups..(row + 1) * groups;
            to.scales.copy_from_slice(&part.scales[here.clone()]);
            match part.zeros {
                Some(zeros) => to.zeros.copy_from_slice(&zeros[here]),
                None => to.zeros.fill(8),
            }
        }))
    }

    /// Matrices in blocks that share their `inputs`, one below the other. Their kinds may differ.
    ///
    /// # Panics
    /// If there are none, or a row is not `inputs` values in whole blocks.
    pub fn from_blocks(parts: &[BlockValues], inputs: usize) -> Self {
        let mut stacked: Vec<QuantizedB> = vec![];
        for alike in parts.chunk_by(|one, other| one.kind == other.kind) {
            let rows: Vec<&[u8]> = alike.iter().flat_map(|part| part.rows).copied().collect();
            stacked.push(QuantizedB::of_blocks(alike[0].kind, [rows.len(), inputs], |row| rows[row]));
        }
        assert!(!stacked.is_empty(), "some matrices");
        match stacked.len() {
            1 => Self::of_integers(stacked.remove(0)),
            _ => Self::of(Stored::Stacked(stacked)),
        }
    }

    fn of_integers(weight: QuantizedB) -> Self {
        Self::of(Stored::Integers(weight))
    }

    fn of(stored: Stored) -> Self {
        Self { stored: Arc::new(stored), bias: None, seen: None }
    }

    /// The same weights, which count what they are multiplied with.
    pub fn watched(self, seen: Arc<InputStatistics>) -> Self {
        Self { seen: Some(seen), ..self }
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
        match &*self.stored {
            Stored::Numbers(weight) => weight.shape(),
            Stored::Integers(weight) => weight.shape(),
            Stored::Stacked(parts) => [parts.iter().map(|part| part.shape()[0]).sum(), parts[0].shape()[1]],
        }
    }

    /// How they are stored, and multiplied; of integers, what is worth computing the rest in.
    pub fn precision(&self) -> Precision {
        match &*self.stored {
            Stored::Numbers(weight) => weight.precision(),
            Stored::Integers(_) | Stored::Stacked(_) => Precision::Bf16,
        }
    }

    /// What integers they were rounded to, if they were; none for blocks of a file.
    pub fn quantization(&self) -> Option<Quantization> {
        match &*self.stored {
            Stored::Numbers(_) | Stored::Stacked(_) => None,
            Stored::Integers(weight) => weight.kind(),
        }
    }

    /// Whether they are stored as integers, of whatever kind.
    pub fn is_integers(&self) -> bool {
        !matches!(&*self.stored, Stored::Numbers(_))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &*self.stored {
            Stored::Numbers(weight) => weight.bytes(),
            Stored::Integers(weight) => weight.bytes(),
            Stored::Stacked(parts) => parts.iter().map(QuantizedB::bytes).sum(),
        }
    }

    /// Row `row` as numbers: `to` takes I.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read_row(&self, row: usize, to: &mut [f32]) {
        match &*self.stored {
            Stored::Numbers(weight) => weight.column(row, to),
            Stored::Integers(weight) => weight.column(row, to),
            Stored::Stacked(parts) => {
                let (part, row) = part_of(parts.iter().map(|part| part.shape()[0]), row);
                parts[part].column(row, to);
            }
        }
    }

    /// All weights as numbers, `[O, I]`: what a backward pass multiplies with.
    pub fn dequantized(&self) -> Vec<f32> {
        let [outputs, inputs] = self.shape();
        let mut values = parallel::uninitialised(outputs * inputs);
        let to = SharedMut::new(&mut values);
        parallel::for_blocks(outputs, 16, |rows| {
            for row in rows {
                // SAFETY: each row is written by one task.
                self.read_row(row, unsafe { to.slice(row * inputs..(row + 1) * inputs) });
            }
        });
        values
    }
}

/// `x [N, I]`, weights `[O, I]`, residual `[N, O]` -> `[N, O]`, with the weights' bias. In bf16 the inputs of the
/// product are rounded to bf16 and its sums and the residual stay f32; with weights of
/// integers, the inputs of the product are rounded to int8 in groups.
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
        weight.read_row(*index as usize, row);
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

    fn packed_affine(
        x: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        weight: PackedWeight,
        activation: Option<Activation>,
    ) -> FloatTensor<Self>;
}

impl PackedLinearBackend for Flex {
    fn packed_linear(x: FlexTensor, residual: Maybe<Self>, weight: PackedWeight, adapted: Vec<Adapted>) -> FlexTensor {
        multiply(x, None, residual, &weight, &adapted, None)
    }

    fn packed_affine(
        x: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        weight: PackedWeight,
        activation: Option<Activation>,
    ) -> FlexTensor {
        multiply(x, bias.into_option(), residual, &weight, &[], activation)
    }
}

/// A product with what follows it: the weights' own bias or the one given, low-rank updates, the residual, an
/// activation.
fn multiply(
    x: FlexTensor,
    bias: Option<FlexTensor>,
    residual: Maybe<Flex>,
    weight: &PackedWeight,
    adapted: &[Adapted],
    activation: Option<Activation>,
) -> FlexTensor {
    let x = contiguous(x);
    let residual = residual.into_option().map(contiguous);
    let bias = bias.map(contiguous);
    let [outputs, inputs] = weight.shape();
    let n = values(&x).len() / inputs;
    if let Some(seen) = &weight.seen {
        seen.add(values(&x), inputs);
    }
    timed("packed linear", 2.0 * (n * inputs * outputs) as f64, || {
        filled([n, outputs], |y| {
            let (bias, residual) =
                (bias.as_ref().map(values).or(weight.bias.as_deref()), residual.as_ref().map(values));
            // What an update multiplies the product with must not reach the residual.
            let later = adapted.iter().any(|(_, update)| update.has_gain());
            let finish = Finish { bias, residual: residual.filter(|_| !later) };
            match &*weight.stored {
                Stored::Numbers(weight) => weight.multiply(values(&x), y, finish, activation),
                Stored::Integers(weight) => {
                    assert!(activation.is_none(), "products of integers end without an activation");
                    weight.multiply(values(&x), y, [0, outputs], finish);
                }
                Stored::Stacked(parts) => {
                    assert!(activation.is_none(), "products of integers end without an activation");
                    let mut first = 0;
                    for part in parts {
                        part.multiply(values(&x), y, [first, outputs], finish);
                        first += part.shape()[0];
                    }
                }
            }
            if !adapted.is_empty() {
                low_rank::update(values(&x), y, outputs, bias, adapted);
            }
            if let (true, Some(residual)) = (later, residual) {
                y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
            }
        })
    })
}
