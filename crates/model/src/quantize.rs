//! Matrices of small integers: rounded from numbers, or unpacked from the layouts in which GPTQ, AWQ and
//! compressed-tensors checkpoints hold them. Knows tensors as slices; no files, no configs.
//!
//! A weight is scale x (code - zero); int8 has one scale an output and no zeros.

use half::f16;
use narthex_base::{Error, Result};
use narthex_kernels::{
    Int4Values, Int8Values, PackedWeight, Quantization,
    quantize::{INT4_GROUPS, INT4_ZERO, int4_group, int8_row},
    team,
};

/// `[O, I]` in int8.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Matrix {
    /// Columns.
    pub inputs: usize,
    /// `[O, I]`
    pub codes: Vec<i8>,
    /// `[O]`
    pub scales: Vec<f32>,
}

/// `[O, I]` in int4.
#[derive(Clone, Debug, PartialEq)]
pub struct Int4Matrix {
    /// Columns.
    pub inputs: usize,
    /// Columns that share a scale and a zero; the last ones may be fewer.
    pub group: usize,
    /// `[O, I]`, of 0..=15.
    pub codes: Vec<u8>,
    /// `[O, groups]`
    pub scales: Vec<f16>,
    /// `[O, groups]`, of 0..=15.
    pub zeros: Vec<u8>,
    /// The input that each column of the codes belongs to; empty if they stand as they are.
    pub order: Vec<u32>,
}

/// A matrix of integers.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantizedMatrix {
    /// One scale an output.
    Int8(Int8Matrix),
    /// Groups.
    Int4(Int4Matrix),
}

/// Rows that a thread rounds at a time.
const ROWS: usize = 16;

impl Int8Matrix {
    /// Rounds `[O, I]`.
    pub fn round(weights: &[f32], inputs: usize) -> Self {
        let blocks: Vec<&[f32]> = weights.chunks(ROWS * inputs).collect();
        let parts = team::map(blocks.len(), |block| {
            let mut codes = vec![0i8; blocks[block].len()];
            let rows = blocks[block].chunks_exact(inputs).zip(codes.chunks_exact_mut(inputs));
            let scales: Vec<f32> = rows.map(|(row, codes)| int8_row(row, codes)).collect();
            (codes, scales)
        });
        let (codes, scales): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Self { inputs, codes: codes.concat(), scales: scales.concat() }
    }

    /// As numbers, `[O, I]`.
    pub fn dequantized(&self) -> Vec<f32> {
        let rows = self.codes.chunks_exact(self.inputs).zip(&self.scales);
        rows.flat_map(|(codes, scale)| codes.iter().map(move |code| f32::from(*code) * scale)).collect()
    }
}

impl Int4Matrix {
    /// Rounds `[O, I]`; of the scales for a group it takes the one with the least squared error, weighted by the
    /// `importance` of each input `[I]`, unless that is empty.
    pub fn round(weights: &[f32], inputs: usize, group: usize, importance: &[f32]) -> Self {
        let blocks: Vec<&[f32]> = weights.chunks(ROWS * inputs).collect();
        let parts = team::map(blocks.len(), |block| {
            let mut codes = vec![0u8; blocks[block].len()];
            let mut scales = vec![];
            for (row, codes) in blocks[block].chunks_exact(inputs).zip(codes.chunks_exact_mut(inputs)) {
                for (i, (values, codes)) in row.chunks(group).zip(codes.chunks_mut(group)).enumerate() {
                    let here = if importance.is_empty() { 0..0 } else { i * group..i * group + values.len() };
                    scales.push(int4_group(values, &importance[here], codes));
                }
            }
            (codes, scales)
        });
        let mut all = Self { inputs, group, codes: vec![], scales: vec![], zeros: vec![], order: vec![] };
        for (codes, scales) in parts {
            all.codes.extend(codes);
            all.scales.extend(scales);
        }
        all.zeros = vec![INT4_ZERO; all.scales.len()];
        all
    }

