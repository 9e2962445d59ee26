//! Adapters in PEFT's format as they are read: `adapter_config.json` and `adapter_model.safetensors`, with the names of
//! the base's family. Knows the base's config; no weights.

use crate::{config::ModelConfig, mapped::rows_in_theirs, site::all_projection_shapes, weights::read_safetensors};
use narthex_base::{Error, Result, text_file::text_of};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

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
    /// Other ranks of modules whose names these patterns fit; the first counts.
    #[serde(default)]
    pub rank_pattern: Map<String, Value>,
    /// Other alphas of modules whose names these patterns fit; the first counts.
    #[serde(default)]
    pub alpha_pattern: Map<String, Value>,
    /// Further modules that were trained whole; none here.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// How the weights began; those that change the base with it are refused.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub init_lora_weights: Value,
    /// What else it says.
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

fn yes() -> Value {
    Value::Bool(true)
}

fn is_yes(value: &Value) -> bool {
    *value == yes()
}

/// Beginnings that leave the base as it is.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Keys of PEFT's `LoraConfig` (0.21.2) that change nothing once the weights are there: where adapters were put, how
/// they began, how PEFT computes.
const WITHOUT_EFFECT: [&str; 15] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Its other keys: set, they ask for something else than low-rank matrices beside projections.
const ACTED_ON: [&str; 12] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

/// Whether a value asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
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
        let bytes = std::fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
        let config: Self = serde_json::from_str(&text_of(bytes, path)?)
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
        let beginning = &config.init_lora_weights;
        if !beginning.is_boolean() && !beginning.as_str().is_some_and(|name| PLAIN_BEGINNINGS.contains(&name)) {
            return Err(Error::input(format!(
                "adapter_config.json asks for init_lora_weights = {beginning}, which is not supported"
            ))
            .at(path.display(), None)
            .cause("PEFT changes the weights of the base when it puts on an adapter that began so")
            .help("convert it to a plain one: `save_pretrained(FOLDER, path_initial_model_for_weight_conversion=…)`"));
        }
        let others = config.others.iter().filter(|(_, value)| !is_off(value));
        if let Some((key, value)) = others.into_iter().find(|(key, _)| ACTED_ON.contains(&key.as_str())) {
            return refuse(key, &value.to_string(), "none");
        }
        for (key, patterns) in [("rank_pattern", &config.rank_pattern), ("alpha_pattern", &config.alpha_pattern)] {
            for (pattern, value) in patterns {
                let fits =
                    if key == "rank_pattern" { value.as_u64().is_some_and(|r| r > 0) } else { value.is_number() };
                if pattern_of(pattern).is_none() || !fits {
                    return refuse(
                        &format!("{key} {pattern:?}"),
                        &value.to_string(),
                        "a regular expression and a number",
                    );
                }
            }
        }
        Ok(config)
    }

    /// The keys that say something that neither this program nor PEFT is known to act on.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        let says = |(key, value): &(&String, &Value)| {
            !is_off(value) && !WITHOUT_EFFECT.contains(&key.as_str()) && !ACTED_ON.contains(&key.as_str())
        };
        self.others.iter().filter(says).map(|(key, _)| key.as_str())
    }

    /// Rank and scale of a module, by its name in the file.
    fn of_module(&self, name: &str) -> (usize, f64) {
        // The first pattern that fits, as in PEFT's `get_pattern_key`.
        let find = |patterns: &Map<String, Value>| {
            let fits = |pattern: &String| pattern_of(pattern).is_some_and(|pattern| pattern.is_match(name));
            patterns.iter().find(|(pattern, _)| fits(pattern)).and_then(|(_, value)| value.as_f64())
        };
        let rank = find(&self.rank_pattern).map_or(self.r, |rank| rank as usize);
        let alpha = find(&self.alpha_pattern).unwrap_or(self.lora_alpha);
        (rank, alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 })
    }
}

/// A pattern for names of modules: it must fit the whole name, or what follows a dot.
fn pattern_of(pattern: &str) -> Option<Regex> {
    Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).ok()
}

