//! OLMo 2 (OLMo team, 2024): norms after each part instead of before, and over all queries and all keys.

use super::Architecture;
use crate::{
    config::{ModelConfig, Placement, QkNorm},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const OLMO2: &Architecture = &Architecture {
    family: &Family { model_type: "olmo2", weights: WeightMap { names: NAMES, ..WeightMap::LLAMA } },
    config,
};

const NAMES: &[(&str, &str)] =
    &[("attention_output_norm", "post_attention_layernorm"), ("mlp_output_norm", "post_feedforward_layernorm")];

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    let bias = json.flag("attention_bias")? == Some(true);
    (config.design.qkv_bias, config.design.output_bias) = (bias, bias);
    config.design.placement = Placement::After;
    config.design.qk_norm = QkNorm::Whole;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    Ok(config)
}
