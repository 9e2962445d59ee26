//! One block of a decoder: attention, then a feed-forward part or experts, in the placement that its design asks for.
//!
//! Shapes: N rows, C hidden width, F feed-forward width, H query heads, K key/value heads, D head width.

use crate::{
    Adapter, AttentionContext, Dropout, Heads, Layer, Linear, ModelConfig, Positions,
    config::{Placement, QkNorm},
    decoder::{DEVIATION, Maker},
    experts::{Expert, Routing},
    layers::Norm,
    weights::WeightSource,
};
use burn::{module::Module, tensor::Tensor};
use narthex_base::Result;
use narthex_kernels::{Activation, Adapted, Precision, Scores, activation, swiglu};
use std::{ops::Range, sync::Arc};

/// A block; fields have the names of Llama's checkpoints, and where it has none, of their own.
#[derive(Module, Debug)]
pub(crate) struct Block {
    input_layernorm: Option<Norm>,
    self_attn: Attention,
    /// After the attention.
    attention_output_norm: Option<Norm>,
    /// Before the feed-forward part, as in Llama.
    post_attention_layernorm: Option<Norm>,
    mlp: FeedForward,
    /// After the feed-forward part.
    mlp_output_norm: Option<Norm>,
    #[module(skip)]
    parallel: bool,
    #[module(skip)]
    residual_scale: f64,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    #[module(skip)]
    layer: Layer,
    /// The number of the rotary embedding.
    #[module(skip)]
    rope: usize,
    /// Whether queries and keys are normed head by head.
    #[module(skip)]
    each_head: bool,
}

/// A feed-forward part, or experts.
#[derive(Module, Debug)]
struct FeedForward {
    gate_proj: Option<Linear>,
    up_proj: Option<Linear>,
    down_proj: Option<Linear>,
    /// The router.
    gate: Option<Linear>,
    experts: Vec<Expert>,
    #[module(skip)]
    routing: Option<Routing>,
    #[module(skip)]
    activation: Activation,
}

/// The projections of one feed-forward part or expert, `[C]` -> `[C]`.
pub(crate) fn feed_forward(
    [gate, up, down]: [Option<&Linear>; 3],
    function: Activation,
    x: Tensor<2>,
    residual: Option<Tensor<2>>,
    dropout: &mut Dropout,
    precision: Precision,
    [inward, outward]: [&[Adapted]; 2],
) -> Tensor<2> {
    let (up, down) = (up.expect("there is a projection up"), down.expect("there is a projection down"));
    let inner = match gate {
        Some(gate) => {
            let gate_up = Linear::side_by_side(&[gate, up], x, dropout, precision, inward);
            if function == Activation::Silu {
                swiglu(gate_up)
            } else {
                let width = gate_up.dims()[1] / 2;
                activation(gate_up.clone().narrow(1, 0, width), function) * gate_up.narrow(1, width, width)
            }
        }
        None => activation(Linear::side_by_side(&[up], x, dropout, precision, inward), function),
    };
    match residual {
        Some(residual) => down.onto(residual, inner, dropout, precision, outward),
        None => Linear::side_by_side(&[down], inner, dropout, precision, outward),
    }
}

/// A product of a block and what shares its input: what one update of an adapter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    Qkv,
    Output,
    GateUp,
    Down,
}

/// The projections of a block that are no expert's: name, shape `[out, in]`.
fn dense_shapes(config: &ModelConfig, layer: usize) -> Vec<(&'static str, [usize; 2])> {
    let ModelConfig { hidden_size: c, intermediate_size: f, heads, kv_heads, head_width: d, .. } = *config;
    let mut shapes = vec![
        ("self_attn.q_proj", [heads * d, c]),
        ("self_attn.k_proj", [kv_heads * d, c]),
        ("self_attn.v_proj", [kv_heads * d, c]),
        ("self_attn.o_proj", [c, heads * d]),
    ];
    if config.experts(layer).is_none() {
        if config.design.gated {
            shapes.push(("mlp.gate_proj", [f, c]));
        }
        shapes.extend([("mlp.up_proj", [f, c]), ("mlp.down_proj", [c, f])]);
    }
    shapes
}

