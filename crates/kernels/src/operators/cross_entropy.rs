//! The output projection and its cross-entropy in one: never all logits at once, and both gradients
//! computed while a chunk of logits is at hand (after Hsu et al., "Liger kernel", 2024).
//!
//! `linear_nats` gives each row's loss on its own, so that rows can be weighed by what comes of them; its way back
//! computes the logits again.
//!
//! Shapes: N rows, D width, V vocabulary. Arithmetic: 2 N D V for the loss, 6 N D V with gradients (8 N D V for
//! `linear_nats`). Bytes: logits of one chunk of rows, and in training the weight's gradient once a chunk.

use crate::{
    flex::{contiguous, dims, integers, is_ours, record, tensor, values},
    machine::{
        parallel::{self, SharedMut, uninitialised},
        profile::timed,
        simd::{
            Lanes, for_each_isa,
            rows::{for_vectors, load, store},
        },
    },
    operators::linear::{forward_slices, input_gradient_slices, weight_gradient_slices},
    product::{Finish, Start},
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension,
        flex::FlexTensor,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Int, Tensor, activation::log_softmax},
};
use narthex_base::config::Precision;

/// Logits of a chunk: 48 MB.
const LOGITS_MAX: usize = 12 << 20;

/// Rows of a chunk are a multiple of this, and at least this.
const ROWS: usize = 64;

/// hidden `[N, D]`, weight `[V, D]`, targets `[N]` -> `[1]`: `scale` times the sum of the negative log-likelihoods of
/// the targets, in nats. Give the scale here rather than multiply the result: then gradients need no second pass.
///
/// # Panics
/// If a target is not below V.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    scale: f64,
    precision: Precision,
) -> Tensor<1> {
    if !is_ours(&hidden) {
        return reference(hidden, weight, targets, scale, precision);
    }
    let (hidden, weight) = (hidden.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::linear_cross_entropy(hidden, weight, targets.into_dispatch(), scale, precision))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    scale: f64,
    precision: Precision,
) -> Tensor<1> {
    let logits = crate::operators::linear::reference(hidden, &[weight], None, None, precision);
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).sum() * -scale
}

/// hidden `[N, D]`, weight `[V, D]`, targets `[N]` -> `[N]`: the negative log-likelihood of each target, in nats.
///
/// # Panics
/// If a target is not below V.
pub fn linear_nats(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>, precision: Precision) -> Tensor<1> {
    if !is_ours(&hidden) {
        return nats_reference(hidden, weight, targets, precision);
    }
    let (hidden, weight) = (hidden.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::linear_nats(hidden, weight, targets.into_dispatch(), precision))
}

/// The same composed of Burn's operations.
pub(crate) fn nats_reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    precision: Precision,
) -> Tensor<1> {
    let [n] = targets.dims();
    let logits = crate::operators::linear::reference(hidden, &[weight], None, None, precision);
    -log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).reshape([n])
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait CrossEntropyBackend: Backend {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        scale: f64,
        precision: Precision,
    ) -> FloatTensor<Self>;

    fn linear_nats(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

impl CrossEntropyBackend for Flex {
    fn linear_cross_entropy(
        hidden: FlexTensor,
        weight: FlexTensor,
        targets: FlexTensor,
        scale: f64,
        precision: Precision,
    ) -> FlexTensor {
        let (hidden, weight) = (contiguous(hidden), contiguous(weight));
        run(&hidden, &weight, &integers(targets), scale, precision, LOGITS_MAX, [false; 2]).0
    }

    fn linear_nats(hidden: FlexTensor, weight: FlexTensor, targets: FlexTensor, precision: Precision) -> FlexTensor {
        each(&contiguous(hidden), &contiguous(weight), &integers(targets), precision)
    }
}

impl<C: CheckpointStrategy> CrossEntropyBackend for Autodiff<Flex, C> {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        scale: f64,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node(), weight.node()];
        // A frozen output projection, as adapters leave it, costs no gradient.
        let needed = [hidden.is_tracked(), weight.is_tracked()];
        let (hidden, weight) = (contiguous(hidden.into_primitive()), contiguous(weight.into_primitive()));
        let targets = integers(targets);
        record::<C, _, 2>(
            nodes,
            move |_| {
                let (loss, gradients) = run(&hidden, &weight, &targets, scale, precision, LOGITS_MAX, needed);
                (loss, Some(gradients))
            },
            |gradients, gradient, _| {
                let factor = values(&contiguous(gradient))[0];
                gradients.map(|gradient| gradient.map(|gradient| scaled(gradient, factor)))
            },
        )
    }

    fn linear_nats(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node(), weight.node()];
        let (hidden, weight) = (contiguous(hidden.into_primitive()), contiguous(weight.into_primitive()));
        let targets = integers(targets);
        record::<C, _, 2>(
            nodes,
            move |tracked| {
                let losses = each(&hidden, &weight, &targets, precision);
                (losses, tracked.then_some((hidden, weight, targets, precision)))
            },
            |(hidden, weight, targets, precision), gradient, needed| {
                let gradient = contiguous(gradient);
                let slopes = Slopes::Each(values(&gradient));
                pass(&hidden, &weight, &targets, slopes, precision, LOGITS_MAX, needed).1
            },
        )
    }
}

