//! The list of architectures: one file each, with what its config asks for and how its checkpoints name and lay out weights.
//! All are the decoder of [`crate::Decoder`] in another design.

mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;
mod starcoder2;

use crate::{
    ModelConfig,
    config::{Json, unsupported},
    weight_map::WeightMap,
};
use narthex_base::Result;

pub(crate) use llama::LLAMA;

/// A family of models.
#[derive(Debug)]
pub struct Architecture {
    /// Its name in `config.json`.
    pub model_type: &'static str,
    /// What its config asks for.
    pub(crate) config: fn(&Json) -> Result<ModelConfig>,
    /// How its checkpoints name and lay out weights.
    pub(crate) weights: WeightMap,
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

/// All that can be read.
#[rustfmt::skip]
pub const ARCHITECTURES: [&Architecture; 15] = [
    LLAMA,
    mistral::MISTRAL,
    qwen2::QWEN2,
    qwen3::QWEN3,
    qwen3_moe::QWEN3_MOE,
    mixtral::MIXTRAL,
    gemma2::GEMMA2,
    gemma3::GEMMA3,
    phi3::PHI3,
    smollm3::SMOLLM3,
    olmo2::OLMO2,
    granite::GRANITE,
    gpt2::GPT2,
    gpt_neox::GPT_NEOX,
    starcoder2::STARCODER2,
];

/// The architecture of this `model_type`.
///
/// # Errors
/// If there is none; those that there are are named.
pub(crate) fn named(model_type: &str) -> Result<&'static Architecture> {
    let found = ARCHITECTURES.into_iter().find(|architecture| architecture.model_type == model_type);
    found.ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.model_type).collect();
        unsupported("model_type", model_type, &known.join(", "))
    })
}
