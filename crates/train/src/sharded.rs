//! The optimizer where each rank has the moments of its ranges alone, and updates those (ZeRO's stages 1 and 2:
//! Rajbhandari et al., 2020). Ranges begin where the kernels' blocks begin, so that every number is computed as by one
//! process. Knows no files.

use crate::{
    gradients::{flat_tensor, flat_values},
    optimizer::{Optimizer, Slot},
    world::{Layout, Pieces, World},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use narthex_base::{Error, Result, config::Update};
use narthex_kernels::{AdamwStep, MuonStep, adamw, muon, square_sum};
use narthex_model::{Replacement, cpu, map_parameters};
use std::{collections::HashMap, ops::Range};

/// Values whose squares the kernel adds before it adds that sum to those before.
const BLOCK: usize = 1 << 14;

/// Keeps of the moments those of this rank's ranges.
pub(crate) fn shard(optimizer: &mut Optimizer, world: &dyn World) {
    let layout = optimizer.layout();
    for (number, slot) in optimizer.slots.values_mut().enumerate() {
        let range = world.range(&layout, number, world.rank());
        slot.moments = slot.moments.iter().map(|moment| piece(moment, range.clone())).collect();
    }
}

/// The optimizer with all moments, of which every rank has its ranges.
pub(crate) fn whole(optimizer: &Optimizer, world: &dyn World) -> Result<Optimizer> {
    let layout = optimizer.layout();
    let mut slots = optimizer.slots.clone();
    for moment in 0..2 {
        let own = optimizer.slots.values().map(|slot| slot.moments.get(moment).map(flat_values)).collect();
        for (slot, values) in slots.values_mut().zip(world.share(&layout, own)?) {
            if let (Some(to), Some(values)) = (slot.moments.get_mut(moment), values) {
                *to = flat_tensor(values, &cpu());
            }
        }
    }
    Ok(Optimizer { slots, steps: optimizer.steps })
}

/// One step over this rank's ranges of the summed gradients; the new weights are shared. Returns the network with them,
/// its training state lost, and the norm of the gradients before clipping.
pub(crate) fn step<M: Module>(
    optimizer: &mut Optimizer,
    network: M,
    mut gradients: Pieces,
    world: &dyn World,
    update: &Update,
    lr: f64,
) -> Result<(M, f64)> {
    optimizer.steps += 1;
    let layout = optimizer.layout();
    let norm = norm(&gradients, world, &layout)?;
    let clip = if update.grad_clip > 0.0 { (update.grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    let range = |number: usize| world.range(&layout, number, world.rank());
    let mut weights = pieces(&network, |name| optimizer.slots.get_index_of(name).map(range));
    let steps = optimizer.steps;
    let mut own: Pieces = Vec::with_capacity(layout.len());
    for (number, (name, slot)) in optimizer.slots.iter_mut().enumerate() {
        let weights = weights.remove(name).filter(|_| !range(number).is_empty());
        let gradient = gradients[number].take();
        own.push(weights.map(|weights| {
            let gradient = match gradient {
                Some(values) => flat_tensor(values, &cpu()),
                None => Tensor::zeros_like(&slot.moments[0]),
            };
            flat_values(&updated(slot, weights, gradient, update, (lr, clip, steps)))
        }));
    }
    let mut new: HashMap<&str, Vec<f32>> = HashMap::new();
    for (part, values) in layout.iter().zip(world.share(&layout, own)?) {
        values.map(|values| new.insert(&part.name, values));
    }
    let network = map_parameters(network, |name, _| Replacement { values: new.remove(name), trained: false });
    Ok((network, norm))
}

/// A range of a parameter after a step.
fn updated(
    slot: &mut Slot,
    weights: Tensor<1>,
    gradient: Tensor<1>,
    update: &Update,
    (lr, clip, step): (f64, f64, u64),
) -> Tensor<1> {
    let Update { beta1, beta2, eps, weight_decay, .. } = *update;
    if slot.whole {
        let [rows, columns] = [slot.shape[0], slot.shape[slot.shape.len() - 1]];
        let momentum = slot.moments.remove(0).reshape([rows, columns]);
        let step = MuonStep { lr, momentum: beta1, weight_decay, gradient_scale: clip };
        let (weights, momentum) =
            muon(weights.reshape([rows, columns]), gradient.reshape([rows, columns]), momentum, &step);
        slot.moments.push(momentum.reshape([rows * columns]));
        return weights.reshape([rows * columns]);
    }
    // Vectors are not decayed.
    let weight_decay = if slot.shape.len() >= 2 { weight_decay } else { 0.0 };
    let step = AdamwStep { lr, beta1, beta2, eps, weight_decay, gradient_scale: clip, step };
    let second = slot.moments.remove(1);
    let first = slot.moments.remove(0);
    let (weights, moments) = adamw(weights, gradient, [first, second], &step);
    slot.moments.extend(moments);
    weights
}

/// The norm over all gradients: the sums of every block's squares, from who has it, added in order.
fn norm(gradients: &Pieces, world: &dyn World, layout: &Layout) -> Result<f64> {
    let mut own = Vec::new();
    for values in gradients {
        let values = values.as_deref().unwrap_or_default();
        own.push(u8::from(!values.is_empty()));
        for block in values.chunks(BLOCK) {
            own.extend(square_sum(&flat_tensor(block.to_vec(), &cpu())).to_le_bytes());
        }
    }
    let found = world.all(own)?;
    let mut left: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
    let mut total = 0.0;
    for number in 0..layout.len() {
        let mut blocks: Vec<(usize, &[u8])> = Vec::new();
        for (rank, left) in left.iter_mut().enumerate() {
            let wrong = || Error::internal(format!("rank {rank} sent norms of another form"));
            let (flag, rest) = left.split_first().ok_or_else(wrong)?;
            let range = world.range(layout, number, rank);
            let bytes = if *flag == 1 { 8 * range.len().div_ceil(BLOCK) } else { 0 };
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

/// A range of a flat tensor.
fn piece(tensor: &Tensor<1>, range: Range<usize>) -> Tensor<1> {
    if range.is_empty() { Tensor::zeros([0], &tensor.device()) } else { tensor.clone().slice([range]) }
}

/// The values of a range of each parameter that has one.
fn pieces(network: &impl Module, range: impl Fn(&str) -> Option<Range<usize>>) -> HashMap<String, Tensor<1>> {
    struct Collect<F> {
        path: Vec<String>,
        range: F,
        found: HashMap<String, Tensor<1>>,
    }
    impl<F: Fn(&str) -> Option<Range<usize>>> ModuleVisitor for Collect<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.join(".");
            if let Some(range) = (self.range)(&name) {
                let tensor = param.val().inner();
                let len: usize = tensor.dims().iter().product();
                self.found.insert(name, piece(&tensor.reshape([len]), range));
            }
        }
    }
    let mut collect = Collect { path: vec![], range, found: HashMap::new() };
    network.visit(&mut collect);
    collect.found
}
