//! Qwen3 with experts (Yang et al., 2025): of 128, 8 for each token.

use super::Architecture;
use crate::{
    config::{Experts, ModelConfig},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

pub(super) const QWEN3_MOE: &Architecture =
    &Architecture { family: &Family { model_type: "qwen3_moe", weights: WeightMap::LLAMA }, config };

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = super::qwen3::config(json)?;
    // Where windows are switched on, all layers look through one.
    let on = json.flag("use_sliding_window")? == Some(true);
    config.design.kinds = json.kinds(config.layers, |_| on)?;
    let count = json.count("num_experts")?.map_or_else(|| json.required("num_local_experts"), Ok)?;
    let step = json.count("decoder_sparse_step")?.unwrap_or(1).max(1);
    let dense = json.counts("mlp_only_layers")?;
    config.design.experts = Some(Experts {
        count,
        per_token: json.required("num_experts_per_tok")?,
        intermediate_size: json.required("moe_intermediate_size")?,
        normalised: json.flag("norm_topk_prob")? == Some(true),
        dense_layers: (0..config.layers)
            .filter(|layer| dense.contains(layer) || !(layer + 1).is_multiple_of(step))
            .collect(),
    });
    Ok(config)
}
