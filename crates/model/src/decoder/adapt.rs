//! The adapters that a decoder carries in training: added, read, merged.

use super::Decoder;
use crate::{
    block::Block,
    layers::Linear,
    lora::{Lora, LoraSpec},
    parameters::shapes,
    peft::{Module as AdapterModule, PeftAdapter},
    weight::Weight,
};
use burn::{
    module::Param,
    tensor::{Tensor, TensorData},
};
use narthex_kernels::Precision;
use std::collections::HashMap;

impl Decoder {
    /// Every projection that can carry an adapter, with its name.
    pub(crate) fn projections(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.model.layers.iter_mut().enumerate().flat_map(|(i, block)| {
            block.projections().into_iter().map(move |(part, linear)| (format!("model.layers.{i}.{part}"), linear))
        })
    }

    /// Adds adapters, drawn by counter from the seed.
    pub fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Self {
        for (name, linear) in self.projections() {
            let target = name.rsplit('.').next().unwrap_or_default();
            if spec.targets.iter().any(|wanted| wanted == target) {
                linear.lora = Some(Lora::random(spec, seed, &name, &linear.weight));
            }
        }
        self
    }

    /// Adds adapters that were read for this model, in place of those that it has.
    pub fn with_adapter(mut self, adapter: &PeftAdapter) -> Self {
        let dropout = adapter.config.lora_dropout;
        let modules: HashMap<&str, &AdapterModule> =
            adapter.modules.iter().map(|module| (module.name.as_str(), module)).collect();
        for (name, linear) in self.projections() {
            linear.lora = modules.get(name.as_str()).map(|module| {
                let ([outputs, inputs], device) = (linear.weight.shape(), linear.weight.device());
                let matrix =
                    |values: &[f32], shape| Tensor::from_data(TensorData::new(values.to_vec(), shape), &device);
                let magnitude = module.magnitude.as_ref().map(|sizes| {
                    Param::from_tensor(Tensor::from_data(TensorData::new(sizes.clone(), [outputs]), &device))
                });
                Lora {
                    lora_a: Param::from_tensor(matrix(&module.a, [module.rank, inputs])),
                    lora_b: Param::from_tensor(matrix(&module.b, [outputs, module.rank])),
                    magnitude,
                    scale: module.scale,
                    dropout,
                }
            });
        }
        self
    }

    /// Names of the parameters of the adapters.
    pub fn adapter_parameters(&self) -> Vec<String> {
        let mut model = self.clone();
        let adapters = model.projections().filter_map(|(name, linear)| Some((name, linear.lora.take()?)));
        let names = |(name, adapter): (String, Lora)| {
            shapes(&adapter).into_iter().map(move |(part, _)| format!("{name}.lora.{part}"))
        };
        adapters.flat_map(names).collect()
    }

    /// Names of the weights that are used in products alone, which round them to bf16: those of the projections where
    /// the model's products are in bf16, unless an adapter also measures their sizes.
    pub fn rounded_parameters(&self) -> Vec<String> {
        if self.precision != Precision::Bf16 {
            return vec![];
        }
        let mut model = self.clone();
        let rounded = model.projections().filter(|(_, linear)| {
            let is_measured = linear.lora.as_ref().is_some_and(|lora| lora.magnitude.is_some());
            matches!(linear.weight, Weight::Numbers(_)) && !is_measured
        });
        rounded.map(|(name, _)| format!("{name}.weight")).collect()
    }

    /// Names of the parameters of the blocks, adapters included.
    pub fn block_parameters(&self) -> Vec<String> {
        let blocks = self.model.layers.iter().enumerate();
        let names = |(i, block): (usize, &Block)| {
            shapes(block).into_iter().map(move |(part, _)| format!("model.layers.{i}.{part}"))
        };
        blocks.flat_map(names).collect()
    }

    /// Adds the adapters into the weights and drops them.
    pub fn merged(mut self) -> Self {
        self.projections().for_each(|(_, linear)| linear.merge());
        self
    }
}
