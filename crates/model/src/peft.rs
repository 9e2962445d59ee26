//! Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, with the names of the base's family.

use crate::{
    Decoder, LoraSpec, ModelConfig, TensorMap,
    parameters::named_parameters,
    weight_map::rows_in_theirs,
    weights::{read_safetensors, write_safetensors},
};
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// PEFT's `adapter_config.json`, the part that matters here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Always `LORA`.
    pub peft_type: String,
    /// Always `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// The model it was trained on.
    pub base_model_name_or_path: Option<String>,
    /// Rank.
    pub r: usize,
    /// Alpha.
    pub lora_alpha: f64,
    /// Dropout.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Projections: a list, or a pattern.
    pub target_modules: Value,
    /// Always `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Ready for use.
    #[serde(default)]
    pub inference_mode: bool,
    /// Scaled by alpha / sqrt(r).
    #[serde(default)]
    pub use_rslora: bool,
    /// With learned sizes.
    #[serde(default)]
    pub use_dora: bool,
    /// Other ranks of modules whose names end so.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas of modules whose names end so.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Further modules that were trained whole; none here.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
}

fn none() -> String {
    "none".into()
}

const PREFIX: &str = "base_model.model.";

/// The adapter of one projection of the decoder.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// Its name in the decoder.
    pub(crate) name: String,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// `[rank, in]`
    pub(crate) a: Vec<f32>,
    /// `[out, rank]`
    pub(crate) b: Vec<f32>,
    /// `[out]`
    pub(crate) magnitude: Option<Vec<f32>>,
}

/// An adapter as it was read, for a decoder.
#[derive(Clone, Debug)]
pub struct PeftAdapter {
    pub(crate) config: AdapterConfig,
    pub(crate) modules: Vec<Module>,
}

impl AdapterConfig {
    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// If it cannot be read, or asks for something that is not supported: it is named.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
        let config: Self = serde_json::from_str(&text)
            .map_err(|error| Error::input("not a PEFT LoRA config").at(path.display(), error.line()).cause(error))?;
        let refuse = |key: &str, wanted: &str, known: &str| {
            Err(Error::input(format!("adapter_config.json asks for {key} = {wanted}, which is not supported"))
                .at(path.display(), None)
                .help(format!("supported: {known}")))
        };
        if config.peft_type != "LORA" {
            return refuse("peft_type", &config.peft_type, "LORA");
        }
        if config.bias != "none" {
            return refuse("bias", &config.bias, "none");
        }
        if let Some(modules) = config.modules_to_save.as_ref().filter(|modules| !modules.is_empty()) {
            return refuse("modules_to_save", &modules.join(", "), "none");
        }
        if config.r == 0 {
            return refuse("r", "0", "1 and more");
        }
        Ok(config)
    }

    /// Rank and scale of a module, by its name in the file.
    fn of_module(&self, name: &str) -> (usize, f64) {
        fn find<T: Copy>(pattern: &BTreeMap<String, T>, name: &str) -> Option<T> {
            let ends = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            pattern.iter().find(|(end, _)| ends(end.trim_start_matches('^'))).map(|(_, value)| *value)
        }
        let rank = find(&self.rank_pattern, name).unwrap_or(self.r);
        let alpha = find(&self.alpha_pattern, name).unwrap_or(self.lora_alpha);
        (rank, alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 })
    }
}

