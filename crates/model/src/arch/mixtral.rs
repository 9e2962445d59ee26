//! Mixtral (Jiang et al., 2024): Mistral with experts, of 8 two for each token.

use super::Architecture;
use crate::{
    config::{Experts, ModelConfig},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const MIXTRAL: &Architecture = &Architecture {
    family: &Family { model_type: "mixtral", weights: WeightMap { names: NAMES, ..WeightMap::LLAMA } },
    config,
};

const NAMES: &[(&str, &str)] = &[
    ("mlp.gate", "block_sparse_moe.gate"),
    ("mlp.experts.#.gate_proj", "block_sparse_moe.experts.#.w1"),
    ("mlp.experts.#.up_proj", "block_sparse_moe.experts.#.w3"),
    ("mlp.experts.#.down_proj", "block_sparse_moe.experts.#.w2"),
];

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(false)?;
    config.design.activation = json.activation("hidden_act", config.design.activation)?;
    config.design.kinds = json.kinds(config.layers, |_| true)?;
    config.design.experts = Some(Experts {
        count: json.required("num_local_experts")?,
        per_token: json.count("num_experts_per_tok")?.unwrap_or(2),
        intermediate_size: config.intermediate_size,
        normalised: true,
        dense_layers: vec![],
    });
    Ok(config)
}
