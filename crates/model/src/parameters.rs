//! The parameters of any Burn module by name: read them, or replace them. Knows neither models nor what is trained.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};
use std::collections::HashMap;

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
pub fn named_parameters(module: &impl Module) -> Vec<NamedTensor> {
    named_parameters_of(module, |_| true)
}

/// The parameters whose names `wanted` accepts, in the order of the definition. Others are not copied.
pub fn named_parameters_of(module: &impl Module, wanted: impl Fn(&str) -> bool) -> Vec<NamedTensor> {
    struct Collect<F> {
        path: Vec<String>,
        wanted: F,
        found: Vec<NamedTensor>,
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
            if (self.wanted)(&name) {
                let tensor = param.val().inner();
                let shape = tensor.dims().to_vec();
                let values = tensor.into_data().try_to_vec::<f32>().expect("parameters are f32");
                self.found.push(NamedTensor { name, shape, values });
            }
        }
    }
    let mut collect = Collect { path: vec![], wanted, found: vec![] };
    module.visit(&mut collect);
    collect.found
}

/// Names and shapes of all parameters in the order of the definition.
pub fn shapes(module: &impl Module) -> Vec<(String, Vec<usize>)> {
    struct Collect {
        path: Vec<String>,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.join("."), param.dims().to_vec()));
        }
    }
    let mut collect = Collect { path: vec![], found: vec![] };
    module.visit(&mut collect);
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
pub fn map_parameters<M: Module>(module: M, change: impl FnMut(&str, &[usize]) -> Replacement) -> M {
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
    module.map(&mut Map { path: vec![], change })
}

/// The same module with gradients tracked for the parameters whose names `trained` accepts.
pub fn for_training<M: Module>(module: M, trained: impl Fn(&str) -> bool) -> M {
    map_parameters(module.train(), |name, _| Replacement { values: None, trained: trained(name) })
}

/// Takes the values of the parameters whose names `wanted` accepts out of a module, flat and without gradients. In
/// their places stand tensors without values, until [`put_parameters`] gives them some.
pub fn take_parameters<M: Module>(module: M, wanted: impl Fn(&str) -> bool) -> (M, HashMap<String, Tensor<1>>) {
    struct Take<F> {
        path: Vec<String>,
        wanted: F,
        taken: HashMap<String, Tensor<1>>,
    }
    impl<F: Fn(&str) -> bool> ModuleMapper for Take<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.path.join(".");
            if !(self.wanted)(&name) {
                return param;
            }
            let (id, tensor, mapper) = param.consume();
            let (len, device) = (tensor.dims().iter().product::<usize>(), tensor.device());
            // Moved, never cloned, so that whoever changes the values can do so in place.
            self.taken.insert(name, tensor.inner().reshape([len]));
            Param::from_mapped_value(id, Tensor::zeros([0; D], &device), mapper)
        }
    }
    let mut take = Take { path: vec![], wanted, taken: HashMap::new() };
    (module.map(&mut take), take.taken)
}

/// A value for a parameter.
pub struct NewValue {
    /// The values, without gradients.
    pub values: Tensor<1>,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// Whether its gradients are tracked, where the module's can be.
    pub trained: bool,
}

/// Gives parameters new values, by name. Others stay as they are.
pub fn put_parameters<M: Module>(module: M, values: HashMap<String, NewValue>) -> M {
    struct Put {
        path: Vec<String>,
        values: HashMap<String, NewValue>,
    }
    impl ModuleMapper for Put {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(new) = self.values.remove(&self.path.join(".")) else { return param };
            let (id, old, mapper) = param.consume();
            let shape: [usize; D] = std::array::from_fn(|i| new.shape[i]);
            let tensor = new.values.reshape(shape);
            let tensor = match old.device().is_autodiff() {
                true => Tensor::from_inner(tensor).set_require_grad(new.trained),
                false => tensor,
            };
            Param::from_mapped_value(id, tensor, mapper)
        }
    }
    module.map(&mut Put { path: vec![], values })
}
