//! ModernBERT (Warner et al., 2024): rotary positions, a norm before each part, GeGLU, and attention that sees all of
//! the sequence in some layers and a window in the others. Names and config as in Hugging Face's `ModernBertModel`.

use super::{
    config::{Json, unsupported},
    network::EncoderConfig,
};
use crate::{
    config::{Design, LayerKind, ModelConfig, NormKind},
    positions::{Rope, RopeScaling},
    weight_map::{Family, WeightMap},
};
use narthex_base::{Error, Result};
use serde_json::Value;

/// The longest sequence that is read.
const POSITIONS_MAX: usize = 1 << 17;

const FAMILY: &Family = &Family {
    model_type: "modernbert",
    weights: WeightMap { layers: "layers.", names: NAMES, transposed: false, by_head: false, prefix: "model." },
};

const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens", "embeddings.tok_embeddings"),
    ("model.embed_norm", "embeddings.norm"),
    ("model.norm", "final_norm"),
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn.Wqkv"),
    ("self_attn.k_proj", "attn.Wqkv"),
    ("self_attn.v_proj", "attn.Wqkv"),
    ("self_attn.o_proj", "attn.Wo"),
    ("post_attention_layernorm", "mlp_norm"),
    ("mlp.gate_proj", "mlp.Wi"),
    ("mlp.up_proj", "mlp.Wi"),
    ("mlp.down_proj", "mlp.Wo"),
];

/// The keys of `config.json` that are read, or that must say what is usual.
pub(super) const KEYS: &[&str] = &[
    "attention_bias",
    "global_attn_every_n_layers",
    "global_rope_theta",
    "hidden_activation",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "local_attention",
    "local_rope_theta",
    "max_position_embeddings",
    "mlp_bias",
    "norm_bias",
    "norm_eps",
    "num_attention_heads",
    "num_hidden_layers",
    "rope_parameters",
    "rope_scaling",
    "vocab_size",
];

pub(super) fn config(config: &Json) -> Result<EncoderConfig> {
    for key in ["attention_bias", "mlp_bias", "norm_bias"] {
        config.refuse_true(key)?;
    }
    let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let layers = config.size("num_hidden_layers")?;
    let context = config.size("max_position_embeddings")?;
    if context > POSITIONS_MAX {
        return Err(unsupported("max_position_embeddings", &context.to_string(), &format!("up to {POSITIONS_MAX}")));
    }
    let window = config.optional_size("local_attention").unwrap_or(128) / 2;
    let kind = |global: bool| LayerKind { rope: usize::from(global), window: (!global).then_some(window) };
    let rope = |theta: f64| Rope::Scaled { theta, scaling: RopeScaling::Default };
    let shape = ModelConfig {
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        intermediate_size: config.size("intermediate_size")?,
        layers,
        heads,
        kv_heads: heads,
        head_width: config.head_width(hidden_size, heads)?,
        rms_norm_eps: config.number("norm_eps", 1e-5)?,
        rope_theta: 10_000.0,
        tied_embeddings: true,
        context,
        bos_token: None,
        eos_tokens: vec![],
        design: Design {
            family: FAMILY,
            norm: NormKind::LayerUnbiased,
            normed_embedding: true,
            activation: config.activation("hidden_activation")?,
            kinds: global_layers(config, layers)?.into_iter().map(kind).collect(),
            // Of layers with a window, and of the others.
            ropes: vec![
                rope(theta(config, "sliding_attention", "local_rope_theta", 10_000.0)?),
                rope(theta(config, "full_attention", "global_rope_theta", 160_000.0)?),
            ],
            ..Design::default()
        },
    };
    Ok(EncoderConfig { shape, positions: 0, types: 0, padding: None, final_norm: true, source: config.0.clone() })
}

fn global_layers(config: &Json, layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = config.0["layer_types"].as_array() {
        let kinds = types.iter().map(|kind| match kind.as_str().unwrap_or("(no text)") {
            "full_attention" => Ok(true),
            "sliding_attention" => Ok(false),
            other => Err(unsupported("layer_types", other, "full_attention, sliding_attention")),
        });
        let kinds: Vec<bool> = kinds.collect::<Result<_>>()?;
        if kinds.len() != layers {
            return Err(Error::input(format!("`layer_types` has {} entries for {layers} layers", kinds.len())));
        }
        return Ok(kinds);
    }
    let every = config.optional_size("global_attn_every_n_layers").unwrap_or(3).max(1);
    Ok((0..layers).map(|layer| layer.is_multiple_of(every)).collect())
}

fn theta(config: &Json, kind: &str, older: &str, default: f64) -> Result<f64> {
    let parameters = &config.0["rope_parameters"][kind];
    let scaling = &config.0["rope_scaling"];
    for source in [parameters, scaling] {
        let form = source.get("rope_type").or_else(|| source.get("type")).and_then(Value::as_str).unwrap_or("default");
        if form != "default" {
            return Err(unsupported("rope_type", form, "default"));
        }
    }
    let theta = parameters["rope_theta"].as_f64().or(config.0[older].as_f64()).unwrap_or(default);
    if theta <= 0.0 {
        return Err(unsupported("rope_theta", &theta.to_string(), "numbers above 0"));
    }
    Ok(theta)
}
