//! From a folder in Hugging Face layout to a GGUF file that llama.cpp reads. Knows what its converter does; quantizes
//! to Q8_0 and no further.

use super::{
    TensorType,
    architecture::{Architecture, Change, Llama3Scaling, llama3_factors, numbered, supported, turned_rows},
    quant::quantize_q8_0,
    tokenizer::{self, ROLES},
    write::Writer,
};
use crate::{
    bytes::shown,
    weights::{Element, Weights, read_json},
};
use narthex_base::{Error, Result};
use serde_json::{Map, Value};
use std::{borrow::Cow, path::Path};

/// How matrices are stored. Vectors, as norms and biases, are always stored in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Single precision, 32 bits a value.
    F32,
    /// 16 bits, IEEE. Values beyond 65,504 become infinite.
    F16,
    /// The upper 16 of 32 bits.
    BF16,
    /// 8 bits and a scale for 32 values. Matrices whose rows are no multiple of 32 are stored in F16.
    Q8_0,
}

impl Stored {
    /// The number that `general.file_type` has for it.
    fn file_type(self) -> u32 {
        match self {
            Stored::F32 => 0,
            Stored::F16 => 1,
            Stored::Q8_0 => 7,
            Stored::BF16 => 32,
        }
    }

    fn kind(self, shape: &[usize]) -> TensorType {
        match (self, shape) {
            (_, [] | [_]) | (Stored::F32, _) => TensorType::F32,
            (Stored::F16, _) => TensorType::F16,
            (Stored::BF16, _) => TensorType::BF16,
            (Stored::Q8_0, [.., row]) if row.is_multiple_of(32) => TensorType::Q8_0,
            (Stored::Q8_0, _) => TensorType::F16,
        }
    }
}

/// What the file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// `general.license.link`.
    pub license_link: Option<String>,
}

/// Writes the model in a folder as GGUF: Llama, Mistral without a window, Qwen2 and Qwen3, with tokenizer and template.
///
/// # Errors
/// If a file is missing or broken, the config or the tokenizer asks for what is not supported (it is named), a tensor
/// has no name in GGUF, or the file cannot be written.
pub fn from_hugging_face(folder: &Path, file: &Path, stored: Stored, about: &About) -> Result<()> {
    let json = |name: &str| {
        let path = folder.join(name);
        read_json(&path)?
            .ok_or_else(|| Error::input(format!("there is no {name} in this folder")).at(folder.display(), None))
    };
    let config = Config { json: json("config.json")? };
    let at_config = |error: Error| error.at(folder.join("config.json").display(), None);
    let architecture = config.architecture().map_err(at_config)?;
    let weights = Weights::open(folder)?;
    let mut writer = Writer::default();
    config.write(&mut writer, architecture, about, stored).map_err(at_config)?;
    let vocab_size = config.count("vocab_size").map_err(at_config)?;
    let tokenizer_config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let generation = read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
    write_tokenizer(
        &mut writer,
        &json("tokenizer.json")?,
        &tokenizer_config,
        &[&generation, &config.json],
        folder,
        vocab_size,
    )
    .map_err(|error| error.at(folder.join("tokenizer.json").display(), None))?;
    config.write_rope_factors(&mut writer).map_err(at_config)?;
    write_tensors(&mut writer, &config, architecture, &weights, stored)
        .map_err(|error| error.at(folder.display(), None))?;
    writer.write(file)
}

/// A `config.json`.
struct Config {
    json: Map<String, Value>,
}

impl Config {
    fn get(&self, key: &str) -> &Value {
        self.json.get(key).unwrap_or(&Value::Null)
    }

