//! The layers of all encoders: tables of tokens, positions and segments, a norm, and the same blocks as a decoder's,
//! whose attention sees all of a sequence. Parameters have Llama's names, as a decoder's; `weight_map` knows those of
//! others.
//!
//! Sequences of different lengths run together without padding: their rows lie one behind the other, and only attention
//! knows where one ends. What a sequence yields does not depend on what else is in the batch.
//!
//! Shapes: N rows of all sequences.

use super::EncoderInput;
use crate::{
    attention::{AttentionContext, Layer},
    block::Block,
    config::ModelConfig,
    dropout::Dropout,
    layers::{Embedding, Linear, Norm},
    maker::{Maker, NormShape},
    positions::{PositionCache, Rope},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_kernels::{Precision, RaggedShape, ragged_attention};
use serde_json::Value;
use std::sync::Arc;

/// What an encoder looks like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EncoderConfig {
    /// The shape and design of its blocks. The window of a layer reaches to either side.
    pub(crate) shape: ModelConfig,
    /// Rows of the table of positions; 0 if there is none.
    pub(crate) positions: usize,
    /// Rows of the table of segments; 0 if there is none.
    pub(crate) types: usize,
    /// RoBERTa's padding token: its position is this number, and those of others begin behind it.
    pub(crate) padding: Option<u32>,
    /// Whether a norm follows the last block.
    pub(crate) final_norm: bool,
    /// `config.json` as it was read.
    pub(crate) source: Value,
}

/// The layers of an encoder.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    model: Body,
    #[module(skip)]
    config: EncoderConfig,
    #[module(skip)]
    precision: Precision,
}

/// What holds weights.
#[derive(Module, Debug)]
struct Body {
    embed_tokens: Embedding,
    embed_positions: Option<Embedding>,
    embed_types: Option<Embedding>,
    embed_norm: Norm,
    layers: Vec<Block>,
    norm: Option<Norm>,
}

impl Encoder {
    /// The one place that says what an encoder is made of.
    ///
    /// # Errors
    /// If the maker has no such part; it is named.
    pub(crate) fn made(config: EncoderConfig, maker: &dyn Maker, precision: Precision) -> Result<Self> {
        let EncoderConfig { ref shape, positions, types, final_norm, .. } = config;
        let hidden = shape.hidden_size;
        let table = |name: &str, rows: usize| {
            (rows > 0).then(|| maker.table(&format!("model.{name}"), [rows, hidden], true)).transpose()
        };
        let norm = |name: &str| maker.norm(&format!("model.{name}"), NormShape::of(shape, hidden));
        let model = Body {
            embed_tokens: maker.table("model.embed_tokens", [shape.vocab_size, hidden], true)?,
            embed_positions: table("embed_positions", positions)?,
            embed_types: table("embed_types", types)?,
            embed_norm: norm("embed_norm")?,
            layers: (0..shape.layers).map(|layer| Block::new(maker, shape, layer)).collect::<Result<_>>()?,
            norm: final_norm.then(|| norm("norm")).transpose()?,
        };
        Ok(Self { model, config, precision })
    }

    /// What it looks like.
    pub(crate) fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// How products are computed.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The same with products in this precision.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Where the weights are.
    pub(crate) fn device(&self) -> Device {
        self.model.embed_tokens.weight.device()
    }

    /// Every projection of the blocks, with its name.
    pub(crate) fn projections(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.model.layers.iter_mut().enumerate().flat_map(|(i, block)| {
            block.projections().into_iter().map(move |(part, linear)| (format!("model.layers.{i}.{part}"), linear))
        })
    }

    /// The vectors of all tokens, those of one sequence behind those of another: `[N, hidden]`. What is dropped: values
    /// that enter the first block, that parts add to the residual stream, and weights of attention, all with one
    /// probability.
    ///
    /// # Panics
    /// If there is no token, or a sequence is longer than the model's positions or has unknown ids.
    pub(crate) fn forward(&self, inputs: &[&EncoderInput], dropout: &mut Dropout) -> Tensor<2> {
        let (body, shape, device) = (&self.model, &self.config.shape, &self.device());
        let mut x = body.embed_tokens.forward(row(inputs, device, |input, at| input.ids[at]));
        // A model with one segment takes no notice of them.
        let last_type = self.config.types.saturating_sub(1) as u32;
        if let Some(table) = &body.embed_types {
            x = x + table
                .forward(row(inputs, device, |input, at| input.types.get(at).copied().unwrap_or(0).min(last_type)));
        }
        if let Some(table) = &body.embed_positions {
            let padding = self.config.padding;
            x = x + table.forward(row(inputs, device, |input, at| position(input, at, padding)));
        }
        x = dropout.apply(body.embed_norm.forward(x));
        let lengths: Arc<[usize]> = inputs.iter().map(|input| input.ids.len()).collect();
        let longest: Vec<usize> = (0..lengths.iter().max().copied().unwrap_or(0)).collect();
        let ropes = shape.ropes();
        let rotated = ropes.iter().any(|rope| *rope != Rope::Still);
        let positions = PositionCache::new(&ropes, shape.head_width, shape.head_width).rows(&longest, device);
        let mut attention = Bidirectional { lengths, rotated, dropout: dropout.clone() };
        for block in &body.layers {
            x = block.forward(x, &positions, &mut attention, dropout, self.precision);
        }
        match &body.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

/// A number for each token: `[1, N]`.
fn row(inputs: &[&EncoderInput], device: &Device, number: impl Fn(&EncoderInput, usize) -> u32) -> Tensor<2, Int> {
    let places = inputs.iter().flat_map(|input| (0..input.ids.len()).map(move |at| (input, at)));
    let numbers: Vec<i64> = places.map(|(input, at)| i64::from(number(input, at))).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [1, count]), device)
}

/// The position of a token in the table.
fn position(input: &EncoderInput, at: usize, padding: Option<u32>) -> u32 {
    match padding {
        None => at as u32,
        Some(padding) if input.ids[at] == padding => padding,
        // Padding within a text does not count.
        Some(padding) => padding + input.ids[..=at].iter().filter(|id| **id != padding).count() as u32,
    }
}

/// Attention that sees all of each sequence, or a window to either side.
struct Bidirectional {
    lengths: Arc<[usize]>,
    /// Whether queries and keys turn with their positions.
    rotated: bool,
    dropout: Dropout,
}

impl AttentionContext for Bidirectional {
    fn attend(&mut self, layer: Layer, qkv: Tensor<2>, table: Tensor<2>, _precision: Precision) -> Tensor<2> {
        let shape = RaggedShape {
            lengths: self.lengths.clone(),
            heads: layer.heads.queries,
            head_width: layer.heads.width,
            window: layer.scores.window,
            dropout: self.dropout.of_attention(layer.number),
        };
        ragged_attention(qkv, self.rotated.then_some(table), &shape)
    }
}
