//! From a GGUF file to a folder in Hugging Face layout: config, weights, tokenizer. Knows what llama.cpp's converter
//! does, and refuses what it does not know.

use super::{
    File, Tensor, TensorType,
    architecture::{ARCHITECTURES, Architecture, Change, Llama3Scaling, Name, llama3_factors, numbered, turned_rows},
    dequantize, tokenizer,
};
use crate::{
    bytes::shown,
    weights::{Element, Entry, write, write_json},
};
use narthex_base::{Error, Result};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Blocks of a model.
const BLOCKS_MAX: usize = 1 << 12;
/// Models that a model says it was made from.
const BASE_MODELS_MAX: u64 = 64;

/// The rotary factors of Llama 3, which its config gives by formula.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The rotary factors of Phi-3, for long and for short contexts.
const LONG_FACTORS: &str = "rope_factors_long.weight";
const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// A model that a model was made from, as the file names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseModel {
    /// The model's name.
    pub name: Option<String>,
    /// Who made it.
    pub organization: Option<String>,
    /// Where it is.
    pub url: Option<String>,
}

/// What the file says about itself, and what the caller should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`: mostly a lower-case SPDX identifier, as on the Hugging Face Hub.
    pub license: Option<String>,
    /// `general.license.name`, for licences that have no identifier.
    pub license_name: Option<String>,
    /// `general.license.link`.
    pub license_link: Option<String>,
    /// `general.repo_url` or `general.url`.
    pub url: Option<String>,
    /// `general.base_model.*`.
    pub base_models: Vec<BaseModel>,
    /// What was changed, or could not be taken over; each a line for the user.
    pub notes: Vec<String>,
}

/// Writes `config.json`, `generation_config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`
/// into a folder that is there. Weights keep their number format; those in blocks with a scale become f32, as their
/// values do not fit fewer bits.
///
/// # Errors
/// As [`File::open`]; if the architecture, a tensor, a constant or the tokenizer is not supported or missing: it is
/// named.
pub fn to_hugging_face(file: &Path, folder: &Path) -> Result<Imported> {
    let file = File::open(file)?;
    let at = |error: Error| if error.place().is_none() { error.at(file.path().display(), None) } else { error };
    let source = Source::new(&file).map_err(at)?;
    let (entries, quantized) = source.entries().map_err(at)?;
    let mut imported = source.write_settings(folder, widest(&entries)).map_err(at)?;
    if !quantized.is_empty() {
        let kinds: Vec<&str> = quantized.iter().map(String::as_str).collect();
        let note = format!("weights in {} are written as f32, which holds their values exactly", kinds.join(", "));
        imported.notes.insert(0, note);
    }
    write(&folder.join("model.safetensors"), entries)?;
    Ok(imported)
}

/// The format that most numbers have.
fn widest(entries: &BTreeMap<String, Entry>) -> Element {
    let count = |element| {
        let of_it = entries.values().filter(|entry| entry.element == element);
        of_it.map(|entry| entry.shape.iter().product::<usize>()).sum::<usize>()
    };
    [Element::F32, Element::F16, Element::BF16]
        .into_iter()
        .max_by_key(|element| count(*element))
        .unwrap_or(Element::F32)
}

fn about(file: &File) -> Result<Imported> {
    let text = |key: &str| Ok::<_, Error>(file.text(key)?.map(str::to_string));
    let count = file.count("general.base_model.count")?.unwrap_or(0);
    if count > BASE_MODELS_MAX {
        return Err(file.wrong("general.base_model.count", &format!("at most {BASE_MODELS_MAX}")));
    }
    let base_models = (0..count).map(|number| {
        let of = |key: &str| text(&format!("general.base_model.{number}.{key}"));
        Ok(BaseModel { name: of("name")?, organization: of("organization")?, url: of("repo_url")?.or(of("url")?) })
    });
    Ok(Imported {
        architecture: text("general.architecture")?.unwrap_or_default(),
        name: text("general.name")?,
        license: text("general.license")?,
        license_name: text("general.license.name")?,
        license_link: text("general.license.link")?,
        url: text("general.repo_url")?.or(text("general.url")?),
        base_models: base_models.collect::<Result<_>>()?,
        notes: vec![],
    })
}

