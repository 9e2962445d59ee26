//! The optimizer over a model's trained parameters: one gradient each, clipped by the norm over all of
//! them, and one update in place. Holds the moments; the model holds the weights.

use burn::{
    module::{ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor, TensorData},
};
use narthex_base::config::{Optimizer as Algorithm, Schedule};
use narthex_kernels::{AdamwStep, MuonStep, adamw, muon, square_sum};
use narthex_model::Decoder;

/// The moments of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// The running means of the gradient and of its square; Muon keeps only the first.
    pub(crate) moments: Vec<Tensor<1>>,
}

/// The state: every trained parameter in the order of the model's definition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Optimizer {
    pub(crate) slots: Vec<Slot>,
    /// Steps taken.
    pub(crate) steps: u64,
}

/// A gradient for each trained parameter, flat, in the order of the definition; none where nothing has come yet.
#[derive(Default)]
pub(crate) struct GradientList(Vec<Option<Tensor<1>>>);

impl GradientList {
    /// Adds the gradients that a backward pass found for the model's trained parameters.
    pub(crate) fn collect(&mut self, model: &Decoder, gradients: Gradients) {
        struct Collect {
            gradients: Gradients,
            found: Vec<Option<Tensor<1>>>,
        }
        impl ModuleVisitor for Collect {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if tensor.is_require_grad() {
                    let len: usize = tensor.dims().iter().product();
                    self.found.push(tensor.grad_remove(&mut self.gradients).map(|gradient| gradient.reshape([len])));
                }
            }
        }
        let mut collect = Collect { gradients, found: vec![] };
        model.visit(&mut collect);
        self.add(Self(collect.found));
    }

    /// Adds those of another pass.
    pub(crate) fn add(&mut self, others: Self) {
        if self.0.is_empty() {
            *self = others;
            return;
        }
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            *sum = match (sum.take(), other) {
                (Some(sum), Some(other)) => Some(sum + other),
                (one, other) => one.or(other),
            };
        }
    }

    /// The norm over all of them.
    fn norm(&self) -> f64 {
        self.0.iter().flatten().map(square_sum).sum::<f64>().sqrt()
    }
}

impl Optimizer {
    /// Zero moments for the parameters whose names `trained` accepts.
    pub(crate) fn new(model: &Decoder, schedule: &Schedule, trained: impl Fn(&str) -> bool) -> Self {
        struct Collect<F> {
            path: Vec<String>,
            trained: F,
            algorithm: Algorithm,
            slots: Vec<Slot>,
        }
        impl<F: Fn(&str) -> bool> ModuleVisitor for Collect<F> {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.path.push(name.into());
            }
            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let name = self.path.join(".");
                if !(self.trained)(&name) {
                    return;
                }
                let tensor = param.val();
                let shape = tensor.dims().to_vec();
                let count = if uses_muon(self.algorithm, &name, &shape) { 1 } else { 2 };
                let zeros = || Tensor::zeros([shape.iter().product::<usize>()], &tensor.device().inner());
                let moments = (0..count).map(|_| zeros()).collect();
                self.slots.push(Slot { name, shape, moments });
            }
        }
        let mut collect = Collect { path: vec![], trained, algorithm: schedule.optimizer, slots: vec![] };
        model.visit(&mut collect);
        Self { slots: collect.slots, steps: 0 }
    }

    /// Trained values in all parameters together.
    pub(crate) fn trained_parameters(&self) -> usize {
        self.slots.iter().map(|slot| slot.shape.iter().product::<usize>()).sum()
    }

    /// One step. Returns the model with its new weights, and the norm of the gradients before clipping. Parameters without
    /// a gradient count as having a zero one.
    pub(crate) fn step(
        &mut self,
        model: Decoder,
        mut gradients: GradientList,
        schedule: &Schedule,
        lr: f64,
    ) -> (Decoder, f64) {
        self.steps += 1;
        gradients.0.resize_with(self.slots.len(), || None);
        let norm = gradients.norm();
        let clip = if schedule.grad_clip > 0.0 { (schedule.grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut update = Update {
            slots: self.slots.iter_mut(),
            gradients: gradients.0.into_iter(),
            schedule,
            lr,
            clip,
            step: self.steps,
        };
        (model.map(&mut update), norm)
    }
}

/// Muon is for the matrices of the blocks; embeddings, the output projection and vectors stay with AdamW (Jordan et al.,
/// "Muon", 2024).
fn uses_muon(algorithm: Algorithm, name: &str, shape: &[usize]) -> bool {
    algorithm == Algorithm::Muon && shape.len() == 2 && name.contains(".layers.")
}

struct Update<'a> {
    slots: std::slice::IterMut<'a, Slot>,
    gradients: std::vec::IntoIter<Option<Tensor<1>>>,
    schedule: &'a Schedule,
    lr: f64,
    clip: f64,
    step: u64,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        if !tensor.is_require_grad() {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let (slot, gradient) =
            self.slots.next().zip(self.gradients.next()).expect("one slot for each trained parameter");
        let shape = tensor.dims();
        let gradient = gradient.unwrap_or_else(|| Tensor::zeros_like(&slot.moments[0]));
        // Moved, never cloned, so that the kernels find tensors of their own and work in place.
        let weights = tensor.inner();
        let weights = if slot.moments.len() == 1 {
            let [rows, columns] = [shape[0], shape[D - 1]];
            let momentum = slot.moments.remove(0).reshape([rows, columns]);
            let step = MuonStep {
                lr: self.lr,
                momentum: self.schedule.beta1,
                weight_decay: self.schedule.weight_decay,
                gradient_scale: self.clip,
            };
            let (weights, momentum) =
                muon(weights.reshape([rows, columns]), gradient.reshape([rows, columns]), momentum, &step);
            slot.moments.push(momentum.reshape([rows * columns]));
            weights.reshape(shape)
        } else {
            let Schedule { beta1, beta2, eps, weight_decay, .. } = *self.schedule;
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

/// A flat tensor's values.
pub(crate) fn flat_values(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().into_data().try_to_vec().expect("moments are f32")
}

/// A flat tensor of these values.
pub(crate) fn flat_tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}
