//! Rows of a matrix by index, and the gradient, whose sums run over the indices in order.
//!
//! Arithmetic: none forward, one addition a value backward. Bytes: 2 values read or written for each.

use crate::{
    flex::{contiguous, dims, filled, integers, is_ours, record, values},
    machine::{
        parallel::{self, Shared, SharedMut},
        profile::timed,
    },
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension,
        flex::FlexTensor,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Int, Tensor},
};

/// Rows that a task copies.
const ROWS: usize = 64;

/// Columns of the gradient that a task sums.
const COLUMNS: usize = 64;

/// weight `[V, D]`, indices `[N]` -> `[N, D]`
///
/// # Panics
/// If an index is not below V.
pub fn embedding(weight: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    if !is_ours(&weight) {
        return reference(weight, indices);
    }
    Tensor::from_dispatch(Dispatch::embedding_rows(weight.into_dispatch(), indices.into_dispatch()))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(weight: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    weight.select(0, indices)
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait EmbeddingBackend: Backend {
    fn embedding_rows(weight: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self>;
}

impl EmbeddingBackend for Flex {
    fn embedding_rows(weight: FlexTensor, indices: FlexTensor) -> FlexTensor {
        forward(&contiguous(weight), &integers(indices))
    }
}

impl<C: CheckpointStrategy> EmbeddingBackend for Autodiff<Flex, C> {
    fn embedding_rows(weight: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        let nodes = [weight.node()];
        let (weight, indices) = (contiguous(weight.into_primitive()), integers(indices));
        let [rows, _] = dims(&weight);
        let run = move |_| (forward(&weight, &indices), Some((rows, indices)));
        record::<C, _, 1>(nodes, run, |(rows, indices), gradient, _| {
            [Some(backward(&indices, &contiguous(gradient), rows))]
        })
    }
}

fn forward(weight: &FlexTensor, indices: &[i64]) -> FlexTensor {
    let [rows, d] = dims(weight);
    assert!(indices.iter().all(|index| (0..rows as i64).contains(index)), "indices are below {rows}");
    timed("embedding forward", 0.0, || {
        filled([indices.len(), d], |y| {
            let weight = values(weight);
            let y = SharedMut::new(y);
            parallel::for_blocks(indices.len(), ROWS, |block| {
                for i in block {
                    let from = indices[i] as usize * d;
                    // SAFETY: row i of the output belongs to this task.
                    unsafe { y.slice(i * d..(i + 1) * d) }.copy_from_slice(&weight[from..from + d]);
                }
            });
        })
    })
}

fn backward(indices: &[i64], gradient: &FlexTensor, rows: usize) -> FlexTensor {
    let [_, d] = dims(gradient);
    timed("embedding backward", (indices.len() * d) as f64, || {
        filled([rows, d], |sums| {
            sums.fill(0.0);
            let (gradient, sums) = (Shared::new(values(gradient)), SharedMut::new(sums));
            parallel::for_blocks(d, COLUMNS, |columns| {
                for (i, index) in indices.iter().enumerate() {
                    let at = *index as usize * d;
                    // SAFETY: these columns of every row belong to this task; the gradient has a row for each index.
                    let (sums, row) = unsafe {
                        let row = std::slice::from_raw_parts(gradient.at(i * d + columns.start), columns.len());
                        (sums.slice(at + columns.start..at + columns.end), row)
                    };
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
        })
    })
}
