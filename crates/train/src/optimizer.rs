//! The optimizer over a network's trained parameters: one gradient each, by name, clipped by the norm over all of
//! them, and one update in place. Holds the moments; the network holds the weights.

use crate::{gradients::NamedGradients, selection::Selection, world::Part};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};
use indexmap::IndexMap;
use narthex_base::config::{Optimizer as Algorithm, Update};
use narthex_kernels::{AdamwStep, MuonStep, adamw, muon};

/// The moments of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The parameter's shape.
    pub(crate) shape: Vec<usize>,
    /// Whether Muon takes it, whole.
    pub(crate) whole: bool,
    /// The running means of the gradient and of its square; Muon keeps only the first.
    pub(crate) moments: Vec<Tensor<1>>,
}

/// The state: every trained parameter by name, in the order of the network's definition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Optimizer {
    pub(crate) slots: IndexMap<String, Slot>,
    /// Steps taken.
    pub(crate) steps: u64,
}

impl Optimizer {
    /// Zero moments for the selected parameters, where the network is. Muon is for the matrices of hidden layers;
    /// embeddings, the output projection and vectors stay with AdamW (Jordan et al., "Muon", 2024).
    pub(crate) fn new(network: &impl Module, selection: &Selection, algorithm: Algorithm) -> Self {
        let device = network.devices().first().cloned().unwrap_or_else(narthex_model::cpu).inner();
        let slots = selection.parameters().iter().map(|selected| {
            let count = if algorithm == Algorithm::Muon && selected.hidden { 1 } else { 2 };
            let zeros = || Tensor::zeros([selected.shape.iter().product::<usize>()], &device);
            let moments = (0..count).map(|_| zeros()).collect();
            (selected.name.clone(), Slot { shape: selected.shape.clone(), whole: count == 1, moments })
        });
        Self { slots: slots.collect(), steps: 0 }
    }

    /// The trained parameters as all ranks count them.
    pub(crate) fn layout(&self) -> Vec<Part> {
        let part = |(name, slot): (&String, &Slot)| Part {
            name: name.clone(),
            len: slot.shape.iter().product(),
            whole: slot.whole,
        };
        self.slots.iter().map(part).collect()
    }

    /// Trained values in all parameters together.
    pub(crate) fn trained_parameters(&self) -> usize {
        self.slots.values().map(|slot| slot.shape.iter().product::<usize>()).sum()
    }

    /// One step. Returns the network with its new weights, and the norm of the gradients before clipping. Parameters
    /// without a gradient count as having a zero one.
    pub(crate) fn step<M: Module>(
        &mut self,
        network: M,
        gradients: NamedGradients,
        update: &Update,
        lr: f64,
    ) -> (M, f64) {
        self.steps += 1;
        let norm = gradients.norm(self.slots.keys().map(String::as_str));
        let clip = if update.grad_clip > 0.0 { (update.grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let step = self.steps;
        let mut apply = Apply { path: vec![], slots: &mut self.slots, gradients, update, lr, clip, step };
        (network.map(&mut apply), norm)
    }
}

/// One step over all parameters.
struct Apply<'a> {
    path: Vec<String>,
    slots: &'a mut IndexMap<String, Slot>,
    gradients: NamedGradients,
    update: &'a Update,
    lr: f64,
    clip: f64,
    step: u64,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let name = self.path.join(".");
        let Some(slot) = self.slots.get_mut(&name) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let gradient = self.gradients.remove(&name).unwrap_or_else(|| Tensor::zeros_like(&slot.moments[0]));
        // Moved, never cloned, so that the kernels find tensors of their own and work in place.
        let weights = tensor.inner();
        let Update { beta1, beta2, eps, weight_decay, .. } = *self.update;
        let weights = if slot.moments.len() == 1 {
            let [rows, columns] = [shape[0], shape[D - 1]];
            let momentum = slot.moments.remove(0).reshape([rows, columns]);
            let step = MuonStep { lr: self.lr, momentum: beta1, weight_decay, gradient_scale: self.clip };
            let (weights, momentum) =
                muon(weights.reshape([rows, columns]), gradient.reshape([rows, columns]), momentum, &step);
            slot.moments.push(momentum.reshape([rows * columns]));
            weights.reshape(shape)
        } else {
            // Vectors are not decayed.
            let weight_decay = if D >= 2 { weight_decay } else { 0.0 };
            let step =
                AdamwStep { lr: self.lr, beta1, beta2, eps, weight_decay, gradient_scale: self.clip, step: self.step };
            let second = slot.moments.remove(1);
            let first = slot.moments.remove(0);
            let (weights, moments) = adamw(weights.reshape([gradient.dims()[0]]), gradient, [first, second], &step);
            slot.moments.extend(moments);
            weights.reshape(shape)
        };
        Param::from_mapped_value(id, Tensor::from_inner(weights).require_grad(), mapper)
    }
}
