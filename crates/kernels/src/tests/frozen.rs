//! Layers with packed weights in training: the product that is served, and the gradient of the same weights as numbers.

use crate::{
    PackedWeight, Precision, Quantization, WeightValues, frozen_linear, linear, packed_linear,
    testing::{Input, View, any_isa, check_same_bytes, constant, normal, outcome, values_of},
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

const KINDS: [Quantization; 3] =
    [Quantization::Int8, Quantization::Int4 { group: 32 }, Quantization::Int4 { group: 64 }];

/// Rows, inputs, outputs.
const SHAPES: [[usize; 3]; 5] = [[1, 32, 1], [2, 64, 7], [17, 96, 130], [70, 256, 33], [290, 64, 16]];

fn weight([_, inputs, outputs]: [usize; 3], kind: Option<Quantization>) -> PackedWeight {
    let values = normal(Stream::new(7, "weight"), outputs * inputs);
    match kind {
        Some(kind) => PackedWeight::quantized(&[WeightValues::F32(&values)], inputs, kind),
        None => PackedWeight::new(&[WeightValues::F32(&values)], inputs, Precision::F32),
    }
}

#[test]
fn forward_is_what_is_served_and_backward_what_the_numbers_give() {
    let _guard = any_isa();
    for shape in SHAPES {
        let [n, inputs, outputs] = shape;
        for kind in KINDS.map(Some).into_iter().chain([None]) {
            let weight = weight(shape, kind);
            let numbers = weight.dequantized();
            for precision in [Precision::F32, Precision::Bf16] {
                for view in View::ALL {
                    let x = [Input::normal(Stream::new(n as u64, "x"), [n, inputs], 1.0).view(view)];
                    let found = outcome(DType::F32, &x, &|x| frozen_linear(x[0].clone(), &weight, precision));
                    let expected = outcome(DType::F32, &x, &|x| {
                        let numbers = constant(&x[0], &numbers, [outputs, inputs]);
                        linear(x[0].clone(), &[numbers], None, None, precision)
                    });
                    let what = format!("{shape:?}, {kind:?}, {precision:?}, {view:?}");
                    assert_eq!(found.gradients, expected.gradients, "gradient, {what}");
                    let served = values_of(packed_linear(x[0].tensor(DType::F32).inner(), &weight, None));
                    assert_eq!(found.output, served, "output, {what}");
                }
            }
        }
    }
}

#[test]
fn bytes_do_not_depend_on_the_machine() {
    let weight = weight([40, 128, 70], Some(Quantization::Int4 { group: 64 }));
    let x = [Input::normal(Stream::new(3, "x"), [40, 128], 1.0)];
    let run = |x: &[Tensor<2>]| frozen_linear(x[0].clone(), &weight, Precision::F32);
    check_same_bytes("a frozen layer", &x, &run);
}
