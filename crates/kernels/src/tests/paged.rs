//! Paged attention against its composed form in f64, and against itself: in pieces, in other batches, in other blocks.

use crate::{
    Isa, KV_BLOCK, KvLayer, KvShape, PagedBatch, Precision, Scores, paged_attention,
    testing::{normal, on_every_machine, with_isa},
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use narthex_base::random::Stream;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    d: usize,
    scores: Scores,
    int8: bool,
}

const ALL: Scores = Scores { window: None, scale: None, softcap: None };

const fn last(window: usize) -> Scores {
    Scores { window: Some(window), ..ALL }
}

const SHAPES: [Shape; 9] = [
    Shape { heads: 4, kv_heads: 2, d: 48, scores: Scores { scale: Some(0.3), ..last(19) }, int8: false },
    Shape { heads: 6, kv_heads: 2, d: 64, scores: Scores { softcap: Some(1.5), ..ALL }, int8: false },
    Shape { heads: 1, kv_heads: 1, d: 2, scores: ALL, int8: false },
    Shape { heads: 6, kv_heads: 2, d: 64, scores: ALL, int8: false },
    Shape { heads: 4, kv_heads: 4, d: 40, scores: last(37), int8: false },
    Shape { heads: 16, kv_heads: 1, d: 32, scores: last(1), int8: false },
    Shape { heads: 3, kv_heads: 3, d: 128, scores: last(270), int8: false },
    Shape { heads: 6, kv_heads: 2, d: 64, scores: ALL, int8: true },
    Shape { heads: 4, kv_heads: 2, d: 40, scores: last(37), int8: true },
];

/// Looks at several segments of keys.
const LONG: Shape = Shape { heads: 4, kv_heads: 2, d: 32, scores: ALL, int8: false };

/// What one sequence brings: rows of qkv and of the rotary table.
struct Sequence {
    qkv: Vec<f32>,
    table: Vec<f32>,
    len: usize,
}

impl Sequence {
    fn new(shape: Shape, number: u64, len: usize) -> Self {
        let width = (shape.heads + 2 * shape.kv_heads) * shape.d;
        let angle = |i: usize| (i / shape.d) as f32 / (1 + i % (shape.d / 2)) as f32;
        let table = (0..len * shape.d).map(|i| if i % shape.d < shape.d / 2 { angle(i).cos() } else { angle(i).sin() });
        Self { qkv: normal(Stream::new(number, "paged"), len * width), table: table.collect(), len }
    }

    fn rows(values: &[f32], len: usize, rows: std::ops::Range<usize>) -> &[f32] {
        let width = values.len() / len;
        &values[rows.start * width..rows.end * width]
    }
}

/// Blocks of a sequence, scattered over the pool.
fn blocks(number: usize, count: usize, sequences: usize) -> Vec<u32> {
    (0..count).map(|i| (i * sequences + (number + i) % sequences) as u32).collect()
}

fn tensor(values: &[f32], width: usize, dtype: DType) -> Tensor<2> {
    let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
}

/// Runs steps over sequences, each step a list of (sequence, new positions); the outputs of each sequence, row by row.
fn run(
    shape: Shape,
    sequences: &[Sequence],
    steps: &[Vec<(usize, usize)>],
    precision: Precision,
    dtype: DType,
) -> Vec<Vec<f64>> {
    let longest = sequences.iter().map(|sequence| sequence.len).max().unwrap();
    let pool = KvShape {
        blocks: sequences.len() * longest.div_ceil(KV_BLOCK),
        kv_heads: shape.kv_heads,
        head_width: shape.d,
        precision,
        int8: shape.int8,
    };
    let layer = if dtype == DType::F32 { KvLayer::new(pool, &Device::flex()) } else { KvLayer::composed(pool) };
    let (mut seen, mut outputs) = (vec![0; sequences.len()], vec![vec![]; sequences.len()]);
    for step in steps {
        let mut batch = PagedBatch::default();
        let (mut qkv, mut table) = (vec![], vec![]);
        for (number, positions) in step {
            let sequence = &sequences[*number];
            let rows = seen[*number]..seen[*number] + positions;
            batch.push(rows.start, *positions, &blocks(*number, sequence.len.div_ceil(KV_BLOCK), sequences.len()));
            qkv.extend_from_slice(Sequence::rows(&sequence.qkv, sequence.len, rows.clone()));
            table.extend_from_slice(Sequence::rows(&sequence.table, sequence.len, rows));
            seen[*number] += positions;
        }
        let width = (shape.heads + 2 * shape.kv_heads) * shape.d;
        let (qkv, table) = (tensor(&qkv, width, dtype), tensor(&table, shape.d, dtype));
        let found = paged_attention(qkv, table, &layer, &Arc::new(batch), shape.scores);
        let found: Vec<f64> = found.into_data().iter::<f64>().collect();
        let mut found = found.chunks_exact(shape.heads * shape.d);
        for (number, positions) in step {
            outputs[*number].extend(found.by_ref().take(*positions).flatten().copied());
        }
    }
    assert!(sequences.iter().zip(&seen).all(|(sequence, seen)| sequence.len == *seen), "the steps take all");
    outputs
}

