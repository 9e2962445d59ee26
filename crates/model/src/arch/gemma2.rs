//! Gemma 2 (Gemma team, 2024): norms before and after each part, every other layer looks through a window, scores and
//! logits are capped, embeddings are scaled by the root of their width.

use super::Architecture;
use crate::{
    config::{ModelConfig, NormKind, Placement},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;
use narthex_kernels::Activation;

pub(super) const GEMMA2: &Architecture = &Architecture {
    family: &Family { model_type: "gemma2", weights: WeightMap { names: NAMES, ..WeightMap::LLAMA } },
    config,
};

pub(super) const NAMES: &[(&str, &str)] = &[
    ("attention_output_norm", "post_attention_layernorm"),
    ("post_attention_layernorm", "pre_feedforward_layernorm"),
    ("mlp_output_norm", "post_feedforward_layernorm"),
];

pub(super) fn config(json: &Json) -> Result<ModelConfig> {
    json.refuse(&["use_bidirectional_attention"])?;
    let mut config = json.decoder(true)?;
    let bias = json.flag("attention_bias")? == Some(true);
    let layers = config.layers;
    let embedding_scale = (config.hidden_size as f64).sqrt();
    let design = &mut config.design;
    (design.qkv_bias, design.output_bias) = (bias, bias);
    design.norm = NormKind::RmsLessOne;
    design.placement = Placement::Both;
    design.activation = json.activation("hidden_activation", Activation::GeluTanh)?;
    design.embedding_scale = embedding_scale;
    design.attention_scale = Some(json.number("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt().recip());
    design.attention_softcap = json.number("attn_logit_softcapping")?;
    design.logits_softcap = json.number("final_logit_softcapping")?;
    design.kinds = json.kinds(layers, |layer| layer.is_multiple_of(2))?;
    Ok(config)
}
