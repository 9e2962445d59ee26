//! What the tests of operators share: inputs from counters, an operator run with its gradients in f32 (the kernel) or
//! in f64 (the reference), and the comparisons.
//!
//! The instruction set in use belongs to the whole process, and a kernel must see the same one from its start to its
//! end. So a test that runs kernels holds [`any_isa`], and one that chooses the set holds [`with_isa`].

use crate::{Isa, force_isa, isa};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use narthex_base::random::Stream;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static IN_USE: RwLock<()> = RwLock::new(());

/// Keeps an instruction set forced; other tests that run kernels wait.
pub(crate) struct ForcedIsa(Isa, #[allow(dead_code)] RwLockWriteGuard<'static, ()>);

impl Drop for ForcedIsa {
    fn drop(&mut self) {
        let _ = force_isa(self.0);
    }
}

/// Forces an available instruction set until the guard is dropped.
pub(crate) fn with_isa(set: Isa) -> ForcedIsa {
    let guard = IN_USE.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = isa();
    force_isa(set).expect("an instruction set of this machine");
    ForcedIsa(before, guard)
}

/// Keeps others from forcing an instruction set until the guard is dropped.
pub(crate) fn any_isa() -> RwLockReadGuard<'static, ()> {
    IN_USE.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Standard normal values.
pub(crate) fn normal(stream: Stream, len: usize) -> Vec<f32> {
    (0..len).map(|i| stream.normal(i as u64)).collect()
}

/// The nearest bf16, ties to even; by bits, independent of the kernels' own rounding.
pub(crate) fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let (kept, dropped) = (bits & 0xffff_0000, bits & 0xffff);
    let up = dropped > 0x8000 || (dropped == 0x8000 && kept & 0x1_0000 != 0);
    f32::from_bits(if up { kept + 0x1_0000 } else { kept })
}

/// Denormals count as 0 in bf16 products, as `vdpbf16ps` has it.
pub(crate) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// A sum of products in bf16 on matrix tiles: two chains for each 32 values, from 0, added to each other and then to
/// the sum.
pub(crate) fn tile_chain(start: f32, a: &[f32], b: &[f32]) -> f32 {
    let value = |x: &[f32], i: usize| x.get(i).map_or(0.0, |x| round_to_bf16(flush(*x)));
    let half = |block: usize, first: usize| {
        let pairs = (0..16).map(|pair| block + 2 * pair + first);
        pairs.fold(0.0, |sum: f32, i| flush(value(a, i).mul_add(value(b, i), sum)))
    };
    let blocks = (0..a.len()).step_by(32);
    blocks.fold(start, |sum, block| flush(flush(sum) + flush(half(block, 0) + half(block, 1))))
}

/// How an input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum View {
    /// Row by row.
    Plain,
    /// A view of its transpose.
    Transposed,
    /// A view of the middle of a larger matrix.
    Narrowed,
}

impl View {
    pub(crate) const ALL: [View; 3] = [View::Plain, View::Transposed, View::Narrowed];
}

/// A matrix that an operator is given. Operators that take vectors reshape a row.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) shape: [usize; 2],
    pub(crate) values: Vec<f32>,
    view: View,
    tracked: bool,
}

impl Input {
    pub(crate) fn new(shape: [usize; 2], values: Vec<f32>) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1]);
        Self { shape, values, view: View::Plain, tracked: true }
    }

    /// Normal values times `scale`.
    pub(crate) fn normal(stream: Stream, shape: [usize; 2], scale: f32) -> Self {
        Self::new(shape, normal(stream, shape[0] * shape[1]).into_iter().map(|x| x * scale).collect())
    }

    pub(crate) fn view(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    /// Wants no gradient.
    pub(crate) fn frozen(mut self) -> Self {
        self.tracked = false;
        self
    }

    /// The same with each value turned into another.
    pub(crate) fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        self.values.iter_mut().for_each(|x| *x = f(*x));
        self
    }

    pub(crate) fn tensor(&self, dtype: DType) -> Tensor<2> {
        let values: Vec<f64> = self.values.iter().map(|x| f64::from(*x)).collect();
        tensor_of(self.shape, &values, dtype, self.view)
    }
}

