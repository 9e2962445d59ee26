//! Reading a decoder's `config.json`: keys by type, with transformers' defaults, and what most families mean by the
//! same keys. Remembers what was read, so that a key that nobody reads is found. Knows no family.

use crate::{
    config::{Design, LayerKind, ModelConfig},
    positions::{Rope, RopeScaling},
    unsupported::unsupported,
};
use narthex_base::{Error, Result};
use narthex_kernels::Activation;
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeSet, sync::OnceLock};

/// What transformers knows of each family's keys; made by `xtask/goldens/config_keys.py`.
const KEYS: &str = include_str!("arch/keys.json");

/// Sizes that a model's file must state, and tokens that its tokenizer states better: transformers' defaults, which are
/// those of the family's first model, are not taken for them.
const WITHOUT_DEFAULT: [&str; 12] = [
    "bos_token_id",
    "eos_token_id",
    "hidden_size",
    "intermediate_size",
    "n_embd",
    "n_head",
    "n_layer",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "tie_word_embeddings",
    "vocab_size",
];

/// Keys that change nothing that this program computes, and why.
const WITHOUT_EFFECT: [(&str, &[&str]); 9] = [
    ("names and versions", &["architectures", "model_type", "transformers_version", "auto_map", "name_or_path"]),
    ("the type that weights are read as is said elsewhere", &["dtype", "torch_dtype"]),
    (
        "dropout, noise and losses of training with transformers",
        &[
            "attention_dropout",
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "classifier_dropout",
            "embd_pdrop",
            "embedding_dropout",
            "hidden_dropout",
            "hidden_dropout_prob",
            "initializer_cutoff_factor",
            "initializer_range",
            "mlp_dropout",
            "output_router_logits",
            "resid_pdrop",
            "residual_dropout",
            "router_aux_loss_coef",
            "router_jitter_noise",
        ],
    ),
    (
        "how transformers computes and what it returns",
        &[
            "attn_implementation",
            "cache_implementation",
            "chunk_size_feed_forward",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "torchscript",
            "use_cache",
            "use_return_dict",
            "reorder_and_upcast_attn",
            "pretraining_tp",
            "gradient_checkpointing",
            "unsloth_fixed",
            "unsloth_version",
            "use_mamba_kernels",
        ],
    ),
    (
        "read by others: the heads of classifiers, quantized weights, adapters",
        &[
            "id2label",
            "label2id",
            "num_labels",
            "problem_type",
            "quantization_config",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ],
    ),
    ("a decoder is one", &["is_decoder", "is_encoder_decoder"]),
    (
        "defaults of generation, as generation_config.json has them",
        &[
            "bad_words_ids",
            "begin_suppress_tokens",
            "decoder_start_token_id",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "prefix",
            "remove_invalid_values",
            "repetition_penalty",
            "return_dict_in_generate",
            "sep_token_id",
            "suppress_tokens",
            "temperature",
            "task_specific_params",
            "top_k",
            "top_p",
            "typical_p",
            "pad_token_id",
            "bos_token_id",
            "eos_token_id",
            "output_scores",
        ],
    ),
    ("of the text's tokenizer", &["tokenizer_class", "model_max_length", "n_ctx"]),
    (
        "what transformers counts as and derives from others",
        &[
            "cross_attention_hidden_size",
            "finetuning_task",
            "max_window_layers",
            "pruned_heads",
            "tf_legacy_loss",
            "tie_encoder_decoder",
            "use_bfloat16",
            "vocab_size",
        ],
    ),
];

