//! The gradients of trained parameters, by name. Knows neither what is learnt nor how the optimizer takes them.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor, TensorData},
};
use std::collections::HashMap;

/// A flat gradient for each trained parameter that has one.
#[derive(Clone, Default)]
pub struct NamedGradients(HashMap<String, Tensor<1>>);

impl NamedGradients {
    /// Those that a backward pass found for the network's trained parameters.
    pub fn of(network: &impl Module, gradients: Gradients) -> Self {
        struct Collect {
            path: Vec<String>,
            gradients: Gradients,
            found: NamedGradients,
        }
        impl ModuleVisitor for Collect {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.path.push(name.into());
            }
            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if !tensor.is_require_grad() {
                    return;
                }
                let len: usize = tensor.dims().iter().product();
                if let Some(gradient) = tensor.grad_remove(&mut self.gradients) {
                    self.found.0.insert(self.path.join("."), gradient.reshape([len]));
                }
            }
        }
        let mut collect = Collect { path: vec![], gradients, found: Self::default() };
        network.visit(&mut collect);
        collect.found
    }

    /// Adds those of another pass. The order of calls is the order of the sums.
    pub fn add(&mut self, others: Self) {
        for (name, other) in others.0 {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + other,
                None => other,
            };
            self.0.insert(name, sum);
        }
    }

    /// Takes out that of a parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
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
