//! GPT-NeoX and Pythia (Black et al., 2022; Biderman et al., 2023): attention and feed-forward part side by side,
//! LayerNorm, a quarter of each head rotated, query, key and value of each head in one matrix.

use super::Architecture;
use crate::{
    config::{ModelConfig, NormKind, Placement},
    config_json::Json,
    positions::Rope,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;
use narthex_kernels::Activation;

pub(super) const GPT_NEOX: &Architecture = &Architecture {
    family: &Family {
        model_type: "gpt_neox",
        weights: WeightMap {
            layers: "gpt_neox.layers.",
            names: NAMES,
            transposed: false,
            by_head: true,
            prefix: "gpt_neox.",
        },
    },
    config,
};

const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens", "gpt_neox.embed_in"),
    ("model.norm", "gpt_neox.final_layer_norm"),
    ("lm_head", "embed_out"),
    ("self_attn.q_proj", "attention.query_key_value"),
    ("self_attn.k_proj", "attention.query_key_value"),
    ("self_attn.v_proj", "attention.query_key_value"),
    ("self_attn.o_proj", "attention.dense"),
    ("mlp.up_proj", "mlp.dense_h_to_4h"),
    ("mlp.down_proj", "mlp.dense_4h_to_h"),
];

/// The base of the rotary embedding where nothing is said.
const THETA: f64 = 10_000.0;
/// The share of a head that is rotated where nothing is said.
const ROTATED: f64 = 0.25;

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    config.rms_norm_eps = json.number("layer_norm_eps")?.unwrap_or(1e-5);
    config.kv_heads = config.heads;
    let (inner, outer) = (json.rope()["rope_theta"].as_f64(), json.number("rotary_emb_base")?);
    config.rope_theta = inner.or(outer).unwrap_or(THETA);
    for rope in &mut config.design.ropes {
        if let Rope::Scaled { theta, .. } = rope {
            *theta = config.rope_theta;
        }
    }
    json.rotate_share(&mut config, "rotary_pct", ROTATED)?;
    let bias = json.flag("attention_bias")? != Some(false);
    let design = &mut config.design;
    design.norm = NormKind::Layer;
    (design.qkv_bias, design.output_bias, design.mlp_bias) = (bias, bias, true);
    design.gated = false;
    design.activation = json.activation("hidden_act", Activation::Gelu)?;
    if json.flag("use_parallel_residual")? != Some(false) {
        design.placement = Placement::Parallel;
    }
    Ok(config)
}