/// Each row's loss.
fn each(hidden: &FlexTensor, weight: &FlexTensor, targets: &[i64], precision: Precision) -> FlexTensor {
    let (losses, _) = pass(hidden, weight, targets, Slopes::Same(1.0), precision, LOGITS_MAX, [false; 2]);
    tensor(losses.iter().map(|loss| *loss as f32).collect(), [losses.len()])
}

/// The slope of what is differentiated over each row's loss.
#[derive(Clone, Copy)]
enum Slopes<'a> {
    Same(f32),
    Each(&'a [f32]),
}

impl Slopes<'_> {
    fn of(self, row: usize) -> f32 {
        match self {
            Slopes::Same(slope) => slope,
            Slopes::Each(slopes) => slopes[row],
        }
    }
}

/// The gradients for a loss whose own gradient is `factor`.
fn scaled(mut gradient: FlexTensor, factor: f32) -> FlexTensor {
    if factor == 1.0 {
        return gradient;
    }
    if let Some(place) = crate::flex::values_mut(&mut gradient) {
        place.iter_mut().for_each(|value| *value *= factor);
        return gradient;
    }
    let [n, d] = dims(&gradient);
    tensor(values(&gradient).iter().map(|value| value * factor).collect(), [n, d])
}

/// The loss, and the gradients of hidden and weight that are needed. About `logits_max` logits are in memory at a time.
pub(crate) fn run(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    targets: &[i64],
    scale: f64,
    precision: Precision,
    logits_max: usize,
    needed: [bool; 2],
) -> (FlexTensor, [Option<FlexTensor>; 2]) {
    let slopes = Slopes::Same(scale as f32);
    let (losses, gradients) = pass(hidden, weight, targets, slopes, precision, logits_max, needed);
    (tensor(vec![(losses.iter().sum::<f64>() * scale) as f32], [1]), gradients)
}

