//! The configuration files beside a Hugging Face tokenizer and model: `tokenizer_config.json`
//! (with the chat template) and `generation_config.json`. Knows their keys, not what they lead to.

use narthex_base::{Error, Result, text_file::text_of};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io::ErrorKind, path::Path};

/// The template that transformers uses unless another is asked for.
const DEFAULT_TEMPLATE: &str = "default";
/// transformers writes 10^30 for "no limit"; anything from here on means that.
const NO_LENGTH_LIMIT: f64 = 1e15;

/// The tokens that transformers' classes of tokenizers have where no file names them: class without `Fast`,
/// beginning, end.
const CLASS_TOKENS: [(&str, Option<&str>, Option<&str>); 8] = [
    ("CodeLlamaTokenizer", Some("<s>"), Some("</s>")),
    ("CodeGenTokenizer", Some("<|endoftext|>"), Some("<|endoftext|>")),
    ("GPT2Tokenizer", Some("<|endoftext|>"), Some("<|endoftext|>")),
    ("GPTNeoXTokenizer", Some("<|endoftext|>"), Some("<|endoftext|>")),
    ("GemmaTokenizer", Some("<bos>"), Some("<eos>")),
    ("LlamaTokenizer", Some("<s>"), Some("</s>")),
    ("Qwen2Tokenizer", None, Some("<|endoftext|>")),
    ("RobertaTokenizer", Some("<s>"), Some("</s>")),
];

/// The special tokens that a template may name, besides those with a field of their own.
const MORE_TOKENS: [&str; 3] = ["cls_token", "mask_token", "sep_token"];

/// Keys of transformers' `GenerationConfig` (5.24) that change which tokens are chosen, besides those with a field:
/// vLLM leaves them unread too.
const ACTED_ON: [&str; 20] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "penalty_alpha",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "top_h",
    "typical_p",
    "watermarking_config",
    "num_beams",
];

/// Whether a value asks for nothing, or is the default.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number == 0.0 || number == 1.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A token that stands beside the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddedToken {
    /// Its id, where it is said.
    pub id: Option<u32>,
    /// Its text.
    pub content: String,
    /// Whether it is left out of text for people.
    pub special: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub single_word: bool,
    pub normalized: bool,
}

impl AddedToken {
    fn named(content: &str) -> Self {
        let (special, no) = (true, false);
        let content = content.to_string();
        Self { id: None, content, special, lstrip: no, rstrip: no, single_word: no, normalized: no }
    }

    fn of(value: &Value, id: Option<u32>) -> Option<Self> {
        let content = value.as_str().or_else(|| value["content"].as_str())?;
        let flag = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
        let special = flag("special", true);
        let token = Self::named(content);
        Some(Self {
            id,
            special,
            lstrip: flag("lstrip", false),
            rstrip: flag("rstrip", false),
            single_word: flag("single_word", false),
            normalized: flag("normalized", !special),
            ..token
        })
    }
}

