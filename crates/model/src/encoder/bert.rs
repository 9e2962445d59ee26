//! BERT (Devlin et al., 2019): learned positions, a norm after each part, outside the residual stream. Names and config
//! as in Hugging Face's `BertModel`.

use super::{config::Json, network::EncoderConfig};
use crate::{
    config::{Design, ModelConfig, NormKind, Placement},
    positions::Rope,
    weight_map::{Family, WeightMap},
};
use narthex_base::Result;

const FAMILY: &Family = &Family { model_type: "bert", weights: weights("bert.") };

/// BERT's names, of a family whose checkpoints may put this before them.
pub(super) const fn weights(prefix: &'static str) -> WeightMap {
    WeightMap { layers: "encoder.layer.", names: NAMES, transposed: false, by_head: false, prefix }
}

const NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens", "embeddings.word_embeddings"),
    ("model.embed_positions", "embeddings.position_embeddings"),
    ("model.embed_types", "embeddings.token_type_embeddings"),
    ("model.embed_norm", "embeddings.LayerNorm"),
    ("self_attn.q_proj", "attention.self.query"),
    ("self_attn.k_proj", "attention.self.key"),
    ("self_attn.v_proj", "attention.self.value"),
    ("self_attn.o_proj", "attention.output.dense"),
    ("attention_output_norm", "attention.output.LayerNorm"),
    ("mlp.up_proj", "intermediate.dense"),
    ("mlp.down_proj", "output.dense"),
    ("mlp_output_norm", "output.LayerNorm"),
];

/// The keys of `config.json` that are read, or that must say what is usual.
pub(super) const KEYS: &[&str] = &[
    "add_cross_attention",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "is_decoder",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "position_embedding_type",
    "type_vocab_size",
    "vocab_size",
];

pub(super) fn config(config: &Json) -> Result<EncoderConfig> {
    config.refuse_unless("position_embedding_type", &["absolute"])?;
    config.refuse_true("is_decoder")?;
    config.refuse_true("add_cross_attention")?;
    let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let positions = config.size("max_position_embeddings")?;
    let shape = ModelConfig {
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        intermediate_size: config.size("intermediate_size")?,
        layers: config.size("num_hidden_layers")?,
        heads,
        kv_heads: heads,
        head_width: config.head_width(hidden_size, heads)?,
        rms_norm_eps: config.number("layer_norm_eps", 1e-12)?,
        rope_theta: 10_000.0,
        tied_embeddings: true,
        context: positions,
        bos_token: None,
        eos_tokens: vec![],
        design: Design {
            family: FAMILY,
            norm: NormKind::Layer,
            placement: Placement::Outside,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            gated: false,
            activation: config.activation("hidden_act")?,
            ropes: vec![Rope::Still],
            learned_positions: true,
            ..Design::default()
        },
    };
    let types = config.optional_size("type_vocab_size").unwrap_or(2).max(1);
    Ok(EncoderConfig { shape, positions, types, padding: None, final_norm: false, source: config.0.clone() })
}
