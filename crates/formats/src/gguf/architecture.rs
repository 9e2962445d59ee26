//! The list of architectures: what GGUF and Hugging Face each call a model, its tensors and its constants, and what
//! llama.cpp's converter does to tensors on the way. Knows names, not files.

/// What the way into GGUF does to a tensor; the way out undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing is done to the matrix.
    Plain,
    /// Rows of each query head are interleaved: the rotary embedding of ggml turns neighbours, that of Hugging Face
    /// elements half a head apart.
    QueryHeads,
    /// The same for the key heads.
    KeyHeads,
    /// 1 is added: the norm's weight is stored as what is multiplied with.
    PlusOne,
    /// Rows and columns are swapped (Hugging Face's `Conv1D`).
    Transposed,
}

use Change::*;

/// One kind of tensor. `{}` is the number of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub gguf: &'static str,
    pub hugging_face: &'static str,
    pub change: Change,
    /// Some models of this architecture do without it.
    pub is_optional: bool,
}

const fn name(gguf: &'static str, hugging_face: &'static str) -> Name {
    Name { gguf, hugging_face, change: Plain, is_optional: false }
}

const fn changed(gguf: &'static str, hugging_face: &'static str, change: Change) -> Name {
    Name { gguf, hugging_face, change, is_optional: false }
}

const fn optional(gguf: &'static str, hugging_face: &'static str, change: Change) -> Name {
    Name { gguf, hugging_face, change, is_optional: true }
}

/// What GGUF calls an architecture, and how its tensors map to Hugging Face's.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`.
    pub gguf: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class in transformers.
    pub class: &'static str,
    pub names: &'static [&'static [Name]],
    /// Whether it is written as well as read.
    pub is_written: bool,
}

/// All of them.
pub(super) static ARCHITECTURES: [Architecture; 9] = [
    Architecture {
        gguf: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        names: &[&OUTER, &TURNED_HEADS, &ATTENTION_REST, &OPTIONAL_BIASES, &BLOCK_NORMS, &GATED],
        is_written: true,
    },
    Architecture {
        gguf: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        names: &[&OUTER, &HEADS, &ATTENTION_REST, &BIASES, &BLOCK_NORMS, &GATED],
        is_written: true,
    },
    Architecture {
        gguf: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        names: &[&OUTER, &HEADS, &ATTENTION_REST, &HEAD_NORMS, &BLOCK_NORMS, &GATED],
        is_written: true,
    },
    Architecture {
        gguf: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        names: &[&GEMMA_OUTER, &HEADS, &ATTENTION_REST, &GEMMA_NORMS, &GATED],
        is_written: false,
    },
    Architecture {
        gguf: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        names: &[&GEMMA_OUTER, &HEADS, &ATTENTION_REST, &GEMMA_NORMS, &GEMMA_HEAD_NORMS, &GATED],
        is_written: false,
    },
    Architecture {
        gguf: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        names: &[&OUTER, &PHI_BLOCK, &BLOCK_NORMS],
        is_written: false,
    },
    Architecture { gguf: "gpt2", model_type: "gpt2", class: "GPT2LMHeadModel", names: &[&GPT2], is_written: false },
    Architecture {
        gguf: "starcoder2",
        model_type: "starcoder2",
        class: "Starcoder2ForCausalLM",
        names: &[&OUTER, &HEADS, &ATTENTION_REST, &BIASES, &BLOCK_NORMS, &STARCODER_BLOCK],
        is_written: false,
    },
    // Text encoders: BERT, and RoBERTa, whose positions the converter counts from 0.
    Architecture { gguf: "bert", model_type: "bert", class: "BertModel", names: &[&BERT], is_written: false },
];

const OUTER: [Name; 3] = [
    name("token_embd.weight", "model.embed_tokens.weight"),
    name("output_norm.weight", "model.norm.weight"),
    optional("output.weight", "lm_head.weight", Plain),
];

