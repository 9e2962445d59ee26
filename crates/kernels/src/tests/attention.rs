//! Causal attention.

use super::rotary::table;
use crate::{
    AttentionDropout, AttentionShape, Isa, Precision, Scores, causal_attention,
    testing::{
        Input, View, any_isa, assert_close, assert_near, assert_within, check_against_reference, check_gradients,
        check_same_bytes, constant, outcome, output, round_to_bf16, with_isa,
    },
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

pub(super) fn shape(batch: usize, len: usize, [heads, kv_heads]: [usize; 2], head_width: usize) -> AttentionShape {
    AttentionShape {
        batch,
        len,
        heads,
        kv_heads,
        head_width,
        starts: None,
        dropout: None,
        scores: Scores::default(),
        portable: false,
    }
}

/// Documents of random lengths.
pub(super) fn with_documents(mut shape: AttentionShape, stream: Stream) -> AttentionShape {
    let mut starts = Vec::new();
    for sequence in 0..shape.batch {
        let mut start = 0;
        for position in 0..shape.len {
            if stream.at(sequence as u64).below(position as u64, 1 + shape.len as u64 / 3) == 0 {
                start = position;
            }
            starts.push(start as u32);
        }
    }
    shape.starts = Some(starts.into());
    shape
}

fn with_dropout(mut shape: AttentionShape, probability: f32) -> AttentionShape {
    shape.dropout = Some(AttentionDropout { stream: Stream::new(9, "dropout"), probability });
    shape
}

fn with_scores(shape: AttentionShape, scores: Scores) -> AttentionShape {
    AttentionShape { scores, ..shape }
}

/// Queries and keys of size `scale`, so that scores are about its square; values of size 1.
pub(super) fn qkv(stream: Stream, shape: &AttentionShape, scale: f32) -> Input {
    let values = shape.kv_heads * shape.head_width;
    let width = shape.width();
    let mut input = Input::normal(stream, [shape.batch * shape.len, width], 1.0);
    for (i, x) in input.values.iter_mut().enumerate() {
        if i % width < width - values {
            *x *= scale;
        }
    }
    input
}

pub(super) fn run(tensors: &[Tensor<2>], shape: &AttentionShape, precision: Precision) -> Tensor<2> {
    let [t, d] = [shape.len, shape.head_width];
    causal_attention(tensors[0].clone(), constant(&tensors[0], &table(t, d), [t, d]), shape, precision)
}

#[test]
fn gradients_are_slopes() {
    let _isa = any_isa();
    let stream = Stream::new(80, "gradients");
    for (case, shape) in [
        shape(1, 1, [1, 1], 4),
        shape(1, 5, [1, 1], 4),
        shape(2, 4, [2, 1], 6),
        with_documents(shape(1, 7, [4, 2], 2), stream),
        with_dropout(shape(2, 4, [2, 2], 4), 0.3),
        with_scores(shape(1, 9, [2, 1], 4), Scores { window: Some(3), scale: Some(0.7), softcap: None }),
        with_dropout(with_documents(shape(1, 7, [2, 1], 4), stream.at(7)), 0.5),
    ]
    .into_iter()
    .enumerate()
    {
        let input = qkv(stream.at(case as u64), &shape, 1.2);
        check_gradients(&format!("{shape:?}"), &[input], &|tensors| run(tensors, &shape, Precision::F32));
    }
}

#[test]
fn gradients_are_slopes_across_blocks() {
    let _isa = any_isa();
    // Past the first block of 64, one head of width 2 so that differences of every value are affordable.
    let shape = with_documents(shape(1, 67, [1, 1], 2), Stream::new(3, "long"));
    let input = qkv(Stream::new(81, "gradients"), &shape, 1.0);
    check_gradients("67 positions", &[input], &|tensors| run(tensors, &shape, Precision::F32));
}

#[test]
fn matches_the_reference_on_all_widths_and_lengths() {
    let _isa = any_isa();
    for (i, head_width) in [16, 32, 40, 64, 128].into_iter().enumerate() {
        for (j, len) in [1, 2, 63, 64, 65, 130, 200].into_iter().enumerate() {
            let heads = [[1, 1], [2, 1], [2, 2], [4, 2], [3, 1]][(i + j) % 5];
            let stream = Stream::new(82, "shapes").at((10 * i + j) as u64);
            let mut shape = shape(1 + (i + j) % 2, len, heads, head_width);
            if j % 3 == i % 3 {
                shape = with_documents(shape, stream);
            }
            if j % 4 == 3 - i % 4 {
                shape = with_dropout(shape, 0.2);
            }
            // Scores of up to about 10.
            let input = qkv(stream, &shape, 1.4).view(View::ALL[(i + j) % 3]);
            let operator = |tensors: &[Tensor<2>]| run(tensors, &shape, Precision::F32);
            check_against_reference(&format!("{shape:?}"), &[input], &operator, 1e-5, 2e-5);
        }
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let _isa = any_isa();
    for case in 0..24 {
        let stream = Stream::new(83, "random").at(case);
        let kv_heads = 1 + stream.below(1, 3) as usize;
        let heads = kv_heads * (1 + stream.below(2, 3) as usize);
        let len = 1 + stream.below(3, [20, 150][case as usize % 2]) as usize;
        let mut shape =
            shape(1 + stream.below(4, 3) as usize, len, [heads, kv_heads], 2 + 2 * stream.below(5, 40) as usize);
        if stream.below(6, 2) == 0 {
            shape = with_documents(shape, stream);
        }
        if stream.below(7, 3) == 0 {
            shape = with_dropout(shape, 0.4);
        }
        let input = qkv(stream, &shape, 1.2).view(View::ALL[case as usize % 3]);
        let operator = |tensors: &[Tensor<2>]| run(tensors, &shape, Precision::F32);
        check_against_reference(&format!("case {case}: {shape:?}"), &[input], &operator, 1e-5, 2e-5);
    }
}

/// Attention as the paper defines it, one query at a time in f64, on a head rotated beforehand.
fn plain(input: &Input, shape: &AttentionShape) -> Vec<f64> {
    let AttentionShape { batch, len, heads, kv_heads, head_width: d, starts, .. } = shape;
    let (table, half, width) = (table(*len, *d), d / 2, shape.width());
    let raw = |sequence: usize, t: usize, head: usize, i: usize| {
        f64::from(input.values[(sequence * len + t) * width + head * d + i])
    };
    let rotated = |sequence: usize, t: usize, head: usize| -> Vec<f64> {
        let part = |i: usize| {
            let (cos, sin) = (f64::from(table[t * d + i % half]), f64::from(table[t * d + half + i % half]));
            let x = |i: usize| raw(sequence, t, head, i);
            if i < half { x(i) * cos - x(i + half) * sin } else { x(i) * cos + x(i - half) * sin }
        };
        (0..*d).map(part).collect()
    };
    let mut output = Vec::new();
    for sequence in 0..*batch {
        for t in 0..*len {
            for head in 0..*heads {
                let group = head / (heads / kv_heads);
                let query = rotated(sequence, t, head);
                let first = starts.as_ref().map_or(0, |starts| starts[sequence * len + t] as usize);
                let weight = |key: usize| {
                    let key = rotated(sequence, key, heads + group);
                    (query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (*d as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (first..=t).map(weight).collect();
                let total: f64 = weights.iter().sum();
                output.extend((0..*d).map(|i| {
                    let value = |key: usize| raw(sequence, key, heads + kv_heads + group, i);
                    weights.iter().enumerate().map(|(j, w)| w / total * value(first + j)).sum::<f64>()
                }));
            }
        }
    }
    output
}

#[test]
fn is_what_the_paper_says() {
    let _isa = any_isa();
    let stream = Stream::new(84, "plain");
    for shape in [shape(2, 9, [4, 2], 6), with_documents(shape(1, 70, [2, 1], 4), stream), shape(1, 3, [3, 3], 2)] {
        let input = qkv(stream, &shape, 1.0);
        let expected = plain(&input, &shape);
        // The scale, 1 / sqrt(D), is an f32 in both.
        for (dtype, error) in [(DType::F32, 3e-6), (DType::F64, 1e-6)] {
            let found = output(dtype, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::F32));
            assert_close(&format!("{shape:?} {dtype:?}"), &found, &expected, error, error);
        }
    }
}

/// Errors of bf16, whose unit of rounding is u = 2^-8. A score is a sum of products of two rounded numbers: off by up
/// to 2 u S, with S the sum of the products' magnitudes. So a weight is off by a factor of up to e^(2 u S), its sum
/// too, and both weight and value are rounded once more: with |v| <= V, the output is off by up to (2 (2 u S) + 2 u) V
/// and second-order terms, for which 5 % are allowed.
#[test]
fn bf16_outputs_are_as_exact_as_bf16_allows() {
    let _isa = any_isa();
    let unit = 2f64.powi(-8);
    for (case, shape) in [
        shape(1, 1, [1, 1], 16),
        shape(2, 65, [2, 1], 40),
        with_documents(shape(1, 200, [4, 2], 64), Stream::new(5, "documents")),
        shape(1, 130, [2, 2], 128),
    ]
    .into_iter()
    .enumerate()
    {
        let input = qkv(Stream::new(85, "bf16").at(case as u64), &shape, 1.0);
        let found = output(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::Bf16));
        let expected =
            output(DType::F64, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::F32));
        // The largest sum of magnitudes by Cauchy and Schwarz, which rotation does not change.
        let (d, width) = (shape.head_width, shape.width());
        let norms = |heads: std::ops::Range<usize>| {
            let norm = |head: &[f32]| head.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let rows = input.values.chunks(width);
            rows.flat_map(|row| row[heads.start * d..heads.end * d].chunks(d)).map(norm).fold(0.0, f64::max)
        };
        let (h, k) = (shape.heads, shape.kv_heads);
        let largest_sum = norms(0..h) * norms(h..h + k) / (d as f64).sqrt();
        let largest_value = input.values.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
        let bound = 1.05 * (2.0 * (2.0 * unit * largest_sum) + 2.0 * unit) * largest_value;
        assert_within(&format!("{shape:?}"), &found, &expected, |_| bound);
        // Errors are of both signs and mostly cancel.
        assert_near(&format!("{shape:?}"), &found, &expected, unit);
    }
}

/// A gradient comes through at most three products, with two rounded factors each. A rounding changes a number by up to
/// u = 2^-8 of it, and in the root mean square by 0.42 u; six that do not know of each other add up to sqrt(6) 0.42 u,
/// about u. In the norm, 1.5 u is allowed.
#[test]
fn bf16_gradients_are_as_exact_as_bf16_allows() {
    let _isa = any_isa();
    for (case, shape) in [
        shape(2, 65, [2, 1], 40),
        with_dropout(with_documents(shape(1, 200, [4, 2], 64), Stream::new(5, "documents")), 0.1),
        shape(1, 130, [2, 2], 128),
    ]
    .into_iter()
    .enumerate()
    {
        let input = qkv(Stream::new(86, "bf16").at(case as u64), &shape, 1.0).view(View::ALL[case % 3]);
        let found = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::Bf16));
        let expected =
            outcome(DType::F64, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::F32));
        assert_near(&format!("{shape:?}"), &found.output, &expected.output, 2f64.powi(-8));
        // Queries, keys and values apart: their gradients differ in size.
        let (d, width) = (shape.head_width, shape.width());
        let (h, k) = (shape.heads, shape.kv_heads);
        for (name, heads) in [("dq", 0..h), ("dk", h..h + k), ("dv", h + k..h + 2 * k)] {
            let part = |all: &[f64]| -> Vec<f64> {
                all.chunks(width).flat_map(|row| row[heads.start * d..heads.end * d].to_vec()).collect()
            };
            let (found, expected) = (part(&found.gradients[0]), part(&expected.gradients[0]));
            assert_near(&format!("{name} of {shape:?}"), &found, &expected, 1.5 * 2f64.powi(-8));
        }
    }
}

