//! Llama (Touvron et al., 2023; Grattafiori et al., "Llama 3", 2024): RMSNorm before each part, rotary embeddings,
//! grouped-query attention, SwiGLU, optionally tied embeddings. The decoder's own design.

use super::Architecture;
use crate::{config::ModelConfig, config_json::Json, weight_map};
use narthex_base::Result;

pub(super) const LLAMA: &Architecture = &Architecture { family: weight_map::LLAMA, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    let bias = json.flag("attention_bias")? == Some(true);
    (config.design.qkv_bias, config.design.output_bias) = (bias, bias);
    config.design.mlp_bias = json.flag("mlp_bias")? == Some(true);
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    Ok(config)
}
