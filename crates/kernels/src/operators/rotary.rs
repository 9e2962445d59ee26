//! Rotary position embedding (Su et al., 2021) in Hugging Face's half-split layout: value i of a head and
//! value i + D/2 turn together by an angle that depends on the position.
//!
//! Arithmetic: 3 operations a value. Bytes: a value read and one written; it is bound by memory, so causal
//! attention rotates on its own copies instead.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values},
    machine::{
        parallel::{self, Shared, SharedMut},
        profile::timed,
        simd::{
            Lanes, for_each_isa,
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

/// Rows that a task handles.
const ROWS: usize = 32;

/// `x [N, heads * D]`, table `[N, D]` (for each row D/2 cosines, then D/2 sines) -> the same shape as `x`, each head
/// rotated. The table gets no gradient.
///
/// # Panics
/// If the width is not whole heads, or D is odd.
pub fn rotary(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    let ([_, width], [_, d]) = (x.dims(), table.dims());
    assert!(d.is_multiple_of(2) && width.is_multiple_of(d), "whole heads of an even width");
    if !is_ours(&x) {
        return reference(x, table);
    }
    Tensor::from_dispatch(Dispatch::rotary(x.into_dispatch(), table.into_dispatch()))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    let ([n, width], [_, d]) = (x.dims(), table.dims());
    let half = d / 2;
    let x = x.reshape([n, width / d, d]);
    let (cos, sin) = (table.clone().narrow(1, 0, half).unsqueeze_dim(1), table.narrow(1, half, half).unsqueeze_dim(1));
    let (left, right) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let first = left.clone() * cos.clone() - right.clone() * sin.clone();
    let second: Tensor<3> = right * cos + left * sin;
    Tensor::cat(vec![first, second], 2).reshape([n, width])
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait RotaryBackend: Backend {
    fn rotary(x: FloatTensor<Self>, table: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl RotaryBackend for Flex {
    fn rotary(x: FlexTensor, table: FlexTensor) -> FlexTensor {
        turn(&contiguous(x), &contiguous(table), false)
    }
}

impl<C: CheckpointStrategy> RotaryBackend for Autodiff<Flex, C> {
    fn rotary(x: FloatTensor<Self>, table: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let (x, table) = (contiguous(x.into_primitive()), contiguous(table.into_primitive()));
        let run = move |_| (turn(&x, &table, false), Some(table));
        record::<C, _, 1>(nodes, run, |table, gradient, _| [Some(turn(&contiguous(gradient), &table, true))])
    }
}

/// Rotates forward, or back as the gradient asks.
fn turn(x: &FlexTensor, table: &FlexTensor, back: bool) -> FlexTensor {
    let ([n, width], [_, d]) = (dims(x), dims(table));
    timed("rotary", 3.0 * (n * width) as f64, || {
        filled([n, width], |y| {
            let (x, table, y) = (Shared::new(values(x)), Shared::new(values(table)), SharedMut::new(y));
            parallel::for_blocks(n, ROWS, |rows| {
                for row in rows {
                    for head in (0..width).step_by(d) {
                        let at = row * width + head;
                        // SAFETY: the head is inside the row, and no other task writes it.
                        unsafe { rotate_head(x.at(at), table.at(row * d), y.at(at), d, back) }
                    }
                }
            });
        })
    })
}

for_each_isa! {
    unsafe fn rotate_head(x: *const f32, table: *const f32, y: *mut f32, d: usize, back: bool) = rotate
}

/// One head of one row: `d` values, with the row's `d / 2` cosines and sines. `y` may be `x`.
///
/// # Safety
/// `d` values behind each pointer.
#[inline(always)]
pub(crate) unsafe fn rotate<V: Lanes>(x: *const f32, table: *const f32, y: *mut f32, d: usize, back: bool) {
    let half = d / 2;
    // SAFETY: the caller's promise.
    unsafe {
        for_vectors!(half, |i, count| {
            let (left, right): (V, V) = (load(x.add(i), count), load(x.add(half + i), count));
            let (cos, sin): (V, V) = (load(table.add(i), count), load(table.add(half + i), count));
            let sin = if back { V::splat(0.0).sub(sin) } else { sin };
            store(left.mul(cos).sub(right.mul(sin)), y.add(i), count);
            store(right.mul(cos).add(left.mul(sin)), y.add(half + i), count);
        });
    }
}