impl PeftAdapter {
    /// Reads an adapter for a decoder of this config.
    ///
    /// # Errors
    /// If files are missing or broken, or the adapter does not fit; what does not is named.
    pub fn read(folder: &Path, base: &Decoder) -> Result<Self> {
        let config = AdapterConfig::read(&folder.join("adapter_config.json"))?;
        let path = folder.join("adapter_model.safetensors");
        if !path.is_file() && folder.join("adapter_model.bin").is_file() {
            return Err(Error::input("this adapter is a pickle, adapter_model.bin").at(folder.display(), None).help(
                "`narthex serve --lora-modules NAME=FOLDER` takes it apart without running it; PEFT writes safetensors with `save_pretrained`",
            ));
        }
        let mut tensors = read_safetensors(&path)?;
        let wrong = |what: String| {
            Error::input(what)
                .at(path.display(), None)
                .help("the adapter belongs to another model: see base_model_name_or_path in adapter_config.json")
        };
        let mut modules = Vec::new();
        let mut used = Vec::new();
        for (name, [outputs, inputs]) in base.projection_shapes() {
            let (theirs, whole, rows) = rows_in_theirs(base.config(), &name, outputs);
            let key = |part: &str| format!("{PREFIX}{theirs}.{part}");
            let (a_key, b_key) = (key("lora_A.weight"), key("lora_B.weight"));
            let Some((a_shape, a)) = tensors.get(&a_key) else { continue };
            let (rank, scale) = config.of_module(&theirs);
            let (b_shape, b) = tensors.get(&b_key).ok_or_else(|| wrong(format!("tensor `{b_key}` is missing")))?;
            for (key, found, wanted) in [(&a_key, a_shape, [rank, inputs]), (&b_key, b_shape, [whole, rank])] {
                if **found != wanted {
                    return Err(wrong(format!(
                        "tensor `{key}` has shape {found:?}, but the model asks for {wanted:?}"
                    )));
                }
            }
            let sizes = [key("lora_magnitude_vector"), key("lora_magnitude_vector.weight")];
            let sizes_key = sizes.into_iter().find(|key| tensors.contains_key(key));
            let magnitude = match &sizes_key {
                Some(key) if tensors[key].1.len() == whole => {
                    let (_, values) = &tensors[key];
                    Some(rows.iter().map(|row| values[*row]).collect())
                }
                Some(key) => return Err(wrong(format!("tensor `{key}` does not have {whole} values"))),
                None if config.use_dora => {
                    return Err(wrong(format!("tensor `{}` is missing", key("lora_magnitude_vector"))));
                }
                None => None,
            };
            let b = rows.iter().flat_map(|row| b[row * rank..(row + 1) * rank].iter().copied()).collect();
            modules.push(Module { name, rank, scale, a: a.clone(), b, magnitude });
            used.extend([a_key, b_key].into_iter().chain(sizes_key));
        }
        for key in used {
            tensors.remove(&key);
        }
        if let Some(name) = tensors.keys().next() {
            return Err(wrong(format!("tensor `{name}` is not for a projection of this model")));
        }
        if modules.is_empty() {
            return Err(wrong("the adapter changes nothing".into()));
        }
        Ok(Self { config, modules })
    }

    /// The model that it was trained on, as its config says.
    pub fn base_model(&self) -> Option<&str> {
        self.config.base_model_name_or_path.as_deref()
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.modules.iter().map(|module| module.rank).max().unwrap_or(0)
    }
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does.
///
/// # Errors
/// If a file cannot be written, or the base's checkpoints hold several adapted projections in one matrix.
pub fn save_adapter(model: &Decoder, spec: &LoraSpec, base_name: &str, folder: &Path) -> Result<()> {
    let mut tensors = TensorMap::new();
    let mut targets: Vec<String> = Vec::new();
    for tensor in named_parameters(model) {
        let Some((module, part)) = tensor.name.split_once(".lora.") else { continue };
        let part = match part {
            "lora_a" => "lora_A.weight",
            "lora_b" => "lora_B.weight",
            _ => "lora_magnitude_vector",
        };
        let theirs = own_module(model.config(), module, base_name)?;
        let target = theirs.rsplit('.').next().unwrap_or_default().to_string();
        if !targets.contains(&target) {
            targets.push(target);
        }
        tensors.insert(format!("{PREFIX}{theirs}.{part}"), (tensor.shape, tensor.values));
    }
    write_safetensors(&folder.join("adapter_model.safetensors"), &tensors)?;
    let mut config = serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": targets,
        "bias": "none",
        "inference_mode": true,
    });
    for (key, on) in [("use_rslora", spec.rank_stabilized), ("use_dora", spec.decomposed)] {
        if on {
            config[key] = true.into();
        }
    }
    let path = folder.join("adapter_config.json");
    let text = serde_json::to_string_pretty(&config).expect("JSON serializes");
    std::fs::write(&path, text).map_err(|error| Error::io("cannot write", &path, error))
}

/// The name of a module that is one matrix, the right way round, in the base's checkpoints.
fn own_module(config: &ModelConfig, module: &str, base_name: &str) -> Result<String> {
    let (theirs, whole, rows) = rows_in_theirs(config, module, 1);
    if whole == 1 && rows == [0] {
        return Ok(theirs);
    }
    Err(Error::input(format!(
        "the adapter of `{module}` has no place in PEFT's format: `{theirs}` of {base_name} holds others too"
    ))
    .help("leave q_proj, k_proj, v_proj, gate_proj and up_proj out of `targets`, or tune with `method = \"full\"`"))
}

/// Reads a PEFT adapter onto a model, to go on training it or to merge it.
///
/// # Errors
/// If files are missing or broken, or the adapter does not fit the model.
pub fn load_adapter(model: Decoder, folder: &Path) -> Result<Decoder> {
    let adapter = PeftAdapter::read(folder, &model)?;
    Ok(model.with_adapter(&adapter))
}