/// What a tensor is that is for no projection, and how to go on.
fn foreign(name: &str) -> (&'static str, &'static str) {
    let has = |part: &str| name.contains(part);
    match () {
        () if has(".default.") => (
            "carries the name of the adapter in PEFT's memory",
            "write the adapter with `save_pretrained`, not with `state_dict`",
        ),
        () if has("lora_embedding_") || has("embed_tokens.base_layer") || has("lora_A.weight") && has("embed") => {
            ("is an adapter of the embedding, which is not supported", MERGE)
        }
        () if has("lm_head.lora_") || has("embed_out.lora_") => {
            ("is an adapter of the output head, which is not supported", MERGE)
        }
        () if has("lora_B.bias") => ("is a bias of an adapter (lora_bias), which is not supported", MERGE),
        () if has("trainable_tokens") => ("holds single trained tokens, which are not supported", MERGE),
        () if has("embed_tokens.weight") || has("lm_head.weight") || has("embed_in.weight") || has("wte.weight") => {
            ("is a whole matrix of the base, as PEFT saves it where the vocabulary was enlarged: not supported", MERGE)
        }
        () => (
            "is not for a projection of this model",
            "the adapter belongs to another model: see base_model_name_or_path in adapter_config.json",
        ),
    }
}

const MERGE: &str = "merge the adapter into its model with PEFT's `merge_and_unload`, and import that";

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
            let (what, help) = foreign(name);
            return Err(Error::input(format!("tensor `{name}` {what}")).at(path.display(), None).help(help));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<AdapterConfig> {
        let mut config = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        AdapterConfig::read(&path)
    }

    /// As `get_pattern_key` of PEFT 0.21.2 finds them: `re.match(rf"(.*\.)?({key})$", name)`, the first key that fits.
    #[test]
    fn patterns_are_regular_expressions() {
        let (first, second) = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj");
        for (pattern, alphas) in [
            (json!({"q_proj": 64}), [64.0, 8.0]),
            (json!({".*q_proj": 64}), [64.0, 8.0]),
            (json!({"self_attn\\.q_proj": 64}), [64.0, 8.0]),
            (json!({"q_proj|down_proj": 64}), [64.0, 64.0]),
            (json!({"layers\\.0\\..*": 64}), [64.0, 8.0]),
            (json!({"layers\\.[01]\\.mlp\\.down_proj": 64}), [8.0, 64.0]),
            (json!({"^q_proj": 64}), [8.0, 8.0]),
            (json!({"^model\\.layers\\.1\\.mlp\\.down_proj$": 64}), [8.0, 64.0]),
            (json!({"proj": 64}), [8.0, 8.0]),
            (json!({"down_proj": 16, ".*proj": 64}), [64.0, 16.0]),
            (json!({".*proj": 64, "down_proj": 16}), [64.0, 64.0]),
        ] {
            let config = read(json!({"alpha_pattern": pattern})).unwrap();
            let found = [first, second].map(|name| config.of_module(name).1 * 4.0);
            assert_eq!(found, alphas, "{pattern}");
        }
        let config = read(json!({"rank_pattern": {".*q_proj": 2}, "use_rslora": true})).unwrap();
        assert_eq!(config.of_module(first), (2, 8.0 / 2f64.sqrt()));
    }

    #[test]
    fn what_is_no_plain_adapter_is_refused_by_name() {
        for (more, expected) in [
            (json!({"init_lora_weights": "pissa"}), "init_lora_weights = \"pissa\""),
            (json!({"init_lora_weights": "pissa_niter_4"}), "pissa_niter_4"),
            (json!({"init_lora_weights": "olora"}), "olora"),
            (json!({"alora_invocation_tokens": [5, 6]}), "alora_invocation_tokens = [5,6]"),
            (json!({"layer_replication": [[0, 1], [0, 1]]}), "layer_replication"),
            (json!({"lora_bias": true}), "lora_bias = true"),
            (json!({"trainable_token_indices": [1]}), "trainable_token_indices"),
            (json!({"alpha_pattern": {"(?=q)": 3}}), "alpha_pattern \"(?=q)\""),
        ] {
            let error = read(more.clone()).unwrap_err();
            assert!(error.what().contains(expected) && error.help_text().is_some(), "{more}: {error}");
        }
        for more in [
            json!({"init_lora_weights": "gaussian"}),
            json!({"init_lora_weights": true, "layer_replication": null, "lora_bias": false}),
        ] {
            assert_eq!(read(more).unwrap().unread().count(), 0);
        }
        assert_eq!(read(json!({"next_years_key": 3})).unwrap().unread().collect::<Vec<_>>(), ["next_years_key"]);
        for (name, expected) in [
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "the name of the adapter"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "of the embedding"),
            ("base_model.model.lm_head.lora_A.weight", "of the output head"),
            ("base_model.model.model.embed_tokens.weight", "whole matrix of the base"),
            ("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", "not for a projection of this model"),
        ] {
            assert!(foreign(name).0.contains(expected), "{name}");
        }
    }
}
