//! How GGUF stores numbers: plain, or in blocks that share a scale. Reading gives exactly the values that ggml's
//! reference (`gguf.quants` in Python) gives; only Q8_0 is written. Knows no files and no names.

use half::{bf16, f16};
use narthex_base::{Error, Result};
use std::fmt;

/// The ways of storing numbers that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum TensorType {
    /// Single precision, 32 bits a value.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// The upper 16 of 32 bits.
    BF16,
    /// 4 bits and a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits and a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits and a scale for 32 values.
    Q8_0,
    /// 4 bits; 256 values, with a 6-bit scale and minimum for each 32.
    Q4_K,
    /// 5 bits; 256 values, with a 6-bit scale and minimum for each 32.
    Q5_K,
    /// 6 bits; 256 values, with an 8-bit scale for each 16.
    Q6_K,
}

use TensorType::*;

/// Type, identifier, values in a block, bytes of a block.
#[rustfmt::skip]
const TYPES: [(TensorType, u32, u64, u64); 11] = [
    (F32,   0,   1,   4),
    (F16,   1,   1,   2),
    (BF16, 30,   1,   2),
    (Q4_0,  2,  32,  18),
    (Q4_1,  3,  32,  20),
    (Q5_0,  6,  32,  22),
    (Q5_1,  7,  32,  24),
    (Q8_0,  8,  32,  34),
    (Q4_K, 12, 256, 144),
    (Q5_K, 13, 256, 176),
    (Q6_K, 14, 256, 210),
];