const GEMMA_OUTER: [Name; 3] = [
    name("token_embd.weight", "model.embed_tokens.weight"),
    changed("output_norm.weight", "model.norm.weight", PlusOne),
    optional("output.weight", "lm_head.weight", Plain),
];

const HEADS: [Name; 2] = [
    name("blk.{}.attn_q.weight", "model.layers.{}.self_attn.q_proj.weight"),
    name("blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight"),
];

const TURNED_HEADS: [Name; 2] = [
    changed("blk.{}.attn_q.weight", "model.layers.{}.self_attn.q_proj.weight", QueryHeads),
    changed("blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight", KeyHeads),
];

const ATTENTION_REST: [Name; 2] = [
    name("blk.{}.attn_v.weight", "model.layers.{}.self_attn.v_proj.weight"),
    name("blk.{}.attn_output.weight", "model.layers.{}.self_attn.o_proj.weight"),
];

const BIASES: [Name; 3] = [
    name("blk.{}.attn_q.bias", "model.layers.{}.self_attn.q_proj.bias"),
    name("blk.{}.attn_k.bias", "model.layers.{}.self_attn.k_proj.bias"),
    name("blk.{}.attn_v.bias", "model.layers.{}.self_attn.v_proj.bias"),
];

const OPTIONAL_BIASES: [Name; 4] = [
    optional("blk.{}.attn_q.bias", "model.layers.{}.self_attn.q_proj.bias", QueryHeads),
    optional("blk.{}.attn_k.bias", "model.layers.{}.self_attn.k_proj.bias", KeyHeads),
    optional("blk.{}.attn_v.bias", "model.layers.{}.self_attn.v_proj.bias", Plain),
    optional("blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias", Plain),
];

const HEAD_NORMS: [Name; 2] = [
    name("blk.{}.attn_q_norm.weight", "model.layers.{}.self_attn.q_norm.weight"),
    name("blk.{}.attn_k_norm.weight", "model.layers.{}.self_attn.k_norm.weight"),
];

const GEMMA_HEAD_NORMS: [Name; 2] = [
    changed("blk.{}.attn_q_norm.weight", "model.layers.{}.self_attn.q_norm.weight", PlusOne),
    changed("blk.{}.attn_k_norm.weight", "model.layers.{}.self_attn.k_norm.weight", PlusOne),
];

const BLOCK_NORMS: [Name; 2] = [
    name("blk.{}.attn_norm.weight", "model.layers.{}.input_layernorm.weight"),
    name("blk.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight"),
];

const GEMMA_NORMS: [Name; 4] = [
    changed("blk.{}.attn_norm.weight", "model.layers.{}.input_layernorm.weight", PlusOne),
    changed("blk.{}.post_attention_norm.weight", "model.layers.{}.post_attention_layernorm.weight", PlusOne),
    changed("blk.{}.ffn_norm.weight", "model.layers.{}.pre_feedforward_layernorm.weight", PlusOne),
    changed("blk.{}.post_ffw_norm.weight", "model.layers.{}.post_feedforward_layernorm.weight", PlusOne),
];

const GATED: [Name; 3] = [
    name("blk.{}.ffn_gate.weight", "model.layers.{}.mlp.gate_proj.weight"),
    name("blk.{}.ffn_up.weight", "model.layers.{}.mlp.up_proj.weight"),
    name("blk.{}.ffn_down.weight", "model.layers.{}.mlp.down_proj.weight"),
];

const PHI_BLOCK: [Name; 4] = [
    name("blk.{}.attn_qkv.weight", "model.layers.{}.self_attn.qkv_proj.weight"),
    name("blk.{}.attn_output.weight", "model.layers.{}.self_attn.o_proj.weight"),
    name("blk.{}.ffn_up.weight", "model.layers.{}.mlp.gate_up_proj.weight"),
    name("blk.{}.ffn_down.weight", "model.layers.{}.mlp.down_proj.weight"),
];

