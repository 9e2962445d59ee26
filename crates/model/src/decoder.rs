//! The decoder that all architectures are made of: an embedding, blocks, a norm and the output projection. Parameters have
//! Llama's names; `weight_map` knows those of others.
//!
//! Shapes: B batch, T time, N = B * T.

use crate::{
    AttentionContext, Dropout, Linear, LoraSpec, ModelConfig, PositionCache, Positions, TensorMap,
    block::Block,
    config::NormKind,
    layers::{Embedding, Norm, normal},
    lora::{Lora, sizes},
    parameters::{Replacement, map_parameters, named_parameters},
    peft::{AdapterPart, Module as AdapterModule, PeftAdapter},
    quantize::QuantizedMatrix,
    quantized::{ModelWeights, Rounding},
    weight_map::{Mapped, to_theirs},
    weights::{WeightSource, mismatch, unknown_tensor, write_safetensors},
};
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use narthex_base::{Error, Result};
use narthex_kernels::{PackedWeight, Precision, Quantization, linear, linear_cross_entropy, packed_linear};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// Standard deviation of fresh weights (Hugging Face's `initializer_range`).
pub(crate) const DEVIATION: f32 = 0.02;

/// A causal language model of any architecture.
#[derive(Clone, Debug)]
pub struct Decoder {
    parts: Parts,
    config: ModelConfig,
    precision: Precision,
}

/// What holds weights; the fields are the first parts of the names in checkpoints.
#[derive(Module, Debug)]
struct Parts {
    model: Body,
    lm_head: Option<Linear>,
}

#[derive(Module, Debug)]
struct Body {
    embed_tokens: Embedding,
    embed_positions: Option<Embedding>,
    layers: Vec<Block>,
    norm: Norm,
}

/// What makes the parts of a model while it is built.
pub(crate) struct Maker<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) device: &'a Device,
    /// Name, shape, deviation.
    pub(crate) linear: &'a dyn Fn(&str, [usize; 2], f32) -> Linear,
}

impl Maker<'_> {
    pub(crate) fn norm(&self, width: usize) -> Norm {
        Norm::new(width, self.config.rms_norm_eps, self.config.design.norm == NormKind::Layer, self.device)
    }

    pub(crate) fn linear(&self, name: &str, shape: [usize; 2], deviation: f32, bias: bool) -> Linear {
        (self.linear)(&format!("{name}.weight"), shape, deviation).with_bias(bias, shape[0], self.device)
    }
}

impl Decoder {
    /// Normal weights of deviation 0.02, drawn by counter from the seed; the projections back into the residual stream are
    /// smaller by sqrt(2 * layers) (Radford et al., "GPT-2", 2019).
    pub fn random(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        Self::build(
            config,
            device,
            &|name, shape, deviation| Linear::random(seed, name, shape, deviation, device),
            |name, shape| normal(seed, name, shape, DEVIATION, device),
        )
    }

    fn build(
        config: &ModelConfig,
        device: &Device,
        linear: &dyn Fn(&str, [usize; 2], f32) -> Linear,
        embedding: impl Fn(&str, [usize; 2]) -> Tensor<2>,
    ) -> Self {
        let ModelConfig { hidden_size, vocab_size, context, .. } = *config;
        let maker = Maker { config, device, linear };
        let shape = [vocab_size, hidden_size];
        let table = |name: &str, shape| Embedding::new(embedding(name, shape));
        let parts = Parts {
            model: Body {
                embed_tokens: table("model.embed_tokens.weight", shape),
                embed_positions: (config.design.learned_positions)
                    .then(|| table("model.embed_positions.weight", [context, hidden_size])),
                layers: (0..config.layers).map(|layer| Block::new(&maker, layer)).collect(),
                norm: maker.norm(hidden_size),
            },
            lm_head: (!config.tied_embeddings).then(|| maker.linear("lm_head", shape, DEVIATION, false)),
        };
        Self { parts, config: config.clone(), precision: Precision::default() }
    }