    fn optional(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => value
                .as_u64()
                .filter(|count| *count > 0 && *count < u64::from(u32::MAX))
                .map(|count| Some(count as usize))
                .ok_or_else(|| {
                    Error::input(format!("`{key}` is {}", shown(&value.to_string())))
                        .help("it must be a whole number above 0")
                }),
        }
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.optional(key)?.ok_or_else(|| Error::input(format!("config.json lacks the number `{key}`")))
    }

    fn architecture(&self) -> Result<&'static Architecture> {
        let model_type = self.get("model_type").as_str().unwrap_or("(none)");
        let architecture = Architecture::of_model_type(model_type).ok_or_else(|| {
            Error::input(format!("a model of type `{}` cannot be written as GGUF", shown(model_type)))
                .help(format!("supported: {}", supported().1.join(", ")))
        })?;
        let is_set = |key: &str| !matches!(self.get(key), Value::Null | Value::Bool(false));
        let windowed = if model_type == "mistral" { is_set("sliding_window") } else { is_set("use_sliding_window") };
        if windowed || is_set("mlp_bias") {
            return Err(Error::input("config.json asks for a sliding window or biases in the feed-forward part")
                .help("GGUF cannot say that for this architecture"));
        }
        match self.get("hidden_act").as_str() {
            None | Some("silu") => Ok(architecture),
            Some(other) => {
                Err(Error::input(format!("config.json asks for hidden_act = {}", shown(other))).help("supported: silu"))
            }
        }
    }

    fn heads(&self) -> Result<(usize, usize, usize)> {
        let (heads, hidden) = (self.count("num_attention_heads")?, self.count("hidden_size")?);
        let kv_heads = self.optional("num_key_value_heads")?.unwrap_or(heads);
        Ok((heads, kv_heads, self.optional("head_dim")?.unwrap_or(hidden / heads)))
    }

    /// What older files call `rope_scaling`, and newer ones `rope_parameters`, where it is not the default.
    fn rope(&self) -> Option<(&str, &Value)> {
        let scalings = ["rope_scaling", "rope_parameters"].map(|key| self.get(key));
        scalings.into_iter().find_map(|scaling| {
            let kind = scaling.get("rope_type").or_else(|| scaling.get("type"))?.as_str()?;
            (kind != "default").then_some((kind, scaling))
        })
    }

    fn theta(&self) -> f64 {
        let theta = self.get("rope_theta").as_f64();
        theta.or_else(|| self.get("rope_parameters")["rope_theta"].as_f64()).unwrap_or(10_000.0)
    }

    fn write(&self, writer: &mut Writer, architecture: &Architecture, about: &About, stored: Stored) -> Result<()> {
        let (heads, kv_heads, width) = self.heads()?;
        writer.text("general.architecture", architecture.gguf);
        writer.text("general.type", "model");
        let described = [("name", &about.name), ("license", &about.license), ("license.link", &about.license_link)];
        for (key, value) in described {
            if let Some(value) = value {
                writer.text(&format!("general.{key}"), value);
            }
        }
        writer.count("general.file_type", stored.file_type());
        writer.count("general.quantization_version", 2);
        let key = |key: &str| format!("{}.{key}", architecture.gguf);
        for (name, count) in [
            ("vocab_size", self.count("vocab_size")?),
            ("context_length", self.optional("max_position_embeddings")?.unwrap_or(2048)),
            ("embedding_length", self.count("hidden_size")?),
            ("block_count", self.count("num_hidden_layers")?),
            ("feed_forward_length", self.count("intermediate_size")?),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("attention.key_length", width),
            ("attention.value_length", width),
            ("rope.dimension_count", width),
        ] {
            writer.count(&key(name), count as u32);
        }
        writer
            .number(&key("attention.layer_norm_rms_epsilon"), self.get("rms_norm_eps").as_f64().unwrap_or(1e-6) as f32);
        writer.number(&key("rope.freq_base"), self.theta() as f32);
        match self.rope() {
            None | Some(("llama3", _)) => {}
            Some((kind @ ("linear" | "yarn"), scaling)) => {
                let factor = scaling["factor"].as_f64();
                let factor = factor.ok_or_else(|| Error::input(format!("the rope scaling `{kind}` has no factor")))?;
                writer.text(&key("rope.scaling.type"), kind);
                writer.number(&key("rope.scaling.factor"), factor as f32);
                if let Some(original) = scaling["original_max_position_embeddings"].as_u64() {
                    writer.count(
                        &key("rope.scaling.original_context_length"),
                        u32::try_from(original).unwrap_or(u32::MAX),
                    );
                }
            }
            Some((kind, _)) => {
                return Err(Error::input(format!("config.json asks for rope_type = {}", shown(kind)))
                    .help("supported in GGUF: default, linear, yarn, llama3"));
            }
        }
        Ok(())
    }

    fn write_rope_factors(&self, writer: &mut Writer) -> Result<()> {
        let Some(("llama3", scaling)) = self.rope() else { return Ok(()) };
        let constant = |key: &str| {
            let value = scaling[key].as_f64();
            value.ok_or_else(|| Error::input(format!("the rope scaling `llama3` has no `{key}`")))
        };
        let scaling = Llama3Scaling {
            factor: constant("factor")?,
            low: constant("low_freq_factor")?,
            high: constant("high_freq_factor")?,
            original_context: constant("original_max_position_embeddings")?,
        };
        let factors: Vec<f32> =
            llama3_factors(self.heads()?.2, self.theta(), &scaling).iter().map(|factor| *factor as f32).collect();
        let bytes = Element::F32.narrow(&factors);
        writer.tensor("rope_freqs.weight".into(), TensorType::F32, vec![factors.len()], move || {
            Cow::Owned(bytes.clone())
        });
        Ok(())
    }
}

