//! The optimizer over a network's trained parameters: clipped by the norm over all of them, and one update in place of
//! each. Of each parameter a process has a range: all of it, or its share (ZeRO's stages 1 to 3: Rajbhandari et al.,
//! 2020). Ranges begin where the kernels' blocks begin, so that every number is computed as over the whole. Holds the
//! moments, in memory or on the disk; the weights are given to it.

use crate::{
    gradients::{flat_tensor, flat_values},
    selection::Selection,
    stored::{Job, Scratch, Span, Stored},
    world::{Part, Pieces, World},
};
use burn::tensor::{Device, Tensor};
use indexmap::IndexMap;
use narthex_base::{
    Error, Result,
    config::{Optimizer as Algorithm, Update},
};
use narthex_kernels::{AdamwStep, HostValues, MuonStep, SQUARES_BLOCK, adamw, muon, square_sum, square_sums};
use narthex_model::cpu;
use std::ops::Range;

/// The moments of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The parameter's shape.
    pub(crate) shape: Vec<usize>,
    /// Whether Muon takes it, whole.
    pub(crate) whole: bool,
    /// The values that this process updates.
    pub(crate) range: Range<usize>,
    /// Of those the running means of the gradient and of its square; Muon keeps only the first.
    pub(crate) moments: Vec<Stored>,
}

/// The state: every trained parameter by name, in the order of the network's definition.
#[derive(Debug, Default)]
pub(crate) struct Optimizer {
    pub(crate) slots: IndexMap<String, Slot>,
    /// Steps taken.
    pub(crate) steps: u64,
    /// Where the moments are that are not in memory.
    pub(crate) scratch: Option<Scratch>,
}

/// The trained parameters as all ranks count them. Muon is for the matrices of hidden layers; embeddings, the output
/// projection and vectors stay with AdamW (Jordan et al., "Muon", 2024).
pub(crate) fn layout(selection: &Selection, algorithm: Algorithm) -> Vec<Part> {
    let parts = selection.parameters().iter().enumerate().map(|(turn, selected)| Part {
        name: selected.name.clone(),
        len: selected.shape.iter().product(),
        whole: algorithm == Algorithm::Muon && selected.hidden,
        rounded: false,
        turn,
    });
    parts.collect()
}

/// How far a step goes.
struct Stride<'a> {
    update: &'a Update,
    lr: f64,
    clip: f64,
    step: u64,
}

impl Optimizer {
    /// Zero moments for the ranges of the selected parameters that `range` gives, on a device, or in `scratch`.
    pub(crate) fn new(
        selection: &Selection,
        algorithm: Algorithm,
        range: impl Fn(&Part) -> Range<usize>,
        device: &Device,
        mut scratch: Option<Scratch>,
    ) -> Result<Self> {
        let mut slots = IndexMap::new();
        for (part, selected) in layout(selection, algorithm).iter().zip(selection.parameters()) {
            let range = range(part);
            let zeros = |scratch: &mut Option<Scratch>| match scratch {
                Some(scratch) => scratch.room(range.len()).map(Stored::Disk),
                None => Ok(Stored::Memory(Tensor::zeros([range.len()], device))),
            };
            let count = if part.whole { 1 } else { 2 };
            let moments = (0..count).map(|_| zeros(&mut scratch)).collect::<Result<_>>()?;
            slots.insert(part.name.clone(), Slot { shape: selected.shape.clone(), whole: part.whole, range, moments });
        }
        Ok(Self { slots, steps: 0, scratch })
    }

    /// Trained values in all parameters together.
    pub(crate) fn trained_parameters(&self) -> usize {
        self.slots.values().map(|slot| slot.shape.iter().product::<usize>()).sum()
    }

