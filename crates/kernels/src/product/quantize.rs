//! Weights to small integers: round to nearest with the scale that does least harm. Knows rows and groups of numbers;
//! no layouts, no files.

use half::{bf16, f16};
use narthex_base::config::QuantizeStep;

/// How weights are kept as integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// -127..=127 with one scale for each output.
    Int8,
    /// 0..=15 with a scale and a zero for each group of inputs of an output; those that are rounded here have the zero
    /// 8.
    Int4 {
        /// Inputs of a group: 32, 64 or 128.
        group: usize,
    },
}

impl Quantization {
    /// Groups of an output with this many inputs; 1 where the whole output is one.
    pub fn groups(self, inputs: usize) -> usize {
        match self {
            Quantization::Int8 => 1,
            Quantization::Int4 { group } => inputs.div_ceil(group),
        }
    }
}

/// The groups that int4 can have.
pub const INT4_GROUPS: [usize; 3] = QuantizeStep::GROUPS;

/// Largest code of 4 bits.
const CODE_MAX: f32 = 15.0;

/// The code of 0 in int4 as it is rounded here: half of all codes stand for either sign, as most formats and programs
/// have it.
pub const INT4_ZERO: u8 = 8;

/// Codes that the largest value may have, less the zero, if codes were not clipped. Either sign: only one has an eighth
/// step. With a few values clipped the others are met better.
const LARGEST: [f32; 14] = [-8.0, -8.35, -8.7, -9.1, -9.6, -10.2, -11.0, -12.0, 7.0, 7.5, 8.0, 8.5, 9.2, 10.0];

/// Sums that run side by side, for the sake of speed; always these, for the sake of the bytes.
const SIDE: usize = 8;