/// In bf16 with inputs that are bf16 numbers and a table of no rotation, the first position is exact: its weight is 1.
#[test]
fn bf16_rounds_nothing_that_is_bf16() {
    let _isa = any_isa();
    let shape = shape(3, 1, [2, 1], 16);
    let input = qkv(Stream::new(87, "exact"), &shape, 1.0).map(round_to_bf16);
    let found = output(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::Bf16));
    let value = |row: usize, i: usize| f64::from(input.values[row * shape.width() + 3 * 16 + i]);
    let expected: Vec<f64> = (0..3 * 32).map(|at| value(at / 32, at % 16)).collect();
    assert_eq!(found, expected);
}

#[test]
fn dropout_keeps_the_mean_and_drops_its_share() {
    let _isa = any_isa();
    let (len, probability) = (60, 0.25);
    let shape = with_dropout(shape(4, len, [8, 2], 16), probability);
    // Keys of 0: all weights of a row are equal. Values of 1: the output is what is left of the weights.
    let input = Input::new(
        [4 * len, shape.width()],
        (0..4 * len * shape.width()).map(|i| f32::from(u8::from(i % shape.width() >= 10 * 16))).collect(),
    );
    let found = output(DType::F32, &[input], &|tensors| run(tensors, &shape, Precision::F32));
    let (mut sum, mut kept, mut pairs) = (0.0, 0.0, 0.0);
    for (row, heads) in found.chunks(8 * 16).enumerate() {
        let count = (row % len + 1) as f64;
        for head in heads.chunks(16) {
            let share = head[0] * (1.0 - f64::from(probability)) * count;
            assert!((share - share.round()).abs() < 1e-3, "a whole number of {count} keys is kept, not {share}");
            (sum, kept, pairs) = (sum + head[0], kept + share, pairs + count);
        }
    }
    // Standard deviations: 0.4 % of the share over 58 560 pairs; 1 920 rows, mostly of tens of keys, for the mean.
    assert!((kept / pairs - 0.75).abs() < 0.01, "{} of the pairs", kept / pairs);
    assert!((sum / (4 * len * 8) as f64 - 1.0).abs() < 0.02, "a mean of {}", sum / (4 * len * 8) as f64);
}

