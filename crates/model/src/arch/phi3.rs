//! Phi-3 and Phi-4 (Abdin et al., 2024): Llama with query, key and value in one matrix, gate and up in another;
//! Phi-4-mini rotates three quarters of each head.

use super::Architecture;
use crate::{
    config::ModelConfig,
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const PHI3: &Architecture = &Architecture {
    family: &Family { model_type: "phi3", weights: WeightMap { names: NAMES, ..WeightMap::LLAMA } },
    config,
};

const NAMES: &[(&str, &str)] = &[
    ("self_attn.q_proj", "self_attn.qkv_proj"),
    ("self_attn.k_proj", "self_attn.qkv_proj"),
    ("self_attn.v_proj", "self_attn.qkv_proj"),
    ("mlp.gate_proj", "mlp.gate_up_proj"),
    ("mlp.up_proj", "mlp.gate_up_proj"),
];

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    json.rotate_share(&mut config, "partial_rotary_factor", 1.0)?;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = json.kinds(config.layers, |_| true)?;
    Ok(config)
}
