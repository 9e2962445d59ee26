//! Where tokens stand: rotary embeddings (Su et al., "RoFormer", 2021) with the scalings in use, in Hugging Face's
//! half-split layout, and the numbers of positions for models that learn vectors for them.

use crate::unsupported::unsupported;
use burn::tensor::{Device, Int, Tensor, TensorData};
use narthex_base::{Error, Result};
use serde_json::Value;
use std::{f64::consts::PI, sync::Arc};

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum Rope {
    /// Nothing is rotated.
    Still,
    /// Angles of base `theta`.
    Scaled {
        /// The base.
        theta: f64,
        /// How they are stretched.
        scaling: RopeScaling,
    },
}

/// How angles are stretched for contexts beyond those of pretraining.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all. Also the dynamic scaling up to the length of pretraining, beyond which this version does not go:
    /// what it does there depends on the length of the whole sequence.
    Default,
    /// All by a factor (Chen et al., "Position interpolation", 2023).
    Linear(f64),
    /// Low frequencies by a factor, high ones not (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than the old context over this are stretched.
        low: f64,
        /// Wavelengths shorter than the old context over this are not.
        high: f64,
        /// The context of pretraining.
        original: f64,
    },
    /// Frequencies by the turns that they make in the context of pretraining (Peng et al., "YaRN", 2023).
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns above which a frequency stays.
        fast: f64,
        /// Turns below which it is stretched.
        slow: f64,
        /// The context of pretraining.
        original: f64,
        /// What cosines and sines are multiplied with.
        attention: f64,
        /// Whether the borders are whole numbers.
        truncate: bool,
    },
    /// Each frequency by its own factor (Ding et al., "LongRoPE", 2024), those for the context of pretraining.
    Long {
        /// One for each frequency.
        factors: Vec<f64>,
        /// What cosines and sines are multiplied with.
        attention: f64,
    },
}

impl RopeScaling {
    /// Reads `rope_scaling` or `rope_parameters`. Where a scaling holds up to the length of pretraining only, `context`
    /// is lowered to it.
    ///
    /// # Errors
    /// If the kind is not supported or lacks a number.
    pub(crate) fn read(value: &Value, context: &mut usize, outer_original: Option<usize>) -> Result<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let kind = text("rope_type").or_else(|| text("type")).unwrap_or("default");
        let given = |key: &str| value.get(key).and_then(Value::as_f64);
        let number = |key: &str| {
            given(key).ok_or_else(|| {
                Error::input(format!("config.json lacks the number `rope_scaling.{key}`"))
                    .help(format!("the rotary embedding `{kind}` needs it"))
            })
        };
        let original = outer_original.map(|len| len as f64).or(given("original_max_position_embeddings"));
        let longest = *context as f64;
        match kind {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear(number("factor")?)),
            "dynamic" => Ok(Self::Default),
            "llama3" => Ok(Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: original.map_or_else(|| number("original_max_position_embeddings"), Ok)?,
            }),
            "yarn" => {
                let factor = number("factor")?;
                let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let attention = match (given("attention_factor"), given("mscale"), given("mscale_all_dim")) {
                    (Some(given), _, _) => given,
                    (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => scale(one) / scale(all),
                    _ => scale(1.0),
                };
                Ok(Self::Yarn {
                    factor,
                    fast: given("beta_fast").unwrap_or(32.0),
                    slow: given("beta_slow").unwrap_or(1.0),
                    original: original.unwrap_or(longest),
                    attention,
                    truncate: value.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                })
            }
            "longrope" | "su" => {
                let list = value.get("short_factor").and_then(Value::as_array).ok_or_else(|| {
                    Error::input("config.json lacks the list `rope_scaling.short_factor`")
                        .help(format!("the rotary embedding `{kind}` needs it"))
                })?;
                let original = original.unwrap_or(longest);
                let factor = given("factor").unwrap_or(longest / original);
                let attention = given("attention_factor").unwrap_or(if factor <= 1.0 {
                    1.0
                } else {
                    (1.0 + factor.ln() / original.ln()).sqrt()
                });
                *context = (*context).min(original as usize);
                Ok(Self::Long { factors: list.iter().map(|x| x.as_f64().unwrap_or(1.0)).collect(), attention })
            }
            other => Err(unsupported(
                "rope_scaling.rope_type",
                other,
                "default, linear, dynamic, llama3, yarn, longrope (up to the length of pretraining)",
            )),
        }
    }
}