#[test]
fn a_sequence_does_not_depend_on_the_others() {
    let _isa = any_isa();
    for precision in [Precision::F32, Precision::Bf16] {
        for len in [3, 64, 70, 129] {
            let stream = Stream::new(88, "batch").at(len as u64);
            let together = with_documents(shape(3, len, [4, 2], 24), stream);
            let input = qkv(stream, &together, 1.0);
            let all = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &together, precision));
            let (width, out) = (together.width(), 4 * 24);
            for sequence in 0..3 {
                let rows = sequence * len..(sequence + 1) * len;
                let mut alone = shape(1, len, [4, 2], 24);
                alone.starts = Some(together.starts.as_ref().unwrap()[rows.clone()].into());
                let part = Input::new([len, width], input.values[rows.start * width..rows.end * width].to_vec());
                let found = output(DType::F32, &[part], &|tensors| run(tensors, &alone, precision));
                assert!(
                    found[..] == all.output[rows.start * out..rows.end * out],
                    "{precision:?}: {sequence} of {len}"
                );
            }
        }
    }
}

#[test]
fn a_prefix_does_not_depend_on_what_follows() {
    let _isa = any_isa();
    for precision in [Precision::F32, Precision::Bf16] {
        let len = 200;
        let whole = with_documents(shape(1, len, [4, 2], 24), Stream::new(4, "prefix"));
        for whole in [whole, shape(1, len, [4, 2], 24)] {
            let input = qkv(Stream::new(89, "prefix"), &whole, 1.0);
            let all = output(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &whole, precision));
            for cut in [1, 2, 40, 63, 64, 65, 128, 129, 199] {
                let mut part = shape(1, cut, [4, 2], 24);
                part.starts = whole.starts.as_ref().map(|starts| starts[..cut].into());
                let prefix = Input::new([cut, whole.width()], input.values[..cut * whole.width()].to_vec());
                let found = output(DType::F32, &[prefix], &|tensors| run(tensors, &part, precision));
                assert!(found[..] == all[..cut * 4 * 24], "{precision:?}: the first {cut}");
            }
        }
    }
}

