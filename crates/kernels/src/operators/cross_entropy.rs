//! The output projection and its cross-entropy in one: never all logits at once, and both gradients
//! computed while a chunk of logits is at hand (after Hsu et al., "Liger kernel", 2024).
//!
//! Shapes: N rows, D width, V vocabulary.
//! Arithmetic: 2 N D V for the loss, 6 N D V with gradients. Bytes: logits of one chunk of rows, and in
//! training the weight's gradient once a chunk.

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

#[backend_extension(Flex, Autodiff)]
pub(crate) trait CrossEntropyBackend: Backend {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        scale: f64,
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
            softmax_rows(logits, v, targets, scale as f32, &mut losses[first..first + rows]);
            if let Some(dhidden) = &mut dhidden {
                let dhidden = &mut dhidden[first * d..(first + rows) * d];
                input_gradient_slices(logits, &[weight], shape, dhidden, precision);
            }
            if let Some(dweight) = &mut dweight {
                let start = if first == 0 { Start::Zero } else { Start::Continue };
                weight_gradient_slices(logits, hidden, shape, dweight, start, precision);
            }
        }
        let loss = losses.iter().sum::<f64>() * scale;
        let gradients = [dhidden.map(|values| tensor(values, [n, d])), dweight.map(|values| tensor(values, [v, d]))];
        (tensor(vec![loss as f32], [1]), gradients)
    })
}

/// Turns logits into the gradient of the scaled loss, `scale * (softmax - one at the target)`, and writes each row's
/// loss.
fn softmax_rows(logits: &mut [f32], v: usize, targets: &[i64], scale: f32, losses: &mut [f64]) {
    /// Values that a task handles.
    const BLOCK: usize = 1 << 14;
    let rows_per_task = (BLOCK / v.max(1)).max(1);
    let logits = SharedMut::new(logits);
    let losses = SharedLosses(losses.as_mut_ptr());
    parallel::for_blocks(targets.len(), rows_per_task, |rows| {
        for row in rows {
            let target = targets[row] as usize;
            // SAFETY: the row belongs to this task; the target is below V.
            unsafe { losses.set(row, softmax_row(logits.at(row * v), v, target, scale)) };
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