impl Rope {
    /// Radians a position for each pair of values that is rotated, in single precision as the reference computes them;
    /// and what cosines and sines are multiplied with.
    fn frequencies(&self, width: usize) -> (Vec<f32>, f32) {
        let Rope::Scaled { theta, scaling } = self else { return (vec![], 1.0) };
        let plain = |i: usize| 1.0 / (*theta as f32).powf((2 * i) as f32 / width as f32);
        let pairs = width / 2;
        let each = |f: &dyn Fn(usize) -> f32| (0..pairs).map(f).collect::<Vec<f32>>();
        match scaling {
            RopeScaling::Default => (each(&plain), 1.0),
            RopeScaling::Linear(factor) => (each(&|i| plain(i) / *factor as f32), 1.0),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let stretched = |i: usize| {
                    let frequency = f64::from(plain(i));
                    let wavelength = 2.0 * PI / frequency;
                    if wavelength > original / low {
                        return (frequency / factor) as f32;
                    }
                    if wavelength < original / high {
                        return frequency as f32;
                    }
                    let smooth = (original / wavelength - low) / (high - low);
                    ((1.0 - smooth) * frequency / factor + smooth * frequency) as f32
                };
                (each(&stretched), 1.0)
            }
            RopeScaling::Yarn { factor, fast, slow, original, attention, truncate } => {
                let dimension = |turns: f64| width as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
                let (mut first, mut last) = (dimension(*fast), dimension(*slow));
                if *truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min(width as f64 - 1.0));
                if first == last {
                    last += 0.001;
                }
                let stretched = |i: usize| {
                    let ramp = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    let frequency = f64::from(plain(i));
                    (frequency / factor * ramp + frequency * (1.0 - ramp)) as f32
                };
                (each(&stretched), *attention as f32)
            }
            RopeScaling::Long { factors, attention } => {
                (each(&|i| plain(i) / factors.get(i).copied().unwrap_or(1.0) as f32), *attention as f32)
            }
        }
    }
}

/// A rotary embedding as it meets heads: pairs that it does not rotate stand still.
#[derive(Clone, Debug)]
struct Angles {
    frequencies: Vec<f32>,
    scale: f32,
    head_width: usize,
}

impl Angles {
    /// D / 2 cosines, then D / 2 sines.
    fn extend(&self, table: &mut Vec<f32>, position: usize) {
        let still = self.head_width / 2 - self.frequencies.len();
        let angle = |frequency: &f32| position as f32 * frequency;
        table.extend(self.frequencies.iter().map(|frequency| angle(frequency).cos() * self.scale));
        table.extend(std::iter::repeat_n(1.0, still));
        table.extend(self.frequencies.iter().map(|frequency| angle(frequency).sin() * self.scale));
        table.extend(std::iter::repeat_n(0.0, still));
    }
}

/// The positions of a pass: their numbers, and for each rotary embedding of the model a table of D / 2 cosines, then D
/// / 2 sines, for each.
#[derive(Clone, Debug)]
pub struct Positions {
    numbers: Arc<[usize]>,
    tables: Vec<Tensor<2>>,
}

impl Positions {
    /// The rotary table of a layer, by the number of its embedding: `[positions, D]`.
    pub(crate) fn table(&self, rope: usize) -> Tensor<2> {
        self.tables[rope].clone()
    }

    /// The numbers as a tensor that repeats `times`.
    pub(crate) fn numbers(&self, times: usize, device: &Device) -> Tensor<1, Int> {
        let numbers: Vec<i64> = self.numbers.iter().map(|number| *number as i64).collect::<Vec<_>>().repeat(times);
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), device)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// The rotary tables of all positions met so far, for a model that is asked for the same ones over and over.
#[derive(Clone, Debug)]
pub struct PositionCache {
    angles: Vec<Angles>,
    /// For each of them `[positions, D]`.
    tables: Vec<Vec<f32>>,
}

impl PositionCache {
    /// Nothing yet, of rotary embeddings for heads of this width, of which each turns the first `rotary_width` values.
    pub(crate) fn new(ropes: &[Rope], head_width: usize, rotary_width: usize) -> Self {
        let angles = |rope: &Rope| {
            let (frequencies, scale) = rope.frequencies(rotary_width);
            Angles { frequencies, scale, head_width }
        };
        Self { angles: ropes.iter().map(angles).collect(), tables: vec![vec![]; ropes.len()] }
    }

    /// A row of each table for each of the positions.
    pub fn rows(&mut self, positions: &[usize], device: &Device) -> Positions {
        self.take(positions.into(), device)
    }

    fn take(&mut self, numbers: Arc<[usize]>, device: &Device) -> Positions {
        let needed = numbers.iter().max().map_or(0, |position| position + 1);
        let tables = self.angles.iter().zip(&mut self.tables).map(|(angles, table)| {
            let width = angles.head_width;
            for position in table.len() / width..needed {
                angles.extend(table, position);
            }
            let rows = numbers.iter().flat_map(|position| &table[position * width..(position + 1) * width]);
            let rows: Vec<f32> = rows.copied().collect();
            Tensor::from_data(TensorData::new(rows, [numbers.len(), width]), device)
        });
        Positions { tables: tables.collect(), numbers: numbers.clone() }
    }
}
