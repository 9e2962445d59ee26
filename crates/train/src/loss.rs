//! Cross-entropy in nats, and the passes of a batch through the model.

use crate::{Batch, optimizer::GradientList};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_kernels::embedding;
use narthex_model::{CausalContext, Decoder, Dropout, Positions};

/// A batch as the model wants it.
struct Inputs {
    tokens: Tensor<2, Int>,
    /// The rows whose predictions count, unless all do.
    counted: Option<Tensor<1, Int>>,
    targets: Tensor<1, Int>,
    positions: Positions,
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
            positions: model.positions(&[&positions], device),
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
    let mut x = model.embed(inputs.tokens.clone(), &inputs.positions, dropout);
    for layer in 0..model.config().layers {
        x = model.block(layer, x, &inputs.positions, &mut inputs.attention, dropout);
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
    let mut x = model.embed(inputs.tokens.clone(), &inputs.positions, dropout).inner();
    for layer in 0..layers {
        entries.push((x.clone(), dropout.clone()));
        let entry = Tensor::from_inner(x);
        x = model.block(layer, entry, &inputs.positions, &mut inputs.attention, dropout).inner();
    }
    let leaf = Tensor::from_inner(x).require_grad();
    let loss = inputs.finish(model, leaf.clone(), scale);
    let value = loss.clone().inner().into_scalar::<f64>();
    let mut found = loss.backward();
    let mut gradient = leaf.grad_remove(&mut found).expect("the loss depends on the last block");
    list.collect(model, found);
    for (layer, (x, mut dropout)) in entries.into_iter().enumerate().rev() {
        let leaf = Tensor::from_inner(x).require_grad();
        let y = model.block(layer, leaf.clone(), &inputs.positions, &mut inputs.attention, &mut dropout);
        let mut found = (y * Tensor::from_inner(gradient)).sum().backward();
        gradient = leaf.grad_remove(&mut found).expect("a block depends on what enters it");
        list.collect(model, found);
    }
    if model.trains_embedding() {
        let x = model.embed(inputs.tokens, &inputs.positions, &mut at_start.clone());
        list.collect(model, (x * Tensor::from_inner(gradient)).sum().backward());
    }
    (value, list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::Optimizer;
    use narthex_base::config::Schedule;
    use narthex_model::{Design, ModelConfig, Replacement, cpu, map_parameters};

    const VOCABULARY: usize = 97;
    const ROWS: usize = 3;
    const LENGTH: usize = 48;

    /// The token that `xtask/goldens/training.py` puts there.
    fn token(step: usize, row: usize, i: usize) -> i64 {
        ((step * 7 + row * 31 + i * 3 + i / 7) % VOCABULARY) as i64
    }

    fn batch(step: usize) -> Batch {
        let ids = |shift: usize| {
            (0..ROWS).flat_map(move |row| (0..LENGTH).map(move |i| token(step, row, i + shift))).collect::<Vec<i64>>()
        };
        Batch {
            rows: ROWS,
            len: LENGTH,
            tokens: ids(0),
            targets: ids(1),
            counts: vec![true; ROWS * LENGTH],
            documents: None,
        }
    }

    /// The weights that `xtask/goldens/training.py` starts with.
    fn model(names: &[String]) -> Decoder {
        let config = ModelConfig {
            vocab_size: VOCABULARY,
            hidden_size: 64,
            intermediate_size: 172,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied_embeddings: false,
            context: LENGTH,
            bos_token: None,
            eos_tokens: vec![],
            design: Design::default(),
        };
        let model = map_parameters(Decoder::random(&config, 0, &cpu()), |name, shape| {
            let number = names.iter().position(|known| known == name).expect("a tensor that PyTorch has too");
            let value = |i: usize| match shape.len() {
                1 => 1.0,
                _ => (0.08 * (0.37 * ((i + 1) * (i + 1)) as f64 + number as f64).sin()) as f32,
            };
            Replacement { values: Some((0..shape.iter().product()).map(value).collect()), trained: false }
        });
        model.for_training(|_| true)
    }

    /// Same weights, same data, 100 steps of AdamW with clipping and decay: every loss is PyTorch's.
    #[test]
    fn losses_are_those_of_pytorch() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../tests/golden/training.json")).unwrap();
        let names: Vec<String> = serde_json::from_value(golden["names"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(golden["losses"].clone()).unwrap();
        assert_eq!(expected.len(), 100);
        let schedule = Schedule { weight_decay: 0.1, beta2: 0.99, ..Schedule::default() };
        for pass in [gradients, checkpointed_gradients] {
            let mut model = model(&names);
            let mut optimizer = Optimizer::new(&model, &schedule, |_| true);
            for (step, expected) in expected.iter().enumerate() {
                let batch = batch(step);
                let (loss, found) = pass(&model, &batch, &mut Dropout::none(), 1.0 / (ROWS * LENGTH) as f64);
                assert!((loss - expected).abs() < 1e-4, "step {step}: {loss}, not {expected}");
                model = optimizer.step(model, found, &schedule, 1e-3).0;
            }
        }
    }
}
