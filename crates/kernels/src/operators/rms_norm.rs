//! Root-mean-square norm (Zhang and Sennrich, 2019): `y = x / sqrt(mean(x²) + eps) * weight`, row by row.
//!
//! Arithmetic: about 4 operations a value forward, 10 backward. Bytes: 2 values read or written for each
//! forward, 4 backward; it is bound by memory.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, tensor, values},
    machine::{
        parallel::{self, Shared, SharedMut, uninitialised},
        profile::timed,
        simd::{
            Lanes, for_each_isa,
            rows::{column_sums, for_vectors, load, store},
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

/// Rows that a task handles, and over which the weight's gradient is summed at a time.
const ROWS: usize = 64;

/// `x [N, D]`, weight `[D]` -> `[N, D]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    if !is_ours(&x) {
        return reference(x, weight, eps);
    }
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    let scale = (mean_square + eps).sqrt().recip();
    x * scale * weight.unsqueeze::<2>()
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait RmsNormBackend: Backend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
}

impl RmsNormBackend for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        forward(&contiguous(x), &contiguous(weight), eps).0
    }
}

impl<C: CheckpointStrategy> RmsNormBackend for Autodiff<Flex, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (contiguous(x.into_primitive()), contiguous(weight.into_primitive()));
        let run = move |_| {
            let (y, scales) = forward(&x, &weight, eps);
            (y, Some((x, weight, scales)))
        };
        record::<C, _, 2>(nodes, run, |(x, weight, scales), gradient, _| {
            let (dx, dweight) = backward(&x, &weight, &scales, &contiguous(gradient));
            [Some(dx), Some(dweight)]
        })
    }
}

/// (y, the factor of each row)
fn forward(x: &FlexTensor, weight: &FlexTensor, eps: f64) -> (FlexTensor, Vec<f32>) {
    let [n, d] = dims(x);
    let mut scales = uninitialised(n);
    let y = timed("RMSNorm forward", 4.0 * (n * d) as f64, || {
        filled([n, d], |y| {
            let (x, weight) = (Shared::new(values(x)), Shared::new(values(weight)));
            let (y, scales) = (SharedMut::new(y), SharedMut::new(&mut scales));
            parallel::for_blocks(n, ROWS, |rows| {
                let at = rows.start * d;
                // SAFETY: the rows of a block are inside, and no other task writes them.
                unsafe {
                    rows_forward(x.at(at), weight.at(0), y.at(at), scales.at(rows.start), rows.len(), d, eps as f32)
                }
            });
        })
    });
    (y, scales)
}

fn backward(x: &FlexTensor, weight: &FlexTensor, scales: &[f32], gradient: &FlexTensor) -> (FlexTensor, FlexTensor) {
    let [n, d] = dims(x);
    let blocks = n.div_ceil(ROWS);
    let mut partial = vec![0f32; blocks * d];
    let dx = timed("RMSNorm backward", 10.0 * (n * d) as f64, || {
        filled([n, d], |dx| {
            let (x, weight, scales, gradient) = (
                Shared::new(values(x)),
                Shared::new(values(weight)),
                Shared::new(scales),
                Shared::new(values(gradient)),
            );
            let (dx, partial) = (SharedMut::new(dx), SharedMut::new(&mut partial));
            parallel::for_blocks(n, ROWS, |rows| {
                let at = rows.start * d;
                let partial = partial.at(rows.start / ROWS * d);
                // SAFETY: as above; each block has its own row of partial sums.
                unsafe {
                    rows_backward(
                        x.at(at),
                        weight.at(0),
                        scales.at(rows.start),
                        gradient.at(at),
                        dx.at(at),
                        partial,
                        rows.len(),
                        d,
                    )
                }
            });
        })
    });
    (dx, tensor(column_sums(&partial, blocks, d), [d]))
}

#[inline(always)]
unsafe fn rows_forward_generic<V: Lanes>(
    x: *const f32,
    weight: *const f32,
    y: *mut f32,
    scales: *mut f32,
    rows: usize,
    d: usize,
    eps: f32,
) {
    // SAFETY: the caller promises `rows` rows of `d` values behind each pointer, and `d` weights.
    unsafe {
        for row in 0..rows {
            let (x, y) = (x.add(row * d), y.add(row * d));
            let mut squares = V::splat(0.0);
            for_vectors!(d, |i, count| {
                let x: V = load(x.add(i), count);
                squares = x.fma(x, squares);
            });
            let scale = 1.0 / (squares.sum() / d as f32 + eps).sqrt();
            *scales.add(row) = scale;
            let scale = V::splat(scale);
            for_vectors!(d, |i, count| {
                let (x, weight): (V, V) = (load(x.add(i), count), load(weight.add(i), count));
                store(x.mul(scale).mul(weight), y.add(i), count);
            });
        }
    }
}
for_each_isa! {
    unsafe fn rows_forward(x: *const f32, weight: *const f32, y: *mut f32, scales: *mut f32, rows: usize, d: usize, eps: f32) = rows_forward_generic
}

/// With h = x * scale: `dx = scale * (g w - h * mean(g w h))`, `dweight = sum of g h`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn rows_backward_generic<V: Lanes>(
    x: *const f32,
    weight: *const f32,
    scales: *const f32,
    gradient: *const f32,
    dx: *mut f32,
    dweight: *mut f32,
    rows: usize,
    d: usize,
) {
    // SAFETY: as above.
    unsafe {
        for row in 0..rows {
            let (x, gradient, dx) = (x.add(row * d), gradient.add(row * d), dx.add(row * d));
            let scale = *scales.add(row);
            let mut dot = V::splat(0.0);
            for_vectors!(d, |i, count| {
                let (x, g, w): (V, V, V) =
                    (load(x.add(i), count), load(gradient.add(i), count), load(weight.add(i), count));
                dot = g.mul(w).fma(x, dot);
            });
            let shrink = V::splat(-dot.sum() * scale * scale / d as f32);
            let scale = V::splat(scale);
            for_vectors!(d, |i, count| {
                let (x, g, w): (V, V, V) =
                    (load(x.add(i), count), load(gradient.add(i), count), load(weight.add(i), count));
                store(x.fma(shrink, g.mul(w)).mul(scale), dx.add(i), count);
                let sum: V = load(dweight.add(i), count);
                store(g.fma(x.mul(scale), sum), dweight.add(i), count);
            });
        }
    }
}
for_each_isa! {
    unsafe fn rows_backward(
        x: *const f32, weight: *const f32, scales: *const f32, gradient: *const f32, dx: *mut f32, dweight: *mut f32, rows: usize, d: usize,
    ) = rows_backward_generic
}
