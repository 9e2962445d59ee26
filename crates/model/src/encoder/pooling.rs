//! From the vectors of a sequence's tokens to one for the sequence, in the stages that sentence-transformers'
//! `modules.json` names: pooling, dense layers, normalization.

use super::{
    EncoderInput,
    config::{Json, unsupported},
};
use crate::weights::{StoredWeights, WeightSource};
use burn::tensor::Tensor;
use narthex_base::{Error, Result};
use serde_json::Value;
use std::path::{Component, Path};

/// Stages that a folder may name.
const MODULES_MAX: usize = 16;

/// How the vectors of tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolingMode {
    /// The mean.
    Mean,
    /// That of the first token.
    Cls,
    /// The largest of each value.
    Max,
    /// That of the last token.
    LastToken,
    /// The sum over the square root of the count.
    MeanSqrtLen,
    /// The mean with weights 1, 2, 3, …
    WeightedMean,
}

/// Each mode with its names in sentence-transformers: now, and as a flag in earlier versions.
const MODES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "pooling_mode_cls_token"),
    (PoolingMode::Max, "max", "pooling_mode_max_tokens"),
    (PoolingMode::Mean, "mean", "pooling_mode_mean_tokens"),
    (PoolingMode::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (PoolingMode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (PoolingMode::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

/// The vectors of tokens `[T, width]` -> one for each mode, side by side. Sums go over the tokens in their order.
///
/// # Panics
/// If there is no token.
pub fn pool(hidden: &[f32], width: usize, modes: &[PoolingMode]) -> Vec<f32> {
    let tokens = hidden.len() / width;
    assert!(tokens > 0 && hidden.len() == tokens * width, "whole rows, and at least one");
    let mut pooled = vec![0f32; modes.len() * width];
    for (mode, to) in modes.iter().zip(pooled.chunks_exact_mut(width)) {
        let rows = || hidden.chunks_exact(width).enumerate();
        match mode {
            PoolingMode::Cls => to.copy_from_slice(&hidden[..width]),
            PoolingMode::LastToken => to.copy_from_slice(&hidden[(tokens - 1) * width..]),
            PoolingMode::Max => {
                to.fill(f32::NEG_INFINITY);
                rows().for_each(|(_, row)| to.iter_mut().zip(row).for_each(|(to, x)| *to = to.max(*x)));
            }
            PoolingMode::Mean | PoolingMode::MeanSqrtLen => {
                rows().for_each(|(_, row)| to.iter_mut().zip(row).for_each(|(to, x)| *to += x));
                let count = tokens as f32;
                let divisor = if *mode == PoolingMode::Mean { count } else { count.sqrt() };
                to.iter_mut().for_each(|x| *x /= divisor);
            }
            PoolingMode::WeightedMean => {
                rows().for_each(|(at, row)| {
                    let weight = (at + 1) as f32;
                    to.iter_mut().zip(row).for_each(|(to, x)| *to += weight * x);
                });
                let total = (tokens * (tokens + 1) / 2) as f32;
                to.iter_mut().for_each(|x| *x /= total);
            }
        }
    }
    pooled
}

/// Gives a vector the length 1; one without length stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    // The least length that sentence-transformers divides by.
    let factor = (1.0 / square.sqrt().max(1e-12)) as f32;
    vector.iter_mut().for_each(|x| *x *= factor);
}

/// What follows pooling.
enum Stage {
    Normalize,
    Dense(Dense),
}

/// Pooling and what follows.
pub(crate) struct Pipeline {
    modes: Vec<PoolingMode>,
    stages: Vec<Stage>,
    dimension: usize,
}

impl Pipeline {
    /// As `modules.json` in a folder says; the mean where there is none.
    ///
    /// # Errors
    /// If a module is unknown, or its files are missing or broken.
    pub(crate) fn read(folder: &Path, hidden_size: usize) -> Result<Self> {
        let path = folder.join("modules.json");
        let mut pipeline = Self { modes: vec![PoolingMode::Mean], stages: vec![], dimension: hidden_size };
        let modules = Json::read_optional(&path)?;
        if modules.0.is_null() {
            return Ok(pipeline);
        }
        let fault = |error: Error| if error.place().is_some() { error } else { error.at(path.display(), None) };
        let modules = modules.0.as_array().filter(|modules| !modules.is_empty() && modules.len() <= MODULES_MAX);
        let modules = modules.ok_or_else(|| fault(Error::input("`modules.json` must list up to 16 modules")))?;
        let mut pooled = false;
        for (index, module) in modules.iter().enumerate() {
            pipeline.add(folder, index, module, &mut pooled).map_err(fault)?;
        }
        if !pooled {
            return Err(fault(unsupported("modules.json", "no Pooling", "Transformer, Pooling, Dense, Normalize")));
        }
        Ok(pipeline)
    }

    fn add(&mut self, folder: &Path, index: usize, module: &Value, pooled: &mut bool) -> Result<()> {
        let kind = module["type"].as_str().unwrap_or("(none)");
        let inside = module["path"].as_str().unwrap_or("");
        let stays = Path::new(inside).components().all(|part| matches!(part, Component::Normal(_)));
        if !stays {
            return Err(Error::input(format!("the module path `{inside}` leaves the folder")));
        }
        let place = folder.join(inside);
        match kind.rsplit('.').next().unwrap_or("") {
            "Transformer" if index == 0 && inside.is_empty() => {}
            "Transformer" if index == 0 => return Err(unsupported("a Transformer in", inside, "the folder itself")),
            "Pooling" if !*pooled => {
                *pooled = true;
                let path = place.join("config.json");
                self.modes = read_modes(&path, self.dimension).map_err(|error| error.at(path.display(), None))?;
                self.dimension *= self.modes.len();
            }
            "Normalize" if *pooled => self.stages.push(Stage::Normalize),
            "Dense" if *pooled => {
                let dense = Dense::read(&place, self.dimension)?;
                self.dimension = dense.outputs;
                self.stages.push(Stage::Dense(dense));
            }
            _ => {
                let known = "Transformer, then Pooling, then Dense and Normalize";
                return Err(unsupported(&format!("module {index}"), kind, known));
            }
        }
        Ok(())
    }

    /// Values of a vector.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// A vector for each sequence, from the vectors of all tokens `[N, width]`, one sequence behind the other.
    pub(crate) fn run(&self, hidden: Tensor<2>, inputs: &[&EncoderInput]) -> Vec<Vec<f32>> {
        let [_, width] = hidden.dims();
        let data = hidden.into_data();
        let mut rest = data.as_slice::<f32>().expect("hidden states are f32");
        let part = |input: &&EncoderInput| {
            let (part, after) = rest.split_at(input.ids.len() * width);
            rest = after;
            part
        };
        let parts: Vec<&[f32]> = inputs.iter().map(part).collect();
        narthex_kernels::team::map(parts.len(), |i| {
            let mut vector = pool(parts[i], width, &self.modes);
            for stage in &self.stages {
                match stage {
                    Stage::Normalize => normalize(&mut vector),
                    Stage::Dense(dense) => vector = dense.forward(&vector),
                }
            }
            vector
        })
    }
}

fn read_modes(path: &Path, width: usize) -> Result<Vec<PoolingMode>> {
    let config = Json::read(path)?;
    let given = config.optional_size("embedding_dimension").or(config.optional_size("word_embedding_dimension"));
    if given.is_some_and(|given| given != width) {
        return Err(Error::input(format!(
            "the pooling is for vectors of {}, the model's have {width}",
            given.unwrap_or(0)
        )));
    }
    if config.0["include_prompt"].as_bool() == Some(false) {
        return Err(unsupported("include_prompt", "false", "true"));
    }
    let names: Vec<&str> = match &config.0["pooling_mode"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|name| name.as_str().unwrap_or("(no text)")).collect(),
        _ => {
            let flags = MODES.iter().filter(|(_, _, flag)| config.flag(flag));
            let known = |key: &str| MODES.iter().any(|(_, _, flag)| *flag == key);
            let object = config.0.as_object();
            let other = object.and_then(|map| {
                map.iter().find(|(key, value)| {
                    key.starts_with("pooling_mode_") && **value == Value::Bool(true) && !known(key)
                })
            });
            if let Some((key, _)) = other {
                return Err(unsupported(key, "true", &MODES.map(|(_, _, flag)| flag).join(", ")));
            }
            flags.map(|(_, name, _)| *name).collect()
        }
    };
    let modes = names.iter().map(|name| {
        let found = MODES.iter().find(|(_, known, _)| known == name).map(|(mode, _, _)| *mode);
        found.ok_or_else(|| unsupported("pooling_mode", name, &MODES.map(|(_, name, _)| name).join(", ")))
    });
    let modes: Vec<PoolingMode> = modes.collect::<Result<_>>()?;
    if modes.is_empty() || modes.len() > MODES.len() {
        return Err(Error::input("the pooling names no mode, or too many"));
    }
    Ok(modes)
}

/// A dense layer on the vector of a sequence.
struct Dense {
    /// `[outputs, inputs]`
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
    function: fn(f32) -> f32,
}

impl Dense {
    fn read(folder: &Path, inputs: usize) -> Result<Self> {
        let path = folder.join("config.json");
        let config = Json::read(&path)?;
        let read = || -> Result<Self> {
            let (given, outputs) = (config.size("in_features")?, config.size("out_features")?);
            if given != inputs {
                return Err(Error::input(format!("the layer takes {given} values, but gets {inputs}")));
            }
            for key in ["module_input_name", "module_output_name"] {
                config.refuse_unless(key, &["sentence_embedding"])?;
            }
            let name = config.text("activation_function").unwrap_or("torch.nn.modules.activation.Tanh");
            let function: fn(f32) -> f32 = match name.rsplit('.').next().unwrap_or("") {
                "Tanh" => f32::tanh,
                "Identity" => |x| x,
                "ReLU" => |x| x.max(0.0),
                "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
                _ => return Err(unsupported("activation_function", name, "Tanh, Identity, ReLU, Sigmoid")),
            };
            let weights = StoredWeights::open(folder)?;
            let (mut weight, mut bias) = (vec![0f32; outputs * inputs], vec![0f32; outputs]);
            weights.values("linear.weight", &[outputs, inputs])?.read(0, &mut weight);
            if config.0["bias"].as_bool() != Some(false) {
                weights.values("linear.bias", &[outputs])?.read(0, &mut bias);
            }
            Ok(Self { weight, bias, inputs, outputs, function })
        };
        read().map_err(|error| if error.place().is_some() { error } else { error.at(path.display(), None) })
    }

    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let rows = self.weight.chunks_exact(self.inputs).zip(&self.bias);
        rows.map(|(row, bias)| (self.function)((dot(row) + f64::from(*bias)) as f32)).collect()
    }
}
