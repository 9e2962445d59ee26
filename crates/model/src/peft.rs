//! Adapters in PEFT's format as they are read: `adapter_config.json` and `adapter_model.safetensors`, with the names of
//! the base's family. Knows the base's config; no weights.

use crate::{config::ModelConfig, mapped::rows_in_theirs, site::all_projection_shapes, weights::read_safetensors};
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

/// What stands before the names of the base's modules.
pub(crate) const PREFIX: &str = "base_model.model.";

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
    pub fn read(folder: &Path, base: &ModelConfig) -> Result<Self> {
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
        for (name, [outputs, inputs]) in all_projection_shapes(base) {
            let (theirs, whole, rows) = rows_in_theirs(base, &name, outputs);
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