/// All projections of a block that can carry an adapter: name, shape `[out, in]`.
pub(crate) fn projection_shapes(config: &ModelConfig, layer: usize) -> Vec<(String, [usize; 2])> {
    let mut shapes: Vec<_> =
        dense_shapes(config, layer).into_iter().map(|(name, shape)| (name.to_string(), shape)).collect();
    if let Some(experts) = config.experts(layer) {
        let (c, f) = (config.hidden_size, experts.intermediate_size);
        for i in 0..experts.count {
            let parts = [("gate_proj", [f, c]), ("up_proj", [f, c]), ("down_proj", [c, f])];
            shapes.extend(parts.map(|(part, shape)| (format!("mlp.experts.{i}.{part}"), shape)));
        }
    }
    shapes
}

/// Where the outputs of a projection stand: the product that it is part of, and its first column there. None for experts.
pub(crate) fn site(config: &ModelConfig, layer: usize, part: &str) -> Option<(Site, usize)> {
    let shapes = dense_shapes(config, layer);
    let outputs = |name: &str| shapes.iter().find(|(found, _)| *found == name).map_or(0, |(_, [outputs, _])| *outputs);
    let (q, k) = (outputs("self_attn.q_proj"), outputs("self_attn.k_proj"));
    match part {
        "self_attn.q_proj" => Some((Site::Qkv, 0)),
        "self_attn.k_proj" => Some((Site::Qkv, q)),
        "self_attn.v_proj" => Some((Site::Qkv, q + k)),
        "self_attn.o_proj" => Some((Site::Output, 0)),
        "mlp.gate_proj" => Some((Site::GateUp, 0)),
        "mlp.up_proj" => Some((Site::GateUp, outputs("mlp.gate_proj"))),
        "mlp.down_proj" => Some((Site::Down, 0)),
        _ => None,
    }
}

impl Block {
    /// Values of row `row` of the weight of a packed projection.
    pub(crate) fn packed_row(&self, part: &str, row: usize, to: &mut [f32]) {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        let (first, before) = match part {
            "self_attn.q_proj" => (Some(&attention.q_proj), 0),
            "self_attn.k_proj" => (Some(&attention.q_proj), attention.layer.heads.queries),
            "self_attn.v_proj" => (Some(&attention.q_proj), attention.layer.heads.queries + attention.layer.heads.keys),
            "self_attn.o_proj" => (Some(&attention.o_proj), 0),
            "mlp.down_proj" => (mlp.down_proj.as_ref(), 0),
            _ => (mlp.gate_proj.as_ref().or(mlp.up_proj.as_ref()), 0),
        };
        let before = before * attention.layer.heads.width;
        if let Some(packed) = first.and_then(Linear::packed) {
            let above = part == "mlp.up_proj" && mlp.gate_proj.is_some();
            let before = if above { packed.shape()[0] / 2 } else { before };
            packed.read_row(before + row, to);
        }
    }

