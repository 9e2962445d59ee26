//! The passes of token batches through a decoder, forward and back, and the cross-entropy in nats. Knows neither where
//! batches come from nor what becomes of gradients.

use super::{Loss, Parts, Pass, TokenBatch, TokenData, Units, whole_pass};
use crate::gradients::NamedGradients;
use burn::tensor::{Int, Tensor, TensorData};
use narthex_base::{
    Result,
    config::{Machine, Schedule, Shard},
    random::Stream,
};
use narthex_kernels::embedding;
use narthex_model::{CausalContext, Decoder, Dropout, Positions};

/// How a decoder is passed through in training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DecoderPass {
    /// Dropout probability.
    pub dropout: f64,
    /// Keeps of the way forward only what enters each block, and goes each block again on the way back: all that a
    /// network needs whose parameters are there block by block.
    pub block_by_block: bool,
}

impl DecoderPass {
    /// As the schedule asks for it.
    pub fn new(schedule: &Schedule) -> Self {
        let Machine { activation_checkpointing, shard, .. } = schedule.machine;
        let block_by_block = activation_checkpointing || shard == Shard::Parameters;
        Self { dropout: schedule.update.dropout, block_by_block }
    }

    pub(super) fn units(&self, model: &Decoder, data: &TokenData) -> Units {
        Units {
            item: "tokens",
            items_per_batch: (data.rows * data.len) as u64,
            flop_per_item: Some(model.config().training_flop_per_token(data.len)),
            loss_figure: "training_nats_per_token",
            parameters: model.config().parameters(),
        }
    }

    /// The cross-entropy of the predictions of a batch that count, in nats: their sum times `scale`.
    pub fn loss(&self, model: &Decoder, batch: &TokenBatch, noise: Stream, scale: f64) -> Loss {
        let mut dropout = Dropout::new(noise, self.dropout);
        Loss { sum: nats(model, batch, &mut dropout, scale), value: None, values: vec![] }
    }

    /// The part of a decoder that a parameter belongs to: 1 and on for the blocks, 0 for what stands before and after.
    pub fn part(&self, parameter: &str) -> usize {
        let block = parameter.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        if self.block_by_block { block.map_or(0, |block: usize| block + 1) } else { 0 }
    }

    /// A pass with that loss, forward and back.
    ///
    /// # Errors
    /// If another process cannot be reached, or has parted from the common path.
    pub fn pass(
        &self,
        parts: &mut dyn Parts<Decoder>,
        batch: Option<&TokenBatch>,
        noise: Stream,
        scale: f64,
    ) -> Result<Option<Pass>> {
        let finish = |model: &Decoder, hidden, targets| Loss {
            sum: model.nats(hidden, targets, scale),
            value: None,
            values: vec![],
        };
        self.pass_with(parts, batch.map(|batch| (batch, finish)), noise)
    }

    /// A pass with a loss over the hidden vectors `[K, hidden]` and targets `[K]` of the K predictions that count.
    pub(super) fn pass_with<F: FnOnce(&Decoder, Tensor<2>, Tensor<1, Int>) -> Loss>(
        &self,
        parts: &mut dyn Parts<Decoder>,
        work: Option<(&TokenBatch, F)>,
        noise: Stream,
    ) -> Result<Option<Pass>> {
        let mut dropout = Dropout::new(noise, self.dropout);
        if self.block_by_block {
            return block_by_block(parts, work, &mut dropout);
        }
        whole_pass(
            parts,
            work.map(|(batch, finish)| {
                let dropout = &mut dropout;
                move |model: &Decoder| {
                    let (hidden, targets) = predictions(model, batch, dropout);
                    finish(model, hidden, targets)
                }
            }),
        )
    }
}

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
    fn new(model: &Decoder, batch: &TokenBatch) -> Self {
        let TokenBatch { rows, len, .. } = *batch;
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

    /// What follows the last block, where a prediction counts: what the output projection is given.
    fn hidden(&self, model: &Decoder, x: Tensor<2>) -> Tensor<2> {
        let hidden = model.norm(x);
        match &self.counted {
            Some(rows) => embedding(hidden, rows.clone()),
            None => hidden,
        }
    }
}

