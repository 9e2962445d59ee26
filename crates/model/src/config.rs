//! `config.json` of the Llama family, as Hugging Face writes it.

use narthex_base::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// The shape and constants of a Llama-style decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// One matrix for embedding and output projection.
    pub tied_embeddings: bool,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Beginning-of-sequence token.
    pub bos_token: Option<u32>,
    /// End-of-sequence tokens.
    pub eos_tokens: Vec<u32>,
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or asks for something this version cannot do: it is named.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Error::input("config.json is not valid JSON").at(path.display(), error.line()).cause(error)
        })?;
        Self::from_json(&value).map_err(|error| error.at(path.display(), None))
    }

    /// Reads a config.
    ///
    /// # Errors
    /// If a key is missing or has a value that this version cannot honour.
    pub fn from_json(value: &Value) -> Result<Self> {
        let family = value["model_type"].as_str().unwrap_or("(none)");
        if family != "llama" {
            return Err(unsupported("model_type", family, "llama"));
        }
        refuse_unless(value, "hidden_act", &["silu"])?;
        refuse_true(value, "attention_bias")?;
        refuse_true(value, "mlp_bias")?;
        let rope = &value["rope_parameters"];
        let scaling = &value["rope_scaling"];
        for (key, rope) in [("rope_scaling", scaling), ("rope_parameters", rope)] {
            let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            if kind != "default" {
                return Err(unsupported(&format!("{key}.rope_type"), kind, "default"));
            }
        }
        let heads = required(value, "num_attention_heads")?;
        let hidden_size = required(value, "hidden_size")?;
        if heads == 0 || hidden_size == 0 {
            return Err(Error::input("config.json has a size of 0"));
        }
        let head_width = optional(value, "head_dim").unwrap_or(hidden_size / heads);
        let kv_heads = optional(value, "num_key_value_heads").unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !head_width.is_multiple_of(2) || head_width == 0 {
            return Err(Error::input(format!(
                "{heads} heads of width {head_width} with {kv_heads} key/value heads do not form a model"
            ))
            .help("num_key_value_heads must divide num_attention_heads and the head width must be even"));
        }
        Ok(Self {
            vocab_size: required(value, "vocab_size")?,
            hidden_size,
            intermediate_size: required(value, "intermediate_size")?,
            layers: required(value, "num_hidden_layers")?,
            heads,
            kv_heads,
            head_width,
            rms_norm_eps: value["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            rope_theta: value["rope_theta"].as_f64().or(rope["rope_theta"].as_f64()).unwrap_or(10_000.0),
            tied_embeddings: value["tie_word_embeddings"].as_bool().unwrap_or(false),
            context: optional(value, "max_position_embeddings").unwrap_or(2048),
            bos_token: value["bos_token_id"].as_u64().map(|id| id as u32),
            eos_tokens: token_ids(&value["eos_token_id"]),
        })
    }

    /// Writes a config that transformers reads.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "attention_dropout": 0.0,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": null,
            "tie_word_embeddings": self.tied_embeddings,
            "max_position_embeddings": self.context,
            "bos_token_id": self.bos_token,
            "eos_token_id": match self.eos_tokens.as_slice() { [] => Value::Null, [one] => json!(one), many => json!(many) },
            "initializer_range": 0.02,
            "use_cache": true,
            "torch_dtype": "float32",
        })
    }

    /// Weights in all, the tied matrix counted once.
    pub fn parameters(&self) -> usize {
        let attention = self.hidden_size * self.head_width * (2 * self.heads + 2 * self.kv_heads);
        let block = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size;
        let embeddings = self.vocab_size * self.hidden_size * if self.tied_embeddings { 1 } else { 2 };
        embeddings + self.layers * block + self.hidden_size
    }

    /// Floating-point operations of training on one token with sequences of `context` tokens: six for each weight
    /// of a matrix product, and the attention scores (Chowdhery et al., "PaLM", appendix B, causal half counted).
    pub fn training_flop_per_token(&self, context: usize) -> f64 {
        let embedding = self.vocab_size * self.hidden_size;
        let products = self.parameters() - if self.tied_embeddings { 0 } else { embedding };
        6.0 * products as f64 + 6.0 * (self.layers * self.heads * self.head_width * context) as f64
    }
}

fn required(value: &Value, key: &str) -> Result<usize> {
    optional(value, key).ok_or_else(|| {
        Error::input(format!("config.json lacks the number `{key}`")).help("is this a Hugging Face model folder?")
    })
}

fn optional(value: &Value, key: &str) -> Option<usize> {
    value[key].as_u64().map(|number| number as usize)
}

fn token_ids(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
        other => other.as_u64().map(|id| id as u32).into_iter().collect(),
    }
}

fn unsupported(key: &str, wanted: &str, known: &str) -> Error {
    Error::input(format!("config.json asks for {key} = {wanted}, which is not supported"))
        .help(format!("supported: {known}"))
}

fn refuse_unless(value: &Value, key: &str, known: &[&str]) -> Result<()> {
    match value[key].as_str() {
        Some(wanted) if !known.contains(&wanted) => Err(unsupported(key, wanted, &known.join(", "))),
        _ => Ok(()),
    }
}

fn refuse_true(value: &Value, key: &str) -> Result<()> {
    if value[key].as_bool() == Some(true) { Err(unsupported(key, "true", "false")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig {
            vocab_size: 256,
            hidden_size: 64,
            intermediate_size: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied_embeddings: false,
            context: 128,
            bos_token: None,
            eos_tokens: vec![0],
        }
    }

    #[test]
    fn written_and_read_back() {
        for eos_tokens in [vec![], vec![3], vec![1, 2]] {
            let config = ModelConfig { eos_tokens, ..config() };
            assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (key, value, expected) in [
            ("model_type", json!("mamba"), "model_type = mamba"),
            ("hidden_act", json!("gelu"), "hidden_act = gelu"),
            ("attention_bias", json!(true), "attention_bias = true"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "rope_scaling.rope_type = yarn"),
            ("vocab_size", Value::Null, "lacks the number `vocab_size`"),
            ("num_key_value_heads", json!(3), "do not form a model"),
        ] {
            let mut json = config().to_json();
            json[key] = value;
            let error = ModelConfig::from_json(&json).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