/// `tokenizer_config.json`, with what `special_tokens_map.json` and `added_tokens.json` say beside it, and the
/// `chat_template.jinja` there (which wins).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerConfig {
    /// The token that begins a text.
    pub bos_token: Option<String>,
    /// The token that ends a text, or a turn in chat models.
    pub eos_token: Option<String>,
    /// The token that fills up batches.
    pub pad_token: Option<String>,
    /// The token for what the vocabulary lacks.
    pub unk_token: Option<String>,
    /// The default chat template, in Jinja.
    pub chat_template: Option<String>,
    /// Further templates by name (`tool_use`, `rag`).
    pub named_templates: BTreeMap<String, String>,
    /// All other keys, as they were read.
    pub other: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the files in a model's folder, as transformers 5 does: where the configuration does not list its added
    /// tokens, those of the older files count; where nothing names the tokens that begin and end a text, they are those
    /// of the tokenizer's class. A folder without files gives the default: no tokens, no template.
    ///
    /// # Errors
    /// If a file can't be read or has the wrong form.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let mut keys = match read_optional(&path)? {
            Some(json) => object(&json).map_err(|error| error.at(path.display(), None))?,
            None => Map::new(),
        };
        if !keys.contains_key("added_tokens_decoder") {
            let older = |name: &str| -> Result<Map<String, Value>> {
                let path = folder.join(name);
                let text = read_optional(&path)?;
                text.map_or(Ok(Map::new()), |text| object(&text).map_err(|error| error.at(path.display(), None)))
            };
            keys.extend(older("special_tokens_map.json")?);
            let special: Vec<String> = keys.values().filter_map(content_of).map(str::to_string).collect();
            let added: Map<String, Value> = older("added_tokens.json")?
                .into_iter()
                .map(|(content, id)| {
                    let special = special.contains(&content);
                    (
                        id.to_string(),
                        serde_json::json!({"content": content, "special": special, "normalized": !special}),
                    )
                })
                .collect();
            if !added.is_empty() {
                keys.insert("added_tokens_decoder".into(), added.into());
            }
        }
        let mut config = Self::of_keys(keys).map_err(|error| error.at(path.display(), None))?;
        if let Some(template) = read_optional(&folder.join("chat_template.jinja"))? {
            config.chat_template = Some(template);
        }
        let class = config.other.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let class = class.trim_end_matches("Fast");
        if let Some((_, bos, eos)) = CLASS_TOKENS.iter().find(|(name, ..)| *name == class) {
            config.bos_token = config.bos_token.or(bos.map(str::to_string));
            config.eos_token = config.eos_token.or(eos.map(str::to_string));
        }
        Ok(config)
    }

    /// The configuration in the text of a `tokenizer_config.json`.
    ///
    /// # Errors
    /// If it is not a JSON object, or a token or template has the wrong form.
    pub fn from_json(json: &str) -> Result<Self> {
        Self::of_keys(object(json)?)
    }

    fn of_keys(mut other: Map<String, Value>) -> Result<Self> {
        let (mut chat_template, mut named_templates) = (None, BTreeMap::new());
        match other.shift_remove("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(template)) => chat_template = Some(template),
            Some(Value::Array(templates)) => {
                for entry in templates {
                    let (Some(name), Some(template)) = (entry["name"].as_str(), entry["template"].as_str()) else {
                        return Err(wrong("chat_template", "a list of `{name, template}`"));
                    };
                    match name {
                        DEFAULT_TEMPLATE => chat_template = Some(template.to_string()),
                        _ => _ = named_templates.insert(name.to_string(), template.to_string()),
                    }
                }
            }
            Some(_) => return Err(wrong("chat_template", "a string or a list of `{name, template}`")),
        }
        // `false` and lists name no token, to transformers neither.
        let mut token = |key: &str| match other.shift_remove(key) {
            None | Some(Value::Null | Value::Bool(_) | Value::Array(_)) => Ok(None),
            Some(value) => match content_of(&value) {
                Some(content) => Ok(Some(content.to_string())),
                None => Err(wrong(key, "a string or `{\"content\": …}`")),
            },
        };
        Ok(Self {
            bos_token: token("bos_token")?,
            eos_token: token("eos_token")?,
            pad_token: token("pad_token")?,
            unk_token: token("unk_token")?,
            chat_template,
            named_templates,
            other,
        })
    }

    /// The text of a `tokenizer_config.json`.
    pub fn to_json(&self) -> String {
        let mut json = Map::new();
        for (key, token) in [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("pad_token", &self.pad_token),
            ("unk_token", &self.unk_token),
        ] {
            if let Some(token) = token {
                json.insert(key.into(), token.as_str().into());
            }
        }
        json.extend(self.other.clone());
        let default = self.chat_template.as_deref();
        if self.named_templates.is_empty() {
            if let Some(template) = default {
                json.insert("chat_template".into(), template.into());
            }
        } else {
            let named = self.named_templates.iter().map(|(name, template)| (name.as_str(), template.as_str()));
            let all = default.map(|template| (DEFAULT_TEMPLATE, template)).into_iter().chain(named);
            let list = all.map(|(name, template)| serde_json::json!({"name": name, "template": template})).collect();
            json.insert("chat_template".into(), Value::Array(list));
        }
        pretty(json)
    }

    /// The special tokens by the names that templates know them by.
    pub fn special_tokens(&self) -> BTreeMap<String, String> {
        let own = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("pad_token", &self.pad_token),
            ("unk_token", &self.unk_token),
        ];
        let own = own.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?)));
        let more = MORE_TOKENS.into_iter().filter_map(|name| Some((name, content_of(self.other.get(name)?)?)));
        let named = ["extra_special_tokens", "model_specific_special_tokens"].into_iter();
        let named = named.filter_map(|key| self.other.get(key)?.as_object()).flatten();
        let named = named.filter_map(|(name, value)| Some((name.as_str(), content_of(value)?)));
        own.chain(more).chain(named).map(|(name, token)| (name.to_string(), token.to_string())).collect()
    }

    /// The tokens that the vocabulary must have besides its own, those with ids first, in their order.
    pub(crate) fn added_tokens(&self) -> Vec<AddedToken> {
        let with_ids = self.other.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten();
        let mut added: Vec<AddedToken> =
            with_ids.filter_map(|(id, value)| AddedToken::of(value, Some(id.parse().ok()?))).collect();
        added.sort_by_key(|token| token.id);
        let named = [
            self.bos_token.as_deref(),
            self.eos_token.as_deref(),
            self.unk_token.as_deref(),
            self.other.get("sep_token").and_then(content_of),
            self.pad_token.as_deref(),
            self.other.get("cls_token").and_then(content_of),
            self.other.get("mask_token").and_then(content_of),
        ];
        for token in named.into_iter().flatten().map(AddedToken::named) {
            if added.iter().all(|known| known.content != token.content) {
                added.push(token);
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"] {
            let tokens: Vec<&Value> = match self.other.get(key) {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(named)) => named.values().collect(),
                _ => vec![],
            };
            for token in tokens.into_iter().filter_map(|value| AddedToken::of(value, None)) {
                if added.iter().all(|known| known.content != token.content) {
                    added.push(token);
                }
            }
        }
        added
    }

    /// Tokens the model was made for (`model_max_length`), where the file sets a real limit.
    pub fn model_max_length(&self) -> Option<usize> {
        let length = self.other.get("model_max_length")?.as_f64()?;
        (1.0..NO_LENGTH_LIMIT).contains(&length).then_some(length as usize)
    }

    /// Whether encoding for the model puts the BOS token in front (`add_bos_token`), where the file says so.
    pub fn add_bos_token(&self) -> Option<bool> {
        self.other.get("add_bos_token")?.as_bool()
    }
}