    /// Reads a folder in Hugging Face layout.
    ///
    /// # Errors
    /// If files are missing or broken, or the config asks for something that is not supported.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        Self::read_whole(folder, device, false)
    }

    /// Reads a folder in Hugging Face layout to tune adapters over it on the CPU: matrices of layers that it holds as
    /// integers stay integers, and are not trained.
    ///
    /// # Errors
    /// As [`Decoder::read`].
    pub fn read_frozen(folder: &Path) -> Result<Self> {
        Self::read_whole(folder, &crate::cpu(), true)
    }

    fn read_whole(folder: &Path, device: &Device, frozen: bool) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        let stored = ModelWeights::open(folder)?;
        let read = || {
            let weights = Mapped::new(&config, &stored);
            let problem = RefCell::new(None);
            let failed = |error| {
                problem.borrow_mut().get_or_insert(error);
            };
            let zeros = |shape: [usize; 2]| Tensor::zeros(shape, device);
            let linear = |name: &str, shape, _| {
                let integers =
                    || weights.matrix(name, shape)?.map(|m| QuantizedMatrix::pack(vec![m], shape[1])).transpose();
                let packed = if frozen && name.starts_with("model.layers.") {
                    integers().map_err(failed).ok().flatten()
                } else {
                    None
                };
                packed.map_or_else(|| Linear::new(zeros(shape)), |packed| Linear::frozen(packed, device))
            };
            let model =
                map_parameters(Self::build(&config, device, &linear, |_, shape| zeros(shape)), |name, shape| {
                    // In the place of integers there is nothing.
                    let values = || {
                        let found = weights.values(name, shape)?;
                        let mut values = vec![0f32; found.len()];
                        found.read(0, &mut values);
                        Ok(values)
                    };
                    let nothing = shape.contains(&0);
                    Replacement { values: if nothing { None } else { values().map_err(failed).ok() }, trained: false }
                });
            problem.into_inner().map_or(Ok(()), Err)?;
            stored.all_used(&config)?;
            Ok(model)
        };
        read().map_err(|error: Error| error.at(folder.display(), None))
    }

    /// Reads a folder in Hugging Face layout for inference on the CPU: weights are packed as they are read, and are never
    /// there in full size beside the file. Without a precision it is that of the file: bf16 for 16 bits and for
    /// integers, else f32.
    ///
    /// # Errors
    /// As [`Decoder::read`].
    pub fn read_packed(folder: &Path, precision: Option<Precision>) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        let stored = ModelWeights::open(folder)?;
        let precision = precision.unwrap_or_else(|| stored.precision());
        let model = Self::packed(&config, &Mapped::new(&config, &stored), precision).and_then(|model| {
            stored.all_used(&config)?;
            Ok(model)
        });
        model.map_err(|error| error.at(folder.display(), None))
    }

    /// The same model packed for inference on the CPU, adapters merged.
    pub fn pack(&self, precision: Precision) -> Self {
        let merged = self.clone().merged();
        Self::packed(self.config(), &merged.tensors(), precision).expect("a model's weights fit its config")
    }

    /// The same with weights rounded to integers as they are packed; embedding and output become int8.
    pub fn pack_rounded(&self, kind: Quantization) -> Self {
        let weights = Rounding { weights: &self.clone().merged().tensors(), kind };
        Self::packed(self.config(), &weights, Precision::Bf16).expect("a model's weights fit its config")
    }

    /// Packed for inference on the CPU, from weights by the decoder's own names: products in `precision`, the rest in f32.
    ///
    /// # Errors
    /// If a weight is missing or has another shape; it is named.
    pub(crate) fn packed(config: &ModelConfig, weights: &dyn WeightSource, precision: Precision) -> Result<Self> {
        let ModelConfig { hidden_size: c, vocab_size, context, .. } = *config;
        let nothing = || Tensor::zeros([0, 0], &crate::cpu());
        let mut model = Self::build(config, &crate::cpu(), &|_, _, _| Linear::new(nothing()), |_, _| nothing());
        let Parts { model: body, lm_head } = &mut model.parts;
        let table = ("model.embed_tokens.weight".to_string(), [vocab_size, c]);
        body.embed_tokens.packed = Some(weights.packed(&[table], precision)?);
        if let Some(table) = &mut body.embed_positions {
            let values = weights.values("model.embed_positions.weight", &[context, c])?;
            table.packed = Some(PackedWeight::new(&[values], c, Precision::F32));
        }
        for (layer, block) in body.layers.iter_mut().enumerate() {
            block.pack(config, layer, weights, precision)?;
        }
        body.norm.load("model.norm", weights)?;
        if let Some(head) = lm_head {
            Linear::pack(&mut [head], &[("lm_head".into(), [vocab_size, c])], weights, precision)?;
        }
        Ok(model.with_precision(precision))
    }

    /// Whether the weights are packed for inference: then there is nothing to train, to write or to convert.
    pub fn is_packed(&self) -> bool {
        self.parts.model.embed_tokens.packed.is_some()
    }

    /// Replaces all weights, by the decoder's own names.
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

    /// Writes `config.json` and `model.safetensors`, with the names of its architecture. Adapters must be merged before.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("config.json");
        let config = serde_json::to_string_pretty(&self.config().to_json()).expect("JSON serializes");
        std::fs::write(&path, config + "\n").map_err(|error| Error::io("cannot write", &path, error))?;
        write_safetensors(&folder.join("model.safetensors"), &to_theirs(&self.config, self.tensors()))
    }

    /// All weights by the decoder's own names.
    pub fn tensors(&self) -> TensorMap {
        named_parameters(self).into_iter().map(|t| (t.name, (t.shape, t.values))).collect()
    }

    /// The shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The same model with other constants (context, special tokens); shapes must stay.
    pub fn with_config(self, config: ModelConfig) -> Self {
        Self { config, ..self }
    }

    /// The same model with products in this precision; f32 unless set. Weights stay f32.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// These positions, one row per sequence, or one row for all.
    pub fn positions(&self, rows: &[&[usize]], device: &Device) -> Positions {
        Positions::new(&self.config, rows, device)
    }

    /// The positions of a model that runs step by step.
    pub fn position_cache(&self) -> PositionCache {
        PositionCache::new(&self.config)
    }

    /// Token ids -> logits at every position: `[B, T]` -> `[B * T, vocabulary]`.
    pub fn forward(
        &self,
        tokens_bt: Tensor<2, Int>,
        positions: &Positions,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        self.logits(self.hidden(tokens_bt, positions, attention, dropout))
    }

    /// The same without the output projection: `[B, T]` -> `[B * T, hidden]`.
    pub fn hidden(
        &self,
        tokens_bt: Tensor<2, Int>,
        positions: &Positions,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        let mut x = self.embed(tokens_bt, positions, dropout);
        for layer in 0..self.config().layers {
            x = self.block(layer, x, positions, attention, dropout);
        }
        self.norm(x)
    }

    /// The first part of [`Decoder::hidden`]: token ids -> what enters block 0, `[B, T]` -> `[B * T, hidden]`.
    pub fn embed(&self, tokens_bt: Tensor<2, Int>, positions: &Positions, dropout: &mut Dropout) -> Tensor<2> {
        let body = &self.parts.model;
        let mut x = body.embed_tokens.forward(tokens_bt.clone());
        if self.config.design.embedding_scale != 1.0 {
            x = x * self.config.design.embedding_scale;
        }
        if let Some(table) = &body.embed_positions {
            let rows = x.dims()[0] / positions.len().max(1);
            let numbers = positions.numbers(rows, &tokens_bt.device());
            x = x + table.forward(numbers.unsqueeze());
        }
        dropout.apply(x)
    }

    /// One block: `[N, hidden]` -> `[N, hidden]`.
    pub fn block(
        &self,
        layer: usize,
        x: Tensor<2>,
        positions: &Positions,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        self.parts.model.layers[layer].forward(x, positions, attention, dropout, self.precision)
    }

    /// The last part of [`Decoder::hidden`]: the norm after the last block, `[N, hidden]` -> `[N, hidden]`.
    pub fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.parts.model.norm.forward(x)
    }

    /// `[vocabulary, hidden]`
    fn output_weight(&self) -> Tensor<2> {
        let Parts { model, lm_head } = &self.parts;
        lm_head.as_ref().map_or_else(|| model.embed_tokens.weight.val(), |head| head.weight.val())
    }

    /// The output projection: `[N, hidden]` -> `[N, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let Parts { model, lm_head } = &self.parts;
        let logits = match (lm_head, &model.embed_tokens.packed) {
            (Some(head), _) => head.forward(hidden, &mut Dropout::none(), self.precision),
            (None, Some(packed)) => packed_linear(hidden, packed, None),
            (None, None) => linear(hidden, &[self.output_weight()], None, None, self.precision),
        };
        self.scaled(logits)
    }

    /// What becomes of the products of hidden vectors and the vocabulary's.
    fn scaled(&self, mut logits: Tensor<2>) -> Tensor<2> {
        if self.config.design.logits_scale != 1.0 {
            logits = logits * self.config.design.logits_scale;
        }
        match self.config.design.logits_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// The output projection and its cross-entropy: hidden `[N, hidden]`, targets `[N]` -> `[1]`, `scale` times the sum
    /// of the negative log-likelihoods of the targets in nats.
    pub fn nats(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, scale: f64) -> Tensor<1> {
        if self.config.design.logits_softcap.is_some() {
            // All logits at once: the fused operator knows no cap.
            let [n, _] = hidden.dims();
            let chosen =
                burn::tensor::activation::log_softmax(self.logits(hidden), 1).gather(1, targets.reshape([n, 1]));
            return chosen.sum() * -scale;
        }
        let hidden = match self.config.design.logits_scale {
            1.0 => hidden,
            scale => hidden * scale,
        };
        linear_cross_entropy(hidden, self.output_weight(), targets, scale, self.precision)
    }

    /// Every projection that can carry an adapter, with its name.
    fn projections(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.parts.model.layers.iter_mut().enumerate().flat_map(|(i, block)| {
            block.projections().into_iter().map(move |(part, linear)| (format!("model.layers.{i}.{part}"), linear))
        })
    }

    /// Adds adapters, drawn by counter from the seed.
    pub fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Self {
        for (name, linear) in self.projections() {
            let target = name.rsplit('.').next().unwrap_or_default();
            if spec.targets.iter().any(|wanted| wanted == target) {
                linear.lora = Some(Lora::random(spec, seed, &name, linear));
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
                let ([outputs, inputs], device) = (linear.shape(), linear.weight.device());
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

    /// Names and shapes `[out, in]` of the projections that can carry an adapter.
    pub(crate) fn projection_shapes(&self) -> Vec<(String, [usize; 2])> {
        let shapes = (0..self.config.layers).flat_map(|layer| {
            let block = crate::block::projection_shapes(&self.config, layer).into_iter();
            block.map(move |(part, shape)| (format!("model.layers.{layer}.{part}"), shape))
        });
        shapes.collect()
    }

    /// Every projection that can carry an adapter, with the one that it trains.
    pub(crate) fn adapter_parts(&self) -> BTreeMap<String, AdapterPart> {
        let values = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().expect("parameters are f32");
        let part = |(name, linear): (String, &mut Linear)| {
            let mut part = AdapterPart { outputs: linear.shape()[0], rank: 0, a: vec![], b: vec![], magnitude: None };
            if let Some(lora) = &linear.lora {
                part.rank = lora.lora_a.dims()[0];
                (part.a, part.b) = (values(lora.lora_a.val()), values(lora.lora_b.val()));
                part.magnitude = lora.magnitude.as_ref().map(|sizes| values(sizes.val().unsqueeze()));
            }
            (name, part)
        };
        self.clone().projections().map(part).collect()
    }

    /// The Euclidean size of each output's weights of a projection; empty if there is none of this name.
    pub(crate) fn sizes(&self, module: &str) -> Vec<f32> {
        let found = self.clone().projections().find(|(name, _)| name == module).map(|(_, linear)| linear.numbers());
        let found = found.map(|weight| sizes(weight).into_data().try_to_vec::<f32>().expect("weights are f32"));
        found.unwrap_or_default()
    }

    /// Values of row `row` of the weight of a packed model's projection.
    pub(crate) fn packed_row(&self, layer: usize, part: &str, row: usize, to: &mut [f32]) {
        self.parts.model.layers[layer].packed_row(part, row, to);
    }

    /// Adds the adapters into the weights and drops them.
    pub fn merged(mut self) -> Self {
        self.projections().for_each(|(_, linear)| linear.merge());
        self
    }

    /// The same model with gradients tracked for the parameters whose names `trained` accepts.
    pub fn for_training(self, trained: impl Fn(&str) -> bool) -> Self {
        let model = Self { parts: Module::train(self.parts), ..self };
        map_parameters(model, |name, _| Replacement { values: None, trained: trained(name) })
    }

    /// The same model without gradients, for validation and inference.
    pub fn for_inference(&self) -> Self {
        Self { parts: Module::valid(&self.parts), config: self.config.clone(), precision: self.precision }
    }

    /// Whether an embedding gets gradients.
    pub fn trains_embedding(&self) -> bool {
        let Body { embed_tokens, embed_positions, .. } = &self.parts.model;
        let trained = |table: &Embedding| Param::val(&table.weight).is_require_grad();
        trained(embed_tokens) || embed_positions.as_ref().is_some_and(trained)
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.parts.model.embed_tokens.weight.device()
    }

    /// The same model on another device.
    pub fn to_device(self, device: &Device) -> Self {
        Self { parts: self.parts.to_device(device), ..self }
    }

    /// Walks over the parameters.
    pub fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.parts.visit(visitor);
    }

    /// Changes the parameters.
    pub fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self { parts: self.parts.map(mapper), ..self }
    }
}
