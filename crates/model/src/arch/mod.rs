//! The list of architectures.

mod llama;

pub use llama::Llama;

use crate::{
    AttentionContext, Dropout, LoraSpec, ModelConfig, Rotary, RotaryCache, TensorMap,
    parameters::{Replacement, map_parameters, named_parameters},
    quantized::{QuantizedWeights, Rounding, scheme_of},
    weights::{StoredWeights, WeightSource, mismatch, read_model_weights, unknown_tensor, write_safetensors},
};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor},
    tensor::{Device, Int, Tensor},
};
use narthex_base::{Error, Result};
use narthex_kernels::{Precision, Quantization};
use std::path::Path;

/// A causal language model of any architecture.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// Llama and what shares its definition.
    Llama(Llama),
}

impl Decoder {
    /// Random weights, drawn by counter from the seed.
    pub fn random(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        Decoder::Llama(Llama::random(config, seed, device))
    }

    /// Reads a folder in Hugging Face layout.
    ///
    /// # Errors
    /// If files are missing or broken, or the config asks for something that is not supported.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        let weights = match scheme_of(folder)? {
            Some(scheme) => QuantizedWeights::open(folder, scheme)?.to_map(),
            None => read_model_weights(folder),
        };
        let weights = weights.map_err(|error| error.at(folder.display(), None))?;
        Self::empty(&config, device).load(weights).map_err(|error| error.at(folder.display(), None))
    }

    /// Reads a folder in Hugging Face layout for inference on the CPU: weights are packed as they are read, and are never
    /// there in full size beside the file. Without a precision it is that of the file: bf16 for 16 bits, else f32.
    ///
    /// # Errors
    /// As [`Decoder::read`].
    pub fn read_packed(folder: &Path, precision: Option<Precision>) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        if let Some(scheme) = scheme_of(folder)? {
            let weights = QuantizedWeights::open(folder, scheme)?;
            let model = Self::packed(&config, &weights, precision.unwrap_or(Precision::Bf16)).and_then(|model| {
                weights.stored().all_used(&config)?;
                Ok(model)
            });
            return model.map_err(|error| error.at(folder.display(), None));
        }
        let weights = StoredWeights::open(folder)?;
        let precision = precision.unwrap_or_else(|| weights.precision());
        let model = Self::packed(&config, &weights, precision).and_then(|model| {
            weights.all_used(&config)?;
            Ok(model)
        });
        model.map_err(|error| error.at(folder.display(), None))
    }

    /// The same with weights rounded to integers as they are packed; embedding and output become int8.
    pub fn pack_rounded(&self, kind: Quantization) -> Self {
        let weights = Rounding { weights: &self.tensors(), kind };
        Self::packed(self.config(), &weights, Precision::Bf16).expect("a model's weights fit its config")
    }

    /// The same model packed for inference on the CPU. Adapters must be merged before.
    pub fn pack(&self, precision: Precision) -> Self {
        Self::packed(self.config(), &self.tensors(), precision).expect("a model's weights fit its config")
    }

    pub(crate) fn packed(config: &ModelConfig, weights: &dyn WeightSource, precision: Precision) -> Result<Self> {
        Ok(Decoder::Llama(Llama::packed(config, weights, precision)?))
    }

    /// Whether the weights are packed for inference: then there is nothing to train, to write or to convert.
    pub fn is_packed(&self) -> bool {
        match self {
            Decoder::Llama(model) => model.is_packed(),
        }
    }

    /// The rotary embedding for a model that runs step by step.
    pub fn rotary_cache(&self) -> RotaryCache {
        RotaryCache::new(self.config().head_width, self.config().rope_theta)
    }

    /// The definition with weights still to be loaded.
    fn empty(config: &ModelConfig, device: &Device) -> Self {
        Decoder::Llama(Llama::empty(config, device))
    }

    /// Replaces all weights.
    ///
    /// # Errors
    /// If one is missing, unknown, or has the wrong shape; it is named.
    pub fn load(self, mut weights: TensorMap) -> Result<Self> {
        let mut problem = None;
        let loaded = map_parameters(self, |name, shape| {
            let values = match weights.remove(name) {
                Some((found, values)) if found == shape => Some(values),
                Some((found, _)) => {
                    problem.get_or_insert(format!(
                        "tensor `{name}` has shape {found:?}, but the config asks for {shape:?}"
                    ));
                    None
                }
                None => {
                    problem.get_or_insert(format!("tensor `{name}` is missing"));
                    None
                }
            };
            Replacement { values, trained: false }
        });
        if problem.is_none() {
            problem = unknown_tensor(weights.keys(), loaded.config());
        }
        match problem {
            Some(what) => Err(mismatch(what)),
            None => Ok(loaded),
        }
    }

    /// Writes `config.json` and `model.safetensors`. Adapters must be merged before.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("config.json");
        let config = serde_json::to_string_pretty(&self.config().to_json()).expect("JSON serializes");
        std::fs::write(&path, config + "\n").map_err(|error| Error::io("cannot write", &path, error))?;
        write_safetensors(&folder.join("model.safetensors"), &self.tensors())
    }

    /// All weights by name.
    pub fn tensors(&self) -> TensorMap {
        named_parameters(self).into_iter().map(|t| (t.name, (t.shape, t.values))).collect()
    }

    /// The shape and constants.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Decoder::Llama(model) => model.config(),
        }
    }

    /// The same model with other constants (context, special tokens); shapes must stay.
    pub fn with_config(self, config: ModelConfig) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.with_config(config)),
        }
    }

    /// The same model with products in this precision; f32 unless set. Weights stay f32.
    pub fn with_precision(self, precision: Precision) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.with_precision(precision)),
        }
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        match self {
            Decoder::Llama(model) => model.precision(),
        }
    }

    /// The rotary embedding of these positions, one row per sequence, or one row for all.
    pub fn rotary(&self, rows: &[&[usize]], device: &Device) -> Rotary {
        let config = self.config();
        Rotary::new(rows, config.head_width, config.rope_theta, device)
    }

    /// Token ids -> logits at every position: `[B, T]` -> `[B * T, vocabulary]`.
    pub fn forward(
        &self,
        tokens_bt: Tensor<2, Int>,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        self.logits(self.hidden(tokens_bt, rotary, attention, dropout))
    }

    /// The same without the output projection: `[B, T]` -> `[B * T, hidden]`.
    pub fn hidden(
        &self,
        tokens_bt: Tensor<2, Int>,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        let mut x = self.embed(tokens_bt, dropout);
        for layer in 0..self.config().layers {
            x = self.block(layer, x, rotary, attention, dropout);
        }
        self.norm(x)
    }

    /// The first part of [`Decoder::hidden`]: token ids -> what enters block 0, `[B, T]` -> `[B * T, hidden]`.
    pub fn embed(&self, tokens_bt: Tensor<2, Int>, dropout: &mut Dropout) -> Tensor<2> {
        match self {
            Decoder::Llama(model) => model.embed(tokens_bt, dropout),
        }
    }

    /// One block: `[N, hidden]` -> `[N, hidden]`.
    pub fn block(
        &self,
        layer: usize,
        x: Tensor<2>,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        match self {
            Decoder::Llama(model) => model.block(layer, x, rotary, attention, dropout),
        }
    }

    /// The last part of [`Decoder::hidden`]: the norm after the last block, `[N, hidden]` -> `[N, hidden]`.
    pub fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Decoder::Llama(model) => model.norm(x),
        }
    }

    /// The output projection: `[N, hidden]` -> `[N, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Decoder::Llama(model) => model.logits(hidden),
        }
    }

    /// The output projection and its cross-entropy: hidden `[N, hidden]`, targets `[N]` -> `[1]`, `scale` times the sum
    /// of the negative log-likelihoods of the targets in nats.
    pub fn nats(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, scale: f64) -> Tensor<1> {
        match self {
            Decoder::Llama(model) => model.nats(hidden, targets, scale),
        }
    }

    /// Adds adapters, drawn by counter from the seed.
    pub fn with_lora(self, spec: &LoraSpec, seed: u64) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.with_lora(spec, seed)),
        }
    }

    /// Adds the adapters into the weights and drops them.
    pub fn merged(self) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.merged()),
        }
    }

    /// The same model with gradients tracked for the parameters whose names `trained` accepts.
    pub fn for_training(self, trained: impl Fn(&str) -> bool) -> Self {
        let model = match self {
            Decoder::Llama(model) => Decoder::Llama(Module::train(model)),
        };
        map_parameters(model, |name, _| Replacement { values: None, trained: trained(name) })
    }

    /// The same model without gradients, for validation and inference.
    pub fn for_inference(&self) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(Module::valid(model)),
        }
    }

    /// Whether the embedding gets gradients.
    pub fn trains_embedding(&self) -> bool {
        match self {
            Decoder::Llama(model) => model.trains_embedding(),
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        match self {
            Decoder::Llama(model) => model.device(),
        }
    }

    /// The same model on another device.
    pub fn to_device(self, device: &Device) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.to_device(device)),
        }
    }

    /// Walks over the parameters.
    pub fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Decoder::Llama(model) => model.visit(visitor),
        }
    }

    /// Changes the parameters.
    pub fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Decoder::Llama(model) => Decoder::Llama(model.map(mapper)),
        }
    }
}
