//! Granite 3 (IBM, 2024): Llama with factors on embeddings, scores, residuals and logits (Yang et al., "Tensor programs
//! V", 2022).

use super::Architecture;
use crate::{
    config::ModelConfig,
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const GRANITE: &Architecture =
    &Architecture { family: &Family { model_type: "granite", weights: WeightMap::LLAMA }, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = (super::LLAMA.config)(json)?;
    config.design.embedding_scale = json.number("embedding_multiplier")?.unwrap_or(1.0);
    config.design.attention_scale = Some(json.number("attention_multiplier")?.unwrap_or(1.0));
    config.design.residual_scale = json.number("residual_multiplier")?.unwrap_or(1.0);
    config.design.logits_scale = json.number("logits_scaling")?.unwrap_or(1.0).recip();
    Ok(config)
}