/// The loss of each row, and the gradients that are needed of the rows' losses times their slopes.
fn pass(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    targets: &[i64],
    slopes: Slopes,
    precision: Precision,
    logits_max: usize,
    needed: [bool; 2],
) -> (Vec<f64>, [Option<FlexTensor>; 2]) {
    let ([n, d], [v, _]) = (dims(hidden), dims(weight));
    assert_eq!(targets.len(), n, "one target for each row");
    assert!(targets.iter().all(|target| (0..v as i64).contains(target)), "targets are below {v}");
    let products = 1 + needed.iter().filter(|needed| **needed).count();
    timed("output and cross-entropy", 2.0 * (products * n * d * v) as f64, || {
        let (hidden, weight) = (values(hidden), values(weight));
        let rows_max = (logits_max / v.max(1) / ROWS * ROWS).max(ROWS).min(n.max(1));
        let mut logits = uninitialised(rows_max * v);
        let mut dhidden = needed[0].then(|| uninitialised(n * d));
        let mut dweight = needed[1].then(|| if n == 0 { vec![0.0; v * d] } else { uninitialised(v * d) });
        let mut losses = vec![0f64; n];
        for first in (0..n).step_by(rows_max) {
            let rows = rows_max.min(n - first);
            let shape = [rows, d, v];
            let hidden = &hidden[first * d..(first + rows) * d];
            let logits = &mut logits[..rows * v];
            forward_slices(hidden, &[weight], shape, logits, Finish::default(), precision);
            let targets = &targets[first..first + rows];
            softmax_rows(logits, v, targets, |row| slopes.of(first + row), &mut losses[first..first + rows]);
            if let Some(dhidden) = &mut dhidden {
                let dhidden = &mut dhidden[first * d..(first + rows) * d];
                input_gradient_slices(logits, &[weight], shape, dhidden, precision);
            }
            if let Some(dweight) = &mut dweight {
                let start = if first == 0 { Start::Zero } else { Start::Continue };
                weight_gradient_slices(logits, hidden, shape, dweight, start, precision);
            }
        }
        (losses, [dhidden.map(|values| tensor(values, [n, d])), dweight.map(|values| tensor(values, [v, d]))])
    })
}

/// Turns logits into the gradient of the loss, a row's slope times (softmax - one at the target), and writes each row's
/// loss.
fn softmax_rows(
    logits: &mut [f32],
    v: usize,
    targets: &[i64],
    slope: impl Fn(usize) -> f32 + Sync,
    losses: &mut [f64],
) {
    /// Values that a task handles.
    const BLOCK: usize = 1 << 14;
    let rows_per_task = (BLOCK / v.max(1)).max(1);
    let logits = SharedMut::new(logits);
    let losses = SharedLosses(losses.as_mut_ptr());
    parallel::for_blocks(targets.len(), rows_per_task, |rows| {
        for row in rows {
            let target = targets[row] as usize;
            // SAFETY: the row belongs to this task; the target is below V.
            unsafe { losses.set(row, softmax_row(logits.at(row * v), v, target, slope(row))) };
        }
    });
}

struct SharedLosses(*mut f64);
// SAFETY: each task writes the losses of its own rows.
unsafe impl Sync for SharedLosses {}
// SAFETY: as above.
unsafe impl Send for SharedLosses {}

impl SharedLosses {
    /// # Safety
    /// The row is inside and belongs to the caller.
    unsafe fn set(&self, row: usize, loss: f64) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(row) = loss }
    }
}

#[inline(always)]
unsafe fn softmax_row_generic<V: Lanes>(logits: *mut f32, v: usize, target: usize, scale: f32) -> f64 {
    // SAFETY: the caller promises `v` logits and a target among them.
    unsafe {
        let at_target = *logits.add(target);
        let mut largest = V::splat(f32::NEG_INFINITY);
        let mut tail = f32::NEG_INFINITY;
        for_vectors!(v, |i, count| {
            if count == crate::machine::simd::LANES {
                largest = largest.max(V::load(logits.add(i)));
            } else {
                tail = (i..i + count).map(|i| *logits.add(i)).fold(tail, f32::max);
            }
        });
        let largest = largest.largest().max(tail);
        let shift = V::splat(largest);
        let mut sum = V::splat(0.0);
        let mut tail = 0.0;
        for_vectors!(v, |i, count| {
            let e = load::<V>(logits.add(i), count).sub(shift).exp();
            store(e, logits.add(i), count);
            if count == crate::machine::simd::LANES {
                sum = sum.add(e);
            } else {
                tail = load::<V>(logits.add(i), count).sum();
            }
        });
        let sum = sum.sum() + tail;
        let factor = V::splat(scale / sum);
        for_vectors!(v, |i, count| store(load::<V>(logits.add(i), count).mul(factor), logits.add(i), count));
        *logits.add(target) -= scale;
        f64::from(sum).ln() + f64::from(largest) - f64::from(at_target)
    }
}
for_each_isa! { unsafe fn softmax_row(logits: *mut f32, v: usize, target: usize, scale: f32) -> f64 = softmax_row_generic }
