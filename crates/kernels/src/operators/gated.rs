//! SwiGLU (Shazeer, "GLU variants improve transformer", 2020): `silu(gate) * up`, with gate and up side by
//! side as one product leaves them.
//!
//! Arithmetic: about 25 operations an output (an exponential) forward, 35 backward. Bytes: 3 values an
//! output forward, 5 backward; it is bound by memory.

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values, values_mut},
    machine::{
        parallel::{self, Shared, SharedMut, uninitialised},
        profile::timed,
        simd::{
            Lanes,
            activation::{Activation, rows_in_place},
            for_each_isa,
            rows::{for_vectors, load, store},
        },
    },
    operators::activation::activation,
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData, activation::silu},
};

/// Rows that a task handles.
const ROWS: usize = 16;

/// `[N, 2 F]` (gate, then up) -> `[N, F]`
///
/// # Panics
/// If the width is odd.
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    assert!(gate_up.dims()[1].is_multiple_of(2), "gate and up have the same width");
    if !is_ours(&gate_up) {
        return reference(gate_up);
    }
    Tensor::from_dispatch(Dispatch::swiglu(gate_up.into_dispatch()))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(gate_up: Tensor<2>) -> Tensor<2> {
    let width = gate_up.dims()[1] / 2;
    let (gate, up) = (gate_up.clone().narrow(1, 0, width), gate_up.narrow(1, width, width));
    silu(gate) * up
}

/// `[N, 2 F]` -> `[N, F]`: the first half goes through the function and is multiplied with the second, in one pass
/// where nothing is differentiated.
///
/// # Panics
/// If the width is odd.
pub fn gated(pair: Tensor<2>, function: Activation) -> Tensor<2> {
    let [n, double] = pair.dims();
    assert!(double.is_multiple_of(2), "both halves have the same width");
    let width = double / 2;
    if !is_ours(&pair) || pair.device().is_autodiff() {
        return activation(pair.clone().narrow(1, 0, width), function) * pair.narrow(1, width, width);
    }
    let data = pair.into_data();
    let x = data.as_slice::<f32>().expect("checked to be f32");
    let mut y = uninitialised(n * width);
    let (shared, to) = (Shared::new(x), SharedMut::new(&mut y));
    parallel::for_blocks(n, ROWS, |rows| {
        for row in rows {
            // SAFETY: the row is inside, and no other task writes it.
            unsafe {
                let (x, y) = (shared.at(row * double), to.slice(row * width..(row + 1) * width));
                y.copy_from_slice(std::slice::from_raw_parts(x, width));
                rows_in_place(function, y.as_mut_ptr(), 1, width, width);
                let second = std::slice::from_raw_parts(x.add(width), width);
                y.iter_mut().zip(second).for_each(|(y, factor)| *y *= factor);
            }
        }
    });
    Tensor::from_data(TensorData::new(y, [n, width]), &Device::flex())
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait SwigluBackend: Backend {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SwigluBackend for Flex {
    fn swiglu(gate_up: FlexTensor) -> FlexTensor {
        forward(&contiguous(gate_up))
    }
}

impl<C: CheckpointStrategy> SwigluBackend for Autodiff<Flex, C> {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [gate_up.node()];
        let gate_up = contiguous(gate_up.into_primitive());
        let run = move |_| (forward(&gate_up), Some(gate_up));
        record::<C, _, 1>(nodes, run, |gate_up, gradient, _| [Some(backward(gate_up, &contiguous(gradient)))])
    }
}

fn forward(gate_up: &FlexTensor) -> FlexTensor {
    let [n, double] = dims(gate_up);
    let width = double / 2;
    timed("SwiGLU forward", 25.0 * (n * width) as f64, || {
        filled([n, width], |y| {
            let (x, y) = (Shared::new(values(gate_up)), SharedMut::new(y));
            parallel::for_blocks(n, ROWS, |rows| {
                // SAFETY: the rows of a block are inside, and no other task writes them.
                unsafe { rows_forward(x.at(rows.start * double), y.at(rows.start * width), rows.len(), width) }
            });
        })
    })
}

/// In place of the saved input if nobody else holds it.
fn backward(mut gate_up: FlexTensor, gradient: &FlexTensor) -> FlexTensor {
    let [n, double] = dims(&gate_up);
    let width = double / 2;
    let run = |x: Shared, dx: SharedMut| {
        let gradient = Shared::new(values(gradient));
        parallel::for_blocks(n, ROWS, |rows| {
            let at = rows.start * double;
            // SAFETY: the rows of a block are inside, and no other task writes them. `dx` may be `x`: every vector is
            // read before it is written.
            unsafe { rows_backward(x.at(at), gradient.at(rows.start * width), dx.at(at), rows.len(), width) }
        });
    };
    timed("SwiGLU backward", 35.0 * (n * width) as f64, || {
        if let Some(place) = values_mut(&mut gate_up) {
            let dx = SharedMut::new(place);
            run(Shared::of(dx), dx);
            return gate_up;
        }
        filled([n, double], |dx| run(Shared::new(values(&gate_up)), SharedMut::new(dx)))
    })
}

#[inline(always)]
unsafe fn rows_forward_generic<V: Lanes>(x: *const f32, y: *mut f32, rows: usize, width: usize) {
    // SAFETY: the caller promises `rows` rows of 2 `width` values in `x` and of `width` in `y`.
    unsafe {
        for row in 0..rows {
            let (gate, y) = (x.add(row * 2 * width), y.add(row * width));
            let up = gate.add(width);
            for_vectors!(width, |i, count| {
                let (gate, up): (V, V) = (load(gate.add(i), count), load(up.add(i), count));
                store(gate.mul(gate.sigmoid()).mul(up), y.add(i), count);
            });
        }
    }
}
for_each_isa! { unsafe fn rows_forward(x: *const f32, y: *mut f32, rows: usize, width: usize) = rows_forward_generic }

/// `silu'(g) = s + g s (1 - s)` with `s = sigmoid(g)`.
#[inline(always)]
unsafe fn rows_backward_generic<V: Lanes>(
    x: *const f32,
    gradient: *const f32,
    dx: *mut f32,
    rows: usize,
    width: usize,
) {
    // SAFETY: as above, `dx` like `x`.
    unsafe {
        for row in 0..rows {
            let (gate, dgate) = (x.add(row * 2 * width), dx.add(row * 2 * width));
            let (up, dup) = (gate.add(width), dgate.add(width));
            let gradient = gradient.add(row * width);
            for_vectors!(width, |i, count| {
                let (g, u, d): (V, V, V) =
                    (load(gate.add(i), count), load(up.add(i), count), load(gradient.add(i), count));
                let s = g.sigmoid();
                let silu = g.mul(s);
                let slope = silu.mul(V::splat(1.0).sub(s)).add(s);
                store(d.mul(u).mul(slope), dgate.add(i), count);
                store(d.mul(silu), dup.add(i), count);
            });
        }
    }
}
for_each_isa! {
    unsafe fn rows_backward(x: *const f32, gradient: *const f32, dx: *mut f32, rows: usize, width: usize) = rows_backward_generic
}
