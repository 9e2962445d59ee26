//! RoBERTa (Liu et al., 2019), XLM-RoBERTa and their distilled forms: BERT's blocks and names, with positions that
//! begin behind the padding token's id.

use super::{
    bert,
    config::{Json, unsupported},
    network::EncoderConfig,
};
use crate::weight_map::Family;
use narthex_base::Result;

const FAMILY: &Family = &Family { model_type: "roberta", weights: bert::weights("roberta.") };

pub(super) fn config(config: &Json) -> Result<EncoderConfig> {
    let padding = config.optional_size("pad_token_id").unwrap_or(1);
    let mut plain = bert::config(config)?;
    if padding + 1 >= plain.positions {
        return Err(unsupported("pad_token_id", &padding.to_string(), "ids below max_position_embeddings"));
    }
    plain.shape.design.family = FAMILY;
    plain.shape.context = plain.positions - padding - 1;
    Ok(EncoderConfig { padding: Some(padding as u32), ..plain })
}
