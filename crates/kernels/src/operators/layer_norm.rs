//! Layer norm (Ba et al., 2016): `y = (x - mean) / sqrt(variance + eps) * weight + bias`, row by row, with the variance
//! over N, not N - 1.
//!
//! Arithmetic: about 9 operations a value forward, 14 backward. Bytes: 2 values read or written for each
//! forward, 4 backward; it is bound by memory.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, tensor, values},
    machine::{
        parallel::{self, Shared, SharedMut, uninitialised},
        profile::timed,
        simd::{
            LANES, Lanes, for_each_isa,
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

/// Rows that a task handles, and over which the gradients of weight and bias are summed at a time.
const ROWS: usize = 64;

/// `x [N, D]`, weight `[D]`, bias `[D]` -> `[N, D]`
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    if !is_ours(&x) {
        return reference(x, weight, bias, eps);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::layer_norm(x, weight, bias, eps))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let scale = (variance + eps).sqrt().recip();
    centred * scale * weight.unsqueeze::<2>() + bias.unsqueeze::<2>()
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait LayerNormBackend: Backend {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
}

impl LayerNormBackend for Flex {
    fn layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, eps: f64) -> FlexTensor {
        forward(&contiguous(x), &contiguous(weight), &contiguous(bias), eps).0
    }
}

impl<C: CheckpointStrategy> LayerNormBackend for Autodiff<Flex, C> {
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight) = (contiguous(x.into_primitive()), contiguous(weight.into_primitive()));
        let bias = contiguous(bias.into_primitive());
        let run = move |_| {
            let (y, rows) = forward(&x, &weight, &bias, eps);
            (y, Some((x, weight, rows)))
        };
        record::<C, _, 3>(nodes, run, |(x, weight, rows), gradient, _| {
            backward(&x, &weight, &rows, &contiguous(gradient)).map(Some)
        })
    }
}

/// What is kept of a row: its mean as computed first, what that mean lacks, and the factor.
const KEPT: usize = 3;

/// (y, what is kept of each row)
fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, eps: f64) -> (FlexTensor, Vec<f32>) {
    let [n, d] = dims(x);
    assert_eq!([dims(weight), dims(bias)], [[d]; 2], "a weight and a bias for each column");
    let mut kept = uninitialised(n * KEPT);
    let y = timed("LayerNorm forward", 9.0 * (n * d) as f64, || {
        filled([n, d], |y| {
            let (x, y, kept) = (Shared::new(values(x)), SharedMut::new(y), SharedMut::new(&mut kept));
            let (weight, bias) = (Shared::new(values(weight)), Shared::new(values(bias)));
            parallel::for_blocks(n, ROWS, |rows| {
                let at = rows.start * d;
                let forward = Forward {
                    x: x.at(at),
                    weight: weight.at(0),
                    bias: bias.at(0),
                    y: y.at(at),
                    kept: kept.at(rows.start * KEPT),
                };
                // SAFETY: the rows of a block are inside, and no other task writes them.
                unsafe { rows_forward(forward, rows.len(), d, eps as f32) }
            });
        })
    });
    (y, kept)
}

/// The gradients of x, weight and bias.
fn backward(x: &FlexTensor, weight: &FlexTensor, kept: &[f32], gradient: &FlexTensor) -> [FlexTensor; 3] {
    let [n, d] = dims(x);
    let blocks = n.div_ceil(ROWS);
    let (mut dweights, mut dbiases) = (vec![0f32; blocks * d], vec![0f32; blocks * d]);
    let dx = timed("LayerNorm backward", 14.0 * (n * d) as f64, || {
        filled([n, d], |dx| {
            let (x, gradient, dx) = (Shared::new(values(x)), Shared::new(values(gradient)), SharedMut::new(dx));
            let (weight, kept) = (Shared::new(values(weight)), Shared::new(kept));
            let (dweights, dbiases) = (SharedMut::new(&mut dweights), SharedMut::new(&mut dbiases));
            parallel::for_blocks(n, ROWS, |rows| {
                let (at, block) = (rows.start * d, rows.start / ROWS * d);
                let backward = Backward {
                    x: x.at(at),
                    weight: weight.at(0),
                    kept: kept.at(rows.start * KEPT),
                    gradient: gradient.at(at),
                    dx: dx.at(at),
                    dweight: dweights.at(block),
                    dbias: dbiases.at(block),
                };
                // SAFETY: as above; each block has its own rows of partial sums.
                unsafe { rows_backward(backward, rows.len(), d) }
            });
        })
    });
    let sum = |partial: &[f32]| tensor(column_sums(partial, blocks, d), [d]);
    [dx, sum(&dweights), sum(&dbiases)]
}

