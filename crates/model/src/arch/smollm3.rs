//! SmolLM3 (Bakouch et al., 2025): Llama in which every fourth layer has no rotary embedding.

use super::Architecture;
use crate::{
    config::{LayerKind, ModelConfig},
    config_json::Json,
    positions::Rope,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const SMOLLM3: &Architecture =
    &Architecture { family: &Family { model_type: "smollm3", weights: WeightMap::LLAMA }, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(true)?;
    let bias = json.flag("attention_bias")? == Some(true);
    (config.design.qkv_bias, config.design.output_bias) = (bias, bias);
    config.design.mlp_bias = json.flag("mlp_bias")? == Some(true);
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    let interval = json.count("no_rope_layer_interval")?.unwrap_or(4).max(1);
    // 1 for a layer that rotates, in spite of the name.
    let listed = json.counts("no_rope_layers")?;
    let rotates =
        |layer: usize| listed.get(layer).map_or(!(layer + 1).is_multiple_of(interval), |rotates| *rotates == 1);
    // Where windows are switched on, layers that do not rotate look through one.
    let on = json.flag("use_sliding_window")? == Some(true);
    let windows = json.kinds(config.layers, |layer| on && !rotates(layer))?;
    config.design.ropes = config.ropes().into_iter().chain([Rope::Still]).collect();
    config.design.kinds = (0..config.layers)
        .map(|layer| LayerKind {
            rope: usize::from(!rotates(layer)),
            window: windows.get(layer).and_then(|kind| kind.window),
        })
        .collect();
    Ok(config)
}
