//! Qwen3 (Yang et al., 2025): Llama with a norm on the query and key of each head.

use super::Architecture;
use crate::{
    config::{ModelConfig, QkNorm},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const QWEN3: &Architecture =
    &Architecture { family: &Family { model_type: "qwen3", weights: WeightMap::LLAMA }, config };

pub(super) fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    let bias = json.flag("attention_bias")? == Some(true);
    (config.design.qkv_bias, config.design.output_bias) = (bias, bias);
    config.design.qk_norm = QkNorm::Heads;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = super::qwen2::windows(json, config.layers)?;
    Ok(config)
}
