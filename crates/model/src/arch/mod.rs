//! The list of architectures: one file each, with what its config asks for and how its checkpoints name and lay out
//! weights. All are the decoder of [`crate::Decoder`] in another design.

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
    config::{Design, ModelConfig},
    config_json::{Json, unknown_key},
    unsupported::unsupported,
    weight_map::Family,
};
use llama::LLAMA;
use narthex_base::{Error, Result, text_file::json_of};
use serde_json::Value;
use std::path::Path;

/// A family of models that can be read.
#[derive(Debug)]
pub struct Architecture {
    /// Its name, and how its checkpoints name and lay out weights.
    pub family: &'static Family,
    /// What its config asks for.
    pub(crate) config: fn(&Json) -> Result<ModelConfig>,
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
    let found = ARCHITECTURES.into_iter().find(|architecture| architecture.family.model_type == model_type);
    found.ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.family.model_type).collect();
        unsupported("model_type", model_type, &known.join(", "))
    })
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or asks for something this version cannot do: it is named.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
        let value: Value = json_of(bytes, path)?;
        Self::from_json(&value).map_err(|error| error.at(path.display(), None))
    }

    /// Reads a config.
    ///
    /// # Errors
    /// If a key is missing or has a value that this version cannot honour.
    pub fn from_json(value: &Value) -> Result<Self> {
        let architecture = named(value["model_type"].as_str().unwrap_or("(none)"))?;
        let json = Json::new(value, architecture.family.model_type);
        let mut config = (architecture.config)(&json)?;
        for kind in
            value["layer_types"].as_array().into_iter().flatten().map(|kind| kind.as_str().unwrap_or("(no text)"))
        {
            if !["full_attention", "sliding_attention"].contains(&kind) {
                return Err(unsupported("layer_types", kind, "full_attention, sliding_attention"));
            }
        }
        config.check()?;
        config.design.notes.extend(json.unread()?.iter().map(|key| unknown_key(key)));
        let plain = Design { notes: config.design.notes.clone(), ..Design::default() };
        config.design.family = architecture.family;
        config.design.source = (config.design != plain).then(|| value.clone());
        Ok(config)
    }
}
