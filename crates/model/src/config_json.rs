//! Reading a decoder's `config.json`: keys by type, and what most families mean by the same keys. Knows no family.

use crate::{
    config::{Design, LayerKind, ModelConfig},
    positions::{Rope, RopeScaling},
    unsupported::unsupported,
};
use narthex_base::{Error, Result};
use narthex_kernels::Activation;
use serde_json::Value;

/// `config.json` in hand.
pub(crate) struct Json<'a>(pub(crate) &'a Value);

impl Json<'_> {
    /// A count that must be there and not 0.
    pub(crate) fn required(&self, key: &str) -> Result<usize> {
        match self.count(key) {
            Some(0) => Err(Error::input(format!("config.json has a size of 0: `{key}`"))),
            Some(count) => Ok(count),
            None => Err(Error::input(format!("config.json lacks the number `{key}`"))
                .help("is this a Hugging Face model folder?")),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Option<usize> {
        self.0[key].as_u64().map(|number| number as usize)
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.0[key].as_bool()
    }

    pub(crate) fn counts(&self, key: &str) -> Vec<usize> {
        let list = self.0[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_u64).map(|number| number as usize).collect()
    }

    /// The activation that one of these keys names.
    ///
    /// # Errors
    /// If it is not known.
    pub(crate) fn activation(&self, key: &str, default: Activation) -> Result<Activation> {
        match self.0[key].as_str() {
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
        match keys.iter().find(|key| self.flag(key) == Some(true)) {
            Some(key) => Err(unsupported(key, "true", "false")),
            None => Ok(()),
        }
    }

    /// What decoders have in common, by the keys that most use, in Llama's design.
    ///
    /// # Errors
    /// If a size is missing, or a rotary embedding is not supported.
    pub(crate) fn decoder(&self, tied_by_default: bool) -> Result<ModelConfig> {
        let heads = self.required("num_attention_heads")?;
        let hidden_size = self.required("hidden_size")?;
        let head_width = self.count("head_dim").unwrap_or(hidden_size / heads);
        let layers = self.required("num_hidden_layers")?;
        let context = self.count("max_position_embeddings").unwrap_or(2048);
        let mut config = ModelConfig {
            vocab_size: self.required("vocab_size")?,
            hidden_size,
            intermediate_size: self.required("intermediate_size")?,
            layers,
            heads,
            kv_heads: self.count("num_key_value_heads").unwrap_or(heads),
            head_width,
            rms_norm_eps: self.number("rms_norm_eps").unwrap_or(1e-6),
            rope_theta: self
                .number("rope_theta")
                .or(self.0["rope_parameters"]["rope_theta"].as_f64())
                .unwrap_or(10_000.0),
            tied_embeddings: self.flag("tie_word_embeddings").unwrap_or(tied_by_default),
            context,
            bos_token: self.0["bos_token_id"].as_u64().map(|id| id as u32),
            eos_tokens: token_ids(&self.0["eos_token_id"]),
            design: Design::default(),
        };
        let partial =
            self.number("partial_rotary_factor").or(self.0["rope_parameters"]["partial_rotary_factor"].as_f64());
        if let Some(factor) = partial.filter(|factor| *factor != 1.0) {
            config.design.rotary_width = Some((head_width as f64 * factor) as usize);
        }
        let rope =
            if self.0["rope_scaling"].is_object() { &self.0["rope_scaling"] } else { &self.0["rope_parameters"] };
        let scaling = RopeScaling::read(rope, &mut config.context, self.count("original_max_position_embeddings"))?;
        if scaling != RopeScaling::Default {
            config.design.ropes = vec![Rope::Scaled { theta: config.rope_theta, scaling }];
        }
        Ok(config)
    }

    /// What each layer sees: by `layer_types` if they are there, else those that `local` accepts look back over
    /// `sliding_window` positions.
    ///
    /// # Errors
    /// If a type is not known or a window is missing.
    pub(crate) fn kinds(&self, layers: usize, local: impl Fn(usize) -> bool) -> Result<Vec<LayerKind>> {
        let window = self.count("sliding_window");
        let types = self.0["layer_types"].as_array().filter(|types| types.len() == layers);
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
}

fn token_ids(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
        other => other.as_u64().map(|id| id as u32).into_iter().collect(),
    }
}