/// The nearest integer, ties to even, for sizes below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// One output in int8: writes its codes, returns its scale. A weight is scale x code.
pub fn int8_row(row: &[f32], codes: &mut [i8]) -> f32 {
    let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    for (code, x) in codes.iter_mut().zip(row) {
        *code = round(x * inverse).clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// One group in int4: writes its codes, returns its scale, which may be negative. A weight is scale x (code - 8). Of
/// the scales tried it is the one with the least squared error, each weighted by its input's `importance` (the mean
/// square of what it is multiplied with, say), or all alike if that is empty.
///
/// # Panics
/// If the lengths differ.
pub fn int4_group(group: &[f32], importance: &[f32], codes: &mut [u8]) -> f16 {
    assert!(codes.len() == group.len() && (importance.is_empty() || importance.len() == group.len()));
    let extreme = group.iter().fold(0f32, |extreme, x| if x.abs() > extreme.abs() { *x } else { extreme });
    let mut best = (f16::ZERO, f32::INFINITY);
    let mut attempt = |scale: f32| {
        let scale = scale_of(scale)?;
        let error = error(group, importance, scale.to_f32());
        if error < best.1 {
            best = (scale, error);
        }
        Some(scale)
    };
    for largest in LARGEST {
        if let Some(scale) = attempt(extreme / largest) {
            // With these codes another scale may fit better, and with that one other codes.
            let (products, squares) = fit(group, importance, scale.to_f32());
            attempt(products / squares.max(f32::MIN_POSITIVE));
        }
    }
    let (scale, _) = best;
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    for (code, x) in codes.iter_mut().zip(group) {
        *code = (code_of(*x, inverse) + f32::from(INT4_ZERO)) as u8;
    }
    scale
}

/// A scale that stays the same where it is kept as f16 and where it is read as bf16; none that is too small for a code,
/// or too large for a scale.
fn scale_of(scale: f32) -> Option<f16> {
    let scale = f16::from_f32(bf16::from_f32(scale).to_f32());
    (scale.to_f32() != 0.0 && scale.is_finite()).then_some(scale)
}

/// The code less the zero.
#[inline(always)]
fn code_of(x: f32, inverse: f32) -> f32 {
    let zero = f32::from(INT4_ZERO);
    round(x * inverse).clamp(-zero, CODE_MAX - zero)
}

/// `f` of each value, its importance and its code less the zero, summed.
#[inline(always)]
fn sum(group: &[f32], importance: &[f32], scale: f32, f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let inverse = 1.0 / scale;
    let mut sums = [0f32; SIDE];
    let mut add = |from: usize, part: &[f32]| {
        for (i, (sum, x)) in sums.iter_mut().zip(part).enumerate() {
            let importance = if importance.is_empty() { 1.0 } else { importance[from + i] };
            *sum += f(*x, importance, code_of(*x, inverse));
        }
    };
    let chunks = group.chunks_exact(SIDE);
    let rest = chunks.remainder();
    chunks.enumerate().for_each(|(i, part)| add(i * SIDE, part));
    add(group.len() - rest.len(), rest);
    sums.iter().sum()
}

/// Sums of value x code and of code x code.
fn fit(group: &[f32], importance: &[f32], scale: f32) -> (f32, f32) {
    let products = sum(group, importance, scale, |x, weight, code| weight * x * code);
    let squares = sum(group, importance, scale, |_, weight, code| weight * code * code);
    (products, squares)
}

fn error(group: &[f32], importance: &[f32], scale: f32) -> f32 {
    sum(group, importance, scale, |x, weight, code| {
        let error = x - scale * code;
        weight * error * error
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::random::Stream;

    fn values(name: &str, len: usize) -> Vec<f32> {
        (0..len).map(|i| Stream::new(3, name).normal(i as u64)).collect()
    }

    fn squared_error(group: &[f32], weights: &[f32], codes: &[u8], scale: f32) -> f64 {
        let one = |i: usize| {
            let found = f64::from(scale) * (f64::from(codes[i]) - f64::from(INT4_ZERO));
            f64::from(weights[i]) * (f64::from(group[i]) - found).powi(2)
        };
        (0..group.len()).map(one).sum()
    }

    #[test]
    fn int8_is_within_half_a_step() {
        for (len, size) in [(1, 1.0), (7, 1e-3), (300, 50.0), (5, 0.0), (9, 1e-40)] {
            let row: Vec<f32> = values("int8", len).into_iter().map(|x| x * size).collect();
            let mut codes = vec![0; len];
            let scale = int8_row(&row, &mut codes);
            for (x, code) in row.iter().zip(&codes) {
                let error = (x - scale * f32::from(*code)).abs();
                assert!(error <= 0.5001 * scale + 1e-37, "{x}: {code} x {scale}");
            }
            assert!(size < 1e-30 || codes.iter().any(|code| code.abs() == 127));
        }
    }

    #[test]
    fn int4_is_better_than_the_plain_range_and_heeds_importance() {
        for (len, offset) in [(1, 0.0), (3, 1.0), (32, 0.0), (61, 0.5), (64, -3.0), (128, 0.0)] {
            let group: Vec<f32> = values("int4", len).into_iter().map(|x| 0.02 * (x + offset)).collect();
            let (ones, mut codes) = (vec![1.0; len], vec![0; len]);
            let scale = int4_group(&group, &[], &mut codes);
            assert!(codes.iter().all(|code| *code <= 15));
            assert_eq!(bf16::from_f32(scale.to_f32()).to_f32(), scale.to_f32(), "the same as bf16");
            let found = squared_error(&group, &ones, &codes, scale.to_f32());
            // The plain way: the largest size in 7 steps.
            let step = group.iter().fold(0f32, |largest, x| largest.max(x.abs())) / 7.0;
            let plain: Vec<u8> = group.iter().map(|x| ((x / step).round() + 8.0) as u8).collect();
            let plain = squared_error(&group, &ones, &plain, step);
            // Of a single value the scale is all there is, and it has 8 bits.
            assert!(
                found <= plain + 1e-5 * f64::from(step * step) * (len as f64 + 200.0),
                "{len}: {found}, plain {plain}"
            );
            if len >= 32 {
                assert!(found < 0.9 * plain, "{len}: {found} against {plain}");
                let weights: Vec<f32> = (0..len).map(|i| if i % 8 == 0 { 100.0 } else { 0.01 }).collect();
                let before = squared_error(&group, &weights, &codes, scale.to_f32());
                let scale = int4_group(&group, &weights, &mut codes).to_f32();
                assert!(squared_error(&group, &weights, &codes, scale) < before);
            }
        }
        let mut codes = [9; 4];
        assert_eq!((int4_group(&[0.0; 4], &[], &mut codes), codes), (f16::ZERO, [INT4_ZERO; 4]), "nothing but zeros");
    }
}
