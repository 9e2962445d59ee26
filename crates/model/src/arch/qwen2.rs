//! Qwen2 and 2.5 (Yang et al., 2024): Llama with biases on queries, keys and values; upper layers may look through a
//! window.

use super::Architecture;
use crate::{
    config::{LayerKind, ModelConfig},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::{Error, Result};

pub(super) const QWEN2: &Architecture =
    &Architecture { family: &Family { model_type: "qwen2", weights: WeightMap::LLAMA }, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    config.design.qkv_bias = true;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = windows(json, config.layers)?;
    Ok(config)
}

/// In Qwen's models a window counts only if it is switched on, and only from a certain layer.
///
/// # Errors
/// If a layer's type is not known.
pub(super) fn windows(json: &Json, layers: usize) -> Result<Vec<LayerKind>> {
    let on = json.flag("use_sliding_window")? == Some(true);
    let first = json.count("max_window_layers")?.unwrap_or(layers);
    if !on {
        // Switched off there is no window, so that no layer can look through one.
        let mut types = json.value("layer_types").as_array().into_iter().flatten();
        return match types.any(|kind| kind == "sliding_attention") {
            true => Err(Error::input("config.json has sliding layers, but no `sliding_window`")
                .cause("`use_sliding_window` is not true")
                .help("set `use_sliding_window` to true, or the layers to full_attention")),
            false => Ok(vec![]),
        };
    }
    json.kinds(layers, |layer| layer >= first)
}
