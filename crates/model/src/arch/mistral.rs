//! Mistral (Jiang et al., 2023): Llama, in its first version with a window over the last 4,096 positions.

use super::Architecture;
use crate::{ModelConfig, config::Json, weight_map::WeightMap};
use narthex_base::Result;

pub(super) const MISTRAL: &Architecture = &Architecture { model_type: "mistral", config, weights: WeightMap::LLAMA };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = json.kinds(config.layers, |_| true)?;
    Ok(config)
}
