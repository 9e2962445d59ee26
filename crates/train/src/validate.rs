//! Validation: nats per byte and per token over a shard, in a fixed order.

use crate::{Batch, Objective, batch::covering, nats};
use narthex_base::{Error, Observer, Result};
use narthex_model::{Decoder, Dropout};
use narthex_text::TokenShard;

/// What a validation measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validation {
    /// Mean negative log-likelihood of a predicted token, in nats.
    pub nats_per_token: f64,
    /// The same spread over the bytes of the text, so that tokenizers can be compared.
    pub nats_per_byte: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// Sequences in a batch of validation.
const ROWS: usize = 8;

/// Measures a model on the first `tokens_max` tokens of a shard, in windows of `len` tokens.
///
/// # Errors
/// If the shard holds nothing to predict, or the work is interrupted.
pub fn validate(
    model: &Decoder,
    shard: &TokenShard,
    objective: Objective,
    len: usize,
    tokens_max: usize,
    observer: Observer,
) -> Result<Validation> {
    let model = model.for_inference();
    let (mut total, mut tokens) = (0f64, 0);
    for batch in covering(shard, objective, ROWS, len, tokens_max) {
        observer.check()?;
        let counted = Batch::counted(&batch);
        if counted == 0 {
            continue;
        }
        total += nats(&model, &batch, &mut Dropout::none(), 1.0).into_scalar::<f64>();
        tokens += counted;
    }
    if tokens == 0 {
        return Err(Error::input("the validation part holds nothing to predict")
            .help("raise `validation` in the data step, or add data"));
    }
    let nats_per_token = total / tokens as f64;
    let trained = match objective {
        Objective::Pretrain { .. } => shard.len(),
        Objective::Chat => (0..shard.len()).filter(|position| shard.mask(*position)).count(),
    };
    Ok(Validation {
        nats_per_token,
        nats_per_byte: nats_per_token * trained as f64 / shard.text_bytes().max(1) as f64,
        tokens,
    })
}