fn write_tokenizer(
    writer: &mut Writer,
    tokenizer: &Map<String, Value>,
    config: &Map<String, Value>,
    id_sources: &[&Map<String, Value>],
    folder: &Path,
    vocab_size: usize,
) -> Result<()> {
    let exported = tokenizer::export(tokenizer, vocab_size)?;
    writer.text("tokenizer.ggml.model", exported.model);
    writer.text("tokenizer.ggml.pre", exported.pre.unwrap_or("default"));
    writer.texts("tokenizer.ggml.tokens", &exported.tokens);
    writer.integers("tokenizer.ggml.token_type", &exported.kinds);
    if exported.model == "llama" {
        writer.numbers("tokenizer.ggml.scores", &exported.scores);
        writer.flag("tokenizer.ggml.add_space_prefix", exported.adds_space);
    } else {
        writer.texts("tokenizer.ggml.merges", &exported.merges);
    }
    writer.flag("tokenizer.ggml.add_bos_token", exported.adds_bos);
    writer.flag("tokenizer.ggml.add_eos_token", exported.adds_eos);
    let id_of = |token: &str| exported.tokens.iter().position(|known| known == token).map(|id| id as u64);
    let ids = |key: &str| {
        let values = id_sources.iter().filter_map(|source| source.get(key));
        let lists = values.map(|value| match value {
            Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect::<Vec<_>>(),
            one => one.as_u64().into_iter().collect(),
        });
        lists.filter(|ids| !ids.is_empty()).collect::<Vec<_>>()
    };
    let in_vocabulary = |id: &u64| *id < vocab_size as u64;
    for (key, role) in ROLES {
        let written =
            config.get(role).and_then(|token| token.as_str().or_else(|| token["content"].as_str())).and_then(id_of);
        let id = written.or_else(|| ids(&format!("{role}_id")).first().and_then(|ids| ids.first().copied()));
        if let Some(id) = id.filter(in_vocabulary) {
            writer.count(key, id as u32);
            // A second token that ends a text ends a turn.
            let others = || ids("eos_token_id").into_iter().flatten().find(|other| *other != id);
            if let Some(end) =
                Some(role).filter(|role| *role == "eos_token").and_then(|_| others()).filter(in_vocabulary)
            {
                writer.count("tokenizer.ggml.eot_token_id", end as u32);
            }
        }
    }
    let template_file = folder.join("chat_template.jinja");
    let template = match template_file.is_file() {
        true => Some(
            std::fs::read_to_string(&template_file).map_err(|error| Error::io("cannot read", &template_file, error))?,
        ),
        false => config.get("chat_template").and_then(Value::as_str).map(str::to_string),
    };
    if let Some(template) = template {
        writer.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

fn write_tensors<'a>(
    writer: &mut Writer<'a>,
    config: &Config,
    architecture: &'static Architecture,
    weights: &'a Weights,
    stored: Stored,
) -> Result<()> {
    let (heads, kv_heads, _) = config.heads()?;
    // Tied are two matrices that are one, whatever the config says.
    let same = |one: &str, other: &str| match (weights.get(one), weights.get(other)) {
        (Some((one, shape, bytes)), Some((other, other_shape, other_bytes))) => {
            one == other && shape == other_shape && bytes == other_bytes
        }
        _ => true,
    };
    let is_tied = config.get("tie_word_embeddings").as_bool() == Some(true)
        && same("lm_head.weight", "model.embed_tokens.weight");
    for tensor in weights.names() {
        // The tied matrix written twice, and what is computed from the config.
        if (tensor == "lm_head.weight" && is_tied) || tensor.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let (name, block) = architecture.find(tensor, |name| name.hugging_face).ok_or_else(|| {
            Error::input(format!(
                "tensor `{}` has no name in GGUF for the architecture {}",
                shown(tensor),
                architecture.gguf
            ))
        })?;
        let Some((element, shape, bytes)) = weights.get(tensor) else { continue };
        let heads = if name.change == Change::KeyHeads { kv_heads } else { heads };
        let is_turned = matches!(name.change, Change::QueryHeads | Change::KeyHeads);
        if is_turned && shape.first().is_none_or(|rows| turned_rows(*rows, heads).is_none()) {
            return Err(Error::input(format!(
                "tensor `{}` has the shape {shape:?}, which is not for {heads} heads",
                shown(tensor)
            )));
        }
        let kind = stored.kind(shape);
        let rows = shape.first().copied().unwrap_or(1);
        let is_same = kind == stored_as(element);
        writer.tensor(numbered(name.gguf, block), kind, shape.to_vec(), move || {
            let turned = if is_turned { Cow::Owned(turn(bytes, rows, heads)) } else { Cow::Borrowed(bytes) };
            if is_same { turned } else { Cow::Owned(encode(kind, &element.widen(&turned))) }
        });
    }
    Ok(())
}

fn stored_as(element: Element) -> TensorType {
    match element {
        Element::F32 => TensorType::F32,
        Element::F16 => TensorType::F16,
        Element::BF16 => TensorType::BF16,
    }
}

fn encode(kind: TensorType, values: &[f32]) -> Vec<u8> {
    match kind {
        TensorType::F16 => Element::F16.narrow(values),
        TensorType::BF16 => Element::BF16.narrow(values),
        TensorType::Q8_0 => {
            let mut bytes = Vec::new();
            quantize_q8_0(values, &mut bytes);
            bytes
        }
        _ => Element::F32.narrow(values),
    }
}

/// Rows from Hugging Face's order into GGUF's.
fn turn(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_len = bytes.len() / rows;
    let places = turned_rows(rows, heads).into_iter().flatten();
    places.flat_map(|place| &bytes[place * row_len..(place + 1) * row_len]).copied().collect()
}