const GPT2: [Name; 17] = [
    name("token_embd.weight", "transformer.wte.weight"),
    name("position_embd.weight", "transformer.wpe.weight"),
    name("output_norm.weight", "transformer.ln_f.weight"),
    name("output_norm.bias", "transformer.ln_f.bias"),
    optional("output.weight", "lm_head.weight", Plain),
    name("blk.{}.attn_norm.weight", "transformer.h.{}.ln_1.weight"),
    name("blk.{}.attn_norm.bias", "transformer.h.{}.ln_1.bias"),
    changed("blk.{}.attn_qkv.weight", "transformer.h.{}.attn.c_attn.weight", Transposed),
    name("blk.{}.attn_qkv.bias", "transformer.h.{}.attn.c_attn.bias"),
    changed("blk.{}.attn_output.weight", "transformer.h.{}.attn.c_proj.weight", Transposed),
    name("blk.{}.attn_output.bias", "transformer.h.{}.attn.c_proj.bias"),
    name("blk.{}.ffn_norm.weight", "transformer.h.{}.ln_2.weight"),
    name("blk.{}.ffn_norm.bias", "transformer.h.{}.ln_2.bias"),
    changed("blk.{}.ffn_up.weight", "transformer.h.{}.mlp.c_fc.weight", Transposed),
    name("blk.{}.ffn_up.bias", "transformer.h.{}.mlp.c_fc.bias"),
    changed("blk.{}.ffn_down.weight", "transformer.h.{}.mlp.c_proj.weight", Transposed),
    name("blk.{}.ffn_down.bias", "transformer.h.{}.mlp.c_proj.bias"),
];

const STARCODER_BLOCK: [Name; 8] = [
    name("output_norm.bias", "model.norm.bias"),
    name("blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias"),
    name("blk.{}.attn_norm.bias", "model.layers.{}.input_layernorm.bias"),
    name("blk.{}.ffn_norm.bias", "model.layers.{}.post_attention_layernorm.bias"),
    name("blk.{}.ffn_up.weight", "model.layers.{}.mlp.c_fc.weight"),
    name("blk.{}.ffn_up.bias", "model.layers.{}.mlp.c_fc.bias"),
    name("blk.{}.ffn_down.weight", "model.layers.{}.mlp.c_proj.weight"),
    name("blk.{}.ffn_down.bias", "model.layers.{}.mlp.c_proj.bias"),
];

