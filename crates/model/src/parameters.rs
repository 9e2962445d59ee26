//! A model's parameters by name: read them all, or replace them all.

use crate::Decoder;
use burn::{
    module::{ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};

/// A parameter with its Hugging Face name, shape and values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The name.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Vec<f32>,
}

/// All parameters in the order of the definition.
pub fn named_parameters(model: &Decoder) -> Vec<NamedTensor> {
    struct Collect {
        path: Vec<String>,
        found: Vec<NamedTensor>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val().inner();
            let shape = tensor.dims().to_vec();
            let values = tensor.into_data().try_to_vec::<f32>().expect("parameters are f32");
            self.found.push(NamedTensor { name: self.path.join("."), shape, values });
        }
    }
    let mut collect = Collect { path: vec![], found: vec![] };
    model.visit(&mut collect);
    collect.found
}

/// What becomes of one parameter.
pub struct Replacement {
    /// New values in the same shape, or none to keep them.
    pub values: Option<Vec<f32>>,
    /// Whether it is trained.
    pub trained: bool,
}

/// Gives every parameter a new value or a new training state. `change` is called with the name and the shape.
pub fn map_parameters(model: Decoder, change: impl FnMut(&str, &[usize]) -> Replacement) -> Decoder {
    struct Map<F> {
        path: Vec<String>,
        change: F,
    }
    impl<F: FnMut(&str, &[usize]) -> Replacement> ModuleMapper for Map<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let shape = tensor.dims();
            let device = tensor.device();
            let new = (self.change)(&self.path.join("."), &shape);
            let tensor = match new.values {
                Some(values) => Tensor::from_data(TensorData::new(values, shape), &device),
                None => tensor.detach(),
            };
            Param::from_mapped_value(id, tensor.set_require_grad(new.trained && device.is_autodiff()), mapper)
        }
    }
    model.map(&mut Map { path: vec![], change })
}