/// `config.json` in hand.
pub(crate) struct Json<'a> {
    given: &'a Value,
    family: &'static Value,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Json<'a> {
    pub(crate) fn new(given: &'a Value, model_type: &str) -> Self {
        Self { given, family: family_keys(model_type), read: RefCell::default() }
    }

    /// The value of a key: as it is given, under this name or the family's own, else transformers' default.
    pub(crate) fn value(&self, key: &str) -> &Value {
        let own = self.family["aliases"][key].as_str();
        for name in own.into_iter().chain([key]) {
            self.read.borrow_mut().insert(name.to_string());
            if let Some(value) = self.given.get(name) {
                return value;
            }
        }
        let default = &self.family["defaults"][own.unwrap_or(key)];
        if WITHOUT_DEFAULT.contains(&key) { &Value::Null } else { default }
    }

    /// Whether transformers' class has this key.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.family["defaults"].get(key).is_some()
    }

    /// A count that must be there and not 0.
    pub(crate) fn required(&self, key: &str) -> Result<usize> {
        match self.count(key)? {
            Some(0) => Err(Error::input(format!("config.json has a size of 0: `{key}`"))),
            Some(count) => Ok(count),
            None => Err(Error::input(format!("config.json lacks the number `{key}`"))
                .help("is this a Hugging Face model folder?")),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64().map(|number| number as usize))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn counts(&self, key: &str) -> Result<Vec<usize>> {
        let list = |value: &Value| -> Option<Vec<usize>> {
            value.as_array()?.iter().map(|number| Some(number.as_u64()? as usize)).collect()
        };
        Ok(self.typed(key, "a list of whole numbers", list)?.unwrap_or_default())
    }

    fn typed<T>(&self, key: &str, wanted: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.value(key) {
            Value::Null => Ok(None),
            value => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::input(format!("`{key}` in config.json is {value}, not {wanted}"))),
            },
        }
    }

    /// The activation that one of these keys names.
    ///
    /// # Errors
    /// If it is not known.
    pub(crate) fn activation(&self, key: &str, default: Activation) -> Result<Activation> {
        match self.typed(key, "a name", |value| value.as_str().map(str::to_string))?.as_deref() {
            None => Ok(default),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some(other) => Err(unsupported(key, other, "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast")),
        }
    }

    /// Refuses a config that sets any of these.
    ///
    /// # Errors
    /// If one is true.
    pub(crate) fn refuse(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if self.flag(key)? == Some(true) {
                return Err(unsupported(key, "true", "false"));
            }
        }
        Ok(())
    }

    /// What decoders have in common, by the keys that most use, in Llama's design.
    ///
    /// # Errors
    /// If a size is missing, or a rotary embedding is not supported.
    pub(crate) fn decoder(&self, tied_by_default: bool) -> Result<ModelConfig> {
        let intermediate_size = self.required("intermediate_size")?;
        self.decoder_of(intermediate_size, tied_by_default)
    }

    /// The same where the width of the feed-forward part stands elsewhere.
    ///
    /// # Errors
    /// As [`Json::decoder`].
    pub(crate) fn decoder_of(&self, intermediate_size: usize, tied_by_default: bool) -> Result<ModelConfig> {
        let heads = self.required("num_attention_heads")?;
        let hidden_size = self.required("hidden_size")?;
        let head_width = self.count("head_dim")?.unwrap_or(hidden_size / heads);
        let layers = self.required("num_hidden_layers")?;
        let mut config = ModelConfig {
            vocab_size: self.required("vocab_size")?,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads: self.count("num_key_value_heads")?.unwrap_or(heads),
            head_width,
            rms_norm_eps: self.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: self.theta()?,
            tied_embeddings: self.flag("tie_word_embeddings")?.unwrap_or(tied_by_default),
            context: self.count("max_position_embeddings")?.unwrap_or(2048),
            bos_token: self.value("bos_token_id").as_u64().map(|id| id as u32),
            eos_tokens: token_ids(self.value("eos_token_id")),
            design: Design::default(),
        };
        let original = self.count("original_max_position_embeddings")?;
        let scaling = RopeScaling::read(self.rope(), &mut config.context, original)?;
        if let RopeScaling::Linear(factor) = scaling {
            // The length of pretraining stands there; the factor is how much further it goes (vLLM's rule).
            config.context = (config.context as f64 * factor.max(1.0)) as usize;
        }
        if scaling != RopeScaling::Default {
            config.design.ropes = vec![Rope::Scaled { theta: config.rope_theta, scaling }];
        }
        Ok(config)
    }

    /// What is said of the rotary embedding: `rope_scaling` where it says something, as transformers before 5 wrote it,
    /// else `rope_parameters`.
    pub(crate) fn rope(&self) -> &Value {
        let (old, new) = (self.value("rope_scaling"), self.value("rope_parameters"));
        if old.as_object().is_some_and(|old| !old.is_empty()) { old } else { new }
    }

    /// The base of the rotary embedding: what [`Json::rope`] says counts before a key of its own.
    fn theta(&self) -> Result<f64> {
        let (inner, outer) = (self.rope()["rope_theta"].as_f64(), self.number("rope_theta")?);
        Ok(inner.or(outer).or(self.family["rope_theta"].as_f64()).unwrap_or(10_000.0))
    }

    /// Rotates only a share of each head, where the family can do that.
    ///
    /// # Errors
    /// If the share is no number.
    pub(crate) fn rotate_share(&self, config: &mut ModelConfig, key: &str, default: f64) -> Result<()> {
        let (inner, outer) = (self.rope()["partial_rotary_factor"].as_f64(), self.number(key)?);
        let share = inner.or(outer).unwrap_or(default);
        config.design.rotary_width = (share != 1.0).then_some((config.head_width as f64 * share) as usize);
        Ok(())
    }

    /// What each layer sees: by `layer_types` if the family has them and they are there, else those that `local`
    /// accepts look back over `sliding_window` positions.
    ///
    /// # Errors
    /// If a type is not known, a window is missing, or there is not one type for each layer.
    pub(crate) fn kinds(&self, layers: usize, local: impl Fn(usize) -> bool) -> Result<Vec<LayerKind>> {
        let window = self.count("sliding_window")?;
        let types = if self.knows("layer_types") { self.value("layer_types").as_array() } else { None };
        if let Some(types) = types.filter(|types| types.len() != layers) {
            return Err(Error::input(format!("config.json has {} `layer_types` for {layers} layers", types.len())));
        }
        let mut kinds = Vec::with_capacity(layers);
        for layer in 0..layers {
            let local = match types.map(|types| types[layer].as_str().unwrap_or_default()) {
                None => window.is_some() && local(layer),
                Some("full_attention") => false,
                Some("sliding_attention") => true,
                Some(other) => {
                    return Err(unsupported("layer_types", other, "full_attention, sliding_attention"));
                }
            };
            if local && window.is_none() {
                return Err(Error::input("config.json has sliding layers, but no `sliding_window`")
                    .help("set `sliding_window` to the positions that they see"));
            }
            kinds.push(LayerKind { rope: 0, window: window.filter(|_| local) });
        }
        let plain = kinds.iter().all(|kind| kind.window.is_none());
        Ok(if plain { vec![] } else { kinds })
    }

    /// The keys that nobody read and that say something, though transformers does not act on them as far as is known.
    ///
    /// # Errors
    /// If transformers acts on one: this version would compute something else.
    pub(crate) fn unread(&self) -> Result<Vec<String>> {
        let read = self.read.borrow();
        unread_keys(self.given, self.family, |key| read.contains(key))
    }
}

