//! ModernBERT (Warner et al., 2024): rotary positions, a norm before each part, GeGLU, and attention that sees all of the
//! sequence in some layers and a window in the others. Names and config as in Hugging Face's `ModernBertModel`.

use super::{
    config::{Json, unsupported},
    layers::{Affine, Batch, Loader, Norm, Table},
};
use burn::tensor::{Device, Tensor, TensorData};
use narthex_base::{Error, Result};
use narthex_kernels::{Activation, gated};
use serde_json::Value;

/// Longest table of rotations that is made.
const POSITIONS_MAX: usize = 1 << 17;

/// Shape and constants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    intermediate_size: usize,
    heads: usize,
    head_width: usize,
    pub(super) eps: f64,
    activation: Activation,
    /// Whether each layer sees all of the sequence.
    global: Vec<bool>,
    /// How far the other layers see to either side.
    window: usize,
    /// Bases of the rotary embedding: of layers with a window, and of the others.
    thetas: [f64; 2],
    pub(super) context: usize,
}

impl Config {
    pub(super) fn read(config: &Json) -> Result<Self> {
        for key in ["attention_bias", "mlp_bias", "norm_bias"] {
            config.refuse_true(key)?;
        }
        let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
        let layers = config.size("num_hidden_layers")?;
        let context = config.size("max_position_embeddings")?;
        if context > POSITIONS_MAX {
            return Err(unsupported(
                "max_position_embeddings",
                &context.to_string(),
                &format!("up to {POSITIONS_MAX}"),
            ));
        }
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            heads,
            head_width: config.head_width(hidden_size, heads)?,
            eps: config.number("norm_eps", 1e-5),
            activation: config.activation("hidden_activation")?,
            global: global_layers(config, layers)?,
            window: config.optional_size("local_attention").unwrap_or(128) / 2,
            thetas: [
                theta(config, "sliding_attention", "local_rope_theta", 10_000.0)?,
                theta(config, "full_attention", "global_rope_theta", 160_000.0)?,
            ],
            context,
        })
    }
}

fn global_layers(config: &Json, layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = config.0["layer_types"].as_array() {
        let kinds = types.iter().map(|kind| match kind.as_str().unwrap_or("(no text)") {
            "full_attention" => Ok(true),
            "sliding_attention" => Ok(false),
            other => Err(unsupported("layer_types", other, "full_attention, sliding_attention")),
        });
        let kinds: Vec<bool> = kinds.collect::<Result<_>>()?;
        if kinds.len() != layers {
            return Err(Error::input(format!("`layer_types` has {} entries for {layers} layers", kinds.len())));
        }
        return Ok(kinds);
    }
    let every = config.optional_size("global_attn_every_n_layers").unwrap_or(3).max(1);
    Ok((0..layers).map(|layer| layer.is_multiple_of(every)).collect())
}

fn theta(config: &Json, kind: &str, older: &str, default: f64) -> Result<f64> {
    let parameters = &config.0["rope_parameters"][kind];
    let scaling = &config.0["rope_scaling"];
    for source in [parameters, scaling] {
        let form = source.get("rope_type").or_else(|| source.get("type")).and_then(Value::as_str).unwrap_or("default");
        if form != "default" {
            return Err(unsupported("rope_type", form, "default"));
        }
    }
    let theta = parameters["rope_theta"].as_f64().or(config.0[older].as_f64()).unwrap_or(default);
    if theta <= 0.0 {
        return Err(unsupported("rope_theta", &theta.to_string(), "numbers above 0"));
    }
    Ok(theta)
}

pub(super) struct ModernBert {
    config: Config,
    words: Table,
    norm: Norm,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// The rotations of all positions, as `thetas`.
    tables: [Tensor<2>; 2],
}

struct Block {
    /// None in the first layer, whose input has been normed.
    attention_norm: Option<Norm>,
    qkv: Affine,
    attention_out: Affine,
    mlp_norm: Norm,
    up: Affine,
    down: Affine,
}

impl ModernBert {
    pub(super) fn load(config: Config, loader: &Loader) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| loader.norm(name, hidden, config.eps, false);
        let block = |layer: usize| -> Result<Block> {
            let name = |part: &str| format!("layers.{layer}.{part}");
            let affine = |part: &str, shape| loader.affine(&[name(part)], shape, false);
            Ok(Block {
                attention_norm: if layer == 0 { None } else { Some(norm(&name("attn_norm"))?) },
                qkv: affine("attn.Wqkv", [3 * hidden, hidden])?,
                attention_out: affine("attn.Wo", [hidden, hidden])?,
                mlp_norm: norm(&name("mlp_norm"))?,
                up: affine("mlp.Wi", [2 * inner, hidden])?,
                down: affine("mlp.Wo", [hidden, inner])?,
            })
        };
        Ok(Self {
            words: loader.table("embeddings.tok_embeddings.weight", [config.vocab_size, hidden])?,
            norm: norm("embeddings.norm")?,
            blocks: (0..config.global.len()).map(block).collect::<Result<_>>()?,
            final_norm: norm("final_norm")?,
            tables: config.thetas.map(|theta| rotations(config.context, config.head_width, theta)),
            config,
        })
    }

    /// `[N, hidden]`
    pub(super) fn forward(&self, batch: &Batch) -> Tensor<2> {
        let Config { hidden_size, heads, head_width, activation, window, .. } = self.config;
        let embedded = batch.rows(hidden_size, |input, at, row| {
            row.copy_from_slice(self.words.row(input.ids[at] as usize));
        });
        let mut x = self.norm.forward(embedded);
        for (block, global) in self.blocks.iter().zip(&self.config.global) {
            let normed = block.attention_norm.as_ref().map_or_else(|| x.clone(), |norm| norm.forward(x.clone()));
            let table = self.tables[usize::from(*global)].clone();
            let window = (!global).then_some(window);
            let seen = batch.attend(block.qkv.forward(normed), [heads, head_width], window, Some(table));
            x = block.attention_out.onto(x, seen);
            let inner = gated(block.up.forward(block.mlp_norm.forward(x.clone())), activation);
            x = block.down.onto(x, inner);
        }
        self.final_norm.forward(x)
    }
}

/// `[positions, D]`: for each position D/2 cosines, then D/2 sines; in single precision, as the reference computes them.
fn rotations(positions: usize, head_width: usize, theta: f64) -> Tensor<2> {
    let half = head_width / 2;
    let frequency = |i: usize| 1.0 / (theta as f32).powf((2 * i) as f32 / head_width as f32);
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut table = Vec::with_capacity(positions * head_width);
    for position in 0..positions {
        let angle = |frequency: &f32| position as f32 * frequency;
        table.extend(frequencies.iter().map(|frequency| angle(frequency).cos()));
        table.extend(frequencies.iter().map(|frequency| angle(frequency).sin()));
    }
    Tensor::from_data(TensorData::new(table, [positions, head_width]), &Device::flex())
}
