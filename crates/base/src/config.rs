//! The typed form of `narthex.toml`: what may be written, its defaults, ranges and meaning, each once, at the field.
//! The JSON schema, the check of a file and the tables of the reference are made from these types. Reading and
//! resolving is `plan`'s work.

mod filter;
mod form;
mod kind;
mod policy;
mod preference;
mod schedule;
mod step;

use crate::license::License;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use filter::{
    C4, C4Paragraphs, FilterName, FilterSettings, FinewebQuality, GopherQuality, GopherRepetition, NearDuplicates, Pii,
    RunHash, SymbolLines,
};
pub use form::{Bound, Bounds, Form, Key, Table, bare, grouped};
pub use kind::{
    Accepts, BundleStep, Complaint, DataOutput, DataStep, EvalStep, FitStep, IntegerKind, Kind, KnowledgeStep,
    Learning, LoadLimits, Lora, ModelShape, Normalize, QuantizeStep, SearchMode, SearchSettings, SourceForm, SplitBy,
    SplitSettings, SplitUnit, Stemming, StepInput, StepKind, TextWeights, TokenizeStep, TrainStep, TuneMethod,
    TuneStep, Verb,
};
pub use policy::{Policy, PolicyRule, Use, Verdict};
pub use preference::{Preference, PreferenceLoss, TuneObjective};
pub use schedule::{
    Batching, Checkpointing, Decay, LearningRate, Machine, Offload, Optimizer, Precision, Reports, Schedule, Shard,
    Update,
};
pub use step::Step;

/// A whole project file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// The project.
    pub project: Project,
    /// Raw material by name.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    /// Steps by name; each yields one artifact.
    #[serde(default)]
    pub steps: BTreeMap<String, Step>,
    /// What may be done with which licences.
    #[serde(default, skip_serializing_if = "Policy::is_empty")]
    pub policy: Policy,
}

/// `[project]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The project's name; bundles carry it.
    pub name: String,
    /// The seed of everything random. Same seed, same bytes.
    #[serde(default = "seed")]
    pub seed: u64,
    /// The licence of what the project makes: weights, tokenizer, cards. `OpenMDW-1.1` is accepted.
    #[serde(default = "License::openmdw_1_1")]
    pub license: License,
}

/// `[sources.NAME]`: raw files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Files, folders or globs (`*`, `?`, `[…]`, `{…}`, `**`), relative to the project file.
    pub path: OneOrMany,
    /// The format; `auto` reads it off the file name, through `.gz` and `.zst`. `huggingface` is a model folder.
    #[serde(default)]
    pub format: SourceFormat,
    /// For text: what becomes one row. Paragraphs are separated by blank lines.
    #[serde(default)]
    pub rows: TextRows,
    /// For tables: whether a field that begins with `"` ends at the next one, so that it may hold separators and line
    /// ends. By default in CSV (RFC 4180) and not in TSV (IANA's text/tab-separated-values), where a `"` is a letter
    /// like others.
    #[serde(default)]
    pub quotes: Option<bool>,
    /// Renames columns: `{ text = "body" }` reads the column `body` as `text`.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// The licence of the material; without one, nothing made from it can be bundled.
    #[serde(default)]
    pub license: Option<License>,
    /// The file with the licence's text, relative to the project file. Without `license`, the text decides; with it,
    /// the text must be that of one of its licences. The text is passed on as it stands.
    #[serde(default)]
    pub license_file: Option<String>,
    /// What must be kept when the material is passed on: copyright lines, attributions.
    #[serde(default)]
    pub notice: Option<OneOrMany>,
    /// Where it comes from: a URL or a sentence.
    #[serde(default)]
    pub origin: Option<String>,
}

/// One string or a list of strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        }
    }
}

/// File formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// By file name.
    #[default]
    Auto,
    /// Plain text.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated with a header.
    Csv,
    /// Tab-separated with a header.
    Tsv,
    /// Parquet.
    Parquet,
    /// A model folder in Hugging Face layout.
    HuggingFace,
}

/// What one row of a text file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextRows {
    /// The whole file.
    #[default]
    File,
    /// Paragraphs separated by blank lines, their lines joined by line ends.
    Paragraph,
    /// Lines.
    Line,
}

fn seed() -> u64 {
    1337
}
