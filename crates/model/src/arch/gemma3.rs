//! Gemma 3 (Gemma team, 2025), its text model: Gemma 2 with norms on queries and keys instead of caps, and another
//! rotary embedding for the five of six layers that look through a window.

use super::Architecture;
use crate::{
    config::{ModelConfig, QkNorm},
    config_json::Json,
    positions::{Rope, RopeScaling},
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const GEMMA3: &Architecture = &Architecture {
    family: &Family {
        model_type: "gemma3_text",
        weights: WeightMap { names: super::gemma2::NAMES, ..WeightMap::LLAMA },
    },
    config,
};

/// The base of the rotary embedding where nothing else is said, for layers that see everything and for the others.
const THETA: f64 = 1e6;
const LOCAL_THETA: f64 = 1e4;

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = super::gemma2::config(json)?;
    // Its configs state the length that its scaled rotary embeddings reach.
    config.context = json.count("max_position_embeddings")?.unwrap_or(config.context);
    let pattern = json.count("sliding_window_pattern")?.or(json.count("_sliding_window_pattern")?).unwrap_or(6).max(1);
    let mut context = config.context;
    let mut rope = |kind: &str, theta: Option<f64>, default: f64, scaling: &serde_json::Value| -> Result<Rope> {
        let parameters = &json.value("rope_parameters")[kind];
        let scaling = if scaling.is_object() { scaling } else { parameters };
        Ok(Rope::Scaled {
            theta: scaling["rope_theta"].as_f64().or(parameters["rope_theta"].as_f64()).or(theta).unwrap_or(default),
            scaling: RopeScaling::read(scaling, &mut context, None)?,
        })
    };
    let none = serde_json::Value::Null;
    let ropes = vec![
        rope("full_attention", json.number("rope_theta")?, THETA, json.value("rope_scaling"))?,
        rope("sliding_attention", json.number("rope_local_base_freq")?, LOCAL_THETA, &none)?,
    ];
    config.design.ropes = ropes;
    config.design.qk_norm = QkNorm::Heads;
    config.design.kinds = json.kinds(config.layers, |layer| !(layer + 1).is_multiple_of(pattern))?;
    for kind in &mut config.design.kinds {
        kind.rope = usize::from(kind.window.is_some());
    }
    Ok(config)
}
