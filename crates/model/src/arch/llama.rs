//! Llama (Touvron et al., 2023): RMSNorm before each part, rotary embeddings, grouped-query
//! attention, SwiGLU, optionally tied embeddings. Field names are Hugging Face's, so that a
//! parameter's path is its name in the checkpoint.
//!
//! Shapes: B batch, T time, N = B * T, H query heads, K key/value heads, D head width.

use crate::{
    AttentionContext, Dropout, Heads, Linear, LoraSpec, ModelConfig, Rotary,
    layers::{Embedding, RmsNorm, normal},
    lora::Lora,
    weights::WeightSource,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use narthex_base::Result;
use narthex_kernels::{Precision, linear, linear_cross_entropy, packed_linear, swiglu};

/// The model with its output projection.
#[derive(Module, Debug)]
pub struct Llama {
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
    layers: Vec<Block>,
    norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    #[module(skip)]
    heads: Heads,
}

#[derive(Module, Debug)]
struct FeedForward {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// Standard deviation of fresh weights (Hugging Face's `initializer_range`).
const DEVIATION: f32 = 0.02;

impl Llama {
    /// Normal weights of deviation 0.02; the projections back into the residual stream are smaller by
    /// sqrt(2 * layers) (Radford et al., "GPT-2", 2019).
    pub(super) fn random(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        Self::build(
            config,
            device,
            &|name, shape, deviation| Linear::random(seed, name, shape, deviation, device),
            |name, shape| normal(seed, name, shape, DEVIATION, device),
        )
    }

    pub(super) fn empty(config: &ModelConfig, device: &Device) -> Self {
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, device);
        let linear = |_: &str, shape, _| Linear::new(zeros(shape));
        Self::build(config, device, &linear, |_, shape| zeros(shape))
    }

    /// Packed for inference on the CPU: products in `precision`, the rest in f32.
    ///
    /// # Errors
    /// If a weight is missing or has another shape; it is named.
    pub(super) fn packed(config: &ModelConfig, weights: &dyn WeightSource, precision: Precision) -> Result<Self> {
        let ModelConfig { hidden_size: c, intermediate_size: f, heads, kv_heads, head_width, vocab_size, .. } = *config;
        let (q, kv) = (heads * head_width, kv_heads * head_width);
        let nothing = || Tensor::zeros([0, 0], &crate::cpu());
        let mut model = Self::build(config, &crate::cpu(), &|_, _, _| Linear::new(nothing()), |_, _| nothing());
        let embedding = ("model.embed_tokens.weight".to_string(), [vocab_size, c]);
        model.model.embed_tokens.packed = Some(weights.packed(&[embedding], precision)?);
        for (i, block) in model.model.layers.iter_mut().enumerate() {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let named = |part: &str, shape: [usize; 2]| (name(part), shape);
            let Block { input_layernorm, self_attn: a, post_attention_layernorm, mlp: m } = block;
            input_layernorm.load(&name("input_layernorm"), weights)?;
            post_attention_layernorm.load(&name("post_attention_layernorm"), weights)?;
            let qkv = [
                named("self_attn.q_proj", [q, c]),
                named("self_attn.k_proj", [kv, c]),
                named("self_attn.v_proj", [kv, c]),
            ];
            Linear::pack(&mut [&mut a.q_proj, &mut a.k_proj, &mut a.v_proj], &qkv, weights, precision)?;
            Linear::pack(&mut [&mut a.o_proj], &[named("self_attn.o_proj", [c, q])], weights, precision)?;
            let gate_up = [named("mlp.gate_proj", [f, c]), named("mlp.up_proj", [f, c])];
            Linear::pack(&mut [&mut m.gate_proj, &mut m.up_proj], &gate_up, weights, precision)?;
            Linear::pack(&mut [&mut m.down_proj], &[named("mlp.down_proj", [c, f])], weights, precision)?;
        }
        model.model.norm.load("model.norm.weight", weights)?;
        if let Some(head) = &mut model.lm_head {
            Linear::pack(&mut [head], &[("lm_head.weight".into(), [vocab_size, c])], weights, precision)?;
        }
        Ok(model.with_precision(precision))
    }

    /// Whether the weights are packed for inference.
    pub(super) fn is_packed(&self) -> bool {
        self.model.embed_tokens.packed.is_some()
    }

    fn build(
        config: &ModelConfig,
        device: &Device,
        linear: &dyn Fn(&str, [usize; 2], f32) -> Linear,
        embedding: impl Fn(&str, [usize; 2]) -> Tensor<2>,
    ) -> Self {
        let ModelConfig { hidden_size, intermediate_size, heads, kv_heads, head_width, vocab_size, .. } = *config;
        let residual = DEVIATION / (2.0 * config.layers as f32).sqrt();
        let norm = || RmsNorm::new(hidden_size, config.rms_norm_eps, device);
        let block = |i: usize| {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            Block {
                input_layernorm: norm(),
                self_attn: Attention {
                    q_proj: linear(&name("self_attn.q_proj"), [heads * head_width, hidden_size], DEVIATION),
                    k_proj: linear(&name("self_attn.k_proj"), [kv_heads * head_width, hidden_size], DEVIATION),
                    v_proj: linear(&name("self_attn.v_proj"), [kv_heads * head_width, hidden_size], DEVIATION),
                    o_proj: linear(&name("self_attn.o_proj"), [hidden_size, heads * head_width], residual),
                    heads: Heads { queries: heads, keys: kv_heads, width: head_width },
                },
                post_attention_layernorm: norm(),
                mlp: FeedForward {
                    gate_proj: linear(&name("mlp.gate_proj"), [intermediate_size, hidden_size], DEVIATION),
                    up_proj: linear(&name("mlp.up_proj"), [intermediate_size, hidden_size], DEVIATION),
                    down_proj: linear(&name("mlp.down_proj"), [hidden_size, intermediate_size], residual),
                },
            }
        };
        let shape = [vocab_size, hidden_size];
        Self {
            model: Body {
                embed_tokens: Embedding::new(embedding("model.embed_tokens.weight", shape)),
                layers: (0..config.layers).map(block).collect(),
                norm: norm(),
            },
            lm_head: (!config.tied_embeddings).then(|| linear("lm_head.weight", shape, DEVIATION)),
            config: config.clone(),
            precision: Precision::default(),
        }
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn with_config(self, config: ModelConfig) -> Self {
        Self { config, ..self }
    }

    pub(super) fn trains_embedding(&self) -> bool {
        self.model.embed_tokens.weight.val().is_require_grad()
    }

    pub(super) fn device(&self) -> Device {
        self.model.embed_tokens.weight.device()
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// `[B, T]` -> `[N, hidden]`
    pub(super) fn embed(&self, tokens_bt: Tensor<2, Int>, dropout: &mut Dropout) -> Tensor<2> {
        dropout.apply(self.model.embed_tokens.forward(tokens_bt))
    }

    /// `[N, hidden]` -> `[N, hidden]`
    pub(super) fn block(
        &self,
        layer: usize,
        x: Tensor<2>,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        self.model.layers[layer].forward(x, layer, rotary, attention, dropout, self.precision)
    }

    /// `[N, hidden]` -> `[N, hidden]`
    pub(super) fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.model.norm.forward(x)
    }

    /// `[vocabulary, hidden]`
    fn output_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or_else(|| self.model.embed_tokens.weight.val(), |head| head.weight.val())
    }

    /// `[N, hidden]` -> `[N, vocabulary]`
    pub(super) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match (&self.lm_head, &self.model.embed_tokens.packed) {
            (Some(head), _) => return head.forward(hidden, &mut Dropout::none(), self.precision),
            (None, Some(packed)) => return packed_linear(hidden, packed, None),
            (None, None) => {}
        }
        linear(hidden, &[self.output_weight()], None, None, self.precision)
    }

    /// `[N, hidden]`, `[N]` -> `[1]`
    pub(super) fn nats(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, scale: f64) -> Tensor<1> {
        linear_cross_entropy(hidden, self.output_weight(), targets, scale, self.precision)
    }

    /// Every projection that can carry an adapter, with its Hugging Face name.
    fn projections(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.model.layers.iter_mut().enumerate().flat_map(|(i, block)| {
            let Block { self_attn: a, mlp: m, .. } = block;
            [
                ("self_attn.q_proj", &mut a.q_proj),
                ("self_attn.k_proj", &mut a.k_proj),
                ("self_attn.v_proj", &mut a.v_proj),
                ("self_attn.o_proj", &mut a.o_proj),
                ("mlp.gate_proj", &mut m.gate_proj),
                ("mlp.up_proj", &mut m.up_proj),
                ("mlp.down_proj", &mut m.down_proj),
            ]
            .map(|(part, linear)| (format!("model.layers.{i}.{part}"), linear))
        })
    }

    pub(super) fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Self {
        for (name, linear) in self.projections() {
            let target = name.rsplit('.').next().unwrap_or_default();
            if spec.targets.iter().any(|wanted| wanted == target) {
                let weight = linear.weight.val();
                linear.lora = Some(Lora::random(spec, seed, &name, weight.dims(), &weight.device()));
            }
        }
        self
    }

    pub(super) fn merged(mut self) -> Self {
        self.projections().for_each(|(_, linear)| linear.merge());
        self
    }
}

impl Block {
    /// `[N, hidden]` -> `[N, hidden]`
    fn forward(
        &self,
        x: Tensor<2>,
        layer: usize,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let Attention { q_proj, k_proj, v_proj, o_proj, heads } = &self.self_attn;
        let y = self.input_layernorm.forward(x.clone());
        let qkv = Linear::side_by_side(&[q_proj, k_proj, v_proj], y, dropout, precision);
        let y = attention.attend(layer, qkv, *heads, rotary, precision);
        let x = o_proj.onto(x, y, dropout, precision);
        let FeedForward { gate_proj, up_proj, down_proj } = &self.mlp;
        let y = self.post_attention_layernorm.forward(x.clone());
        let gate_up = Linear::side_by_side(&[gate_proj, up_proj], y, dropout, precision);
        down_proj.onto(x, swiglu(gate_up), dropout, precision)
    }
}
