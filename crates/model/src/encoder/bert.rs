//! BERT (Devlin et al., 2019): learned positions, a norm after each part. Names and config as in Hugging Face's
//! `BertModel`.

use super::{
    config::Json,
    layers::{Affine, Batch, Loader, Norm, Table},
};
use burn::tensor::Tensor;
use narthex_base::Result;
use narthex_kernels::Activation;

/// Shape and constants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_width: usize,
    pub(super) types: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    /// Rows of the table of positions.
    pub(super) positions: usize,
    /// Tokens that a sequence may have.
    pub(super) context: usize,
    /// RoBERTa's padding token: its position is this number, and those of others begin behind it.
    pub(super) padding: Option<u32>,
}

impl Config {
    pub(super) fn read(config: &Json) -> Result<Self> {
        config.refuse_unless("position_embedding_type", &["absolute"])?;
        config.refuse_true("is_decoder")?;
        config.refuse_true("add_cross_attention")?;
        let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
        let positions = config.size("max_position_embeddings")?;
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            heads,
            head_width: config.head_width(hidden_size, heads)?,
            types: config.optional_size("type_vocab_size").unwrap_or(2).max(1),
            eps: config.number("layer_norm_eps", 1e-12),
            activation: config.activation("hidden_act")?,
            positions,
            context: positions,
            padding: None,
        })
    }
}

pub(super) struct Bert {
    config: Config,
    words: Table,
    positions: Table,
    types: Table,
    norm: Norm,
    blocks: Vec<Block>,
}

struct Block {
    qkv: Affine,
    attention_out: Affine,
    attention_norm: Norm,
    up: Affine,
    down: Affine,
    norm: Norm,
}

impl Bert {
    pub(super) fn load(config: Config, loader: &Loader) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let embedding =
            |name: &str, rows| loader.table(&format!("embeddings.{name}_embeddings.weight"), [rows, hidden]);
        let norm = |name: &str| loader.norm(&format!("{name}.LayerNorm"), hidden, config.eps, true);
        let block = |layer: usize| -> Result<Block> {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
            Ok(Block {
                qkv: loader.affine(&qkv, [hidden, hidden], true)?,
                attention_out: loader.affine(&[name("attention.output.dense")], [hidden, hidden], true)?,
                attention_norm: norm(&name("attention.output"))?,
                up: loader.affine(&[name("intermediate.dense")], [inner, hidden], true)?,
                down: loader.affine(&[name("output.dense")], [hidden, inner], true)?,
                norm: norm(&name("output"))?,
            })
        };
        Ok(Self {
            words: embedding("word", config.vocab_size)?,
            positions: embedding("position", config.positions)?,
            types: embedding("token_type", config.types)?,
            norm: norm("embeddings")?,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            config,
        })
    }

    /// `[N, hidden]`
    pub(super) fn forward(&self, batch: &Batch) -> Tensor<2> {
        let Config { hidden_size, heads, head_width, activation, padding, .. } = self.config;
        let embedded = batch.rows(hidden_size, |input, at, row| {
            let id = input.ids[at];
            let position = match padding {
                None => at,
                Some(padding) if id == padding => padding as usize,
                // Padding within a text does not count.
                Some(padding) => padding as usize + input.ids[..=at].iter().filter(|id| **id != padding).count(),
            };
            // A model with one segment takes no notice of them.
            let kind = input.types.get(at).copied().unwrap_or(0).min(self.config.types as u32 - 1) as usize;
            let (word, kind) = (self.words.row(id as usize), self.types.row(kind));
            let parts = word.iter().zip(kind).zip(self.positions.row(position));
            row.iter_mut().zip(parts).for_each(|(x, ((word, kind), position))| *x = word + kind + position);
        });
        let mut x = self.norm.forward(embedded);
        for block in &self.blocks {
            let seen = batch.attend(block.qkv.forward(x.clone()), [heads, head_width], None, None);
            x = block.attention_norm.forward(block.attention_out.onto(x, seen));
            let inner = block.up.activated(x.clone(), activation);
            x = block.norm.forward(block.down.onto(x, inner));
        }
        x
    }
}
