//! RoBERTa (Liu et al., 2019), XLM-RoBERTa and their distilled forms: BERT's blocks and names, with positions that begin
//! behind the padding token's id.

use super::{
    bert,
    config::{Json, unsupported},
};
use narthex_base::Result;

pub(super) fn config(config: &Json) -> Result<bert::Config> {
    let padding = config.optional_size("pad_token_id").unwrap_or(1);
    let plain = bert::Config::read(config)?;
    let eps = config.number("layer_norm_eps", 1e-5);
    if padding + 1 >= plain.positions {
        return Err(unsupported("pad_token_id", &padding.to_string(), "ids below max_position_embeddings"));
    }
    let context = plain.positions - padding - 1;
    Ok(bert::Config { context, eps, padding: Some(padding as u32), ..plain })
}
