//! Text encoders: token ids to a vector for each token, and from those to one for the sequence, or to what a head
//! needs. One file an architecture, as with decoders, and the same blocks.
//!
//! Sequences of different lengths run together without padding: their rows lie one behind the other, and only attention
//! knows where one ends. What a sequence yields does not depend on what else is in the batch.

mod bert;
mod config;
mod head;
mod modernbert;
mod network;
mod pooling;
mod roberta;
mod sentence;

pub use pooling::{PoolingMode, normalize, pool};
pub use sentence::SentenceConfig;

pub(crate) use config::{Json, unsupported};
pub(crate) use head::{Head, HeadShape, Places};
pub(crate) use network::{Encoder, EncoderConfig};
pub(crate) use pooling::Pipeline;

use crate::config_json::{family_keys, unknown_key, unread_keys};
use narthex_base::Result;
use std::path::Path;

/// The values of `model_type` in config.json that stand for an encoder.
const FAMILIES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "modernbert"];

/// A sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The segment of each token, as a pair of texts has them; empty where all are 0.
    pub types: Vec<u32>,
}

/// Whether the config in a folder is that of an encoder or of a classifier, which generate no text; false also where it
/// cannot be read.
pub fn is_encoder(folder: &Path) -> bool {
    Json::read(&folder.join("config.json")).is_ok_and(|config| is_family(&config) || config.is_classifier())
}

/// Whether a config is that of an encoder.
pub(crate) fn is_family(config: &Json) -> bool {
    FAMILIES.contains(&config.family())
}

/// What an encoder of this config looks like.
///
/// # Errors
/// If it is none, or asks for something that is not supported.
pub(crate) fn config_of(config: &Json) -> Result<EncoderConfig> {
    let (mut read, keys) = match config.family() {
        "bert" => (bert::config(config)?, bert::KEYS),
        "roberta" | "xlm-roberta" => (roberta::config(config)?, bert::KEYS),
        "modernbert" => (modernbert::config(config)?, modernbert::KEYS),
        other => return Err(config::unsupported("model_type", other, &FAMILIES.join(", "))),
    };
    let is_read = |key: &str| keys.contains(&key) || OF_HEADS.contains(&key);
    let unread = unread_keys(&config.0, family_keys(config.family()), is_read)?;
    read.shape.design.notes.extend(unread.iter().map(|key| unknown_key(key)));
    Ok(read)
}

/// Keys that heads read, and those of heads for other tasks, of attention in other programs and of names for ids.
const OF_HEADS: [&str; 15] = [
    "classifier_activation",
    "classifier_bias",
    "classifier_pooling",
    "cls_token_id",
    "decoder_bias",
    "deterministic_flash_attn",
    "directionality",
    "gradient_checkpointing",
    "mask_token_id",
    "output_past",
    "reference_compile",
    "repad_logits_with_grad",
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    "sparse_pred_ignore_index",
];

/// Tensors that checkpoints carry and nothing here needs: heads for other tasks, and what is computed here.
pub(crate) fn ignored(name: &str) -> bool {
    let heads = ["pooler.", "bert.pooler.", "roberta.pooler.", "cls.", "lm_head.", "head.", "decoder.", "classifier."];
    name.ends_with("position_ids") || heads.iter().any(|head| name.starts_with(head))
}
