//! The configuration files beside a Hugging Face tokenizer and model: `tokenizer_config.json`
//! (with the chat template) and `generation_config.json`. Knows their keys, not what they lead to.

use narthex_base::{Error, Result};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io::ErrorKind, path::Path};

/// The template that transformers uses unless another is asked for.
const DEFAULT_TEMPLATE: &str = "default";
/// transformers writes 10^30 for "no limit"; anything from here on means that.
const NO_LENGTH_LIMIT: f64 = 1e15;

/// `tokenizer_config.json`, and the `chat_template.jinja` beside it (which wins).
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
    /// Reads the files in a model's folder. A folder without them gives the default: no tokens, no template.
    ///
    /// # Errors
    /// If a file can't be read or has the wrong form.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let mut config = match read_optional(&path)? {
            Some(json) => Self::from_json(&json).map_err(|error| error.at(path.display(), None))?,
            None => Self::default(),
        };
        if let Some(template) = read_optional(&folder.join("chat_template.jinja"))? {
            config.chat_template = Some(template);
        }
        Ok(config)
    }

    /// The configuration in the text of a `tokenizer_config.json`.
    ///
    /// # Errors
    /// If it is not a JSON object, or a token or template has the wrong form.
    pub fn from_json(json: &str) -> Result<Self> {
        let mut other = object(json)?;
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
        let mut token = |key: &str| match other.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(token)) => Ok(Some(token)),
            Some(added) => match added["content"].as_str() {
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
        let eos_token_id = match other.shift_remove("eos_token_id") {
            None | Some(Value::Null) => vec![],
            Some(Value::Array(ids)) => ids.iter().map(id).collect::<Option<_>>().ok_or_else(wrong_eos)?,
            Some(one) => vec![id(&one).ok_or_else(wrong_eos)?],
        };
        Ok(Self {
            bos_token_id: take(&mut other, "bos_token_id", "a token id", id)?,
            eos_token_id,
            pad_token_id: take(&mut other, "pad_token_id", "a token id", id)?,
            do_sample: take(&mut other, "do_sample", "true or false", Value::as_bool)?,
            temperature: take(&mut other, "temperature", "a number", number)?,
            top_k: take(&mut other, "top_k", "a whole number", id)?,
            top_p: take(&mut other, "top_p", "a number", number)?,
            max_length: take(&mut other, "max_length", "a whole number", id)?,
            max_new_tokens: take(&mut other, "max_new_tokens", "a whole number", id)?,
            other,
        })
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
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", path, error)),
    }
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

fn wrong_eos() -> Error {
    wrong("eos_token_id", "a token id or a list of them")
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
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

    #[test]
    fn wrong_types_are_named() {
        for (json, key) in [
            (r#"{"bos_token": 3}"#, "bos_token"),
            (r#"{"chat_template": 3}"#, "chat_template"),
            (r#"{"chat_template": [{"name": "x"}]}"#, "chat_template"),
            ("[1]", "not a JSON object"),
            ("{", "not a JSON object"),
        ] {
            assert!(TokenizerConfig::from_json(json).unwrap_err().what().contains(key), "{json}");
        }
        for (json, key) in [
            (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [-1]}"#, "eos_token_id"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_k": 1.5}"#, "top_k"),
        ] {
            assert!(GenerationConfig::from_json(json).unwrap_err().what().contains(key), "{json}");
        }
    }
}
