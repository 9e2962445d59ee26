//! One block of a decoder: attention, then a feed-forward part or experts, in the placement that its design asks for.
//!
//! Shapes: N rows, C hidden width, F feed-forward width, H query heads, K key/value heads, D head width.

use crate::{
    adapter::Adapter,
    attention::{AttentionContext, Heads, Layer},
    config::{ModelConfig, Placement, QkNorm},
    dropout::Dropout,
    experts::Experts,
    feed_forward::FeedForward,
    layers::{Linear, Norm},
    maker::{LinearShape, Maker, NormShape, residual_deviation, side_by_side},
    one_of::one_of,
    positions::Positions,
    site::Site,
};
use burn::{module::Module, tensor::Tensor};
use narthex_base::Result;
use narthex_kernels::{Adapted, Precision, Scores};
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
    mlp: Mlp,
    /// After the feed-forward part.
    mlp_output_norm: Option<Norm>,
    #[module(skip)]
    placement: Placement,
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
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in each block, and most are dense")]
enum Mlp {
    Dense(FeedForward),
    Sparse(Experts),
}
one_of!(Mlp { Dense, Sparse });

impl Block {
    /// # Errors
    /// If the maker has no such part; it is named.
    pub(crate) fn new(maker: &dyn Maker, config: &ModelConfig, layer: usize) -> Result<Self> {
        let ModelConfig { hidden_size, heads, kv_heads, head_width: d, ref design, .. } = *config;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let before = !matches!(design.placement, Placement::After | Placement::Outside);
        let after = matches!(design.placement, Placement::After | Placement::Both | Placement::Outside);
        let first_before = before && !(layer == 0 && design.normed_embedding);
        let norm = |stands: bool, part: &str, width: usize| {
            stands.then(|| maker.norm(&name(part), NormShape::of(config, width))).transpose()
        };
        let head_norm = |part: &str, heads: usize| match design.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::Heads => norm(true, part, d),
            QkNorm::Whole => norm(true, part, heads * d),
        };
        let kind = config.kind(layer);
        let projection =
            |part: &str, heads: usize| LinearShape::new(name(part), [heads * d, hidden_size]).bias(design.qkv_bias);
        let input_layernorm = norm(first_before, "input_layernorm", hidden_size)?;
        let [q_proj, k_proj, v_proj] = side_by_side(
            maker,
            [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)]
                .map(|(part, heads)| projection(&format!("self_attn.{part}"), heads)),
        )?;
        let portable = q_proj.weight.is_integers();
        let outward = LinearShape::new(name("self_attn.o_proj"), [hidden_size, heads * d]);
        Ok(Self {
            input_layernorm,
            self_attn: Attention {
                q_proj,
                k_proj,
                v_proj,
                o_proj: maker.linear(outward.bias(design.output_bias).deviation(residual_deviation(config)))?,
                q_norm: head_norm("self_attn.q_norm", heads)?,
                k_norm: head_norm("self_attn.k_norm", kv_heads)?,
                layer: Layer {
                    number: layer,
                    heads: Heads { queries: heads, keys: kv_heads, width: d },
                    scores: Scores {
                        window: kind.window,
                        scale: design.attention_scale.map(|scale| scale as f32),
                        softcap: design.attention_softcap.map(|cap| cap as f32),
                    },
                    portable,
                },
                rope: kind.rope,
                each_head: design.qk_norm == QkNorm::Heads,
            },
            attention_output_norm: norm(after, "attention_output_norm", hidden_size)?,
            post_attention_layernorm: norm(before, "post_attention_layernorm", hidden_size)?,
            mlp: Mlp::new(maker, config, layer)?,
            mlp_output_norm: norm(after, "mlp_output_norm", hidden_size)?,
            placement: design.placement,
            residual_scale: design.residual_scale,
        })
    }

    /// Every projection that can carry an adapter, with its name.
    pub(crate) fn projections(&mut self) -> Vec<(String, &mut Linear)> {
        let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &mut self.self_attn;
        let attention = [("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj), ("o_proj", o_proj)]
            .map(|(part, linear)| (format!("self_attn.{part}"), linear));
        let mlp: Vec<(String, &mut Linear)> = match &mut self.mlp {
            Mlp::Dense(mlp) => mlp.projections().map(|(part, linear)| (format!("mlp.{part}"), linear)).collect(),
            Mlp::Sparse(experts) => {
                experts.projections().map(|(part, linear)| (format!("mlp.{part}"), linear)).collect()
            }
        };
        attention.into_iter().chain(mlp).collect()
    }

    /// A projection by its name, if it is no expert's.
    pub(crate) fn projection(&self, name: &str) -> Option<&Linear> {
        let attention = &self.self_attn;
        match (name, &self.mlp) {
            ("self_attn.q_proj", _) => Some(&attention.q_proj),
            ("self_attn.k_proj", _) => Some(&attention.k_proj),
            ("self_attn.v_proj", _) => Some(&attention.v_proj),
            ("self_attn.o_proj", _) => Some(&attention.o_proj),
            (_, Mlp::Dense(mlp)) => mlp.projection(name.strip_prefix("mlp.")?),
            _ => None,
        }
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
        if self.placement == Placement::Outside {
            let x = normed(&self.attention_output_norm, o_proj.onto(x, y, dropout, precision, &after_attention));
            return normed(&self.mlp_output_norm, self.mlp.forward(x.clone(), Some(x), dropout, precision, mlp));
        }
        if self.placement == Placement::Parallel {
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

impl Mlp {
    fn new(maker: &dyn Maker, config: &ModelConfig, layer: usize) -> Result<Self> {
        let name = format!("model.layers.{layer}.mlp");
        Ok(match config.experts(layer) {
            Some(experts) => Self::Sparse(Experts::new(maker, config, experts, &name)?),
            None => {
                let (width, gated) = (config.intermediate_size, config.design.gated);
                Self::Dense(FeedForward::new(maker, config, &name, width, gated)?)
            }
        })
    }

    /// `[N, C]` -> `[N, C]`, onto the residual if there is one.
    fn forward(
        &self,
        x: Tensor<2>,
        residual: Option<Tensor<2>>,
        dropout: &mut Dropout,
        precision: Precision,
        updates: [&[Adapted]; 2],
    ) -> Tensor<2> {
        match self {
            Self::Dense(mlp) => mlp.forward(x, residual, dropout, precision, updates),
            Self::Sparse(experts) => {
                let y = experts.forward(x, dropout, precision);
                match residual {
                    Some(residual) => residual + dropout.apply(y),
                    None => y,
                }
            }
        }
    }
}