    /// As numbers, `[O, I]`.
    pub fn dequantized(&self) -> Vec<f32> {
        let groups = self.groups();
        let mut values = vec![0f32; self.codes.len()];
        for (row, codes) in self.codes.chunks_exact(self.inputs).enumerate() {
            for (column, code) in codes.iter().enumerate() {
                let place = row * groups + column / self.group;
                let value = (i16::from(*code) - i16::from(self.zeros[place])) as f32 * self.scales[place].to_f32();
                let column = self.order.get(column).map_or(column, |input| *input as usize);
                values[row * self.inputs + column] = value;
            }
        }
        values
    }

    fn groups(&self) -> usize {
        self.inputs.div_ceil(self.group)
    }

    /// The same in groups that the products know: a larger group is cut, and its scale and zero repeated.
    ///
    /// # Errors
    /// If the groups are neither of 32, 64 or 128 inputs nor of a multiple of 128, nor whole outputs.
    pub fn in_known_groups(self) -> Result<Self> {
        if INT4_GROUPS.contains(&self.group) {
            return Ok(self);
        }
        const CUT: usize = 128;
        if !self.group.is_multiple_of(CUT) && self.group != self.inputs {
            return Err(Error::input(format!("weights in groups of {} inputs are not supported", self.group))
                .help("supported: groups of 32, 64, any multiple of 128, and whole rows"));
        }
        let (from, to) = (self.groups(), self.inputs.div_ceil(CUT));
        let place = |i: usize| i / to * from + i % to * CUT / self.group;
        let count = self.codes.len() / self.inputs * to;
        let scales = (0..count).map(|i| self.scales[place(i)]).collect();
        let zeros = (0..count).map(|i| self.zeros[place(i)]).collect();
        Ok(Self { group: CUT, scales, zeros, ..self })
    }

    /// From GPTQ's layout: `qweight [I / 8, O]`, eight inputs a word from the lowest bits up; `qzeros [groups, O / 8]`,
    /// eight outputs a word, each 1 too small unless `zeros_are_whole` (the format's version 2); `scales [groups, O]`;
    /// `g_idx [I]`, the group of each input (Frantar et al., 2023; AutoGPTQ).
    ///
    /// # Errors
    /// If sizes do not fit each other, or the groups of `g_idx` are not equally large.
    pub fn from_gptq(
        [outputs, inputs]: [usize; 2],
        group: usize,
        qweight: &[u32],
        qzeros: &[u32],
        scales: &[f16],
        g_idx: Option<&[u32]>,
        zeros_are_whole: bool,
    ) -> Result<Self> {
        let groups = inputs.div_ceil(group);
        let fits = inputs.is_multiple_of(8)
            && outputs.is_multiple_of(8)
            && qweight.len() == inputs / 8 * outputs
            && qzeros.len() == groups * outputs / 8
            && scales.len() == groups * outputs
            && g_idx.is_none_or(|g_idx| g_idx.len() == inputs);
        if !fits {
            return Err(unfit("GPTQ", [outputs, inputs], group));
        }
        let order = match g_idx {
            Some(g_idx) => order_of(g_idx, group)?,
            None => vec![],
        };
        let code = |output: usize, input: usize| nibble(qweight[input / 8 * outputs + output], input % 8);
        let input = |column: usize| order.get(column).map_or(column, |input| *input as usize);
        let zero = |group: usize, output: usize| {
            let stored = nibble(qzeros[group * outputs / 8 + output / 8], output % 8);
            if zeros_are_whole { stored } else { (stored + 1) & 15 }
        };
        let codes = codes([outputs, inputs], |output, column| code(output, input(column)));
        let (scales, zeros) = by_output(outputs, groups, scales, zero);
        Ok(Self { inputs, group, codes, scales, zeros, order })
    }