#[derive(Clone, Copy)]
struct Forward {
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    y: *mut f32,
    kept: *mut f32,
}

#[derive(Clone, Copy)]
struct Backward {
    x: *const f32,
    weight: *const f32,
    kept: *const f32,
    gradient: *const f32,
    dx: *mut f32,
    dweight: *mut f32,
    dbias: *mut f32,
}

/// The first `count` lanes, and 0 in the others.
#[inline(always)]
unsafe fn first_lanes<V: Lanes>(x: V, count: usize) -> V {
    if count == LANES {
        return x;
    }
    let mut lanes = [0f32; LANES];
    // SAFETY: the array has room for all lanes; the caller has the instruction set.
    unsafe {
        x.store_partial(lanes.as_mut_ptr(), count);
        V::load(lanes.as_ptr())
    }
}

/// The mean in one pass, then the variance about it in another, as the sum of squares less the mean would lose all
/// digits where the mean is large. What rounding took from the mean shows in that pass, and is put back (Chan, Golub
/// and LeVeque, "Algorithms for computing the sample variance", 1983).
///
/// # Safety
/// `rows` rows of `d` values behind each pointer, `d` weights and biases, and `KEPT` places a row.
#[inline(always)]
unsafe fn rows_forward_generic<V: Lanes>(f: Forward, rows: usize, d: usize, eps: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (x, y) = (f.x.add(row * d), f.y.add(row * d));
            let mut sum = V::splat(0.0);
            for_vectors!(d, |i, count| sum = sum.add(load(x.add(i), count)));
            let mean = sum.sum() / d as f32;
            let shift = V::splat(mean);
            let (mut sum, mut squares) = (V::splat(0.0), V::splat(0.0));
            for_vectors!(d, |i, count| {
                let centred = first_lanes(load::<V>(x.add(i), count).sub(shift), count);
                sum = sum.add(centred);
                squares = centred.fma(centred, squares);
            });
            let rest = sum.sum() / d as f32;
            let variance = (squares.sum() / d as f32 - rest * rest).max(0.0);
            let scale = 1.0 / (variance + eps).sqrt();
            let kept = f.kept.add(row * KEPT);
            *kept = mean;
            *kept.add(1) = rest;
            *kept.add(2) = scale;
            let (rest, scale) = (V::splat(rest), V::splat(scale));
            for_vectors!(d, |i, count| {
                let (w, b): (V, V) = (load(f.weight.add(i), count), load(f.bias.add(i), count));
                let normal = load::<V>(x.add(i), count).sub(shift).sub(rest).mul(scale);
                store(normal.mul(w).add(b), y.add(i), count);
            });
        }
    }
}
for_each_isa! { unsafe fn rows_forward(f: Forward, rows: usize, d: usize, eps: f32) = rows_forward_generic }

/// With h the normalised row and g w the gradient times the weight: `dx = scale * (g w - mean(g w) - h mean(g w h))`,
/// `dweight = sum of g h`, `dbias = sum of g`.
///
/// # Safety
/// As above; the sums so far are in `dweight` and `dbias`.
#[inline(always)]
unsafe fn rows_backward_generic<V: Lanes>(b: Backward, rows: usize, d: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (x, gradient, dx) = (b.x.add(row * d), b.gradient.add(row * d), b.dx.add(row * d));
            let kept = b.kept.add(row * KEPT);
            let (mean, rest, scale) = (V::splat(*kept), V::splat(*kept.add(1)), V::splat(*kept.add(2)));
            let (mut sum, mut dot) = (V::splat(0.0), V::splat(0.0));
            for_vectors!(d, |i, count| {
                // Lanes past the end have a gradient of 0.
                let (g, w): (V, V) = (load(gradient.add(i), count), load(b.weight.add(i), count));
                let normal = load::<V>(x.add(i), count).sub(mean).sub(rest).mul(scale);
                sum = sum.add(g.mul(w));
                dot = g.mul(w).fma(normal, dot);
            });
            let (sum, dot) = (V::splat(sum.sum() / d as f32), V::splat(-dot.sum() / d as f32));
            for_vectors!(d, |i, count| {
                let (g, w): (V, V) = (load(gradient.add(i), count), load(b.weight.add(i), count));
                let normal = load::<V>(x.add(i), count).sub(mean).sub(rest).mul(scale);
                store(normal.fma(dot, g.mul(w).sub(sum)).mul(scale), dx.add(i), count);
                store(g.fma(normal, load(b.dweight.add(i), count)), b.dweight.add(i), count);
                store(g.add(load(b.dbias.add(i), count)), b.dbias.add(i), count);
            });
        }
    }
}
for_each_isa! { unsafe fn rows_backward(b: Backward, rows: usize, d: usize) = rows_backward_generic }
