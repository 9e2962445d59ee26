//! `narthex serve --models FILE`: several models, each with limits of its own. Knows the file, opens nothing.

use super::engine::{memory_bytes, tool_call_parser};
use crate::flags::Dtype;
use clap::ValueEnum;
use narthex_base::{Error, Result};
use narthex_shelf::{ReadyOptions, SpeculativeConfig};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsFile {
    models: BTreeMap<Spanned<String>, ModelEntry>,
}

/// `[models.NAME]`; what it does not say, the flags do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelEntry {
    /// A reference, as `narthex serve` takes it.
    pub model: String,
    /// `auto`, `float32` or `bfloat16`.
    pub dtype: Option<String>,
    /// As `--max-model-len`.
    pub max_model_len: Option<u32>,
    /// As `--max-num-seqs`.
    pub max_num_seqs: Option<u32>,
    /// As `--kv-cache-memory-bytes`: a number, or a text with K, M or G.
    pub kv_cache_memory_bytes: Option<Bytes>,
    /// As `--tool-call-parser`.
    pub tool_call_parser: Option<String>,
    /// As `--speculative-config`.
    pub speculative_config: Option<toml::Table>,
    /// Adapters over it by name, as `--lora-modules`.
    #[serde(default)]
    pub adapters: BTreeMap<String, PathBuf>,
}

/// A number of bytes, or one with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Number(u64),
    Text(String),
}

impl ModelEntry {
    /// How the model is to run: as the flags say, but for what the file says.
    ///
    /// # Errors
    /// If a value is none that there is.
    pub fn options(&self, flags: &ReadyOptions) -> Result<ReadyOptions> {
        let mut options = flags.clone();
        if let Some(name) = &self.dtype {
            let dtype = Dtype::from_str(name, true)
                .map_err(|_| Error::input(format!("`dtype = \"{name}\"` is none")).help("auto, float32 or bfloat16"))?;
            options.precision = dtype.precision();
        }
        let engine = &mut options.engine;
        engine.context_max = self.max_model_len.map_or(engine.context_max, |tokens| tokens as usize);
        engine.sequences_max = self.max_num_seqs.map_or(engine.sequences_max, |count| count as usize);
        if let Some(bytes) = &self.kv_cache_memory_bytes {
            engine.kv_cache_bytes = bytes.read()?;
        }
        if let Some(config) = &self.speculative_config {
            let text =
                serde_json::to_string(config).map_err(|error| Error::input("`speculative_config`").cause(error))?;
            let config = SpeculativeConfig::parse(&text);
            options.speculative = Some(config.map_err(|what| Error::input(format!("`speculative_config`: {what}")))?);
        }
        if engine.context_max == 0 || engine.sequences_max == 0 || engine.sequences_max > engine.step_tokens_max {
            return Err(Error::input("`max_model_len` and `max_num_seqs` must be at least 1")
                .help("and the latter at most `--max-num-batched-tokens`"));
        }
        Ok(options)
    }

    /// How it writes calls of tools.
    ///
    /// # Errors
    /// If there is no such way.
    pub fn call_parser(&self) -> Result<Option<String>> {
        let parser = self.tool_call_parser.as_deref().map(tool_call_parser).transpose();
        parser.map_err(|what| Error::input("`tool_call_parser` names none").help(what))
    }
}

impl Bytes {
    fn read(&self) -> Result<usize> {
        let read = match self {
            Bytes::Number(bytes) => memory_bytes(&bytes.to_string()),
            Bytes::Text(text) => memory_bytes(text),
        };
        read.map_err(|what| Error::input("`kv_cache_memory_bytes` is no number of bytes").help(what))
    }
}

/// The models of a file, in their order in it.
///
/// # Errors
/// If it cannot be read, is no TOML, or says something that there is not.
pub(super) fn read(path: &Path) -> Result<Vec<(String, ModelEntry)>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    let line = |span: Option<std::ops::Range<usize>>| {
        let start = span.map_or(0, |span| span.start.min(text.len()));
        1 + text[..start].matches('\n').count()
    };
    let wrong = |error: toml::de::Error| {
        let what = error.message().trim().replace('\n', ", ");
        Error::input(what).at(path.display(), line(error.span())).help("write `[models.NAME]` and `model = \"REF\"`")
    };
    let file: ModelsFile = toml::from_str(&text).map_err(wrong)?;
    let mut found: Vec<_> = file.models.into_iter().collect();
    found.sort_by_key(|(name, _)| name.span().start);
    if found.is_empty() {
        return Err(Error::input("there are no models in this file")
            .at(path.display(), None)
            .help("write `[models.NAME]` and `model = \"REF\"`"));
    }
    Ok(found.into_iter().map(|(name, entry)| (name.into_inner(), entry)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file, which gives these names and references, or this error.
    fn check(text: &str, expected: std::result::Result<&[(&str, &str)], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        std::fs::write(&path, text).unwrap();
        let found = read(&path);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<_> = found.iter().map(|(name, entry)| (name.as_str(), entry.model.as_str())).collect();
                assert_eq!(found, expected, "{text}");
            }
            (Err(error), Err(expected)) => {
                let shown = format!("{} {error}", error.place().unwrap_or_default());
                assert!(shown.contains(expected), "{shown} for {text}");
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn models_come_in_their_order() {
        check(
            "[models.small]\nmodel = \"./b\"\nkv_cache_memory_bytes = \"64M\"\n[models.big]\nmodel = \"a\"\nmax_num_seqs = 4\n\
             [models.big.adapters]\nfr = \"./fr\"\n",
            Ok(&[("small", "./b"), ("big", "a")]),
        );
        check("", Err("missing field `models`"));
        check("[models]\n", Err("there are no models"));
        check("[models.a]\nmodel = \"x\"\n\n[models.b]\nmodle = \"y\"\n", Err("models.toml:5"));
        check("[models.a]\nmodel = 1\n", Err("models.toml:2"));
        check("[models.a\n", Err("models.toml:1"));
        check("[other]\n", Err("models.toml:1"));
    }
}
