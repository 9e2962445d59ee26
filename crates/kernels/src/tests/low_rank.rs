//! Low-rank updates against the sums in double precision, and against themselves in other batches and on other
//! machines.

use crate::{
    LowRank, LowRankPart, PackedWeight, Precision, WeightValues, packed_linear, packed_linear_adapted,
    testing::{any_isa, assert_near, normal, on_every_machine},
};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::random::Stream;
use std::sync::Arc;

fn matrix(values: &[f32], width: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / width, width]), &Device::flex())
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Inputs; then of each part the column, outputs, rank and whether it has a gain.
type Shape<'a> = (usize, &'a [(usize, usize, usize, bool)]);

const SHAPES: [Shape; 5] = [
    (1, &[(0, 1, 1, false)]),
    (64, &[(3, 40, 16, false)]),
    (37, &[(0, 17, 3, true), (17, 5, 20, false)]),
    (130, &[(8, 33, 8, true)]),
    (96, &[(0, 16, 16, false), (16, 16, 4, true), (32, 48, 33, false)]),
];

const OUTPUTS: usize = 80;
const ROWS: usize = 11;

fn parts(stream: Stream, (inputs, shapes): Shape) -> Vec<LowRankPart> {
    let part = |i: usize| {
        let (column, outputs, rank, gain) = shapes[i];
        let stream = stream.at(i as u64);
        LowRankPart {
            a: normal(stream.at(1), rank * inputs),
            b: normal(stream.at(2), outputs * rank),
            rank,
            column,
            outputs,
            gain: gain.then(|| normal(stream.at(3), outputs)),
        }
    };
    (0..shapes.len()).map(part).collect()
}

#[test]
fn updates_are_what_they_say() {
    let _isa = any_isa();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let stream = Stream::new(number as u64, "low rank");
        let (inputs, _) = shape;
        let x = normal(stream.at(20), ROWS * inputs);
        let weight = normal(stream.at(21), OUTPUTS * inputs);
        let (bias, residual) = (normal(stream.at(22), OUTPUTS), normal(stream.at(23), ROWS * OUTPUTS));
        let parts = parts(stream, shape);
        for (precision, near) in [(Precision::F32, 1e-5), (Precision::Bf16, 1e-2)] {
            let update = Arc::new(LowRank::new(inputs, &parts, precision));
            let packed = PackedWeight::new(&[WeightValues::F32(&weight)], inputs, precision).with_bias(bias.clone());
            let adapted = [(2..7, update.clone()), (9..10, update)];
            let residual = matrix(&residual, OUTPUTS);
            let found = values(packed_linear_adapted(matrix(&x, inputs), &packed, Some(residual.clone()), &adapted));
            let plain = values(packed_linear(matrix(&x, inputs), &packed, Some(residual.clone())));
            let bare = values(packed_linear(matrix(&x, inputs), &packed, None));
            let mut expected: Vec<f64> = plain.iter().map(|y| f64::from(*y)).collect();
            for row in (2..7).chain(9..10) {
                for part in &parts {
                    for j in 0..part.outputs {
                        let column = part.column + j;
                        let product = f64::from(bare[row * OUTPUTS + column] - bias[column]);
                        let sums = (0..part.rank).map(|r| {
                            let of_row =
                                (0..inputs).map(|i| f64::from(part.a[r * inputs + i]) * f64::from(x[row * inputs + i]));
                            f64::from(part.b[j * part.rank + r]) * of_row.sum::<f64>()
                        });
                        let gain = part.gain.as_ref().map_or(0.0, |gain| f64::from(gain[j]));
                        expected[row * OUTPUTS + column] += sums.sum::<f64>() + gain * product;
                    }
                }
            }
            let found: Vec<f64> = found.iter().map(|y| f64::from(*y)).collect();
            assert_near(&format!("{shape:?} in {precision:?}"), &found, &expected, near);
            assert_eq!(found[..2 * OUTPUTS], plain[..2 * OUTPUTS].iter().map(|y| f64::from(*y)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn batches_and_machines_change_no_byte() {
    for precision in [Precision::F32, Precision::Bf16] {
        for shape in SHAPES {
            let stream = Stream::new(5, "low rank");
            let (inputs, _) = shape;
            let x = normal(stream.at(20), ROWS * inputs);
            let weight = normal(stream.at(21), OUTPUTS * inputs);
            let run = |x: &[f32], rows: std::ops::Range<usize>| -> Vec<u32> {
                let update = Arc::new(LowRank::new(inputs, &parts(stream, shape), precision));
                let packed = PackedWeight::new(&[WeightValues::F32(&weight)], inputs, precision);
                let y = packed_linear_adapted(matrix(x, inputs), &packed, None, &[(rows, update)]);
                values(y).into_iter().map(f32::to_bits).collect()
            };
            let results = on_every_machine(|| (run(&x, 0..ROWS), run(&x[4 * inputs..5 * inputs], 0..1)));
            for (machine, (all, alone)) in &results {
                assert_eq!(all, &results[0].1.0, "{shape:?} in {precision:?}: {machine}");
                assert_eq!(&all[4 * OUTPUTS..5 * OUTPUTS], alone, "{shape:?} in {precision:?}: {machine}");
            }
        }
    }
}
