//! The loss over a text: nats per byte and per token, batch by batch in a fixed order. Knows neither shards nor
//! training.

use super::{Extent, TokenBatch, Validation, Values, nats};
use narthex_base::{Error, Observer, Result};
use narthex_model::{Decoder, Dropout};

/// Sequences in a batch of validation.
pub(super) const ROWS: usize = 8;

/// Validation tokens between steps; at the end all of them count.
const INTERIM_TOKENS_MAX: usize = 32_768;

/// How many tokens an extent takes at most.
pub(super) fn tokens_max(extent: Extent) -> usize {
    match extent {
        Extent::Part => INTERIM_TOKENS_MAX,
        Extent::Whole => usize::MAX,
    }
}

/// What predicting a text costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextLoss {
    /// Mean negative log-likelihood of a predicted token, in nats.
    pub nats_per_token: f64,
    /// The same spread over the bytes of the text, so that tokenizers can be compared.
    pub nats_per_byte: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

impl TextLoss {
    /// Measures a model on batches of a text that has `trained` tokens to predict and `bytes` bytes in all.
    ///
    /// # Errors
    /// If the batches hold nothing to predict, or the work is interrupted.
    pub(super) fn of(
        model: &Decoder,
        batches: impl Iterator<Item = TokenBatch>,
        trained: usize,
        bytes: u64,
        observer: Observer,
    ) -> Result<Self> {
        let model = model.for_inference();
        let (mut total, mut tokens) = (0f64, 0);
        for batch in batches {
            observer.check()?;
            let counted = batch.counted();
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
        Ok(Self { nats_per_token, nats_per_byte: nats_per_token * trained as f64 / bytes.max(1) as f64, tokens })
    }

    /// The same as a validation's outcome.
    pub(super) fn validation(self) -> Validation {
        let headline = "validation_nats_per_byte";
        Validation {
            values: Values::from([
                ("validation_nats_per_token".into(), self.nats_per_token),
                (headline.into(), self.nats_per_byte),
            ]),
            headline,
            shown: format!("{:.3} nats/byte", self.nats_per_byte),
        }
    }
}