/// A file whose architecture is known.
pub(super) struct Source<'a> {
    file: &'a File,
    architecture: &'static Architecture,
    blocks: usize,
    heads: usize,
    kv_heads: usize,
    hidden: usize,
    vocab_size: usize,
    /// One matrix for embedding and output projection.
    is_tied: bool,
}

impl<'a> Source<'a> {
    /// Writes all but the weights, which are of this format for the most part.
    pub(super) fn write_settings(&self, folder: &Path, element: Element) -> Result<Imported> {
        let mut config = self.config()?;
        let tokenizer = tokenizer::import(self.file, self.vocab_size)?;
        let mut imported = about(self.file)?;
        imported.notes = self.notes();
        // Also where there is none: transformers would take those of its default vocabulary.
        let keys = ["pad_token_id", "bos_token_id", "eos_token_id"];
        for key in &keys[..if self.is_encoder() { 1 } else { keys.len() }] {
            config.insert((*key).into(), tokenizer.generation[*key].clone());
        }
        config.insert("torch_dtype".into(), json!(element.name()));
        write_json(&folder.join("config.json"), &Value::Object(config))?;
        match self.is_encoder() {
            true => self.write_modules(folder)?,
            false => write_json(&folder.join("generation_config.json"), &tokenizer.generation)?,
        }
        write_json(&folder.join("tokenizer.json"), &tokenizer.tokenizer)?;
        write_json(&folder.join("tokenizer_config.json"), &tokenizer.config)?;
        Ok(imported)
    }

