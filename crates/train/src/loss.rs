//! Cross-entropy in nats, and the forward pass of a batch.

use crate::Batch;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use narthex_model::{CausalContext, Decoder, Dropout};

/// The sum of the negative log-likelihoods, in nats, of the predictions of a batch that count: a tensor of one element,
/// so that it can be differentiated.
///
/// The output projection runs only where a prediction counts.
pub fn nats(model: &Decoder, batch: &Batch, dropout: &mut Dropout, device: &Device) -> Tensor<1> {
    let Batch { rows, len, .. } = *batch;
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(batch.tokens.clone(), [rows, len]), device);
    let positions: Vec<usize> = (0..len).collect();
    let mut context = match &batch.documents {
        Some(documents) => CausalContext::within_documents(documents, len, device),
        None => CausalContext::new(len, device),
    };
    let rotary = model.rotary(&[&positions], device);
    let mut hidden = model.hidden(tokens, &rotary, &mut context, dropout);
    let counted: Vec<usize> = (0..batch.counts.len()).filter(|i| batch.counts[*i]).collect();
    if counted.len() < batch.counts.len() {
        let rows: Vec<i64> = counted.iter().map(|i| *i as i64).collect();
        let rows = TensorData::new(rows, [counted.len()]);
        hidden = hidden.select(0, Tensor::<1, Int>::from_data(rows, device));
    }
    let targets: Vec<i64> = counted.iter().map(|i| batch.targets[*i]).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [counted.len(), 1]), device);
    activation::log_softmax(model.logits(hidden), 1).gather(1, targets).neg().sum()
}
