//! What a decoder looks like: its sizes, and the design in which its family differs from Llama. Writes Hugging Face's
//! `config.json`; what each family reads from it stands in its file under `arch`.

use crate::{
    positions::{Rope, RopeScaling},
    weight_map::{Family, LLAMA},
};
use narthex_base::{Error, Result};
use narthex_kernels::Activation;
use serde_json::{Value, json};

/// The shape and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// One matrix for embedding and output projection.
    pub tied_embeddings: bool,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Beginning-of-sequence token.
    pub bos_token: Option<u32>,
    /// End-of-sequence tokens.
    pub eos_tokens: Vec<u32>,
    /// What differs from Llama.
    pub design: Design,
}

/// In what a decoder differs from Llama; by default in nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    /// Whose design it is.
    pub family: &'static Family,
    /// What normalises.
    pub norm: NormKind,
    /// Where norms stand.
    pub placement: Placement,
    /// Whether what enters the first block has been normed, so that it has no norm before its attention.
    pub normed_embedding: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Biases of the query, key and value projections.
    pub qkv_bias: bool,
    /// A bias of the attention's output projection.
    pub output_bias: bool,
    /// Biases of the feed-forward part.
    pub mlp_bias: bool,
    /// Whether the feed-forward part multiplies with a gate.
    pub gated: bool,
    /// The function between its projections.
    pub activation: Activation,
    /// The rotary embeddings that layers choose from; if there are none, the plain one of `rope_theta`.
    pub ropes: Vec<Rope>,
    /// How many values of a head are rotated; all if none.
    pub rotary_width: Option<usize>,
    /// Learned vectors for positions, added to the embedding.
    pub learned_positions: bool,
    /// What each layer sees; if there are none, everything, by the first rotary embedding.
    pub kinds: Vec<LayerKind>,
    /// What products of queries and keys are multiplied with; 1 / sqrt(head width) if none.
    pub attention_scale: Option<f64>,
    /// The cap of attention scores.
    pub attention_softcap: Option<f64>,
    /// What embeddings are multiplied with.
    pub embedding_scale: f64,
    /// What is multiplied with before it is added to the residual stream.
    pub residual_scale: f64,
    /// What logits are multiplied with.
    pub logits_scale: f64,
    /// The cap of logits.
    pub logits_softcap: Option<f64>,
    /// Sparse experts instead of one feed-forward part.
    pub experts: Option<Experts>,
    /// What a user should know of how `config.json` was read.
    pub notes: Vec<String>,
    /// `config.json` as it was read, where it says more than this version's own models need.
    pub source: Option<Value>,
}

impl Default for Design {
    fn default() -> Self {
        Self {
            family: LLAMA,
            norm: NormKind::Rms,
            placement: Placement::Before,
            normed_embedding: false,
            qk_norm: QkNorm::None,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            gated: true,
            activation: Activation::Silu,
            ropes: vec![],
            rotary_width: None,
            learned_positions: false,
            kinds: vec![],
            attention_scale: None,
            attention_softcap: None,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logits_scale: 1.0,
            logits_softcap: None,
            experts: None,
            notes: vec![],
            source: None,
        }
    }
}

/// What normalises a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square (Zhang and Sennrich, 2019).
    Rms,
    /// The same, with files that hold the weight less 1.
    RmsLessOne,
    /// Mean and variance, with a bias (Ba et al., 2016).
    Layer,
    /// The same without a bias.
    LayerUnbiased,
}

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Before each part: `x + part(norm(x))`.
    Before,
    /// After each part: `x + norm(part(x))`.
    After,
    /// `x + norm(part(norm(x)))`
    Both,
    /// After each part and what it is added to: `norm(x + part(x))`.
    Outside,
    /// Both parts read the block's input: `x + attention(norm(x)) + mlp(norm(x))`.
    Parallel,
}

/// What norms stand on queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// One for each head, with the same weights.
    Heads,
    /// One over all heads together.
    Whole,
}

/// What a layer sees, and by which rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// The place of its rotary embedding in [`Design::ropes`].
    pub rope: usize,
    /// Positions that it sees, its own included; all if none.
    pub window: Option<usize>,
}

/// Sparse experts (Shazeer et al., 2017): a router chooses for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// In a layer.
    pub count: usize,
    /// Chosen for a token.
    pub per_token: usize,
    /// Width of each.
    pub intermediate_size: usize,
    /// Whether the weights of the chosen sum to 1.
    pub normalised: bool,
    /// Layers that have one feed-forward part instead.
    pub dense_layers: Vec<usize>,
}