#[test]
fn a_document_does_not_depend_on_the_one_before() {
    let _isa = any_isa();
    let (len, border) = (150, 71);
    let mut shape = shape(1, len, [2, 1], 32);
    shape.starts = Some((0..len as u32).map(|t| if t < border { 0 } else { border }).collect());
    let input = qkv(Stream::new(90, "documents"), &shape, 1.0);
    let operator = |tensors: &[Tensor<2>]| run(tensors, &shape, Precision::F32);
    let before = outcome(DType::F32, std::slice::from_ref(&input), &operator);
    let mut other = input.clone();
    let at = border as usize * shape.width();
    other.values[..at].iter_mut().for_each(|x| *x = 2.0 - 3.0 * *x);
    let after = outcome(DType::F32, &[other], &operator);
    assert!(before.output[border as usize * 64..] == after.output[border as usize * 64..]);
    assert!(before.output[..border as usize * 64] != after.output[..border as usize * 64]);
    assert!(before.gradients[0][at..] == after.gradients[0][at..]);
}

#[test]
fn large_scores_stay_finite() {
    let _isa = any_isa();
    for precision in [Precision::F32, Precision::Bf16] {
        let shape = shape(1, 100, [2, 1], 16);
        // Scores of thousands: each query looks at one key alone.
        let input = qkv(Stream::new(91, "large"), &shape, 60.0);
        let found = outcome(DType::F32, &[input], &|tensors| run(tensors, &shape, precision));
        assert!(found.output.iter().all(|x| x.abs() < 6.0), "{precision:?}");
        assert!(found.gradients[0].iter().all(|x| x.is_finite()), "{precision:?}");
    }
}

