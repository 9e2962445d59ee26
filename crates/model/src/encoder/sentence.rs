//! What sentence-transformers' configs say of the text before it becomes tokens. Knows no text.

use super::config::Json;
use narthex_base::{Error, Result};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// How a text is prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentenceConfig {
    /// Tokens of a text at most (`max_seq_length`); those behind are cut off.
    pub tokens_max: Option<usize>,
    /// Whether the text is lowercased, whatever the tokenizer does.
    pub lower_case: bool,
    /// What can be put before a text, by name.
    pub prompts: BTreeMap<String, String>,
    /// The one that is used unless another is named.
    pub default_prompt: Option<String>,
}

impl SentenceConfig {
    /// Reads `sentence_bert_config.json`, `config_sentence_transformers.json` and the `model_max_length` of
    /// `tokenizer_config.json` in a folder, as far as they are there.
    ///
    /// # Errors
    /// If a file has the wrong form.
    pub fn read(folder: &Path) -> Result<Self> {
        let transformer = Json::read_optional(&folder.join("sentence_bert_config.json"))?;
        let tokenizer = Json::read_optional(&folder.join("tokenizer_config.json"))?;
        let path = folder.join("config_sentence_transformers.json");
        let sentences = Json::read_optional(&path)?;
        let fault = |what: &str| Error::input(what.to_string()).at(path.display(), None);
        // Transformers writes 10^30 for "no limit".
        let length = tokenizer.0["model_max_length"].as_f64().filter(|length| (1.0..1e15).contains(length));
        let mut prompts = BTreeMap::new();
        match &sentences.0["prompts"] {
            Value::Null => {}
            Value::Object(map) => {
                for (name, text) in map {
                    let text = text.as_str().ok_or_else(|| fault("`prompts` must map names to texts"))?;
                    prompts.insert(name.clone(), text.to_string());
                }
            }
            _ => return Err(fault("`prompts` must map names to texts")),
        }
        let default_prompt = sentences.text("default_prompt_name").map(str::to_string);
        if let Some(name) = default_prompt.as_ref().filter(|name| !prompts.contains_key(*name)) {
            return Err(fault(&format!("`default_prompt_name` is `{name}`, which is none of its prompts")));
        }
        Ok(Self {
            tokens_max: transformer.optional_size("max_seq_length").or(length.map(|length| length as usize)),
            lower_case: transformer.flag("do_lower_case"),
            prompts,
            default_prompt,
        })
    }
}