const BERT: [Name; 21] = [
    name("token_embd.weight", "embeddings.word_embeddings.weight"),
    name("position_embd.weight", "embeddings.position_embeddings.weight"),
    name("token_types.weight", "embeddings.token_type_embeddings.weight"),
    name("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    name("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
    name("blk.{}.attn_q.weight", "encoder.layer.{}.attention.self.query.weight"),
    name("blk.{}.attn_q.bias", "encoder.layer.{}.attention.self.query.bias"),
    name("blk.{}.attn_k.weight", "encoder.layer.{}.attention.self.key.weight"),
    name("blk.{}.attn_k.bias", "encoder.layer.{}.attention.self.key.bias"),
    name("blk.{}.attn_v.weight", "encoder.layer.{}.attention.self.value.weight"),
    name("blk.{}.attn_v.bias", "encoder.layer.{}.attention.self.value.bias"),
    name("blk.{}.attn_output.weight", "encoder.layer.{}.attention.output.dense.weight"),
    name("blk.{}.attn_output.bias", "encoder.layer.{}.attention.output.dense.bias"),
    name("blk.{}.attn_output_norm.weight", "encoder.layer.{}.attention.output.LayerNorm.weight"),
    name("blk.{}.attn_output_norm.bias", "encoder.layer.{}.attention.output.LayerNorm.bias"),
    name("blk.{}.ffn_up.weight", "encoder.layer.{}.intermediate.dense.weight"),
    name("blk.{}.ffn_up.bias", "encoder.layer.{}.intermediate.dense.bias"),
    name("blk.{}.ffn_down.weight", "encoder.layer.{}.output.dense.weight"),
    name("blk.{}.ffn_down.bias", "encoder.layer.{}.output.dense.bias"),
    name("blk.{}.layer_output_norm.weight", "encoder.layer.{}.output.LayerNorm.weight"),
    name("blk.{}.layer_output_norm.bias", "encoder.layer.{}.output.LayerNorm.bias"),
];

impl Architecture {
    pub fn of_gguf(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.gguf == name)
    }

    /// The one that a `model_type` is written as. Mistral without a window is Llama by another name.
    pub fn of_model_type(model_type: &str) -> Option<&'static Self> {
        let model_type = if model_type == "mistral" { "llama" } else { model_type };
        ARCHITECTURES.iter().find(|architecture| architecture.model_type == model_type && architecture.is_written)
    }

    pub fn all_names(&self) -> impl Iterator<Item = &'static Name> {
        self.names.iter().flat_map(|names| names.iter())
    }

    /// The kind of a tensor, and its block, by either name.
    pub fn find(&self, tensor: &str, of: fn(&Name) -> &'static str) -> Option<(&'static Name, Option<usize>)> {
        self.all_names().find_map(|name| match of(name).split_once("{}") {
            None => (of(name) == tensor).then_some((name, None)),
            Some((before, after)) => {
                let number = tensor.strip_prefix(before)?.strip_suffix(after)?;
                // `+1` and `01` are numbers too, but no names.
                let block: usize = number.parse().ok()?;
                (block.to_string() == number).then_some((name, Some(block)))
            }
        })
    }
}

/// A template with the number of a block.
pub(super) fn numbered(template: &str, block: Option<usize>) -> String {
    match block {
        Some(block) => template.replace("{}", &block.to_string()),
        None => template.into(),
    }
}

/// The architectures that are read, as `general.architecture` names them, and those that are written too.
pub fn supported() -> (Vec<&'static str>, Vec<&'static str>) {
    let written = ARCHITECTURES.iter().filter(|architecture| architecture.is_written);
    (ARCHITECTURES.iter().map(|architecture| architecture.gguf).collect(), written.map(|found| found.gguf).collect())
}

/// The place in Hugging Face's order of each row in GGUF's order, for heads of these sizes: row `2j + s` of a head in
/// GGUF is row `s * width / 2 + j` here. None if the rows do not divide.
pub(super) fn turned_rows(rows: usize, heads: usize) -> Option<impl Iterator<Item = usize>> {
    if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
        return None;
    }
    let width = rows / heads;
    Some((0..rows).map(move |row| {
        let (head, within) = (row / width, row % width);
        head * width + within % 2 * (width / 2) + within / 2
    }))
}

/// The factors by which Llama 3 slows down each frequency of the rotary embedding (Llama 3.1 reference code,
/// `apply_scaling`; `rope_type = llama3` in transformers), for heads of this width.
pub(super) fn llama3_factors(width: usize, theta: f64, scaling: &Llama3Scaling) -> Vec<f64> {
    let frequencies = (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64));
    frequencies
        .map(|frequency| {
            let turns = scaling.original_context * frequency / std::f64::consts::TAU;
            if turns > scaling.high {
                1.0
            } else if turns < scaling.low {
                scaling.factor
            } else {
                let smooth = (turns - scaling.low) / (scaling.high - scaling.low);
                1.0 / ((1.0 - smooth) / scaling.factor + smooth)
            }
        })
        .collect()
}

/// The constants of [`llama3_factors`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Llama3Scaling {
    pub factor: f64,
    pub low: f64,
    pub high: f64,
    pub original_context: f64,
}

impl Llama3Scaling {
    /// Those of all published models, but for the factor: 8 in Llama 3.1, 32 in Llama 3.2.
    pub fn published(factor: f64) -> Self {
        Self { factor, low: 1.0, high: 4.0, original_context: 8192.0 }
    }
}