    /// One step over this process's ranges of the weights, with its ranges of the summed gradients; parameters without a
    /// gradient count as having a zero one. `norm` is that over all gradients. A process that has none of a parameter's
    /// values gives none, and gets none.
    pub(crate) fn step(
        &mut self,
        weights: Vec<Stored>,
        mut gradients: Pieces,
        norm: f64,
        update: &Update,
        lr: f64,
    ) -> Result<Vec<Stored>> {
        self.steps += 1;
        let clip = if update.grad_clip > 0.0 { (update.grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let stride = Stride { update, lr, clip, step: self.steps };
        if let Some(scratch) = &self.scratch {
            return step_on_disk(scratch, &self.slots, weights, gradients, &stride);
        }
        let slots = self.slots.values_mut().zip(weights).zip(&mut gradients);
        let stepped = slots.map(|((slot, weights), gradient)| {
            if slot.range.is_empty() {
                return Ok(weights);
            }
            let moments = slot.moments.drain(..).map(in_memory).collect::<Result<Vec<_>>>()?;
            let (weights, moments) = stride.take(slot, in_memory(weights)?, gradient.take(), moments);
            slot.moments = moments.into_iter().map(Stored::Memory).collect();
            Ok(Stored::Memory(weights))
        });
        stepped.collect()
    }
}

fn in_memory(stored: Stored) -> Result<Tensor<1>> {
    match stored {
        Stored::Memory(tensor) => Ok(tensor),
        Stored::Disk(_) => Err(Error::internal("values are on a disk that is not there")),
    }
}

/// The same where the moments, and maybe the weights, are on the disk: a piece at a time.
fn step_on_disk(
    scratch: &Scratch,
    slots: &IndexMap<String, Slot>,
    mut weights: Vec<Stored>,
    mut gradients: Pieces,
    stride: &Stride,
) -> Result<Vec<Stored>> {
    let span = |stored: &Stored| match stored {
        Stored::Disk(span) => Some(*span),
        Stored::Memory(_) => None,
    };
    let mut jobs: Vec<Job> = vec![];
    let mut numbers = vec![];
    for (number, slot) in slots.values().enumerate() {
        let spans: Vec<Span> = slot.moments.iter().chain([&weights[number]]).filter_map(span).collect();
        jobs.extend(Job::over(&spans, slot.range.len(), slot.whole));
        numbers.resize(jobs.len(), number);
    }
    // The values of the parameter at hand, where its weights are in memory.
    let mut at_hand: Option<Vec<f32>> = None;
    scratch.stream(&jobs, |job, mut values| {
        let (number, range) = (numbers[job], jobs[job].range.clone());
        let slot = &slots[number];
        let own = match &weights[number] {
            Stored::Disk(_) => values.pop().ok_or_else(|| Error::internal("no weights were read"))?,
            Stored::Memory(tensor) => at_hand.get_or_insert_with(|| flat_values(tensor))[range.clone()].to_vec(),
        };
        let tensor = |values| flat_tensor(values, &cpu());
        let gradient = gradients[number].as_ref().map(|gradient| gradient.clone().slice([range.clone()]));
        let moments = values.into_iter().map(tensor).collect();
        let (new, moments) = stride.take(slot, tensor(own), gradient, moments);
        let mut values: Vec<Vec<f32>> = moments.iter().map(flat_values).collect();
        match &mut at_hand {
            None => values.push(flat_values(&new)),
            Some(at_hand) => at_hand[range.clone()].copy_from_slice(&flat_values(&new)),
        }
        if range.end == slot.range.len() {
            gradients[number] = None;
            if let Some(values) = at_hand.take() {
                weights[number] = Stored::Memory(tensor(values));
            }
        }
        Ok(values)
    })?;
    Ok(weights)
}

impl Stride<'_> {
    /// The weights and moments of a range of a parameter after the step.
    fn take(
        &self,
        slot: &Slot,
        weights: Tensor<1>,
        gradient: Option<Tensor<1>>,
        mut moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let Update { beta1, beta2, eps, weight_decay, .. } = *self.update;
        let gradient = match gradient {
            Some(gradient) => gradient.to_device(&weights.device()),
            None => Tensor::zeros_like(&weights),
        };
        let first = moments.remove(0);
        let Some(second) = moments.pop() else {
            let matrix = [slot.shape[0], slot.shape[slot.shape.len() - 1]];
            let step = MuonStep { lr: self.lr, momentum: beta1, weight_decay, gradient_scale: self.clip };
            let (weights, momentum) =
                muon(weights.reshape(matrix), gradient.reshape(matrix), first.reshape(matrix), &step);
            let len = matrix[0] * matrix[1];
            return (weights.reshape([len]), vec![momentum.reshape([len])]);
        };
        // Vectors are not decayed.
        let weight_decay = if slot.shape.len() >= 2 { weight_decay } else { 0.0 };
        let step =
            AdamwStep { lr: self.lr, beta1, beta2, eps, weight_decay, gradient_scale: self.clip, step: self.step };
        let (weights, moments) = adamw(weights, gradient, [first, second], &step);
        (weights, moments.into())
    }
}

/// The norm over all gradients: the sums of every block's squares, added in order.
pub(crate) fn norm(gradients: &Pieces) -> f64 {
    gradients.iter().flatten().map(square_sum).sum::<f64>().sqrt()
}

/// The same where every rank has its ranges of the gradients.
pub(crate) fn norm_of_ranges(gradients: &Pieces, world: &dyn World, layout: &[Part]) -> Result<f64> {
    let mut own = Vec::new();
    for gradient in gradients {
        let values = gradient.clone().map(HostValues::of).filter(|values| !values.is_empty());
        own.push(u8::from(values.is_some()));
        let sums = values.map(|values| square_sums(&values)).unwrap_or_default();
        own.extend(sums.into_iter().flat_map(f64::to_le_bytes));
    }
    let found = world.all(own)?;
    let mut left: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
    let mut total = 0.0;
    for part in layout {
        let mut blocks: Vec<(usize, &[u8])> = Vec::new();
        for (rank, left) in left.iter_mut().enumerate() {
            let wrong = || Error::internal(format!("rank {rank} sent norms of another form"));
            let (flag, rest) = left.split_first().ok_or_else(wrong)?;
            let range = world.range(part, rank);
            let bytes = if *flag == 1 { 8 * range.len().div_ceil(SQUARES_BLOCK) } else { 0 };
            let (sums, rest) = rest.split_at_checked(bytes).ok_or_else(wrong)?;
            *left = rest;
            blocks.push((range.start, sums));
        }
        blocks.sort_by_key(|(start, _)| *start);
        let sums = blocks.iter().flat_map(|(_, sums)| sums.chunks_exact(8));
        let of_parameter: f64 = sums.map(|bytes| f64::from_le_bytes(std::array::from_fn(|i| bytes[i]))).sum();
        total += of_parameter;
    }
    Ok(total.sqrt())
}
