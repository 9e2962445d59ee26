//! Bidirectional attention over sequences of different lengths that lie one behind the other, for encoders: nothing is
//! padded, and no sequence sees another. With a window, a position looks at those up to so far away only. The backward
//! pass stands beside it: it keeps only what went in, and computes the weights again.
//!
//! Shapes: S sequences, T positions of one, N rows of all, H heads, D head width.
//! Arithmetic: 4 T² D H a sequence, or 4 T W D H with a window of W positions; 10 backward. Bytes: q, k, v and the
//! output once each way; scores of 64 queries at a time stay in cache. All of it is f32, as the products around it
//! decide the time.

mod backward;

use crate::{
    flex::{contiguous, dims, filled, is_ours, record, values},
    machine::{
        parallel::{self, Shared, SharedMut, with_scratch},
        profile::timed,
        simd::{
            LANES, Lanes, for_each_isa,
            rows::{for_vectors, load, masked, store, transpose},
        },
    },
    operators::{attention::AttentionDropout, linear::Maybe, rotary::rotate},
    product::{Tile, tile_of},
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData, activation::softmax},
};
use std::{ops::Range, sync::Arc};

/// Queries in a block of scores.
const QUERIES: usize = 64;

/// Columns of a tile.
const COLUMNS: usize = 2 * LANES;

/// Rows of short sequences that a task handles together.
const ROWS_PER_TASK: usize = 96;

/// Positions from which each head of a sequence is a task of its own.
const LONG: usize = 192;

/// What attends to what.
#[derive(Clone, Debug)]
pub struct RaggedShape {
    /// Positions of each sequence.
    pub lengths: Arc<[usize]>,
    /// Heads of queries, keys and values alike.
    pub heads: usize,
    /// Head width, even.
    pub head_width: usize,
    /// How far away a position may be that is looked at; none for all of the sequence.
    pub window: Option<usize>,
    /// Dropout of the attention weights.
    pub dropout: Option<AttentionDropout>,
}

impl RaggedShape {
    /// N
    pub fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn scale(&self) -> f32 {
        (self.head_width as f64).sqrt().recip() as f32
    }

    /// What dropout makes of the weight of position `key` of its sequence for the query in row `row` of all.
    fn dropped(&self, dropout: &AttentionDropout, head: usize, row: usize, key: usize) -> f32 {
        // No sequence has 2^20 positions.
        dropout.factor(((row * self.heads + head) << 20) + key)
    }

    /// The keys that some query of a range looks at.
    fn keys(&self, queries: &Range<usize>, len: usize) -> Range<usize> {
        match self.window {
            None => 0..len,
            Some(window) => queries.start.saturating_sub(window)..len.min(queries.end.saturating_add(window)),
        }
    }
}

/// `qkv [N, 3 H D]` (all queries, then keys, then values), table `[T or more, D]` (for each position D/2 cosines, then
/// D/2 sines) if queries and keys are to be rotated -> `[N, H D]`.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn ragged_attention(qkv: Tensor<2>, table: Option<Tensor<2>>, shape: &RaggedShape) -> Tensor<2> {
    let RaggedShape { lengths, heads, head_width, .. } = shape;
    assert_eq!(qkv.dims(), [shape.rows(), 3 * heads * head_width], "q, k and v side by side");
    assert!(head_width.is_multiple_of(2), "heads of even width");
    let longest = lengths.iter().max().copied().unwrap_or(0);
    assert!(
        table.as_ref().is_none_or(|table| table.dims()[0] >= longest && table.dims()[1] == *head_width),
        "a row of the table for each position"
    );
    if !is_ours(&qkv) {
        return reference(qkv, table, shape);
    }
    let table = table.map_or(Maybe::Nothing, |table| Maybe::Just(table.into_dispatch()));
    Tensor::from_dispatch(Dispatch::ragged_attention(qkv.into_dispatch(), table, shape.clone()))
}

