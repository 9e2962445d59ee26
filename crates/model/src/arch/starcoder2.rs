//! StarCoder2 (Lozhkov et al., 2024): rotary embeddings and a window as in Mistral, LayerNorm, biases and GELU as in
//! GPT-2.

use super::Architecture;
use crate::{
    config::{ModelConfig, NormKind},
    config_json::Json,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;
use narthex_kernels::Activation;

pub(super) const STARCODER2: &Architecture = &Architecture {
    family: &Family { model_type: "starcoder2", weights: WeightMap { names: NAMES, ..WeightMap::LLAMA } },
    config,
};

const NAMES: &[(&str, &str)] = &[("mlp.up_proj", "mlp.c_fc"), ("mlp.down_proj", "mlp.c_proj")];

fn config(json: &Json) -> Result<ModelConfig> {
    let mut config = json.decoder(true)?;
    config.rms_norm_eps = json.number("norm_epsilon")?.unwrap_or(1e-5);
    let bias = json.flag("use_bias")? != Some(false);
    config.design.norm = NormKind::Layer;
    (config.design.qkv_bias, config.design.output_bias, config.design.mlp_bias) = (bias, bias, bias);
    config.design.gated = false;
    config.design.activation = json.activation("hidden_act", Activation::GeluTanh)?;
    config.design.kinds = json.kinds(config.layers, |_| true)?;
    Ok(config)
}