/// The hidden vectors `[K, hidden]` of a batch's K predictions that count, row by row, and their targets `[K]`.
pub(super) fn predictions(model: &Decoder, batch: &TokenBatch, dropout: &mut Dropout) -> (Tensor<2>, Tensor<1, Int>) {
    let mut inputs = Inputs::new(model, batch);
    let mut x = model.embed(inputs.tokens.clone(), &inputs.positions, dropout);
    for layer in 0..model.config().layers {
        x = model.block(layer, x, &inputs.positions, &mut inputs.attention, dropout);
    }
    (inputs.hidden(model, x), inputs.targets)
}

/// `scale` times the sum of the negative log-likelihoods, in nats, of the predictions of a batch that count: a tensor
/// of one element, so that it can be differentiated.
pub fn nats(model: &Decoder, batch: &TokenBatch, dropout: &mut Dropout, scale: f64) -> Tensor<1> {
    let (hidden, targets) = predictions(model, batch, dropout);
    model.nats(hidden, targets, scale)
}

/// The same, keeping of the way forward only what enters each block, and going each block again on the way back (Chen
/// et al., "Training deep nets with sublinear memory cost", 2016). Every number is computed as at once. The way forward
/// runs on weights without gradients: Burn's tape keeps what it has recorded until a way back, even where nothing refers
/// to it any more. The parameters of one block are in use at a time, and those of the next one on their way.
fn block_by_block<F: FnOnce(&Decoder, Tensor<2>, Tensor<1, Int>) -> Loss>(
    parts: &mut dyn Parts<Decoder>,
    work: Option<(&TokenBatch, F)>,
    dropout: &mut Dropout,
) -> Result<Option<Pass>> {
    let root = parts.network(0, true)?;
    let layers = root.config().layers;
    parts.ahead(1)?;
    let (batch, finish) = work.unzip();
    let at_start = dropout.clone();
    let mut plain = batch.map(|batch| Inputs::new(&root.for_inference(), batch));
    let mut x = plain.as_ref().map(|plain| {
        let root = root.for_inference();
        root.embed(plain.tokens.clone(), &plain.positions, dropout)
    });
    // What enters each block, with the state of dropout there.
    let mut entries: Vec<(Tensor<2>, Dropout)> = Vec::with_capacity(layers);
    for layer in 0..layers {
        let model = parts.network(layer + 1, false)?;
        // After the last block comes the last again, on the way back.
        parts.ahead(if layer + 1 < layers { layer + 2 } else { layers })?;
        if let (Some(plain), Some(entering)) = (&mut plain, x.take()) {
            entries.push((entering.clone(), dropout.clone()));
            x = Some(model.block(layer, entering, &plain.positions, &mut plain.attention, dropout));
        }
    }
    drop(plain);
    let mut inputs = batch.map(|batch| Inputs::new(&root, batch));
    let mut of_root = NamedGradients::default();
    let (mut gradient, mut pass) = (None, None);
    if let (Some(inputs), Some(x), Some(finish)) = (&inputs, x, finish) {
        let leaf = Tensor::from_inner(x).require_grad();
        let found = finish(&root, inputs.hidden(&root, leaf.clone()), inputs.targets.clone());
        pass = Some(Pass { loss: found.number(), values: found.values });
        let mut found = found.sum.backward();
        gradient = leaf.grad_remove(&mut found);
        of_root.add(NamedGradients::of(&root, found));
    }
    for layer in (0..layers).rev() {
        let model = parts.network(layer + 1, true)?;
        if layer > 0 {
            parts.ahead(layer)?;
        }
        let mut of_block = None;
        if let (Some(inputs), Some((x, mut dropout)), Some(above)) = (&mut inputs, entries.pop(), gradient.take()) {
            let leaf = Tensor::from_inner(x).require_grad();
            let y = model.block(layer, leaf.clone(), &inputs.positions, &mut inputs.attention, &mut dropout);
            let mut found = (y * Tensor::from_inner(above)).sum().backward();
            gradient = leaf.grad_remove(&mut found);
            of_block = Some(NamedGradients::of(&model, found));
        }
        drop(model);
        parts.give(layer + 1, of_block)?;
    }
    if let (Some(inputs), Some(gradient)) = (&inputs, gradient)
        && root.trains_embedding()
    {
        let x = root.embed(inputs.tokens.clone(), &inputs.positions, &mut at_start.clone());
        of_root.add(NamedGradients::of(&root, (x * Tensor::from_inner(gradient)).sum().backward()));
    }
    parts.give(0, pass.is_some().then_some(of_root))?;
    Ok(pass)
}
