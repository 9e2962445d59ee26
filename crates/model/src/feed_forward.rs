//! The feed-forward part of a block, or one expert: up through a function, or with a gate, and down again. Knows
//! neither blocks nor routing.
//!
//! Shapes: N rows, C hidden width, F feed-forward width.

use crate::{
    config::ModelConfig,
    dropout::Dropout,
    layers::Linear,
    maker::{LinearShape, Maker, residual_deviation, side_by_side},
};
use burn::{module::Module, tensor::Tensor};
use narthex_base::Result;
use narthex_kernels::{Activation, Adapted, Precision, gated, swiglu};

/// The projections, named as Llama's.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    gate_proj: Option<Linear>,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// Of width F, below `name`, with a gate if so.
    ///
    /// # Errors
    /// If the maker has no such part; it is named.
    pub(crate) fn new(maker: &dyn Maker, config: &ModelConfig, name: &str, f: usize, gated: bool) -> Result<Self> {
        let (c, bias) = (config.hidden_size, config.design.mlp_bias);
        let part = |part: &str, shape| LinearShape::new(format!("{name}.{part}"), shape).bias(bias);
        let (gate_proj, up_proj) = if gated {
            let [gate, up] = side_by_side(maker, [part("gate_proj", [f, c]), part("up_proj", [f, c])])?;
            (Some(gate), up)
        } else {
            (None, maker.linear(part("up_proj", [f, c]))?)
        };
        let down_proj = maker.linear(part("down_proj", [c, f]).deviation(residual_deviation(config)))?;
        Ok(Self { gate_proj, up_proj, down_proj, activation: config.design.activation })
    }

    /// Its projections by name.
    pub(crate) fn projections(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        let Self { gate_proj, up_proj, down_proj, .. } = self;
        let gate = gate_proj.as_mut().map(|gate| ("gate_proj", gate));
        gate.into_iter().chain([("up_proj", up_proj), ("down_proj", down_proj)])
    }

    /// The same to be read.
    pub(crate) fn projection(&self, part: &str) -> Option<&Linear> {
        match part {
            "gate_proj" => self.gate_proj.as_ref(),
            "up_proj" => Some(&self.up_proj),
            "down_proj" => Some(&self.down_proj),
            _ => None,
        }
    }

    /// `[N, C]` -> `[N, C]`, onto the residual if there is one, with the updates of rows' adapters inward and outward.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        residual: Option<Tensor<2>>,
        dropout: &mut Dropout,
        precision: Precision,
        [inward, outward]: [&[Adapted]; 2],
    ) -> Tensor<2> {
        let (up, down, function) = (&self.up_proj, &self.down_proj, self.activation);
        let inner = match &self.gate_proj {
            Some(gate) => {
                let gate_up = Linear::side_by_side(&[gate, up], x, dropout, precision, inward);
                if function == Activation::Silu { swiglu(gate_up) } else { gated(gate_up, function) }
            }
            None => up.activated(x, function, dropout, precision, inward),
        };
        match residual {
            Some(residual) => down.onto(residual, inner, dropout, precision, outward),
            None => Linear::side_by_side(&[down], inner, dropout, precision, outward),
        }
    }
}