fn sequences(shape: Shape) -> Vec<Sequence> {
    [1, 16, 70, 290].iter().enumerate().map(|(i, len)| Sequence::new(shape, i as u64, *len)).collect()
}

/// Whole prompts together.
fn at_once() -> Vec<Vec<(usize, usize)>> {
    vec![vec![(0, 1), (1, 16), (2, 70), (3, 290)]]
}

#[test]
fn outputs_are_those_of_the_composed_form() {
    for isa in Isa::available() {
        let _guard = with_isa(isa);
        for shape in SHAPES {
            for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 3e-2)] {
                let sequences = sequences(shape);
                let expected = run(shape, &sequences, &at_once(), Precision::F32, DType::F64);
                let found = run(shape, &sequences, &at_once(), precision, DType::F32);
                // A value between two integers may fall to either side.
                let tolerance = if shape.int8 { 3e-2 } else { tolerance };
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let error = (found - expected).abs();
                    assert!(error < tolerance, "{shape:?} in {precision:?} on {}: {error}", isa.name());
                }
            }
        }
    }
}

#[test]
fn pieces_batches_threads_and_machines_change_no_byte() {
    // One token at a time; uneven pieces; each alone.
    let mut singly: Vec<Vec<(usize, usize)>> = vec![vec![(3, 260), (2, 50), (1, 3), (0, 1)]];
    singly.extend((0..13).map(|_| vec![(1, 1), (2, 1), (3, 1)]));
    singly.extend((0..7).map(|_| vec![(3, 1), (2, 1)]));
    singly.extend((0..10).map(|_| vec![(3, 1)]));
    let uneven = vec![
        vec![(3, 7), (0, 1)],
        vec![(1, 16), (3, 178), (2, 69)],
        vec![(3, 64), (2, 1)],
        vec![(3, 1)],
        vec![(3, 40)],
    ];
    let alone: Vec<_> = (0..4).map(|i| vec![(i, [1, 16, 70, 290][i])]).collect();
    for shape in SHAPES {
        let sequences = sequences(shape);
        for precision in [Precision::F32, Precision::Bf16] {
            let results = on_every_machine(|| {
                [&at_once(), &singly, &uneven, &alone].map(|steps| run(shape, &sequences, steps, precision, DType::F32))
            });
            for (machine, found) in &results {
                for (name, found) in ["at once", "singly", "unevenly", "alone"].iter().zip(found) {
                    assert!(found == &results[0].1[0], "{name}: {shape:?} in {precision:?}, {machine}");
                }
            }
        }
    }
}

#[test]
fn segments_are_those_of_the_composed_form_and_change_no_byte() {
    for shape in [LONG, Shape { scores: last(700), ..LONG }, Shape { int8: true, ..LONG }] {
        let sequences = [Sequence::new(shape, 9, 1100), Sequence::new(shape, 10, 513)];
        let whole = vec![vec![(0, 1100), (1, 513)]];
        // The last of each alone, and so by segments side by side.
        let then_one = vec![vec![(0, 1098), (1, 512)], vec![(0, 1), (1, 1)], vec![(0, 1)]];
        for precision in [Precision::F32, Precision::Bf16] {
            let results = on_every_machine(|| {
                [&whole, &then_one].map(|steps| run(shape, &sequences, steps, precision, DType::F32))
            });
            for (machine, found) in &results {
                assert!(found.iter().all(|found| found == &results[0].1[0]), "{shape:?} in {precision:?}, {machine}");
            }
        }
        let found = run(shape, &sequences, &then_one, Precision::F32, DType::F32);
        let expected =
            run(shape, &sequences, &[vec![(0, 1098), (1, 512)], vec![(0, 2), (1, 1)]], Precision::F32, DType::F64);
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            let error = (found - expected).abs();
            assert!(error < if shape.int8 { 3e-2 } else { 1e-5 }, "{shape:?}: {error}");
        }
    }
}

#[test]
#[should_panic(expected = "blocks are in the pool")]
fn blocks_outside_the_pool_are_refused() {
    let shape = KvShape { blocks: 2, kv_heads: 1, head_width: 2, precision: Precision::F32, int8: false };
    let layer = KvLayer::new(shape, &Device::flex());
    let mut batch = PagedBatch::default();
    batch.push(0, 1, &[2]);
    paged_attention(tensor(&[0.0; 6], 6, DType::F32), tensor(&[0.0; 2], 2, DType::F32), &layer, &Arc::new(batch), ALL);
}
