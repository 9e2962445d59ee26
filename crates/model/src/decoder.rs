//! The decoder that all architectures are made of: an embedding, blocks, a norm and the output projection. Parameters
//! have Llama's names; `weight_map` knows those of others. What else is done with it stands beside it: reading,
//! writing, adapters, packing.
//!
//! Shapes: B batch, T time, N = B * T.

mod adapt;
mod adapter_folder;
mod pack;
mod packed_adapter;
mod read;
mod write;

pub use adapter_folder::{load_adapter, save_adapter};

use crate::{
    attention::AttentionContext,
    block::Block,
    config::ModelConfig,
    dropout::Dropout,
    layers::{Embedding, Linear, Norm},
    parameters::for_training,
    positions::{PositionCache, Positions},
    weight::Weight,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, activation::log_softmax},
};
use narthex_kernels::{Precision, linear, linear_cross_entropy, linear_nats, packed_linear};

/// A causal language model of any architecture. The fields that hold weights are the first parts of their names.
#[derive(Module, Debug)]
pub struct Decoder {
    model: Body,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    precision: Precision,
}

#[derive(Module, Debug)]
struct Body {
    embed_tokens: Embedding,
    embed_positions: Option<Embedding>,
    layers: Vec<Block>,
    norm: Norm,
}

impl Decoder {
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
        self.position_cache().rows(&rows.concat(), device)
    }

    /// The positions of a model that runs step by step.
    pub fn position_cache(&self) -> PositionCache {
        let ModelConfig { head_width, ref design, .. } = self.config;
        PositionCache::new(&self.config.ropes(), head_width, design.rotary_width.unwrap_or(head_width))
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
        let body = &self.model;
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
        self.model.layers[layer].forward(x, positions, attention, dropout, self.precision)
    }

    /// The last part of [`Decoder::hidden`]: the norm after the last block, `[N, hidden]` -> `[N, hidden]`.
    pub fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.model.norm.forward(x)
    }

    /// `[vocabulary, hidden]`
    fn output_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or(&self.model.embed_tokens.weight, |head| &head.weight).numbers()
    }

    /// The output projection: `[N, hidden]` -> `[N, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = match (&self.lm_head, &self.model.embed_tokens.weight) {
            (Some(head), _) => head.forward(hidden, &mut Dropout::none(), self.precision),
            (None, Weight::Packed(part)) => packed_linear(hidden, part.whole(), None),
            (None, weight) => linear(hidden, &[weight.numbers()], None, None, self.precision),
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
            let chosen = log_softmax(self.logits(hidden), 1).gather(1, targets.reshape([n, 1]));
            return chosen.sum() * -scale;
        }
        let hidden = match self.config.design.logits_scale {
            1.0 => hidden,
            scale => hidden * scale,
        };
        linear_cross_entropy(hidden, self.output_weight(), targets, scale, self.precision)
    }

    /// The same for each target on its own, to be weighed by whoever asks: `[N, hidden]`, `[N]` -> `[N]`, nats.
    pub fn nats_each(&self, hidden: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        if self.config.design.logits_softcap.is_some() {
            let [n, _] = hidden.dims();
            let chosen = log_softmax(self.logits(hidden), 1).gather(1, targets.reshape([n, 1]));
            return -chosen.reshape([n]);
        }
        let hidden = match self.config.design.logits_scale {
            1.0 => hidden,
            scale => hidden * scale,
        };
        linear_nats(hidden, self.output_weight(), targets, self.precision)
    }

    /// The same model with gradients tracked for the parameters whose names `trained` accepts.
    pub fn for_training(self, trained: impl Fn(&str) -> bool) -> Self {
        for_training(self, trained)
    }

    /// The same model without gradients, for validation and inference.
    pub fn for_inference(&self) -> Self {
        Module::valid(self)
    }

    /// Whether an embedding gets gradients.
    pub fn trains_embedding(&self) -> bool {
        let Body { embed_tokens, embed_positions, .. } = &self.model;
        let trained = |table: &Embedding| table.weight.is_trained();
        trained(embed_tokens) || embed_positions.as_ref().is_some_and(trained)
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.device()
    }
}
