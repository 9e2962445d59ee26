//! GPT-2 (Radford et al., 2019): learned positions, LayerNorm, GELU, matrices stored the other way round.

use super::Architecture;
use crate::{
    config::{ModelConfig, NormKind},
    config_json::Json,
    positions::Rope,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;
use narthex_kernels::Activation;

pub(super) const GPT2: &Architecture = &Architecture {
    family: &Family {
        model_type: "gpt2",
        weights: WeightMap {
            layers: "transformer.h.",
            names: NAMES,
            transposed: true,
            by_head: false,
            prefix: "transformer.",
        },
    },
    config,
};

const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens", "transformer.wte"),
    ("model.embed_positions", "transformer.wpe"),
    ("model.norm", "transformer.ln_f"),
    ("input_layernorm", "ln_1"),
    ("self_attn.q_proj", "attn.c_attn"),
    ("self_attn.k_proj", "attn.c_attn"),
    ("self_attn.v_proj", "attn.c_attn"),
    ("self_attn.o_proj", "attn.c_proj"),
    ("post_attention_layernorm", "ln_2"),
    ("mlp.up_proj", "mlp.c_fc"),
    ("mlp.down_proj", "mlp.c_proj"),
];

fn config(json: &Json) -> Result<ModelConfig> {
    json.refuse(&["scale_attn_by_inverse_layer_idx", "add_cross_attention"])?;
    let hidden = json.required("hidden_size")?;
    let mut config = json.decoder_of(json.count("n_inner")?.unwrap_or(4 * hidden), true)?;
    config.kv_heads = config.heads;
    config.rms_norm_eps = json.number("layer_norm_epsilon")?.unwrap_or(1e-5);
    let unscaled = json.flag("scale_attn_weights")? == Some(false);
    let design = &mut config.design;
    design.norm = NormKind::Layer;
    (design.qkv_bias, design.output_bias, design.mlp_bias) = (true, true, true);
    design.gated = false;
    design.activation = json.activation("activation_function", Activation::GeluTanh)?;
    design.learned_positions = true;
    design.ropes = vec![Rope::Still];
    design.attention_scale = unscaled.then_some(1.0);
    Ok(config)
}