    /// From AWQ's layout for products of many rows ("GEMM"): `qweight [I, O / 8]` and `qzeros [groups, O / 8]`, eight
    /// outputs a word in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up; `scales [groups, O]` (Lin et al.,
    /// 2023; AutoAWQ).
    ///
    /// # Errors
    /// If sizes do not fit each other.
    pub fn from_awq(
        [outputs, inputs]: [usize; 2],
        group: usize,
        qweight: &[u32],
        qzeros: &[u32],
        scales: &[f16],
    ) -> Result<Self> {
        let groups = inputs.div_ceil(group);
        let fits = outputs.is_multiple_of(8)
            && qweight.len() == inputs * outputs / 8
            && qzeros.len() == groups * outputs / 8
            && scales.len() == groups * outputs;
        if !fits {
            return Err(unfit("AWQ", [outputs, inputs], group));
        }
        // Where output 8i + j stands in its word.
        const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
        let at = |words: &[u32], row: usize, output: usize| {
            nibble(words[row * outputs / 8 + output / 8], PLACES[output % 8])
        };
        let codes = codes([outputs, inputs], |output, input| at(qweight, input, output));
        let (scales, zeros) = by_output(outputs, groups, scales, |group, output| at(qzeros, group, output));
        Ok(Self { inputs, group, codes, scales, zeros, order: vec![] })
    }

    /// From the layout "pack-quantized" of compressed-tensors: `packed [O, I / 8]`, eight inputs a word from the lowest
    /// bits up; `scales [O, groups]`; `zeros [O / 8, groups]`, eight outputs a word, or none if the codes are symmetric
    /// about 8.
    ///
    /// # Errors
    /// If sizes do not fit each other.
    pub fn from_packed(
        [outputs, inputs]: [usize; 2],
        group: usize,
        packed: &[u32],
        scales: Vec<f16>,
        zeros: Option<&[u32]>,
    ) -> Result<Self> {
        let (groups, words) = (inputs.div_ceil(group), inputs.div_ceil(8));
        let fits = packed.len() == outputs * words
            && scales.len() == outputs * groups
            && zeros.is_none_or(|zeros| zeros.len() == outputs.div_ceil(8) * groups);
        if !fits {
            return Err(unfit("pack-quantized", [outputs, inputs], group));
        }
        let zero = |i: usize| {
            let (output, group) = (i / groups, i % groups);
            zeros.map_or(8, |zeros| nibble(zeros[output / 8 * groups + group], output % 8))
        };
        let codes = codes([outputs, inputs], |output, input| nibble(packed[output * words + input / 8], input % 8));
        let zeros = (0..outputs * groups).map(zero).collect();
        Ok(Self { inputs, group, codes, scales, zeros, order: vec![] })
    }

    /// The words of that layout, of a matrix that is symmetric about 8. The columns must stand as they are.
    pub fn to_packed(&self) -> Vec<u32> {
        assert!(self.order.is_empty(), "columns in the order of the inputs");
        assert!(self.zeros.iter().all(|zero| *zero == INT4_ZERO), "codes about 8");
        let word = |nibbles: &[u8]| nibbles.iter().rev().fold(0u32, |word, nibble| word << 4 | u32::from(*nibble));
        self.codes.chunks_exact(self.inputs).flat_map(|row| row.chunks(8).map(word)).collect()
    }
}

impl QuantizedMatrix {
    /// Rounds `[O, I]` to the nearest.
    pub fn round(weights: &[f32], inputs: usize, kind: Quantization) -> Self {
        match kind {
            Quantization::Int8 => Self::Int8(Int8Matrix::round(weights, inputs)),
            Quantization::Int4 { group } => Self::Int4(Int4Matrix::round(weights, inputs, group, &[])),
        }
    }

    /// As numbers, `[O, I]`.
    pub fn dequantized(&self) -> Vec<f32> {
        match self {
            Self::Int8(matrix) => matrix.dequantized(),
            Self::Int4(matrix) => matrix.dequantized(),
        }
    }

