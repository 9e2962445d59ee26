//! Attention over sequences of different lengths against its reference in f64, and against itself alone and on other
//! machines; the fused linear layer and the gate against their parts.

use crate::{
    Activation, AttentionDropout, Isa, PackedFinish, PackedWeight, Precision, RaggedShape, WeightValues, activation,
    gated,
    operators::ragged,
    packed_affine, packed_linear, ragged_attention,
    testing::{
        Input, View, any_isa, check_against_reference, check_gradients, check_same_bytes, constant, normal,
        on_every_machine, with_isa,
    },
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use narthex_base::random::Stream;

fn matrix(values: &[f32], shape: [usize; 2], dtype: DType) -> Tensor<2> {
    let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap()
}

fn shape(lengths: &[usize], heads: usize, head_width: usize, window: Option<usize>) -> RaggedShape {
    RaggedShape { lengths: lengths.into(), heads, head_width, window, dropout: None }
}

/// Lengths, heads, head width, window, rotated.
type Case = (&'static [usize], usize, usize, Option<usize>, bool);

const CASES: [Case; 10] = [
    (&[1], 1, 2, None, false),
    (&[], 2, 4, None, false),
    (&[3, 0, 1, 17], 2, 32, None, false),
    (&[33, 64, 65], 3, 8, None, true),
    (&[5, 40], 1, 64, None, true),
    (&[130], 2, 48, Some(3), true),
    (&[200, 7, 31], 2, 32, Some(0), false),
    (&[195, 2], 1, 32, Some(64), true),
    (&[70], 2, 16, Some(1000), false),
    (&[16, 16, 16, 16, 16, 16, 16, 16], 1, 32, None, false),
];

fn inputs((lengths, heads, d, _, rotated): Case) -> (Vec<f32>, Option<Vec<f32>>) {
    let rows: usize = lengths.iter().sum();
    let qkv = normal(Stream::new(rows as u64, "ragged"), rows * 3 * heads * d);
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let angle = |i: usize| (i / d) as f32 * 0.7f32.powi((i % d % (d / 2)) as i32);
    let turn = |i: usize| if i % d < d / 2 { angle(i).cos() } else { angle(i).sin() };
    (qkv, rotated.then(|| (0..longest * d).map(turn).collect()))
}

fn run(case: Case, dtype: DType) -> Vec<f32> {
    let (lengths, heads, d, window, _) = case;
    let (qkv, table) = inputs(case);
    let rows: usize = lengths.iter().sum();
    let table = table.map(|table| matrix(&table, [table.len() / d, d], dtype));
    values(ragged_attention(matrix(&qkv, [rows, 3 * heads * d], dtype), table, &shape(lengths, heads, d, window)))
}

#[test]
fn agrees_with_the_reference() {
    for isa in Isa::available() {
        let _guard = with_isa(isa);
        for case in CASES {
            let (found, expected) = (run(case, DType::F32), run(case, DType::F64));
            assert_eq!(found.len(), expected.len(), "{case:?}");
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // NaN fails too.
            assert!(found.iter().all(|x| x.is_finite()) && error < 3e-6, "{case:?} on {}: {error}", isa.name());
        }
    }
}

/// The operator of a case on tensors, with its input.
fn operator(case: Case, dropout: Option<f32>) -> (Input, impl Fn(&[Tensor<2>]) -> Tensor<2> + Sync) {
    let (lengths, heads, d, window, _) = case;
    let (qkv, table) = inputs(case);
    let rows: usize = lengths.iter().sum();
    let dropout = dropout.map(|probability| AttentionDropout { stream: Stream::new(7, "dropout"), probability });
    let shape = RaggedShape { dropout, ..shape(lengths, heads, d, window) };
    let run = move |tensors: &[Tensor<2>]| {
        let table = table.as_ref().map(|table| constant(&tensors[0], table, [table.len() / d, d]));
        ragged_attention(tensors[0].clone(), table, &shape)
    };
    (Input::new([rows, 3 * heads * d], qkv), run)
}

#[test]
fn gradients_are_slopes() {
    let _guard = any_isa();
    let cases: [(Case, Option<f32>); 5] = [
        ((&[1, 5], 2, 4, None, false), None),
        ((&[3, 0, 4], 1, 6, None, true), None),
        ((&[9], 2, 2, Some(2), true), None),
        ((&[4, 3], 2, 4, None, true), Some(0.4)),
        // Past the first block of queries.
        ((&[67], 1, 2, Some(20), false), Some(0.2)),
    ];
    for (case, dropout) in cases {
        let (input, run) = operator(case, dropout);
        check_gradients(&format!("{case:?}, dropout {dropout:?}"), &[input], &run);
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    for isa in Isa::available() {
        let _guard = with_isa(isa);
        for (i, case) in CASES.into_iter().enumerate().filter(|(_, (lengths, ..))| !lengths.is_empty()) {
            let (input, run) = operator(case, (i % 3 == 2).then_some(0.3));
            let what = format!("{case:?} on {}", isa.name());
            check_against_reference(&what, &[input.view(View::ALL[i % 3])], &run, 1e-5, 2e-5);
        }
    }
}

#[test]
fn gradients_have_the_same_bytes_on_all_machines() {
    for (case, dropout) in [(CASES[3], None), (CASES[5], Some(0.1)), (CASES[7], None)] {
        let (input, run) = operator(case, dropout);
        check_same_bytes(&format!("{case:?}"), &[input], &run);
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_other_sequences() {
    let (lengths, heads, d) = ([7usize, 210, 1, 40, 40, 40], 2, 16);
    let rows: usize = lengths.iter().sum();
    let width = 3 * heads * d;
    let qkv = matrix(&normal(Stream::new(9, "ragged"), rows * width), [rows, width], DType::F32);
    let bits = |x: Tensor<2>| values(x).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for window in [None, Some(9)] {
        let results = on_every_machine(|| {
            let together = bits(ragged_attention(qkv.clone(), None, &shape(&lengths, heads, d, window)));
            let mut first = 0;
            let alone = lengths.map(|len| {
                first += len;
                let part = qkv.clone().narrow(0, first - len, len);
                bits(ragged_attention(part, None, &shape(&[len], heads, d, window)))
            });
            (together, alone.concat())
        });
        let expected = results[0].1.0.clone();
        for (machine, (together, alone)) in results {
            assert!(together == expected && alone == expected, "{machine}, window {window:?}");
        }
    }
}

#[test]
fn what_follows_a_product_is_what_follows_it_apart() {
    let stream = |name: &str| Stream::new(3, name);
    for isa in Isa::available() {
        let _guard = with_isa(isa);
        for (n, inputs, outputs) in [(1, 5, 3), (0, 4, 4), (30, 64, 70), (300, 33, 40)] {
            let weight = normal(stream("w"), outputs * inputs);
            let x = matrix(&normal(stream("x"), n * inputs), [n, inputs], DType::F32);
            let residual = matrix(&normal(stream("r"), n * outputs), [n, outputs], DType::F32);
            let bias = matrix(&normal(stream("b"), outputs), [1, outputs], DType::F32);
            for precision in [Precision::F32, Precision::Bf16] {
                let weight = PackedWeight::new(&[WeightValues::F32(&weight)], inputs, precision);
                let finish = PackedFinish {
                    bias: Some(bias.clone().reshape([outputs])),
                    residual: Some(residual.clone()),
                    activation: Some(Activation::Gelu),
                };
                let apart = packed_linear(x.clone(), &weight, None) + bias.clone() + residual.clone();
                let expected = values(activation(apart, Activation::Gelu));
                let found = values(packed_affine(x.clone(), &weight, finish));
                assert_eq!(found, expected, "[{n}, {inputs}] to {outputs} in {precision:?} on {}", isa.name());
            }
        }
    }
}

#[test]
fn the_gate_is_the_function_times_the_other_half() {
    let _guard = any_isa();
    for (n, width) in [(1, 1), (3, 20), (40, 33)] {
        let pair = normal(Stream::new(2, "gate"), n * 2 * width);
        let run = |dtype| values(gated(matrix(&pair, [n, 2 * width], dtype), Activation::Gelu));
        let error = run(DType::F32).iter().zip(run(DType::F64)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 2e-6, "[{n}, {width}]: {error}");
        for function in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let pair = matrix(&pair, [n, 2 * width], DType::F32);
            let apart = activation(pair.clone().narrow(1, 0, width), function) * pair.clone().narrow(1, width, width);
            assert_eq!(values(gated(pair, function)), values(apart), "[{n}, {width}]: {function:?}");
        }
    }
    let empty = shape(&[2], 1, 2, None);
    let wrong = std::panic::catch_unwind(|| ragged::reference(matrix(&[0.0; 6], [1, 6], DType::F32), None, &empty));
    assert!(wrong.is_err(), "rows must be those of the lengths");
}