/// What transformers knows of a family's keys.
pub(crate) fn family_keys(model_type: &str) -> &'static Value {
    static TABLE: OnceLock<Value> = OnceLock::new();
    let table = TABLE.get_or_init(|| serde_json::from_str(KEYS).expect("our own file"));
    &table["families"][model_type]
}

/// What is said of a key of `config.json` that nobody knows.
pub(crate) fn unknown_key(key: &str) -> String {
    format!("`{key}` in config.json is not known: it changes nothing here; compare answers if it should")
}

/// The keys of a config that are not read and that say something, though transformers does not act on them as far as is
/// known.
///
/// # Errors
/// If transformers acts on one: this version would compute something else.
pub(crate) fn unread_keys(given: &Value, family: &Value, is_read: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut unread = Vec::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let silent = value.is_null() || value == &Value::Bool(false) || key.starts_with('_');
        let without_effect = WITHOUT_EFFECT.iter().any(|(_, keys)| keys.contains(&key.as_str()));
        if silent || without_effect || is_read(key) {
            continue;
        }
        match family["defaults"].get(key) {
            Some(default) if default == value => {}
            Some(default) => return Err(unsupported(key, &value.to_string(), &default.to_string())),
            None => unread.push(key.clone()),
        }
    }
    Ok(unread)
}

fn token_ids(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
        other => other.as_u64().map(|id| id as u32).into_iter().collect(),
    }
}