#[test]
fn no_sequences() {
    let _isa = any_isa();
    let shape = shape(0, 5, [2, 1], 4);
    let found = outcome(DType::F32, &[Input::new([0, 16], vec![])], &|tensors| run(tensors, &shape, Precision::F32));
    assert!(found.output.is_empty() && found.gradients[0].is_empty());
}

#[test]
fn the_same_bytes_on_every_machine() {
    for (case, shape) in [
        shape(2, 70, [4, 2], 40),
        with_dropout(with_documents(shape(1, 130, [2, 1], 16), Stream::new(1, "documents")), 0.2),
    ]
    .into_iter()
    .enumerate()
    {
        for precision in [Precision::F32, Precision::Bf16] {
            let input = qkv(Stream::new(92, "machines").at(case as u64), &shape, 1.0);
            check_same_bytes(&format!("{precision:?} {shape:?}"), &[input], &|tensors| run(tensors, &shape, precision));
        }
    }
}

#[test]
fn windows_end_where_documents_could_begin_and_caps_bound_scores() {
    let _isa = any_isa();
    let stream = Stream::new(81, "scores");
    let all = shape(1, 70, [2, 1], 8);
    let inputs = [qkv(stream, &all, 3.0)];
    let rows = |shape: &AttentionShape| output(DType::F32, &inputs, &|tensors| run(tensors, shape, Precision::F32));
    let window = with_scores(all.clone(), Scores { window: Some(20), ..Scores::default() });
    let starts: Vec<u32> = (0..70u32).map(|i| (i + 1).saturating_sub(20)).collect();
    let documents = AttentionShape { starts: Some(starts.into()), ..all.clone() };
    assert_eq!(rows(&window), rows(&documents));
    let capped = |cap: f32| rows(&with_scores(all.clone(), Scores { softcap: Some(cap), ..Scores::default() }));
    let (free, high, low) = (rows(&all), capped(1e5), capped(1.0));
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart(&free, &high) < 1e-3 && apart(&free, &low) > 0.1);
}

/// On matrix tiles sums have another order; what asks for bytes that all sets have does not get it.
#[test]
fn portable_attention_has_the_same_bytes_everywhere() {
    let shape =
        AttentionShape { portable: true, ..with_documents(shape(2, 130, [4, 2], 40), Stream::new(6, "documents")) };
    let input = qkv(Stream::new(90, "portable"), &shape, 1.2);
    let bits = |isa: Isa| {
        let _guard = with_isa(isa);
        let found = outcome(DType::F32, std::slice::from_ref(&input), &|tensors| run(tensors, &shape, Precision::Bf16));
        found.bits()
    };
    let first = bits(Isa::Portable);
    for isa in Isa::available() {
        assert!(bits(isa) == first, "{}", isa.name());
    }
}