    pub(crate) fn new(maker: &Maker, layer: usize) -> Self {
        let config = maker.config;
        let ModelConfig { hidden_size, intermediate_size, heads, kv_heads, head_width: d, ref design, .. } = *config;
        let residual = DEVIATION / (2.0 * config.layers as f32).sqrt();
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let linear = |part: &str, shape, deviation, bias| maker.linear(&name(part), shape, deviation, bias);
        let projection = |part: &str, heads: usize| linear(part, [heads * d, hidden_size], DEVIATION, design.qkv_bias);
        let before = design.placement != Placement::After;
        let after = matches!(design.placement, Placement::After | Placement::Both);
        let norm = |stands: bool| stands.then(|| maker.norm(hidden_size));
        let head_norm = |heads: usize| match design.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => Some(maker.norm(d)),
            QkNorm::Whole => Some(maker.norm(heads * d)),
        };
        let kind = config.kind(layer);
        let experts = config.experts(layer);
        let dense = experts.is_none();
        let mlp = |part: &str, shape: [usize; 2], deviation| linear(part, shape, deviation, design.mlp_bias);
        let inward = [intermediate_size, hidden_size];
        Self {
            input_layernorm: norm(before),
            self_attn: Attention {
                q_proj: projection("self_attn.q_proj", heads),
                k_proj: projection("self_attn.k_proj", kv_heads),
                v_proj: projection("self_attn.v_proj", kv_heads),
                o_proj: linear("self_attn.o_proj", [hidden_size, heads * d], residual, design.output_bias),
                q_norm: head_norm(heads),
                k_norm: head_norm(kv_heads),
                layer: Layer {
                    number: layer,
                    heads: Heads { queries: heads, keys: kv_heads, width: d },
                    scores: Scores {
                        window: kind.window,
                        scale: design.attention_scale.map(|scale| scale as f32),
                        softcap: design.attention_softcap.map(|cap| cap as f32),
                    },
                },
                rope: kind.rope,
                each_head: design.qk_norm == QkNorm::Heads,
            },
            attention_output_norm: norm(after),
            post_attention_layernorm: norm(before),
            mlp: FeedForward {
                gate_proj: (dense && design.gated).then(|| mlp("mlp.gate_proj", inward, DEVIATION)),
                up_proj: dense.then(|| mlp("mlp.up_proj", inward, DEVIATION)),
                down_proj: dense.then(|| mlp("mlp.down_proj", [hidden_size, intermediate_size], residual)),
                gate: experts.map(|experts| linear("mlp.gate", [experts.count, hidden_size], DEVIATION, false)),
                experts: (0..experts.map_or(0, |experts| experts.count))
                    .map(|i| {
                        Expert::new(
                            maker,
                            &name(&format!("mlp.experts.{i}")),
                            experts.map_or(0, |e| e.intermediate_size),
                        )
                    })
                    .collect(),
                routing: experts.map(|e| Routing { per_token: e.per_token, normalised: e.normalised }),
                activation: design.activation,
            },
            mlp_output_norm: norm(after),
            parallel: design.placement == Placement::Parallel,
            residual_scale: design.residual_scale,
        }
    }

    /// Packs the projections and loads the norms.
    ///
    /// # Errors
    /// If a weight is missing or has another shape; it is named.
    pub(crate) fn pack(
        &mut self,
        config: &ModelConfig,
        layer: usize,
        weights: &dyn WeightSource,
        precision: Precision,
    ) -> Result<()> {
        let ModelConfig { hidden_size: c, intermediate_size: f, heads, kv_heads, head_width: d, .. } = *config;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let named = |part: &str, shape: [usize; 2]| (name(part), shape);
        let Attention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, .. } = &mut self.self_attn;
        for (part, norm) in [
            ("input_layernorm", &mut self.input_layernorm),
            ("attention_output_norm", &mut self.attention_output_norm),
            ("post_attention_layernorm", &mut self.post_attention_layernorm),
            ("mlp_output_norm", &mut self.mlp_output_norm),
            ("self_attn.q_norm", q_norm),
            ("self_attn.k_norm", k_norm),
        ] {
            if let Some(norm) = norm {
                norm.load(&name(part), weights)?;
            }
        }
        let qkv = [
            named("self_attn.q_proj", [heads * d, c]),
            named("self_attn.k_proj", [kv_heads * d, c]),
            named("self_attn.v_proj", [kv_heads * d, c]),
        ];
        Linear::pack(&mut [q_proj, k_proj, v_proj], &qkv, weights, precision)?;
        Linear::pack(&mut [o_proj], &[named("self_attn.o_proj", [c, heads * d])], weights, precision)?;
        let FeedForward { gate_proj, up_proj, down_proj, gate, experts, .. } = &mut self.mlp;
        if let (Some(up), Some(down)) = (up_proj, down_proj) {
            let (gate_name, up_name) = (named("mlp.gate_proj", [f, c]), named("mlp.up_proj", [f, c]));
            match gate_proj {
                Some(gate) => Linear::pack(&mut [gate, up], &[gate_name, up_name], weights, precision)?,
                None => Linear::pack(&mut [up], &[up_name], weights, precision)?,
            }
            Linear::pack(&mut [down], &[named("mlp.down_proj", [c, f])], weights, precision)?;
        }
        if let (Some(gate), Some(spec)) = (gate, config.experts(layer)) {
            // The choice of experts is kept at full precision: a rounded score may choose others.
            Linear::pack(&mut [gate], &[named("mlp.gate", [spec.count, c])], weights, Precision::F32)?;
            for (i, expert) in experts.iter_mut().enumerate() {
                let name = name(&format!("mlp.experts.{i}"));
                expert.pack(&name, [spec.intermediate_size, c], weights, precision)?;
            }
        }
        Ok(())
    }

    /// Every projection that can carry an adapter, with its name.
    pub(crate) fn projections(&mut self) -> Vec<(String, &mut Linear)> {
        let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &mut self.self_attn;
        let FeedForward { gate_proj, up_proj, down_proj, experts, .. } = &mut self.mlp;
        let attention = [("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj), ("o_proj", o_proj)]
            .map(|(part, linear)| (format!("self_attn.{part}"), linear));
        let mlp = [("gate_proj", gate_proj), ("up_proj", up_proj), ("down_proj", down_proj)];
        let mlp = mlp.into_iter().filter_map(|(part, linear)| Some((format!("mlp.{part}"), linear.as_mut()?)));
        let experts = experts.iter_mut().enumerate().flat_map(|(i, expert)| {
            expert.projections().map(|(part, linear)| (format!("mlp.experts.{i}.{part}"), linear))
        });
        attention.into_iter().chain(mlp).chain(experts).collect()
    }

    /// `[N, C]` -> `[N, C]`
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        positions: &Positions,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let normed = |norm: &Option<Norm>, x: Tensor<2>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let y =
            self.self_attn.forward(normed(&self.input_layernorm, x.clone()), positions, attention, dropout, precision);
        let o_proj = &self.self_attn.o_proj;
        let layer = self.self_attn.layer.number;
        let after_attention = adapted(attention, layer, Site::Output);
        let mlp = [adapted(attention, layer, Site::GateUp), adapted(attention, layer, Site::Down)];
        let mlp = [mlp[0].as_slice(), mlp[1].as_slice()];
        if self.parallel {
            let both = o_proj.onto(x.clone(), y, dropout, precision, &after_attention);
            return self.mlp.forward(normed(&self.post_attention_layernorm, x), Some(both), dropout, precision, mlp);
        }
        let plain = self.attention_output_norm.is_none() && self.residual_scale == 1.0;
        let x = match plain {
            true => o_proj.onto(x, y, dropout, precision, &after_attention),
            false => {
                let y = Linear::side_by_side(&[o_proj], y, dropout, precision, &after_attention);
                self.add(x, normed(&self.attention_output_norm, y), dropout)
            }
        };
        let y = normed(&self.post_attention_layernorm, x.clone());
        match plain {
            true => self.mlp.forward(y, Some(x), dropout, precision, mlp),
            false => {
                let y = self.mlp.forward(y, None, dropout, precision, mlp);
                self.add(x, normed(&self.mlp_output_norm, y), dropout)
            }
        }
    }

    fn add(&self, x: Tensor<2>, y: Tensor<2>, dropout: &mut Dropout) -> Tensor<2> {
        let y = if self.residual_scale == 1.0 { y } else { y * self.residual_scale };
        x + dropout.apply(y)
    }
}