/// `generation_config.json`: which tokens end the output, and how its author would sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// The id that begins a text.
    pub bos_token_id: Option<u32>,
    /// The ids that end a text; any of them stops generation.
    pub eos_token_id: Vec<u32>,
    /// The id that fills up batches.
    pub pad_token_id: Option<u32>,
    /// Sample, or take the likeliest token.
    pub do_sample: Option<bool>,
    /// Divides the logits; 1 leaves them.
    pub temperature: Option<f32>,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens up to this probability.
    pub top_p: Option<f32>,
    /// Keep the tokens with at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: Option<f32>,
    /// Divides the logits of what the text holds already (Keskar et al., 2019); 1 leaves them.
    pub repetition_penalty: Option<f32>,
    /// Tokens of prompt and output together.
    pub max_length: Option<u32>,
    /// Tokens of output.
    pub max_new_tokens: Option<u32>,
    /// All other keys, as they were read.
    pub other: Map<String, Value>,
}

impl GenerationConfig {
    /// Reads the file in a model's folder. A folder without one gives the default: nothing set.
    ///
    /// # Errors
    /// If the file can't be read or has the wrong form.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("generation_config.json");
        match read_optional(&path)? {
            Some(json) => Self::from_json(&json).map_err(|error| error.at(path.display(), None)),
            None => Ok(Self::default()),
        }
    }

    /// The configuration in the text of a `generation_config.json`.
    ///
    /// # Errors
    /// If it is not a JSON object, or a value has the wrong type.
    pub fn from_json(json: &str) -> Result<Self> {
        let mut other = object(json)?;
        let mut ids = |key: &str| match other.shift_remove(key) {
            None | Some(Value::Null) => Ok(vec![]),
            Some(Value::Array(ids)) => ids.iter().map(|value| whole(value).ok_or_else(|| wrong_id(key))).collect(),
            Some(one) => Ok(vec![whole(&one).ok_or_else(|| wrong_id(key))?]),
        };
        // -1 stands for none.
        let mut ids = |key: &str| -> Result<Vec<u32>> { Ok(ids(key)?.into_iter().flatten().collect()) };
        let (bos, eos, pad) = (ids("bos_token_id")?, ids("eos_token_id")?, ids("pad_token_id")?);
        Ok(Self {
            bos_token_id: bos.first().copied(),
            eos_token_id: eos,
            pad_token_id: pad.first().copied(),
            do_sample: take(&mut other, "do_sample", "true or false", Value::as_bool)?,
            temperature: take(&mut other, "temperature", "a number", number)?,
            top_k: take(&mut other, "top_k", "a whole number", whole)?.flatten(),
            top_p: take(&mut other, "top_p", "a number", number)?,
            min_p: take(&mut other, "min_p", "a number", number)?,
            repetition_penalty: take(&mut other, "repetition_penalty", "a number", number)?,
            max_length: take(&mut other, "max_length", "a whole number", whole)?.flatten(),
            max_new_tokens: take(&mut other, "max_new_tokens", "a whole number", whole)?.flatten(),
            other,
        })
    }

    /// The keys that change how transformers generates, and that nobody reads here.
    pub fn unread(&self) -> Vec<&str> {
        let says = |key: &&str| self.other.get(*key).is_some_and(|value| !is_off(value));
        ACTED_ON.into_iter().filter(says).collect()
    }

    /// The text of a `generation_config.json`.
    pub fn to_json(&self) -> String {
        let mut json = Map::new();
        let eos = match self.eos_token_id.as_slice() {
            [] => None,
            [one] => Some(Value::from(*one)),
            several => Some(Value::from(several.to_vec())),
        };
        // An f32 is written with its own shortest digits, not those of its nearest f64.
        let decimal = |number: f32| number.to_string().parse::<f64>().map_or(Value::Null, Value::from);
        for (key, value) in [
            ("bos_token_id", self.bos_token_id.map(Value::from)),
            ("eos_token_id", eos),
            ("pad_token_id", self.pad_token_id.map(Value::from)),
            ("do_sample", self.do_sample.map(Value::from)),
            ("temperature", self.temperature.map(decimal)),
            ("top_k", self.top_k.map(Value::from)),
            ("top_p", self.top_p.map(decimal)),
            ("min_p", self.min_p.map(decimal)),
            ("repetition_penalty", self.repetition_penalty.map(decimal)),
            ("max_length", self.max_length.map(Value::from)),
            ("max_new_tokens", self.max_new_tokens.map(Value::from)),
        ] {
            if let Some(value) = value {
                json.insert(key.into(), value);
            }
        }
        json.extend(self.other.clone());
        pretty(json)
    }
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => text_of(bytes, path).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", path, error)),
    }
}