fn tensor_of([n, d]: [usize; 2], values: &[f64], dtype: DType, view: View) -> Tensor<2> {
    let make = |values: Vec<f64>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
    };
    match view {
        View::Plain => make(values.to_vec(), [n, d]),
        View::Transposed => {
            let turned = (0..n * d).map(|i| values[i % n * d + i / n]).collect();
            make(turned, [d, n]).transpose()
        }
        View::Narrowed => {
            let (rows, columns) = (n + 3, d + 5);
            // What lies around must not be read.
            let mut wide = vec![f64::NAN; rows * columns];
            for row in 0..n {
                wide[(row + 1) * columns + 2..][..d].copy_from_slice(&values[row * d..(row + 1) * d]);
            }
            make(wide, [rows, columns]).narrow(0, 1, n).narrow(1, 2, d)
        }
    }
}

/// A constant of the type of `like`, and on its tape.
pub(crate) fn constant<const D: usize>(like: &Tensor<2>, values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape);
    let inner = Tensor::<D>::from_data(data, (&Device::flex(), DType::F32)).cast(like.dtype());
    if like.device().is_autodiff() { Tensor::from_inner(inner) } else { inner }
}

/// Indices on the device of `like`.
pub(crate) fn indices(like: &Tensor<2>, indices: &[usize]) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices.iter().map(|i| *i as i64).collect();
    Tensor::from_data(TensorData::new(indices.clone(), [indices.len()]), &like.device())
}

/// An operator on some matrices. Public functions of the crate run their kernel in f32 and their reference in f64.
pub(crate) type Operator<'a> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<2>;

/// What an operator yields, and the gradients of `sum(output * cotangent)`; empty for inputs that want none. f32 values
/// fit f64 exactly, so that equality here is equality of bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) output: Vec<f64>,
    pub(crate) gradients: Vec<Vec<f64>>,
}

impl Outcome {
    /// The bits of everything.
    pub(crate) fn bits(&self) -> Vec<Vec<u64>> {
        let bits = |values: &Vec<f64>| values.iter().map(|x| x.to_bits()).collect();
        std::iter::once(&self.output).chain(&self.gradients).map(bits).collect()
    }
}

/// The gradient that the output is given: values about 1, of both signs.
pub(crate) fn cotangent(len: usize) -> Vec<f32> {
    normal(Stream::new(0, "cotangent"), len)
}

pub(crate) fn values_of<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// Runs the operator forward and backward. If the first input is a view, then so is the gradient of the output.
pub(crate) fn outcome(dtype: DType, inputs: &[Input], operator: Operator) -> Outcome {
    let leaf = |input: &Input| {
        let leaf = Tensor::from_inner(input.tensor(dtype));
        if input.tracked { leaf.require_grad() } else { leaf }
    };
    let leaves: Vec<Tensor<2>> = inputs.iter().map(leaf).collect();
    let output = operator(&leaves);
    let shape = output.dims();
    let factor = constant(&output, &cotangent(shape[0] * shape[1]), shape);
    let values = values_of(output.clone());
    let loss = if inputs[0].view == View::Plain {
        (output * factor).sum()
    } else {
        (output.transpose() * factor.transpose()).sum()
    };
    let gradients = loss.backward();
    let gradient = |leaf: &Tensor<2>| leaf.grad(&gradients).map(values_of).unwrap_or_default();
    Outcome { output: values, gradients: leaves.iter().map(gradient).collect() }
}

/// Without a tape.
pub(crate) fn output(dtype: DType, inputs: &[Input], operator: Operator) -> Vec<f64> {
    let tensors: Vec<Tensor<2>> = inputs.iter().map(|input| input.tensor(dtype)).collect();
    values_of(operator(&tensors))
}

/// Each value within `bound` of the expected one.
#[track_caller]
pub(crate) fn assert_within(what: &str, found: &[f64], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = bound(i);
        // Written so that NaN fails.
        let inside = (found - expected).abs() <= bound;
        assert!(inside, "{what}: value {i} is {found:e}, not {expected:e} to within {bound:e}");
    }
}

/// Each value within `relative` of the expected one, or within `absolute`.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f64], expected: &[f64], relative: f64, absolute: f64) {
    assert_within(what, found, expected, |i| relative * expected[i].abs() + absolute);
}

/// The error in the Euclidean norm, relative to what is expected.
#[track_caller]
pub(crate) fn assert_near(what: &str, found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(error <= relative * size, "{what}: an error of {error:e} in {size:e}, more than {relative:e} of it");
}