/// What ggml calls the others.
#[rustfmt::skip]
const OTHERS: [(u32, &str); 21] = [
    (9, "Q8_1"), (10, "Q2_K"), (11, "Q3_K"), (15, "Q8_K"), (16, "IQ2_XXS"), (17, "IQ2_XS"), (18, "IQ3_XXS"),
    (19, "IQ1_S"), (20, "IQ4_NL"), (21, "IQ3_S"), (22, "IQ2_S"), (23, "IQ4_XS"), (24, "I8"), (25, "I16"),
    (26, "I32"), (27, "I64"), (28, "F64"), (29, "IQ1_M"), (34, "TQ1_0"), (35, "TQ2_0"), (39, "MXFP4"),
];

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl TensorType {
    /// The type with an identifier of ggml.
    ///
    /// # Errors
    /// If it is not supported; it is named.
    pub fn of_id(id: u32) -> Result<Self> {
        if let Some((kind, ..)) = TYPES.iter().find(|(_, known, ..)| *known == id) {
            return Ok(*kind);
        }
        let name = OTHERS.iter().find(|(other, _)| *other == id).map_or("unknown to this version", |(_, name)| name);
        let supported: Vec<String> = TYPES.iter().map(|(kind, ..)| kind.to_string()).collect();
        Err(Error::input(format!("its type {id} ({name}) is not supported"))
            .help(format!("supported: {}; fetch the model in one of them", supported.join(", "))))
    }

    fn row(self) -> (TensorType, u32, u64, u64) {
        TYPES[TYPES.iter().position(|(kind, ..)| *kind == self).expect("every type is in the table")]
    }

    /// The identifier of the type in the file.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// Values that share a scale.
    pub fn block(self) -> u64 {
        self.row().2
    }

    /// Bytes of a block.
    pub fn block_len(self) -> u64 {
        self.row().3
    }

    /// Whether values share a scale.
    pub fn is_quantized(self) -> bool {
        self.block() > 1
    }

    /// Bytes of so many values in rows of `row`; none if a row is no whole number of blocks, or 64 bits are too few.
    pub(super) fn stored_len(self, elements: u64, row: u64) -> Option<u64> {
        if !row.is_multiple_of(self.block()) {
            return None;
        }
        (elements / self.block()).checked_mul(self.block_len())
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The values in whole blocks; bytes after the last whole block are left out.
pub fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let blocks = bytes.chunks_exact(kind.block_len() as usize);
    let mut values = Vec::with_capacity(blocks.len() * kind.block() as usize);
    for block in blocks {
        match kind {
            F32 => values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            F16 => values.push(half_at(block, 0)),
            BF16 => values.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            Q4_0 => small(&mut values, half_at(block, 0), Add::Offset(-8), None, &block[2..]),
            Q4_1 => small(&mut values, half_at(block, 0), Add::Minimum(half_at(block, 2)), None, &block[4..]),
            Q5_0 => small(&mut values, half_at(block, 0), Add::Offset(-16), Some(&block[2..6]), &block[6..]),
            Q5_1 => {
                small(&mut values, half_at(block, 0), Add::Minimum(half_at(block, 2)), Some(&block[4..8]), &block[8..])
            }
            Q8_0 => values.extend(block[2..].iter().map(|byte| f32::from(*byte as i8) * half_at(block, 0))),
            Q4_K => scaled(&mut values, block, None, &block[16..]),
            Q5_K => scaled(&mut values, block, Some(&block[16..48]), &block[48..]),
            Q6_K => six_bits(&mut values, block),
        }
    }
    values
}

/// What is added to the small numbers of a block: before the scale, or after it.
#[derive(Clone, Copy)]
enum Add {
    Offset(i16),
    Minimum(f32),
}

/// 32 values of 4 bits, the first half of them in the lower halves of the bytes; the fifth bits lie apart.
fn small(values: &mut Vec<f32>, scale: f32, add: Add, fifth: Option<&[u8]>, quants: &[u8]) {
    for i in 0..32 {
        let four = if i < 16 { quants[i] & 15 } else { quants[i - 16] >> 4 };
        let five = four | fifth.map_or(0, |bits| (bits[i / 8] >> (i % 8) & 1) << 4);
        values.push(match add {
            Add::Offset(offset) => scale * f32::from(i16::from(five) + offset),
            Add::Minimum(minimum) => scale * f32::from(five) + minimum,
        });
    }
}

/// Q4_K and Q5_K: 8 groups of 32 values; two groups share 32 bytes, and the group's bit of `fifth` is the fifth bit.
fn scaled(values: &mut Vec<f32>, block: &[u8], fifth: Option<&[u8]>, quants: &[u8]) {
    let (scale, minimum_scale) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        // 6 bits each: four groups whole in bytes 0..8, four with their upper 2 bits there and the rest in bytes 8..12.
        let (small_scale, small_minimum) = match group {
            0..4 => (packed[group] & 63, packed[group + 4] & 63),
            _ => (
                packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4,
                packed[group + 4] >> 4 | (packed[group] >> 6) << 4,
            ),
        };
        let (group_scale, group_minimum) = (scale * f32::from(small_scale), minimum_scale * f32::from(small_minimum));
        for i in 0..32 {
            let byte = quants[group / 2 * 32 + i];
            let four = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
            let five = four | fifth.map_or(0, |bits| (bits[i] >> group & 1) << 4);
            values.push(group_scale * f32::from(five) - group_minimum);
        }
    }
}

/// Q6_K: two halves of 128 values: lower 4 bits in 64 bytes, upper 2 bits in 32.
fn six_bits(values: &mut Vec<f32>, block: &[u8]) {
    let scale = half_at(block, 208);
    for i in 0..256 {
        let (half, within) = (i / 128, i % 128);
        let low = block[half * 64 + within % 64];
        let four = if within < 64 { low & 15 } else { low >> 4 };
        let two = block[128 + half * 32 + within % 32] >> (2 * (within / 32)) & 3;
        let group_scale = scale * f32::from(block[192 + i / 16] as i8);
        values.push(group_scale * f32::from(i16::from(four | two << 4) - 32));
    }
}

/// Values in whole blocks of 32 as Q8_0: the largest magnitude becomes 127.
pub(super) fn quantize_q8_0(values: &[f32], out: &mut Vec<u8>) {
    for block in values.chunks_exact(32) {
        let scale = block.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.extend(f16::from_f32(scale).to_le_bytes());
        out.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
    }
}
