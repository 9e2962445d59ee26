//! Llama (Touvron et al., 2023): RMSNorm before each part, rotary embeddings, grouped-query
//! attention, SwiGLU, optionally tied embeddings. Field names are Hugging Face's, so that a
//! parameter's path is its name in the checkpoint.
//!
//! Shapes: B batch, T time, N = B * T, H query heads, K key/value heads, D head width.

use crate::{
    AttentionContext, Dropout, Linear, LoraSpec, ModelConfig, Rotary,
    layers::{Embedding, RmsNorm, normal},
    lora::Lora,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, activation},
};

/// The model with its output projection.
#[derive(Module, Debug)]
pub struct Llama {
    model: Body,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
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
    heads: usize,
    kv_heads: usize,
    head_width: usize,
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
        let linear = |_: &str, shape, _| Linear { weight: Param::from_tensor(zeros(shape)), lora: None };
        Self::build(config, device, &linear, |_, shape| zeros(shape))
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
                    heads,
                    kv_heads,
                    head_width,
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
                embed_tokens: Embedding { weight: Param::from_tensor(embedding("model.embed_tokens.weight", shape)) },
                layers: (0..config.layers).map(block).collect(),
                norm: norm(),
            },
            lm_head: (!config.tied_embeddings).then(|| linear("lm_head.weight", shape, DEVIATION)),
            config: config.clone(),
        }
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn with_config(self, config: ModelConfig) -> Self {
        Self { config, ..self }
    }

    /// `[B, T]` -> `[N, hidden]`
    pub(super) fn hidden(
        &self,
        tokens_bt: Tensor<2, Int>,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        let shape = tokens_bt.dims();
        let mut x = dropout.apply(self.model.embed_tokens.forward(tokens_bt));
        for (layer, block) in self.model.layers.iter().enumerate() {
            let y = block.self_attn.forward(
                block.input_layernorm.forward(x.clone()),
                shape,
                layer,
                rotary,
                attention,
                dropout,
            );
            x = x + dropout.apply(y);
            let y = block.mlp.forward(block.post_attention_layernorm.forward(x.clone()), dropout);
            x = x + dropout.apply(y);
        }
        self.model.norm.forward(x)
    }

    /// `[N, hidden]` -> `[N, vocabulary]`
    pub(super) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden, &mut Dropout::none()),
            None => hidden.matmul(self.model.embed_tokens.weight.val().transpose()),
        }
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

impl Attention {
    fn forward(
        &self,
        x: Tensor<2>,
        [b, t]: [usize; 2],
        layer: usize,
        rotary: &Rotary,
        attention: &mut dyn AttentionContext,
        dropout: &mut Dropout,
    ) -> Tensor<2> {
        let split = |y: Tensor<2>, heads| y.reshape([b, t, heads, self.head_width]).swap_dims(1, 2);
        let q_bhtd = rotary.forward(split(self.q_proj.forward(x.clone(), dropout), self.heads));
        let k_bktd = rotary.forward(split(self.k_proj.forward(x.clone(), dropout), self.kv_heads));
        let v_bktd = split(self.v_proj.forward(x, dropout), self.kv_heads);
        let y_bhtd = attention.attend(layer, q_bhtd, k_bktd, v_bktd);
        let y = y_bhtd.swap_dims(1, 2).reshape([b * t, self.heads * self.head_width]);
        self.o_proj.forward(y, dropout)
    }
}

impl FeedForward {
    fn forward(&self, x: Tensor<2>, dropout: &mut Dropout) -> Tensor<2> {
        let gate = activation::silu(self.gate_proj.forward(x.clone(), dropout));
        let up = self.up_proj.forward(x, dropout);
        self.down_proj.forward(gate * up, dropout)
    }
}