/// Gradients of the kernel (f32) and of the reference (f64, by autodiff) against central differences of the reference,
/// for each value of each input that wants a gradient.
#[track_caller]
pub(crate) fn check_gradients(what: &str, inputs: &[Input], operator: Operator) {
    const EPS: f64 = 1e-6;
    let (kernel, reference) = (outcome(DType::F32, inputs, operator), outcome(DType::F64, inputs, operator));
    let factors: Vec<f64> = cotangent(kernel.output.len()).into_iter().map(f64::from).collect();
    let exact: Vec<Tensor<2>> = inputs.iter().map(|input| input.tensor(DType::F64)).collect();
    for (which, input) in inputs.iter().enumerate().filter(|(_, input)| input.tracked) {
        let values: Vec<f64> = input.values.iter().map(|x| f64::from(*x)).collect();
        let loss = |changed: &[f64]| {
            let mut tensors = exact.clone();
            tensors[which] = tensor_of(input.shape, changed, DType::F64, View::Plain);
            values_of(operator(&tensors)).iter().zip(&factors).map(|(y, factor)| y * factor).sum::<f64>()
        };
        let slope = |i: usize| {
            let at = |x: f64| {
                let mut changed = values.clone();
                changed[i] = x;
                loss(&changed)
            };
            (at(values[i] + EPS) - at(values[i] - EPS)) / (2.0 * EPS)
        };
        let slopes: Vec<f64> = (0..values.len()).map(slope).collect();
        assert!(slopes.iter().any(|slope| slope.abs() > 1e-2), "{what}: input {which} has an effect");
        // The loss is about 10 and exact to 1e-15, which the difference divides by 2e-6.
        assert_close(&format!("{what}: reference, input {which}"), &reference.gradients[which], &slopes, 1e-6, 1e-7);
        assert_close(&format!("{what}: kernel, input {which}"), &kernel.gradients[which], &slopes, 1e-3, 1e-5);
    }
}

/// Output and gradients of the kernel against the reference in f64.
#[track_caller]
pub(crate) fn check_against_reference(what: &str, inputs: &[Input], operator: Operator, relative: f64, absolute: f64) {
    let (kernel, reference) = (outcome(DType::F32, inputs, operator), outcome(DType::F64, inputs, operator));
    assert_close(&format!("{what}: output"), &kernel.output, &reference.output, relative, absolute);
    for (i, (found, expected)) in kernel.gradients.iter().zip(&reference.gradients).enumerate() {
        assert_eq!(found.len(), if inputs[i].tracked { inputs[i].values.len() } else { 0 }, "{what}: input {i}");
        assert_close(&format!("{what}: gradient {i}"), found, expected, relative, absolute);
    }
}

/// The result of `work` with each instruction set that gives the same bytes and with one, two and three threads. On
/// matrix tiles it must be the same for all numbers of threads.
pub(crate) fn on_every_machine<R: Send + PartialEq>(work: impl Fn() -> R + Sync) -> Vec<(String, R)> {
    let mut results = Vec::new();
    for set in Isa::available() {
        let _guard = with_isa(set);
        let on_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads");
            pool.install(&work)
        };
        let mut found: Vec<(String, R)> =
            (1..=3).map(|threads| (format!("{} on {threads} threads", set.name()), on_threads(threads))).collect();
        if set == Isa::Amx {
            assert!(found.iter().all(|(_, result)| *result == found[0].1), "tiles on other threads");
            continue;
        }
        results.append(&mut found);
    }
    results
}

/// Output and gradients have the same bytes with every instruction set and number of threads, and the output has them
/// without a tape too. Do not call with a guard of [`any_isa`] held.
#[track_caller]
pub(crate) fn check_same_bytes(what: &str, inputs: &[Input], operator: &(dyn Fn(&[Tensor<2>]) -> Tensor<2> + Sync)) {
    let run = || (outcome(DType::F32, inputs, operator), output(DType::F32, inputs, operator));
    let results = on_every_machine(run);
    let first = results[0].1.0.bits();
    assert!(results.len() >= 3);
    for (machine, (found, plain)) in &results {
        for (i, (found, first)) in found.bits().iter().zip(&first).enumerate() {
            assert!(found == first, "{what}: {machine}: array {i} differs from {}", results[0].0);
        }
        let plain: Vec<u64> = plain.iter().map(|x| x.to_bits()).collect();
        assert!(plain == first[0], "{what}: {machine}: the output without a tape differs");
    }
}