/// The largest size in a config: sixteen million.
const SIZE_MAX: usize = 1 << 24;

impl ModelConfig {
    /// # Errors
    /// If sizes do not form a model.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { heads, kv_heads, head_width, .. } = *self;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !head_width.is_multiple_of(2) || head_width == 0 {
            return Err(Error::input(format!(
                "{heads} heads of width {head_width} with {kv_heads} key/value heads do not form a model"
            ))
            .help("num_key_value_heads must divide num_attention_heads and the head width must be even"));
        }
        let sizes =
            [self.vocab_size, self.hidden_size, self.intermediate_size, heads, kv_heads, head_width, self.layers];
        if sizes.iter().any(|size| *size > SIZE_MAX) || heads.saturating_mul(head_width) > SIZE_MAX {
            return Err(Error::input("config.json has a size that no model has")
                .help("the file is damaged: fetch or export the model again"));
        }
        let Design { rotary_width, experts, kinds, .. } = &self.design;
        if rotary_width.is_some_and(|width| width > head_width || !width.is_multiple_of(2)) {
            return Err(Error::input(format!("{rotary_width:?} of {head_width} values of a head cannot be rotated"))
                .help("partial_rotary_factor must give an even number of values, at most a head's"));
        }
        if kinds.iter().any(|kind| kind.window == Some(0)) {
            return Err(Error::input("config.json asks for a sliding window of 0 tokens")
                .help("a window holds at least the token itself; null means none"));
        }
        match experts {
            Some(experts) if experts.per_token == 0 || experts.per_token > experts.count => {
                Err(Error::input(format!("{} of {} experts cannot be chosen", experts.per_token, experts.count))
                    .help("num_experts_per_tok must be between 1 and the number of experts"))
            }
            _ => Ok(()),
        }
    }

    /// Writes a config that transformers reads.
    pub fn to_json(&self) -> Value {
        let eos = match self.eos_tokens.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        if let Some(source) = &self.design.source {
            let mut json = source.clone();
            json["bos_token_id"] = json!(self.bos_token);
            json["eos_token_id"] = eos;
            if json["tie_word_embeddings"].as_bool() == Some(!self.tied_embeddings) {
                json["tie_word_embeddings"] = json!(self.tied_embeddings);
            }
            // The name that new versions of transformers write, and the one that all read.
            let dtype = if json.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
            json[dtype] = json!("float32");
            return json;
        }
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "attention_dropout": 0.0,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": null,
            "tie_word_embeddings": self.tied_embeddings,
            "max_position_embeddings": self.context,
            "bos_token_id": self.bos_token,
            "eos_token_id": eos,
            "initializer_range": 0.02,
            "use_cache": true,
            "torch_dtype": "float32",
        })
    }

    /// What its blocks are made of, in a sentence.
    pub fn in_words(&self) -> String {
        let design = &self.design;
        let norm = match design.norm {
            NormKind::Rms | NormKind::RmsLessOne => "RMS norm",
            NormKind::Layer | NormKind::LayerUnbiased => "layer norm",
        };
        let placed = match design.placement {
            Placement::Before => "before each part",
            Placement::After => "after each part",
            Placement::Both => "before and after each part",
            Placement::Outside => "after each residual sum",
            Placement::Parallel => "before attention and feed-forward part, which stand side by side",
        };
        let mut parts = vec![format!("residual blocks with {norm} {placed}")];
        parts.push(match design.ropes.first() {
            _ if design.learned_positions => "learned position embeddings".into(),
            Some(Rope::Scaled { scaling, .. }) if *scaling != RopeScaling::Default => {
                "rotary position embedding with scaled frequencies".into()
            }
            _ => "rotary position embedding".into(),
        });
        parts.push(match (self.kv_heads == self.heads, self.kv_heads) {
            (true, _) => "multi-head attention".into(),
            (false, 1) => "multi-query attention".into(),
            (false, _) => "grouped-query attention".into(),
        });
        match design.qk_norm {
            QkNorm::None => {}
            QkNorm::Heads => parts.push("a norm on the query and key of each head".into()),
            QkNorm::Whole => parts.push("a norm on queries and keys".into()),
        }
        if let Some(window) = design.kinds.iter().find_map(|kind| kind.window) {
            parts.push(format!("windows of {window} positions in some layers"));
        }
        let gate = match (design.activation, design.gated) {
            (Activation::Silu, true) => "a SwiGLU feed-forward part",
            (_, true) => "a GeGLU feed-forward part",
            (Activation::Silu, false) => "a SiLU feed-forward part",
            (_, false) => "a GELU feed-forward part",
        };
        parts.push(match &design.experts {
            Some(experts) => format!("{} of {} experts for each token, each {gate}", experts.per_token, experts.count),
            None => gate.into(),
        });
        if self.tied_embeddings {
            parts.push("one matrix for embedding and output".into());
        }
        let last = parts.pop().unwrap_or_default();
        let mut text = format!("{} and {last}.", parts.join(", "));
        text[..1].make_ascii_uppercase();
        text
    }

    /// The rotary embeddings that layers choose from, at least one.
    pub fn ropes(&self) -> Vec<Rope> {
        match self.design.ropes.as_slice() {
            [] => vec![Rope::Scaled { theta: self.rope_theta, scaling: RopeScaling::Default }],
            some => some.to_vec(),
        }
    }

    /// What a layer sees.
    pub fn kind(&self, layer: usize) -> LayerKind {
        self.design.kinds.get(layer).copied().unwrap_or(LayerKind { rope: 0, window: None })
    }

    /// The experts of a layer, if it has some.
    pub fn experts(&self, layer: usize) -> Option<&Experts> {
        self.design.experts.as_ref().filter(|experts| !experts.dense_layers.contains(&layer))
    }

    /// Weights in all, the tied matrix counted once.
    pub fn parameters(&self) -> usize {
        self.weights(false)
    }

    /// Weights in all, or those that a token meets.
    fn weights(&self, active: bool) -> usize {
        let Self { vocab_size, hidden_size: c, heads, kv_heads, head_width: d, design, .. } = self;
        let bias = |has: bool, width: usize| if has { width } else { 0 };
        let norm = c * if design.norm == NormKind::Layer { 2 } else { 1 };
        let (q, kv) = (heads * d, kv_heads * d);
        let attention = c * (2 * q + 2 * kv)
            + bias(design.qkv_bias, q + 2 * kv)
            + bias(design.output_bias, *c)
            + match design.qk_norm {
                QkNorm::None => 0,
                QkNorm::Heads => 2 * d,
                QkNorm::Whole => q + kv,
            };
        let norms = norm * if design.placement == Placement::Both { 4 } else { 2 };
        let inner = if design.gated { 2 } else { 1 };
        let dense = |f: usize| (inner + 1) * c * f + bias(design.mlp_bias, inner * f + c);
        let mlp = |layer: usize| match self.experts(layer) {
            Some(experts) => {
                c * experts.count
                    + dense(experts.intermediate_size) * if active { experts.per_token } else { experts.count }
            }
            None => dense(self.intermediate_size),
        };
        let embeddings = vocab_size * c * if self.tied_embeddings { 1 } else { 2 };
        let positions = bias(design.learned_positions, self.context * c);
        let blocks = (0..self.layers).map(|layer| attention + norms + mlp(layer)).sum::<usize>();
        embeddings + positions + blocks + norm
    }

    /// Floating-point operations of training on one token with sequences of `context` tokens: six for each weight
    /// of a matrix product, and the attention scores (Chowdhery et al., "PaLM", appendix B, causal half counted).
    pub fn training_flop_per_token(&self, context: usize) -> f64 {
        let embedding = self.vocab_size * self.hidden_size;
        let products = self.weights(true) - if self.tied_embeddings { 0 } else { embedding };
        6.0 * products as f64 + 6.0 * (self.layers * self.heads * self.head_width * context) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig {
            vocab_size: 256,
            hidden_size: 64,
            intermediate_size: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied_embeddings: false,
            context: 128,
            bos_token: None,
            eos_tokens: vec![0],
            design: Design::default(),
        }
    }

    #[test]
    fn written_and_read_back() {
        for eos_tokens in [vec![], vec![3], vec![1, 2]] {
            let config = ModelConfig { eos_tokens, ..config() };
            assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        }
    }

    /// A rotary base in two places, and elsewhere: transformers 5.24's values of
    /// `config.rope_parameters["rope_theta"]`.
    #[test]
    fn the_rotary_base_is_the_one_that_transformers_takes() {
        for (keys, expected) in [
            (json!({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}), 5e5),
            (json!({"rope_theta": 7e4}), 7e4),
            (json!({"rope_theta": null, "rope_parameters": {"rope_type": "default"}}), 1e4),
            (json!({"rope_scaling": {"type": "linear", "factor": 4.0, "rope_theta": 9e5}}), 9e5),
            (
                json!({"rope_scaling": {"rope_type": "default", "rope_theta": 9e5}, "rope_parameters": {"rope_theta": 5e5}}),
                9e5,
            ),
            (json!({"rope_scaling": {}, "rope_parameters": {"rope_theta": 5e5}}), 5e5),
        ] {
            let mut json = config().to_json();
            json.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let read = ModelConfig::from_json(&json).unwrap();
            let theta = match &read.ropes()[0] {
                Rope::Scaled { theta, .. } => *theta,
                Rope::Still => 0.0,
            };
            assert_eq!((read.rope_theta, theta), (expected, expected), "{keys}");
        }
        // vLLM's `_get_and_verify_max_len`: a linear scaling stretches the context.
        let mut json = config().to_json();
        json["rope_scaling"] = json!({"type": "linear", "factor": 4});
        assert_eq!(ModelConfig::from_json(&json).unwrap().context, 512);
    }

    /// Keys that nobody reads: those that transformers acts on are refused, others are named.
    #[test]
    fn keys_that_nobody_reads() {
        let mut json = config().to_json();
        json["model_type"] = json!("mistral");
        json["brand_new"] = json!(3);
        json["use_new_thing"] = json!(false);
        json["router_jitter_noise"] = json!(0.1);
        let read = ModelConfig::from_json(&json).unwrap();
        assert_eq!(read.design.notes.len(), 1);
        assert!(read.design.notes[0].contains("`brand_new`"));
        // Defaults where nothing is said are those of the family: Mistral's window, and its eight key/value heads.
        assert_eq!(read.kind(0).window, Some(4096));
        json.as_object_mut().unwrap().remove("num_key_value_heads");
        assert!(ModelConfig::from_json(&json).unwrap_err().what().contains("with 8 key/value heads"));
        json["model_type"] = json!("gemma3_text");
        json["use_bidirectional_attention"] = json!(true);
        assert!(ModelConfig::from_json(&json).unwrap_err().what().contains("use_bidirectional_attention = true"));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (key, value, expected) in [
            ("model_type", json!("mamba"), "model_type = mamba"),
            ("hidden_act", json!("relu"), "hidden_act = relu"),
            ("rope_scaling", json!({"rope_type": "mrope"}), "rope_scaling.rope_type = mrope"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "lacks the number `rope_scaling.factor`"),
            ("vocab_size", Value::Null, "lacks the number `vocab_size`"),
            ("hidden_size", json!(0), "a size of 0: `hidden_size`"),
            ("num_key_value_heads", json!(3), "do not form a model"),
            ("num_key_value_heads", json!(2.5), "`num_key_value_heads` in config.json is 2.5, not a whole number"),
            ("attention_bias", json!("yes"), "not true or false"),
        ] {
            let mut json = config().to_json();
            json[key] = value;
            let error = ModelConfig::from_json(&json).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
        }
        for (family, key, value, expected) in [
            ("mistral", "sliding_window", json!(0), "a sliding window of 0 tokens"),
            ("phi3", "partial_rotary_factor", json!(0.2), "cannot be rotated"),
            ("mixtral", "num_experts_per_tok", json!(9), "9 of 8 experts cannot be chosen"),
            (
                "gemma2",
                "layer_types",
                json!(["chunked_attention", "full_attention"]),
                "layer_types = chunked_attention",
            ),
            ("qwen3", "layer_types", json!(["sliding_attention", "full_attention"]), "but no `sliding_window`"),
            ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "scale_attn_by_inverse_layer_idx = true"),
        ] {
            let mut json = config().to_json();
            json["model_type"] = json!(family);
            json["num_local_experts"] = json!(8);
            for (theirs, ours) in
                [("n_embd", "hidden_size"), ("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads")]
            {
                json[theirs] = json[ours].clone();
            }
            json.as_object_mut().unwrap().remove("rope_scaling");
            json[key] = value;
            let error = ModelConfig::from_json(&json).unwrap_err();
            assert!(error.what().contains(expected), "{family}: {error}");
        }
    }
}
