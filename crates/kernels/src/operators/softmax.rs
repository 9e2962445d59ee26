//! Softmax over the rows of a matrix.
//!
//! Arithmetic: about 20 operations a value (an exponential) forward, 4 backward. Bytes: 2 values read or written
//! for each forward, 3 backward; it is bound by memory.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values},
    machine::{
        parallel::{self, Shared, SharedMut},
        profile::timed,
        simd::{
            LANES, Lanes, for_each_isa,
            rows::{for_vectors, load, store},
        },
    },
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};

/// Values that a task handles, in whole rows.
const BLOCK: usize = 1 << 14;

/// `x [N, D]` -> `[N, D]`: each row's exponentials, divided by their sum. What is more than 87 below the largest of its
/// row counts as minus infinity and gets exactly 0.
pub fn softmax(x: Tensor<2>) -> Tensor<2> {
    if !is_ours(&x) {
        return reference(x);
    }
    Tensor::from_dispatch(Dispatch::softmax_rows(x.into_dispatch()))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(x: Tensor<2>) -> Tensor<2> {
    burn::tensor::activation::softmax(x, 1)
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait SoftmaxBackend: Backend {
    fn softmax_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SoftmaxBackend for Flex {
    fn softmax_rows(x: FlexTensor) -> FlexTensor {
        forward(&contiguous(x))
    }
}

impl<C: CheckpointStrategy> SoftmaxBackend for Autodiff<Flex, C> {
    fn softmax_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = contiguous(x.into_primitive());
        let run = move |_| {
            let y = forward(&x);
            (y.clone(), Some(y))
        };
        record::<C, _, 1>(nodes, run, |y, gradient, _| [Some(backward(&y, &contiguous(gradient)))])
    }
}

fn forward(x: &FlexTensor) -> FlexTensor {
    let [n, d] = dims(x);
    timed("softmax forward", 20.0 * (n * d) as f64, || {
        filled([n, d], |y| {
            let (x, y) = (Shared::new(values(x)), SharedMut::new(y));
            parallel::for_blocks(n, (BLOCK / d.max(1)).max(1), |rows| {
                let at = rows.start * d;
                // SAFETY: the rows of a block are inside, and no other task writes them.
                unsafe { rows_forward(x.at(at), y.at(at), rows.len(), d) }
            });
        })
    })
}

fn backward(y: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
    let [n, d] = dims(y);
    timed("softmax backward", 4.0 * (n * d) as f64, || {
        filled([n, d], |dx| {
            let (y, gradient, dx) = (Shared::new(values(y)), Shared::new(values(gradient)), SharedMut::new(dx));
            parallel::for_blocks(n, (BLOCK / d.max(1)).max(1), |rows| {
                let at = rows.start * d;
                // SAFETY: as above.
                unsafe { rows_backward(y.at(at), gradient.at(at), dx.at(at), rows.len(), d) }
            });
        })
    })
}

/// The lowest argument that the exponential does not clamp.
const LOWEST: f32 = -87.3;

/// # Safety
/// `rows` rows of `d` values behind each pointer.
#[inline(always)]
unsafe fn rows_forward_generic<V: Lanes>(x: *const f32, y: *mut f32, rows: usize, d: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (x, y) = (x.add(row * d), y.add(row * d));
            let mut largest = V::splat(f32::NEG_INFINITY);
            for_vectors!(d, |i, count| {
                let mut lanes = [f32::NEG_INFINITY; LANES];
                let vector = if count == LANES {
                    V::load(x.add(i))
                } else {
                    lanes.as_mut_ptr().copy_from_nonoverlapping(x.add(i), count);
                    V::load(lanes.as_ptr())
                };
                largest = largest.max(vector);
            });
            let shift = V::splat(largest.largest());
            let mut sum = V::splat(0.0);
            for_vectors!(d, |i, count| {
                let x = load::<V>(x.add(i), count).sub(shift);
                // 1 above the lowest argument and 0 below it: the exponential alone never gets to 0.
                let above = x.sub(V::splat(LOWEST)).mul(V::splat(f32::MAX));
                let exp = x.exp().mul(above.max(V::splat(0.0)).min(V::splat(1.0)));
                store(exp, y.add(i), count);
                sum = sum.add(load(y.add(i), count));
            });
            let factor = V::splat(1.0 / sum.sum());
            for_vectors!(d, |i, count| store(load::<V>(y.add(i), count).mul(factor), y.add(i), count));
        }
    }
}
for_each_isa! { unsafe fn rows_forward(x: *const f32, y: *mut f32, rows: usize, d: usize) = rows_forward_generic }

/// `dx = y * (g - sum(g y))`
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn rows_backward_generic<V: Lanes>(y: *const f32, gradient: *const f32, dx: *mut f32, rows: usize, d: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (y, gradient, dx) = (y.add(row * d), gradient.add(row * d), dx.add(row * d));
            let mut dot = V::splat(0.0);
            for_vectors!(d, |i, count| dot = load::<V>(gradient.add(i), count).fma(load(y.add(i), count), dot));
            let dot = V::splat(dot.sum());
            for_vectors!(d, |i, count| {
                let (y, g): (V, V) = (load(y.add(i), count), load(gradient.add(i), count));
                store(g.sub(dot).mul(y), dx.add(i), count);
            });
        }
    }
}
for_each_isa! {
    unsafe fn rows_backward(y: *const f32, gradient: *const f32, dx: *mut f32, rows: usize, d: usize) = rows_backward_generic
}