    pub(super) fn new(file: &'a File) -> Result<Self> {
        let name = file.text("general.architecture")?;
        let name = name.ok_or_else(|| Error::input("the file has no `general.architecture`, so it is no model"))?;
        let architecture = Architecture::of_gguf(name).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.gguf).collect();
            Error::input(format!("the architecture `{}` is not supported", shown(name)))
                .help(format!("supported: {}", known.join(", ")))
        })?;
        if file.count("split.count")?.unwrap_or(1) > 1 {
            return Err(Error::input("this is one part of a model in several files")
                .help("join them first: `llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf`"));
        }
        let count = |key: &str| {
            let key = format!("{name}.{key}");
            match file.count(&key)? {
                Some(count) if count > 0 && count <= u64::from(u32::MAX) => Ok(count as usize),
                Some(_) => Err(file.wrong(&key, "above 0 and below 2^32")),
                None => Err(Error::input(format!("the file has no `{key}`"))),
            }
        };
        let (blocks, heads) = (count("block_count")?, count("attention.head_count")?);
        if blocks > BLOCKS_MAX {
            return Err(file.wrong(&format!("{name}.block_count"), &format!("at most {BLOCKS_MAX}")));
        }
        let kv_heads = match file.metadata().contains_key(&format!("{name}.attention.head_count_kv")) {
            true => count("attention.head_count_kv")?,
            false => heads,
        };
        let hidden = count("embedding_length")?;
        let embedding = file.tensors().get("token_embd.weight").map(|tensor| tensor.shape.as_slice());
        let vocab_size = match embedding {
            Some([rows, width]) if *width == hidden => *rows,
            other => {
                return Err(Error::input(format!(
                    "`token_embd.weight` has the shape {other:?}, not [tokens, {hidden}]"
                )));
            }
        };
        // Some converters write the tied matrix twice.
        let bytes = |name: &str| file.tensors().get(name).map(|tensor| (tensor.kind, file.bytes(tensor)));
        let output = bytes("output.weight");
        let is_tied = output.is_none() || output == bytes("token_embd.weight");
        Ok(Self { file, architecture, blocks, heads, kv_heads, hidden, vocab_size, is_tied })
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.gguf)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.file.number(&self.key(key))
    }

    fn count(&self, key: &str) -> Result<Option<u64>> {
        self.file.count(&self.key(key))
    }

    fn head_width(&self) -> Result<usize> {
        let key = "attention.key_length";
        let width = match self.count(key)? {
            Some(width) if width == 0 || width > self.hidden as u64 * 64 => {
                return Err(self.file.wrong(&self.key(key), "above 0"));
            }
            Some(width) => width as usize,
            None => self.hidden / self.heads,
        };
        match self.count("attention.value_length")? {
            Some(value) if value != width as u64 => Err(Error::input(format!(
                "`{}` is {value}, but keys have the width {width}: that is not supported",
                self.key("attention.value_length")
            ))),
            _ => Ok(width),
        }
    }

    /// `config.json`, without token ids.
    fn config(&self) -> Result<Map<String, Value>> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| _ = config.insert(key.into(), value);
        let required =
            |key: &str| self.count(key)?.ok_or_else(|| Error::input(format!("the file has no `{}`", self.key(key))));
        let epsilon =
            |key: &str| self.number(key)?.ok_or_else(|| Error::input(format!("the file has no `{}`", self.key(key))));
        let width = self.head_width()?;
        set("architectures", json!([self.architecture.class]));
        set("model_type", json!(self.architecture.model_type));
        set("vocab_size", json!(self.vocab_size));
        set("tie_word_embeddings", json!(self.is_tied));
        set("use_cache", json!(true));
        let context = required("context_length")?;
        if self.is_encoder() {
            let types = self.file.tensors().get("token_types.weight").and_then(|tensor| tensor.shape.first());
            set("hidden_size", json!(self.hidden));
            set("intermediate_size", json!(required("feed_forward_length")?));
            set("num_hidden_layers", json!(self.blocks));
            set("num_attention_heads", json!(self.heads));
            set("max_position_embeddings", json!(context));
            set("type_vocab_size", json!(types));
            set("position_embedding_type", json!("absolute"));
            set("layer_norm_eps", json!(epsilon("attention.layer_norm_epsilon")?));
            set("hidden_act", json!("gelu"));
            set("hidden_dropout_prob", json!(0.1));
            set("attention_probs_dropout_prob", json!(0.1));
            config.shift_remove("tie_word_embeddings");
            config.shift_remove("use_cache");
            return Ok(config);
        }
        if self.architecture.gguf == "gpt2" {
            set("n_positions", json!(context));
            set("n_embd", json!(self.hidden));
            set("n_layer", json!(self.blocks));
            set("n_head", json!(self.heads));
            set("n_inner", json!(self.count("feed_forward_length")?));
            set("layer_norm_epsilon", json!(epsilon("attention.layer_norm_epsilon")?));
            set("activation_function", json!("gelu_new"));
            return Ok(config);
        }
        set("hidden_size", json!(self.hidden));
        set("intermediate_size", json!(required("feed_forward_length")?));
        set("num_hidden_layers", json!(self.blocks));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.kv_heads));
        set("max_position_embeddings", json!(context));
        set("attention_dropout", json!(0.0));
        set("initializer_range", json!(0.02));
        set("rope_theta", json!(self.theta()?));
        set("rope_scaling", self.rope_scaling(width)?);
        let rotary = self.count("rope.dimension_count")?.unwrap_or(width as u64);
        if rotary != width as u64 && self.architecture.gguf != "phi3" {
            return Err(Error::input(format!(
                "`{}` is {rotary}, but heads have the width {width}: a part of a head is not supported",
                self.key("rope.dimension_count")
            )));
        }
        match self.architecture.gguf {
            "llama" => {
                let has_bias = self.file.tensors().contains_key("blk.0.attn_q.bias");
                set("head_dim", json!(width));
                set("hidden_act", json!("silu"));
                set("attention_bias", json!(has_bias));
                set("mlp_bias", json!(false));
            }
            "qwen2" | "qwen3" => {
                set("hidden_act", json!("silu"));
                set("use_sliding_window", json!(false));
                if self.architecture.gguf == "qwen3" {
                    set("head_dim", json!(width));
                    set("attention_bias", json!(false));
                }
            }
            "gemma2" | "gemma3" => {
                // The largest models of both divide the query by the width of the residual stream per head.
                let is_largest = self.blocks == if self.architecture.gguf == "gemma2" { 46 } else { 62 };
                let scalar = if is_largest { self.hidden / self.heads } else { width };
                set("head_dim", json!(width));
                set("query_pre_attn_scalar", json!(scalar));
                set("hidden_activation", json!("gelu_pytorch_tanh"));
                set("attention_bias", json!(false));
                set("sliding_window", json!(self.count("attention.sliding_window")?));
                if self.architecture.gguf == "gemma2" {
                    set("attn_logit_softcapping", json!(self.number("attn_logit_softcapping")?.unwrap_or(50.0)));
                    set("final_logit_softcapping", json!(self.number("final_logit_softcapping")?.unwrap_or(30.0)));
                } else {
                    set("sliding_window_pattern", json!(6));
                    set("rope_local_base_freq", json!(10_000.0));
                }
            }
            "phi3" => {
                set("hidden_act", json!("silu"));
                set("sliding_window", json!(self.count("attention.sliding_window")?));
                set("original_max_position_embeddings", json!(self.original_context()?.unwrap_or(context)));
                set("partial_rotary_factor", json!(rotary as f64 / width as f64));
                set("resid_pdrop", json!(0.0));
                set("embd_pdrop", json!(0.0));
            }
            _ => {
                set("hidden_act", json!("gelu_pytorch_tanh"));
                set("use_bias", json!(true));
                set("sliding_window", json!(self.count("attention.sliding_window")?));
                set("norm_epsilon", json!(epsilon("attention.layer_norm_epsilon")?));
                set("residual_dropout", json!(0.0));
                set("embedding_dropout", json!(0.0));
                return Ok(config);
            }
        }
        set("rms_norm_eps", json!(epsilon("attention.layer_norm_rms_epsilon")?));
        Ok(config)
    }

    /// Whether it gives vectors and no text.
    fn is_encoder(&self) -> bool {
        self.architecture.gguf == "bert"
    }

    /// What sentence-transformers reads of an encoder: how the vectors of tokens become one, of length 1, as llama.cpp
    /// makes it.
    fn write_modules(&self, folder: &Path) -> Result<()> {
        if self.file.flag(&self.key("attention.causal"))? == Some(true) {
            return Err(self.file.wrong(&self.key("attention.causal"), "false"));
        }
        // llama.cpp's `enum llama_pooling_type`.
        let mode = match self.count("pooling_type")? {
            None | Some(0) => return Ok(()),
            Some(1) => "mean_tokens",
            Some(2) => "cls_token",
            Some(3) => "lasttoken",
            Some(other) => {
                let what = format!(
                    "`{}` is {other}: what scores pairs of texts is not read from GGUF",
                    self.key("pooling_type")
                );
                return Err(Error::input(what).help("import the original model instead: `narthex pull hf:ORG/NAME`"));
            }
        };
        let pooling = folder.join("1_Pooling");
        std::fs::create_dir_all(&pooling).map_err(|error| Error::io("cannot write", &pooling, error))?;
        let mut config = json!({"word_embedding_dimension": self.hidden});
        config[format!("pooling_mode_{mode}")] = json!(true);
        write_json(&pooling.join("config.json"), &config)?;
        let stage = |idx: usize, path: &str, kind: &str| {
            json!({"idx": idx, "name": idx.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}")})
        };
        let stages =
            [stage(0, "", "Transformer"), stage(1, "1_Pooling", "Pooling"), stage(2, "2_Normalize", "Normalize")];
        write_json(&folder.join("modules.json"), &json!(stages))
    }

    fn theta(&self) -> Result<f64> {
        let default = if self.architecture.gguf == "gemma3" { 1_000_000.0 } else { 10_000.0 };
        Ok(self.number("rope.freq_base")?.unwrap_or(default))
    }

    fn original_context(&self) -> Result<Option<u64>> {
        self.count("rope.scaling.original_context_length")
    }

    fn rope_scaling(&self, width: usize) -> Result<Value> {
        let kind = self.file.text(&self.key("rope.scaling.type"))?.unwrap_or("none");
        let factor = || {
            let key = "rope.scaling.factor";
            self.number(key)?.ok_or_else(|| Error::input(format!("the file has no `{}`", self.key(key))))
        };
        let factors = |name: &str| {
            let tensor = self.file.tensors().get(name).filter(|tensor| tensor.kind == TensorType::F32);
            tensor.map(|tensor| dequantize(tensor.kind, self.file.bytes(tensor)))
        };
        if let (Some(long), Some(short)) = (factors(LONG_FACTORS), factors(SHORT_FACTORS)) {
            return Ok(
                json!({"rope_type": "longrope", "type": "longrope", "long_factor": long, "short_factor": short}),
            );
        }
        match kind {
            "none" => {}
            "linear" => return Ok(json!({"rope_type": "linear", "type": "linear", "factor": factor()?})),
            "yarn" => {
                return Ok(json!({
                    "rope_type": "yarn", "type": "yarn", "factor": factor()?,
                    "original_max_position_embeddings": self.original_context()?,
                }));
            }
            other => {
                return Err(Error::input(format!(
                    "`{}` is `{}`, which is not supported",
                    self.key("rope.scaling.type"),
                    shown(other)
                ))
                .help("supported: none, linear, yarn"));
            }
        }
        let Some(found) = factors(ROPE_FACTORS) else {
            return match self.file.tensors().contains_key(ROPE_FACTORS) {
                true => Err(Error::input(format!("`{ROPE_FACTORS}` is not of F32"))),
                false => Ok(Value::Null),
            };
        };
        let most = f64::from(found.iter().fold(1.0f32, |most, factor| most.max(*factor)));
        let scaling = Llama3Scaling::published(most);
        let wanted = llama3_factors(width, self.theta()?, &scaling);
        let near = |(found, wanted): (&f32, &f64)| (f64::from(*found) - wanted).abs() <= 1e-4 * wanted.abs();
        if found.len() != wanted.len() || !found.iter().zip(&wanted).all(near) {
            return Err(Error::input(format!("`{ROPE_FACTORS}` holds factors that no known config gives"))
                .help("known are those of Llama 3.1 and 3.2: import the original model instead"));
        }
        Ok(json!({
            "rope_type": "llama3", "factor": most, "low_freq_factor": scaling.low, "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original_context as u64,
        }))
    }

    /// Where the weights lie, by Hugging Face's names.
    pub(super) fn places(&self) -> Result<BTreeMap<String, Place>> {
        let mut places = BTreeMap::new();
        for (tensor_name, tensor) in self.file.tensors() {
            if [ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS].contains(&tensor_name.as_str())
                || (tensor_name == "output.weight" && self.is_tied)
            {
                continue;
            }
            let found = self.architecture.find(tensor_name, |name| name.gguf);
            let found = found.filter(|(_, block)| block.is_none_or(|block| block < self.blocks));
            let (name, block) = found.ok_or_else(|| {
                Error::input(format!(
                    "tensor `{}` is not part of the architecture {}",
                    shown(tensor_name),
                    self.architecture.gguf
                ))
                .cause(format!("`{}` is {}", self.key("block_count"), self.blocks))
                .help("mixtures of experts, and parts for seeing or hearing, are not supported")
            })?;
            places.insert(numbered(name.hugging_face, block), self.place(tensor_name, tensor, name)?);
        }
        for name in self.architecture.all_names().filter(|name| !name.is_optional) {
            let blocks = if name.gguf.contains("{}") { 0..self.blocks } else { 0..1 };
            for block in blocks {
                let wanted = numbered(name.gguf, name.gguf.contains("{}").then_some(block));
                if !self.file.tensors().contains_key(&wanted) {
                    return Err(
                        Error::input(format!("tensor `{wanted}` is missing")).help("fetch or convert the model again")
                    );
                }
            }
        }
        Ok(places)
    }

    fn place(&self, tensor_name: &str, tensor: &Tensor, name: &'static Name) -> Result<Place> {
        let wrong = |wanted: &str| {
            Error::input(format!("tensor `{}` has the shape {:?}, not {wanted}", shown(tensor_name), tensor.shape))
        };
        let heads = if name.change == Change::KeyHeads { self.kv_heads } else { self.heads };
        match (name.change, tensor.shape.as_slice()) {
            (Change::QueryHeads | Change::KeyHeads, [rows, ..]) if turned_rows(*rows, heads).is_none() => {
                return Err(wrong(&format!("rows for {heads} heads of an even width")));
            }
            (Change::QueryHeads | Change::KeyHeads, []) => return Err(wrong("rows for heads")),
            (Change::Transposed, [_, _]) => {}
            (Change::Transposed, _) => return Err(wrong("a matrix")),
            _ => {}
        }
        Ok(Place { tensor: tensor_name.into(), change: name.change, heads })
    }

    /// The weights under Hugging Face's names, and the block formats that were widened.
    fn entries(&self) -> Result<(BTreeMap<String, Entry<'a>>, BTreeSet<String>)> {
        let (mut entries, mut quantized) = (BTreeMap::new(), BTreeSet::new());
        let file: &'a File = self.file;
        for (name, place) in self.places()? {
            let tensor = &file.tensors()[&place.tensor];
            if tensor.kind.is_quantized() {
                quantized.insert(tensor.kind.to_string());
            }
            let (element, shape) = (place.element(tensor), place.shape(tensor));
            entries.insert(name, Entry { element, shape, bytes: Box::new(move || place.bytes(file, tensor)) });
        }
        Ok((entries, quantized))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let prefix = self.key("");
        let known = |key: &str| KNOWN_KEYS.contains(&key);
        let unknown: Vec<&str> = self
            .file
            .metadata()
            .keys()
            .filter(|key| key.strip_prefix(&prefix).is_some_and(|key| !known(key)))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let list: Vec<String> = unknown.iter().map(|key| shown(key)).collect();
            notes.push(format!("not taken over, as their meaning is not known: {}", list.join(", ")));
        }
        notes
    }
}

