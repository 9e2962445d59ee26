//! Mistral (Jiang et al., 2023): Llama, in its first version with a window over the last 4,096 positions.

use super::Architecture;
use crate::{
    config::ModelConfig,
    config_json::Json,
    unsupported::unsupported,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const MISTRAL: &Architecture =
    &Architecture { family: &Family { model_type: "mistral", weights: WeightMap::LLAMA }, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = json.kinds(config.layers, |_| true)?;
    // transformers makes another model of such a config, Ministral, whose layers differ.
    if json.value("layer_types").as_array().is_some_and(|types| types.windows(2).any(|pair| pair[0] != pair[1])) {
        return Err(unsupported("layer_types", "different layers", "the same for all layers"));
    }
    Ok(config)
}