/// The updates that rows' adapters bring to a product.
fn adapted(attention: &dyn AttentionContext, layer: usize, site: Site) -> Vec<Adapted> {
    let of = |(rows, adapter): &(Range<usize>, Arc<Adapter>)| Some((rows.clone(), adapter.update(layer, site)?));
    attention.adapters().iter().filter_map(of).collect()
}

impl Attention {
    /// `[N, C]` -> `[N, H D]`, before the output projection.
    fn forward(
        &self,
        x: Tensor<2>,
        positions: &Positions,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let updates = adapted(attention, self.layer.number, Site::Qkv);
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let mut qkv = Linear::side_by_side(&projections, x, dropout, precision, &updates);
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            let Heads { queries, keys, width } = self.layer.heads;
            let part = |first: usize, heads: usize| qkv.clone().narrow(1, first * width, heads * width);
            let normed = |norm: &Norm, x: Tensor<2>| if self.each_head { norm.each_head(x) } else { norm.forward(x) };
            let q = normed(q_norm, part(0, queries));
            let k = normed(k_norm, part(queries, keys));
            qkv = Tensor::cat(vec![q, k, part(queries + keys, keys)], 1);
        }
        attention.attend(self.layer, qkv, positions.table(self.rope), precision)
    }
}

impl FeedForward {
    /// `[N, C]` -> `[N, C]`, onto the residual if there is one.
    fn forward(
        &self,
        x: Tensor<2>,
        residual: Option<Tensor<2>>,
        dropout: &mut Dropout,
        precision: Precision,
        updates: [&[Adapted]; 2],
    ) -> Tensor<2> {
        let Self { gate_proj, up_proj, down_proj, gate, experts, routing, activation } = self;
        if let (Some(gate), Some(routing)) = (gate, routing) {
            let scores = gate.forward(x.clone(), &mut Dropout::none(), Precision::F32);
            let y = routing.forward(experts, x, scores, *activation, dropout, precision);
            return match residual {
                Some(residual) => residual + dropout.apply(y),
                None => y,
            };
        }
        let projections = [gate_proj.as_ref(), up_proj.as_ref(), down_proj.as_ref()];
        feed_forward(projections, *activation, x, residual, dropout, precision, updates)
    }
}
