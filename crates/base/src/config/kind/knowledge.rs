//! `kind = "knowledge"`: which files become passages, how long they are, and how they are looked for. Reading, cutting and
//! finding them is `knowledge`'s work.

use super::{Accepts, Complaint, Kind, SourceForm, StepInput, StepKind, Verb, inputs, require};
use crate::{
    artifact::ArtifactKind,
    config::{OneOrMany, Precision, Step, Table},
    figure::Figure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `kind = "knowledge"`: text, Markdown, HTML, PDF and DOCX -> passages that are found by words and by meaning, and
/// cited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeStep {
    /// Sources: their files are read, and their licences go along.
    pub from: OneOrMany,
    /// The encoder that turns passages and questions into vectors: a model folder as a source, or `ref:NAME`. Without
    /// one, words alone are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The cross-encoder that puts what was found in order anew: a model folder as a source, or `ref:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<String>,
    /// Globs of the files to take, by their path from the project's folder (`docs/**/*.md`). Without one, all that can
    /// be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs of the files to leave out (`docs/drafts/**`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How long passages are.
    #[serde(default)]
    pub split: SplitSettings,
    /// The language whose endings do not matter when words are compared.
    #[serde(default)]
    pub stemming: Stemming,
    /// Up to this many vectors, a question is compared with each of them: exact, and a matter of milliseconds. Above, a
    /// graph (HNSW) leads to the nearest, and misses some.
    #[serde(default = "exact_vectors_max")]
    pub exact_vectors_max: u32,
    /// What one file may cost.
    #[serde(default)]
    pub limits: LoadLimits,
    /// How questions are answered, unless one asks otherwise.
    #[serde(default)]
    pub search: SearchSettings,
}

fn exact_vectors_max() -> u32 {
    200_000
}

impl KnowledgeStep {
    /// What is known of the kind.
    pub const KIND: Kind = Kind {
        name: "knowledge",
        recipe_version: 1,
        uses_seed: false,
        policy_use: None,
        learning: None,
        verb: Verb::RunsStep,
        figures: &[Figure::PASSAGES, Figure::DOCUMENTS],
        table: Table::of::<KnowledgeStep>,
        read: |value| KnowledgeStep::deserialize(value).map(Step::Knowledge),
    };

    /// Knowledge of these sources, and defaults for all else.
    pub fn new(from: OneOrMany) -> Self {
        Self {
            from,
            model: None,
            rerank: None,
            include: vec![],
            exclude: vec![],
            split: SplitSettings::default(),
            stemming: Stemming::default(),
            exact_vectors_max: exact_vectors_max(),
            limits: LoadLimits::default(),
            search: SearchSettings::default(),
        }
    }
}

impl StepKind for KnowledgeStep {
    fn kind(&self) -> &'static Kind {
        &Self::KIND
    }

    fn inputs(&self) -> Vec<StepInput> {
        let files = Accepts::source("a source of text, Markdown, HTML, PDF or DOCX", SourceForm::Files);
        let model = Accepts {
            words: "an encoder: a model folder as a source, a fit or train step, or `ref:NAME`",
            ..Accepts::MODEL
        };
        let from = inputs("from", files, self.from.to_vec());
        from.chain(inputs("model", model, self.model.clone()))
            .chain(inputs("rerank", model, self.rerank.clone()))
            .collect()
    }

    fn yields(&self) -> ArtifactKind {
        ArtifactKind::Knowledge
    }

    fn check(&self) -> Result<(), Complaint> {
        require(!self.from.to_vec().is_empty(), "from", "`from` is empty", "name a source")?;
        let most = self.split.size / 2;
        require(
            self.split.overlap <= most,
            "split.overlap",
            format!("`overlap = {}` is more than half of `size`", self.split.overlap),
            "a passage that begins with most of the one before says the same twice",
        )?;
        require(
            self.rerank.is_none() || self.rerank != self.model,
            "rerank",
            "`rerank` and `model` are the same model",
            "an encoder gives vectors; what puts in order anew is a cross-encoder, which scores pairs",
        )
    }

    fn computes_in(&self) -> Option<Precision> {
        self.model.is_some().then_some(Precision::F32)
    }
}

/// How long passages are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSettings {
    /// What `size` and `overlap` are counted in.
    pub unit: SplitUnit,
    /// The longest passage, headings above it not counted. An encoder reads no more than it was made for: 256 tokens
    /// fit the usual small ones.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub size: u32,
    /// How much of a passage's end the next one of the same section begins with, in whole sentences.
    pub overlap: u32,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { unit: SplitUnit::Tokens, size: 224, overlap: 32 }
    }
}

/// What passages are measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitUnit {
    /// Tokens of the encoder; without one, four characters count as a token.
    #[default]
    Tokens,
    /// Characters.
    Characters,
}

/// What loading one file may cost. A file that goes beyond is left out with a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadLimits {
    /// Bytes of the file.
    #[schemars(range(min = 1))]
    pub file_bytes_max: u64,
    /// Bytes that come out of what is compressed in it, over the whole file, and bytes of the text.
    #[schemars(range(min = 1))]
    pub expanded_bytes_max: u64,
    /// Elements inside of each other.
    #[schemars(range(min = 1, max = 10_000))]
    pub depth_max: u32,
    /// Pages of a PDF.
    #[schemars(range(min = 1))]
    pub pages_max: u32,
    /// Milliseconds. Asked between pages and elements: what hangs inside of one is ended by the process around it
    /// alone.
    #[schemars(range(min = 1))]
    pub time_ms_max: u64,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            file_bytes_max: 64 << 20,
            expanded_bytes_max: 256 << 20,
            depth_max: 256,
            pages_max: 10_000,
            time_ms_max: 60_000,
        }
    }
}

/// How questions are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchSettings {
    /// What is compared.
    pub mode: SearchMode,
    /// Passages in the answer.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u32,
    /// How many of the best by words, and by vectors, are put together. As many are reranked.
    #[schemars(range(min = 1, max = 10_000))]
    pub candidates: u32,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { mode: SearchMode::Hybrid, limit: 8, candidates: 50 }
    }
}

/// What a question is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// Words and vectors, put together by rank.
    #[default]
    Hybrid,
    /// Words alone (BM25).
    Words,
    /// Vectors alone.
    Vectors,
}

/// The language whose endings do not matter (Snowball's stemmers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stemming {
    /// Words are compared as they stand.
    None,
    /// English.
    #[default]
    English,
    /// Danish.
    Danish,
    /// Dutch.
    Dutch,
    /// Finnish.
    Finnish,
    /// French.
    French,
    /// German.
    German,
    /// Hungarian.
    Hungarian,
    /// Italian.
    Italian,
    /// Norwegian.
    Norwegian,
    /// Portuguese.
    Portuguese,
    /// Romanian.
    Romanian,
    /// Russian.
    Russian,
    /// Spanish.
    Spanish,
    /// Swedish.
    Swedish,
    /// Turkish.
    Turkish,
}