/// The same composed of Burn's operations.
pub(crate) fn reference(qkv: Tensor<2>, table: Option<Tensor<2>>, shape: &RaggedShape) -> Tensor<2> {
    let (h, d) = (shape.heads, shape.head_width);
    let (device, dtype) = (qkv.device(), qkv.dtype());
    let mut outputs = Vec::new();
    let mut first = 0;
    for t in shape.lengths.iter().copied().filter(|t| *t > 0) {
        let rows = qkv.clone().narrow(0, first, t);
        let part = |number: usize| rows.clone().narrow(1, number * h * d, h * d);
        let turned = |x: Tensor<2>| match &table {
            Some(table) => crate::operators::rotary::reference(x, table.clone().narrow(0, 0, t)),
            None => x,
        };
        let per_head = |x: Tensor<2>| x.reshape([t, h, d]).swap_dims(0, 1);
        let q = per_head(turned(part(0)) * shape.scale());
        let (k, v) = (per_head(turned(part(1))), per_head(part(2)));
        let hidden = |at: usize| {
            let (query, key) = (at / t, at % t);
            shape.window.is_some_and(|window| query.abs_diff(key) > window)
        };
        let mask = (0..t * t).map(|at| if hidden(at) { -1e30 } else { 0.0f32 }).collect();
        let mask = Tensor::<3>::from_data(TensorData::new(mask, [1, t, t]), &device).cast(dtype);
        let mut weights = softmax(q.matmul(k.swap_dims(1, 2)) + mask, 2);
        if let Some(dropout) = &shape.dropout {
            let factor = |at: usize| shape.dropped(dropout, at / (t * t), first + at / t % t, at % t);
            let kept: Vec<f32> = (0..h * t * t).map(factor).collect();
            weights = weights * Tensor::<3>::from_data(TensorData::new(kept, [h, t, t]), &device).cast(dtype);
        }
        outputs.push(weights.matmul(v).swap_dims(0, 1).reshape([t, h * d]));
        first += t;
    }
    if outputs.is_empty() { qkv.narrow(1, 0, h * d) } else { Tensor::cat(outputs, 0) }
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait RaggedAttentionBackend: Backend {
    fn ragged_attention(
        qkv: FloatTensor<Self>,
        #[extension_type] table: Maybe<Self>,
        shape: RaggedShape,
    ) -> FloatTensor<Self>;
}

impl RaggedAttentionBackend for Flex {
    fn ragged_attention(qkv: FlexTensor, table: Maybe<Self>, shape: RaggedShape) -> FlexTensor {
        forward(&contiguous(qkv), table.into_option().map(contiguous).as_ref(), &shape)
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Saved {
    qkv: FlexTensor,
    table: Option<FlexTensor>,
    shape: RaggedShape,
}

impl<C: CheckpointStrategy> RaggedAttentionBackend for Autodiff<Flex, C> {
    fn ragged_attention(qkv: FloatTensor<Self>, table: Maybe<Self>, shape: RaggedShape) -> FloatTensor<Self> {
        let nodes = [qkv.node()];
        let qkv = contiguous(qkv.into_primitive());
        let table = table.into_option().map(|table| contiguous(table.into_primitive()));
        let run = move |_| {
            let output = forward(&qkv, table.as_ref(), &shape);
            (output, Some(Saved { qkv, table, shape }))
        };
        record::<C, _, 1>(nodes, run, |Saved { qkv, table, shape }, gradient, _| {
            [Some(backward::backward(&qkv, table.as_ref(), &contiguous(gradient), &shape))]
        })
    }
}

/// Heads of sequences that lie one behind the other.
struct Task {
    sequences: Range<usize>,
    first_row: usize,
    heads: Range<usize>,
}

fn tasks(shape: &RaggedShape) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let (mut row, mut open) = (0, 0);
    for (sequence, len) in shape.lengths.iter().copied().enumerate() {
        if len >= LONG {
            let alone = |head| Task { sequences: sequence..sequence + 1, first_row: row, heads: head..head + 1 };
            tasks.extend((0..shape.heads).map(alone));
            open = 0;
        } else if let (true, Some(task)) = (open > 0 && open + len <= ROWS_PER_TASK, tasks.last_mut()) {
            task.sequences.end += 1;
            open += len;
        } else {
            tasks.push(Task { sequences: sequence..sequence + 1, first_row: row, heads: 0..shape.heads });
            open = len.max(1);
        }
        row += len;
    }
    tasks
}

/// Runs `one` with the number of its first row, its length, the head and scratch, for each head of each sequence.
fn each_head(
    shape: &RaggedShape,
    scratch: impl Fn(usize) -> usize + Sync,
    one: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) {
    let tasks = tasks(shape);
    parallel::for_each(tasks.len(), |i| {
        let Task { sequences, first_row, heads } = &tasks[i];
        let mut first_row = *first_row;
        for sequence in sequences.clone() {
            let len = shape.lengths[sequence];
            with_scratch(scratch(len), |scratch| heads.clone().for_each(|head| one(first_row, len, head, scratch)));
            first_row += len;
        }
    });
}

#[derive(Clone, Copy)]
struct Job<'a> {
    shape: &'a RaggedShape,
    qkv: Shared,
    /// Null for none.
    table: *const f32,
    output: SharedMut,
}

// SAFETY: the table is only read while the caller holds its borrow; the others are `Sync` themselves.
unsafe impl Sync for Job<'_> {}

/// Operations of one product of queries and keys.
fn product_flop(shape: &RaggedShape) -> f64 {
    let seen = |t: &usize| t * shape.window.map_or(*t, |w| (2 * w + 1).min(*t));
    (2 * shape.lengths.iter().map(seen).sum::<usize>() * shape.heads * shape.head_width) as f64
}

/// The table's values; null for none.
fn table_values(table: Option<&FlexTensor>) -> *const f32 {
    table.map_or(std::ptr::null(), |table| values(table).as_ptr())
}

fn forward(qkv: &FlexTensor, table: Option<&FlexTensor>, shape: &RaggedShape) -> FlexTensor {
    let ([n, _], width) = (dims(qkv), shape.heads * shape.head_width);
    timed("ragged attention", 2.0 * product_flop(shape), || {
        filled([n, width], |output| {
            let (qkv, table) = (Shared::new(values(qkv)), table_values(table));
            let job = &Job { shape, qkv, table, output: SharedMut::new(output) };
            each_head(
                shape,
                |len| scratch(len, shape.head_width),
                |first_row, len, head, scratch| {
                    // SAFETY: rows and head are inside, no other task writes them, and the scratch is what the kernel
                    // asks for.
                    unsafe { attend(job, first_row, len, head, scratch.as_mut_ptr()) }
                },
            );
        })
    })
}

/// Values of scratch for a sequence: keys turned, values if they are copied, queries plain and turned, scores plain and
/// turned, sums.
fn scratch(len: usize, d: usize) -> usize {
    let (len, d) = (len.next_multiple_of(COLUMNS), d.next_multiple_of(COLUMNS));
    3 * len * d + 2 * QUERIES * d + 2 * QUERIES * len + QUERIES * d
}

/// Where a head's values of the first position lie, and how far apart those of two positions are.
#[derive(Clone, Copy)]
struct Rows {
    first: *const f32,
    stride: usize,
}

/// Copies a head of `d` values of some positions to `[padded, width]`, turned by the table's rows unless it is null,
/// times `scale`; the rest is 0.
///
/// # Safety
/// The positions are inside, and `to` has room.
#[inline(always)]
unsafe fn gather<V: Lanes>(
    from: Rows,
    table: *const f32,
    positions: Range<usize>,
    [padded, d]: [usize; 2],
    scale: f32,
    to: *mut f32,
) {
    let width = d.next_multiple_of(COLUMNS);
    // SAFETY: the caller's promise.
    unsafe {
        let factor = V::splat(scale);
        for (i, position) in positions.clone().enumerate() {
            let (from, to) = (from.first.add(position * from.stride), to.add(i * width));
            let mut plain = from;
            if !table.is_null() {
                rotate::<V>(from, table.add(position * d), to, d, false);
                plain = to.cast_const();
            }
            for_vectors!(d, |j, count| store(load::<V>(plain.add(j), count).mul(factor), to.add(j), count));
            to.add(d).write_bytes(0, width - d);
        }
        to.add(positions.len() * width).write_bytes(0, (padded - positions.len()) * width);
    }
}

/// `C = A B`, or `C += A B` to go on, of small arrays that lie packed in cache, with A stored by depth: value (row,
/// word) at `word * a_word + row`.
///
/// # Safety
/// All of A, B and C is there; columns are a multiple of 32.
#[inline(always)]
unsafe fn multiply<V: Lanes>(
    rows: usize,
    columns: usize,
    words: usize,
    [a, b]: [(*const f32, usize); 2],
    c: (*mut f32, usize),
    go_on: bool,
) {
    // Tiles of like height.
    let tiles = rows.div_ceil(V::TILE_ROWS);
    let height = rows.div_ceil(tiles.max(1)).max(1);
    for column in (0..columns).step_by(COLUMNS) {
        for row in (0..rows).step_by(height) {
            let tile = Tile {
                a: a.0.wrapping_add(row),
                a_word: a.1,
                b: b.0.wrapping_add(column),
                b_word: b.1,
                c: c.0.wrapping_add(row * c.1 + column),
                stride: c.1,
                ..Tile::plain(words, COLUMNS, go_on)
            };
            // SAFETY: the caller's promise.
            unsafe { tile_of::<V, false>(height.min(rows - row), tile) }
        }
    }
}

/// One head of one sequence.
///
/// # Safety
/// The rows are inside, nobody else writes that head of them, and `scratch` has as many values as [`scratch()`] says.
#[inline(always)]
unsafe fn attend_generic<V: Lanes>(job: &Job, first_row: usize, len: usize, head: usize, scratch: *mut f32) {
    let (h, d) = (job.shape.heads, job.shape.head_width);
    let (row, width) = (3 * h * d, d.next_multiple_of(COLUMNS));
    let padded = len.next_multiple_of(COLUMNS);
    let place = |number: usize| Rows { first: job.qkv.at(first_row * row + (number * h + head) * d), stride: row };
    let unturned = std::ptr::null();
    // SAFETY: the scratch has the parts taken here; the places are inside qkv.
    unsafe {
        let plain = scratch;
        let keys = plain.add(padded * width);
        let copied = keys.add(padded * width);
        let plain_queries = copied.add(padded * width);
        let queries = plain_queries.add(QUERIES * width);
        let scores = queries.add(QUERIES * width);
        let weights = scores.add(QUERIES * padded);
        let sums = weights.add(QUERIES * padded);
        gather::<V>(place(1), job.table, 0..len, [padded, d], 1.0, plain);
        transpose::<V>(plain, padded, width, keys);
        // Values of whole tiles are read where they are.
        let (values, value_row) = if d == width {
            (place(2).first, row)
        } else {
            gather::<V>(place(2), unturned, 0..len, [padded, d], 1.0, copied);
            (copied.cast_const(), width)
        };
        for first in (0..len).step_by(QUERIES) {
            let block = first..len.min(first + QUERIES);
            let rows = block.len();
            let tall = rows.next_multiple_of(LANES);
            gather::<V>(place(0), job.table, block.clone(), [tall, d], job.shape.scale(), plain_queries);
            transpose::<V>(plain_queries, tall, width, queries);
            let seen = job.shape.keys(&block, len);
            // From a whole tile on, so that the last one ends inside the padding.
            let first_key = seen.start / COLUMNS * COLUMNS;
            let across = (seen.end - first_key).next_multiple_of(COLUMNS);
            let columns = keys.add(first_key).cast_const();
            multiply::<V>(rows, across, width, [(queries, tall), (columns, padded)], (scores, across), false);
            for i in 0..tall {
                let row = scores.add(i * across);
                if i >= rows {
                    row.write_bytes(0, across);
                    continue;
                }
                let query = block.start + i;
                let own = job.shape.keys(&(query..query + 1), len);
                weigh::<V>(row, across, own.start - first_key..own.end - first_key);
                if let Some(dropout) = &job.shape.dropout {
                    for key in own {
                        *row.add(key - first_key) *= job.shape.dropped(dropout, head, first_row + query, key);
                    }
                }
            }
            transpose::<V>(scores, tall, across, weights);
            // Words past the end of the sequence have no values, and no weight.
            let words = seen.end - first_key;
            let values = values.add(first_key * value_row);
            multiply::<V>(rows, width, words, [(weights, tall), (values, value_row)], (sums, width), false);
            for i in 0..rows {
                let to = job.output.at((first_row + block.start + i) * h * d + head * d);
                for_vectors!(d, |j, count| store(load::<V>(sums.add(i * width + j), count), to.add(j), count));
            }
        }
    }
}
for_each_isa! {
    unsafe fn attend(job: &Job, first_row: usize, len: usize, head: usize, scratch: *mut f32) = attend_generic
}

/// Turns the scores of a row that count into shares that sum to 1, and the others into 0.
///
/// # Safety
/// The row has `across` values, a multiple of 16.
#[inline(always)]
unsafe fn weigh<V: Lanes>(row: *mut f32, across: usize, counting: Range<usize>) {
    let lanes = |at: usize| (counting.start.saturating_sub(at).min(LANES), counting.end.saturating_sub(at).min(LANES));
    // SAFETY: the caller's promise.
    unsafe {
        let mut largest = V::splat(f32::NEG_INFINITY);
        for at in (0..across).step_by(LANES) {
            let (from, to) = lanes(at);
            if from < to {
                largest = largest.max(masked(V::load(row.add(at)), (from, to), f32::NEG_INFINITY));
            }
        }
        let shift = V::splat(largest.largest());
        let mut total = V::splat(0.0);
        for at in (0..across).step_by(LANES) {
            let (from, to) = lanes(at);
            let weight =
                if from < to { masked(V::load(row.add(at)).sub(shift).exp(), (from, to), 0.0) } else { V::splat(0.0) };
            total = total.add(weight);
            weight.store(row.add(at));
        }
        let factor = V::splat(1.0 / total.sum());
        for at in (0..across).step_by(LANES) {
            V::load(row.add(at)).mul(factor).store(row.add(at));
        }
    }
}