    /// These rows of it, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn rows(&self, rows: &[usize]) -> Self {
        fn picked<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            rows.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
        }
        match self {
            Self::Int8(matrix) => Self::Int8(Int8Matrix {
                inputs: matrix.inputs,
                codes: picked(&matrix.codes, matrix.inputs, rows),
                scales: picked(&matrix.scales, 1, rows),
            }),
            Self::Int4(matrix) => {
                let groups = matrix.groups();
                Self::Int4(Int4Matrix {
                    codes: picked(&matrix.codes, matrix.inputs, rows),
                    scales: picked(&matrix.scales, groups, rows),
                    zeros: picked(&matrix.zeros, groups, rows),
                    order: matrix.order.clone(),
                    ..*matrix
                })
            }
        }
    }

    /// Packs matrices of `inputs` columns that share their input, one below the other. They are taken as they are where
    /// one product can hold them all: of one kind, with one group and one order. Others are rounded to int8.
    ///
    /// # Errors
    /// If groups are of a size that is not supported, or a scale is not finite.
    pub fn pack(parts: Vec<Self>, inputs: usize) -> Result<PackedWeight> {
        let mut int8 = vec![];
        let mut int4 = vec![];
        for part in parts {
            match part {
                Self::Int8(matrix) => int8.push(matrix),
                Self::Int4(matrix) => int4.push(matrix.in_known_groups()?),
            }
        }
        let finite = int8.iter().all(|matrix| matrix.scales.iter().all(|scale| scale.is_finite()))
            && int4.iter().all(|matrix| matrix.scales.iter().all(|scale| scale.is_finite()));
        if !finite {
            return Err(Error::input("a scale of the weights is not a finite number")
                .help("the checkpoint is damaged, or its quantization failed: fetch it again"));
        }
        let alike = int4.windows(2).all(|pair| pair[0].group == pair[1].group && pair[0].order == pair[1].order);
        if !int4.is_empty() && (!int8.is_empty() || !alike) {
            // The order of the parts is lost above, so this only works where they are all int4.
            if !int8.is_empty() {
                return Err(Error::input("weights that run side by side are int8 and int4")
                    .help("quantize the model's layers of one block alike"));
            }
            int8 = int4.drain(..).map(|matrix| Int8Matrix::round(&matrix.dequantized(), inputs)).collect();
        }
        if let Some(first) = int4.first() {
            let parts: Vec<Int4Values> = int4
                .iter()
                .map(|part| Int4Values { codes: &part.codes, scales: &part.scales, zeros: Some(&part.zeros) })
                .collect();
            let order = (!first.order.is_empty()).then_some(&first.order[..]);
            return Ok(PackedWeight::from_int4(&parts, inputs, first.group, order));
        }
        let parts: Vec<Int8Values> =
            int8.iter().map(|part| Int8Values { codes: &part.codes, scales: &part.scales }).collect();
        Ok(PackedWeight::from_int8(&parts, inputs))
    }
}

/// `[O, I]`, by all threads.
fn codes([outputs, inputs]: [usize; 2], code: impl Fn(usize, usize) -> u8 + Send + Sync) -> Vec<u8> {
    let block = |block: usize| -> Vec<u8> {
        let rows = block * ROWS..outputs.min((block + 1) * ROWS);
        rows.flat_map(|output| (0..inputs).map(move |input| (output, input))).map(|(o, i)| code(o, i)).collect()
    };
    team::map(outputs.div_ceil(ROWS), block).concat()
}

fn nibble(word: u32, place: usize) -> u8 {
    (word >> (4 * place) & 15) as u8
}

/// `[groups, O]` as `[O, groups]`.
fn by_output(outputs: usize, groups: usize, scales: &[f16], zero: impl Fn(usize, usize) -> u8) -> (Vec<f16>, Vec<u8>) {
    let places = || (0..outputs).flat_map(|output| (0..groups).map(move |group| (group, output)));
    (
        places().map(|(group, output)| scales[group * outputs + output]).collect(),
        places().map(|(group, output)| zero(group, output)).collect(),
    )
}

/// Inputs by their groups; empty if they stand so.
fn order_of(g_idx: &[u32], group: usize) -> Result<Vec<u32>> {
    let mut order: Vec<u32> = (0..g_idx.len() as u32).collect();
    order.sort_by_key(|i| g_idx[*i as usize]);
    let even = order.iter().enumerate().all(|(place, i)| g_idx[*i as usize] as usize == place / group);
    if !even {
        return Err(Error::input("`g_idx` does not form groups of equal size")
            .help("the checkpoint is damaged: fetch it again"));
    }
    let sorted = order.iter().enumerate().all(|(place, i)| place == *i as usize);
    Ok(if sorted { vec![] } else { order })
}

fn unfit(layout: &str, [outputs, inputs]: [usize; 2], group: usize) -> Error {
    Error::input(format!("tensors do not form a {layout} matrix of [{outputs}, {inputs}] in groups of {group}"))
        .help("the weights and config.json do not belong together: fetch the model again")
}