/// The keys of an architecture that are read, or that follow from others.
const KNOWN_KEYS: [&str; 22] = [
    "attention.causal",
    "pooling_type",
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
];

/// Where a weight lies in a file, and what makes Hugging Face's of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) tensor: String,
    pub(super) change: Change,
    /// Whose rows are turned.
    pub(super) heads: usize,
}

impl Place {
    /// The format of its numbers once read.
    pub(super) fn element(&self, tensor: &Tensor) -> Element {
        if self.change == Change::PlusOne { Element::F32 } else { element_of(tensor.kind) }
    }

    pub(super) fn shape(&self, tensor: &Tensor) -> Vec<usize> {
        let mut shape = tensor.shape.clone();
        if self.change == Change::Transposed {
            shape.reverse();
        }
        shape
    }

    /// Its numbers as little-endian bytes.
    pub(super) fn bytes<'a>(&self, file: &'a File, tensor: &Tensor) -> Cow<'a, [u8]> {
        let stored = element_of(tensor.kind);
        let bytes = match tensor.kind.is_quantized() {
            true => Cow::Owned(Element::F32.narrow(&dequantize(tensor.kind, file.bytes(tensor)))),
            false => Cow::Borrowed(file.bytes(tensor)),
        };
        match self.change {
            Change::Plain => bytes,
            Change::QueryHeads | Change::KeyHeads => Cow::Owned(turn_back(&bytes, tensor.shape[0], self.heads)),
            Change::PlusOne => {
                let values: Vec<f32> = stored.widen(&bytes).iter().map(|value| value - 1.0).collect();
                Cow::Owned(Element::F32.narrow(&values))
            }
            Change::Transposed => Cow::Owned(transposed(&bytes, tensor.shape[0], tensor.shape[1], stored.width())),
        }
    }
}

fn element_of(kind: TensorType) -> Element {
    match kind {
        TensorType::F16 => Element::F16,
        TensorType::BF16 => Element::BF16,
        _ => Element::F32,
    }
}

/// Rows from GGUF's order into Hugging Face's.
fn turn_back(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_len = bytes.len() / rows;
    let mut turned = vec![0; bytes.len()];
    for (row, place) in turned_rows(rows, heads).into_iter().flatten().enumerate() {
        turned[place * row_len..(place + 1) * row_len].copy_from_slice(&bytes[row * row_len..(row + 1) * row_len]);
    }
    turned
}

/// A matrix `[rows, columns]` of elements of so many bytes as `[columns, rows]`.
fn transposed(bytes: &[u8], rows: usize, columns: usize, width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * width;
            out.extend_from_slice(&bytes[at..at + width]);
        }
    }
    out
}
