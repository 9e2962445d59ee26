//! Cross-entropy in nats, and the passes of a batch through the model.

use crate::{Batch, optimizer::GradientList};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_kernels::embedding;
use narthex_model::{CausalContext, Decoder, Dropout, Rotary};

/// A batch as the model wants it.
struct Inputs {
    tokens: Tensor<2, Int>,
    /// The rows whose predictions count, unless all do.
    counted: Option<Tensor<1, Int>>,
    targets: Tensor<1, Int>,
    rotary: Rotary,
    attention: CausalContext,
}

impl Inputs {
    fn new(model: &Decoder, batch: &Batch) -> Self {
        let Batch { rows, len, .. } = *batch;
        let device = &model.device();
        let list = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), device)
        };
        let positions: Vec<usize> = (0..len).collect();
        let counted: Vec<usize> = (0..batch.counts.len()).filter(|i| batch.counts[*i]).collect();
        Self {
            tokens: Tensor::from_data(TensorData::new(batch.tokens.clone(), [rows, len]), device),
            targets: list(counted.iter().map(|i| batch.targets[*i]).collect()),
            counted: (counted.len() < batch.counts.len()).then(|| list(counted.iter().map(|i| *i as i64).collect())),
            rotary: model.rotary(&[&positions], device),
            attention: match &batch.documents {
                Some(documents) => CausalContext::within_documents(documents, len),
                None => CausalContext::new(len),
            },
        }
    }

    /// What follows the last block. The output projection runs only where a prediction counts.
    fn finish(&self, model: &Decoder, x: Tensor<2>, scale: f64) -> Tensor<1> {
        let mut hidden = model.norm(x);
        if let Some(rows) = &self.counted {
            hidden = embedding(hidden, rows.clone());
        }
        model.nats(hidden, self.targets.clone(), scale)
    }
}

/// `scale` times the sum of the negative log-likelihoods, in nats, of the predictions of a batch that count: a tensor of
/// one element, so that it can be differentiated.
pub fn nats(model: &Decoder, batch: &Batch, dropout: &mut Dropout, scale: f64) -> Tensor<1> {
    let mut inputs = Inputs::new(model, batch);
    let mut x = model.embed(inputs.tokens.clone(), dropout);
    for layer in 0..model.config().layers {
        x = model.block(layer, x, &inputs.rotary, &mut inputs.attention, dropout);
    }
    inputs.finish(model, x, scale)
}

/// The loss of [`nats`] and the gradients of the trained parameters.
pub(crate) fn gradients(model: &Decoder, batch: &Batch, dropout: &mut Dropout, scale: f64) -> (f64, GradientList) {
    let loss = nats(model, batch, dropout, scale);
    let value = loss.clone().inner().into_scalar::<f64>();
    let mut list = GradientList::default();
    list.collect(model, loss.backward());
    (value, list)
}

/// The same, keeping of the way forward only what enters each block, and going each block again on the way back (Chen
/// et al., "Training deep nets with sublinear memory cost", 2016). Every number is computed as in [`gradients`].
pub(crate) fn checkpointed_gradients(
    model: &Decoder,
    batch: &Batch,
    dropout: &mut Dropout,
    scale: f64,
) -> (f64, GradientList) {
    let mut inputs = Inputs::new(model, batch);
    let layers = model.config().layers;
    let mut list = GradientList::default();
    // What enters each block, with the state of dropout there.
    let mut entries: Vec<(Tensor<2>, Dropout)> = Vec::with_capacity(layers);
    let at_start = dropout.clone();
    let mut x = model.embed(inputs.tokens.clone(), dropout).inner();
    for layer in 0..layers {
        entries.push((x.clone(), dropout.clone()));
        let entry = Tensor::from_inner(x);
        x = model.block(layer, entry, &inputs.rotary, &mut inputs.attention, dropout).inner();
    }
    let leaf = Tensor::from_inner(x).require_grad();
    let loss = inputs.finish(model, leaf.clone(), scale);
    let value = loss.clone().inner().into_scalar::<f64>();
    let mut found = loss.backward();
    let mut gradient = leaf.grad_remove(&mut found).expect("the loss depends on the last block");
    list.collect(model, found);
    for (layer, (x, mut dropout)) in entries.into_iter().enumerate().rev() {
        let leaf = Tensor::from_inner(x).require_grad();
        let y = model.block(layer, leaf.clone(), &inputs.rotary, &mut inputs.attention, &mut dropout);
        let mut found = (y * Tensor::from_inner(gradient)).sum().backward();
        gradient = leaf.grad_remove(&mut found).expect("a block depends on what enters it");
        list.collect(model, found);
    }
    let x = model.embed(inputs.tokens, &mut at_start.clone());
    if x.is_require_grad() {
        list.collect(model, (x * Tensor::from_inner(gradient)).sum().backward());
    }
    (value, list)
}