/// A token's text: the token, or what it is described with.
fn content_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn object(json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|error| Error::input("not a JSON object").cause(error))
}

fn pretty(json: Map<String, Value>) -> String {
    let mut text = serde_json::to_string_pretty(&json).expect("a JSON object serializes");
    text.push('\n');
    text
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::input(format!("`{key}` must be {expected}"))
}

fn wrong_id(key: &str) -> Error {
    wrong(key, "a token id or a list of them")
}

/// A whole number, as 50 or 50.0; a negative one says nothing.
fn whole(value: &Value) -> Option<Option<u32>> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    if number < 0.0 { Some(None) } else { (number <= f64::from(u32::MAX)).then_some(Some(number as u32)) }
}

fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32).or_else(|| value.as_str()?.trim().parse().ok())
}

fn take<T>(
    map: &mut Map<String, Value>,
    key: &str,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    match map.shift_remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(&value).map(Some).ok_or_else(|| wrong(key, expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizer_config_forms() {
        let config = TokenizerConfig::from_json(
            r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
                "add_bos_token": true, "tokenizer_class": "LlamaTokenizer", "model_max_length": 1e30,
                "chat_template": [{"name": "default", "template": "A"}, {"name": "rag", "template": "B"}]}"#,
        )
        .unwrap();
        assert_eq!(config.bos_token.as_deref(), Some("<s>"));
        assert_eq!(config.eos_token.as_deref(), Some("</s>"));
        assert_eq!(config.pad_token, None);
        assert_eq!(config.chat_template.as_deref(), Some("A"));
        assert_eq!(config.named_templates["rag"], "B");
        assert_eq!(config.add_bos_token(), Some(true));
        assert_eq!(config.model_max_length(), None);
        assert_eq!(config.other["tokenizer_class"], "LlamaTokenizer");
        assert_eq!(TokenizerConfig::from_json(&config.to_json()).unwrap(), config);
        let one = TokenizerConfig::from_json(r#"{"chat_template": "A", "model_max_length": 2048}"#).unwrap();
        assert_eq!((one.chat_template.as_deref(), one.model_max_length()), (Some("A"), Some(2048)));
        assert_eq!(TokenizerConfig::from_json(&one.to_json()).unwrap(), one);
    }

    #[test]
    fn a_template_file_wins() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(TokenizerConfig::read(folder.path()).unwrap(), TokenizerConfig::default());
        std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"chat_template": "A"}"#).unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), "B").unwrap();
        assert_eq!(TokenizerConfig::read(folder.path()).unwrap().chat_template.as_deref(), Some("B"));
        std::fs::write(folder.path().join("tokenizer_config.json"), "[]").unwrap();
        let error = TokenizerConfig::read(folder.path()).unwrap_err();
        assert!(error.place().unwrap().ends_with("tokenizer_config.json"));
    }

    #[test]
    fn generation_config_forms() {
        let read = |json: &str| GenerationConfig::from_json(json).unwrap();
        assert_eq!(read(r#"{"eos_token_id": 2}"#).eos_token_id, [2]);
        assert_eq!(read(r#"{"eos_token_id": null}"#).eos_token_id, [0; 0]);
        let config =
            read(r#"{"eos_token_id": [2, 7], "bos_token_id": 1, "top_p": 0.9, "top_k": 50, "new_key": {"a": 1}}"#);
        assert_eq!((config.eos_token_id.as_slice(), config.top_p, config.top_k), (&[2, 7][..], Some(0.9), Some(50)));
        assert!(config.to_json().contains("\"top_p\": 0.9,"));
        assert_eq!(read(&config.to_json()), config);
        assert_eq!(GenerationConfig::read(Path::new("/nowhere")).unwrap(), GenerationConfig::default());
    }

    /// As transformers 5.24 loads them.
    #[test]
    fn odd_values_say_nothing_or_what_they_mean() {
        let config = GenerationConfig::from_json(
            r#"{"pad_token_id": -1, "eos_token_id": -1, "bos_token_id": [1], "top_k": 50.0, "max_length": -1, "max_new_tokens": 20.0,
                "temperature": "0.7"}"#,
        )
        .unwrap();
        let GenerationConfig {
            bos_token_id,
            eos_token_id,
            pad_token_id,
            temperature,
            top_k,
            max_length,
            max_new_tokens,
            ..
        } = config;
        assert_eq!((bos_token_id, eos_token_id, pad_token_id), (Some(1), vec![], None));
        assert_eq!((temperature, top_k, max_length, max_new_tokens), (Some(0.7), Some(50), None, Some(20)));
        for json in [r#"{"bos_token": false}"#, r#"{"bos_token": ["<s>"]}"#] {
            assert_eq!(TokenizerConfig::from_json(json).unwrap().bos_token, None);
        }
    }

    /// As transformers 5.24 merges them: `AutoTokenizer.from_pretrained(folder).special_tokens_map`.
    #[test]
    fn older_files_and_classes_name_tokens_too() {
        let read = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
            TokenizerConfig::read(folder.path()).unwrap()
        };
        let map = (
            "special_tokens_map.json",
            r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "additional_special_tokens": ["<x>"]}"#,
        );
        let added = ("added_tokens.json", r#"{"<new>": 9, "<x>": 10}"#);
        let config = read(&[map, added]);
        assert_eq!((config.bos_token.as_deref(), config.eos_token.as_deref()), (Some("<s>"), Some("</s>")));
        let tokens: Vec<_> =
            config.added_tokens().into_iter().map(|token| (token.id, token.content, token.special)).collect();
        let named = [(None, "<s>".to_string(), true), (None, "</s>".into(), true)];
        let expected = [[(Some(9), "<new>".to_string(), false), (Some(10), "<x>".into(), false)], named].concat();
        assert_eq!(tokens, expected);
        // With a list of added tokens of its own, the configuration speaks alone.
        let own = (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"7": {"content": "<y>", "special": true}}, "pad_token": "<pad>",
            "extra_special_tokens": {"image_token": "<img>"}}"#,
        );
        let config = read(&[own, map, added]);
        assert_eq!((config.bos_token.as_deref(), config.added_tokens()[0].id), (None, Some(7)));
        let named = config.special_tokens();
        assert_eq!((named["pad_token"].as_str(), named["image_token"].as_str()), ("<pad>", "<img>"));
        let class = read(&[("tokenizer_config.json", r#"{"tokenizer_class": "Qwen2TokenizerFast"}"#)]);
        assert_eq!((class.bos_token, class.eos_token.as_deref()), (None, Some("<|endoftext|>")));
    }

    #[test]
    fn wrong_types_are_named() {
        for (json, key) in [
            (r#"{"bos_token": 3}"#, "bos_token"),
            (r#"{"bos_token": {"content": 3}}"#, "bos_token"),
            (r#"{"chat_template": 3}"#, "chat_template"),
            (r#"{"chat_template": [{"name": "x"}]}"#, "chat_template"),
            ("[1]", "not a JSON object"),
            ("{", "not a JSON object"),
        ] {
            assert!(TokenizerConfig::from_json(json).unwrap_err().what().contains(key), "{json}");
        }
        for (json, key) in [
            (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1.5]}"#, "eos_token_id"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_k": 1.5}"#, "top_k"),
        ] {
            assert!(GenerationConfig::from_json(json).unwrap_err().what().contains(key), "{json}");
        }
    }
}
