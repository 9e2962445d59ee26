//! The typed form of `narthex.toml`: what may be written, its defaults and its meaning.
//! The JSON schema is made from these types. Reading and resolving is `plan`'s work.

mod policy;

use crate::{ComponentKind, License};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use policy::{Policy, PolicyRule, Use, Verdict};

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
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// The licence of what the project makes (weights, tokenizer, cards).
    #[serde(default = "License::openmdw_1_1")]
    pub license: License,
}

/// `[sources.NAME]`: raw files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A path, a glob or a folder, or a list of them, relative to the project file.
    pub path: OneOrMany,
    /// The format; `auto` reads it off the file name, through `.gz` and `.zst`.
    #[serde(default)]
    pub format: SourceFormat,
    /// For text: what becomes one row.
    #[serde(default)]
    pub rows: TextRows,
    /// Renames columns: `{ text = "body" }` reads column `body` as `text`.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// The SPDX licence of the material. A bundle that depends on a source without one is refused.
    #[serde(default)]
    pub license: Option<License>,
    /// The file with the licence's text, relative to the project file. Without `license`, its text tells which one it is;
    /// it is passed on as it stands.
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

/// `[steps.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Step {
    /// Reads, transforms, cleans and splits.
    Data(DataStep),
    /// Trains or takes a tokenizer and writes token shards.
    Tokenize(TokenizeStep),
    /// Trains a model from nothing.
    Train(TrainStep),
    /// Tunes a model on conversations.
    Tune(TuneStep),
    /// Rounds a model's weights to small integers.
    Quantize(QuantizeStep),
    /// Measures a model.
    Eval(EvalStep),
    /// Packs a model with its papers.
    Bundle(BundleStep),
}

impl Step {
    /// The names of all kinds, as written in the file.
    pub const KINDS: [&'static str; 7] = ["data", "tokenize", "train", "tune", "quantize", "eval", "bundle"];

    /// The kind as written in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Data(_) => "data",
            Step::Tokenize(_) => "tokenize",
            Step::Train(_) => "train",
            Step::Tune(_) => "tune",
            Step::Quantize(_) => "quantize",
            Step::Eval(_) => "eval",
            Step::Bundle(_) => "bundle",
        }
    }

    /// The inputs: (key in the file, role, name). A name is a step, a source, or `ref:NAME` in the ledger.
    pub fn inputs(&self) -> Vec<(&'static str, String)> {
        match self {
            Step::Data(step) => step.from.to_vec().into_iter().map(|name| ("from", name)).collect(),
            Step::Tokenize(step) => {
                let mut inputs = vec![("from", step.from.clone())];
                inputs.extend(step.tokenizer.clone().map(|name| ("tokenizer", name)));
                inputs
            }
            Step::Train(step) => vec![("data", step.data.clone())],
            Step::Tune(step) => vec![("model", step.model.clone()), ("data", step.data.clone())],
            Step::Quantize(step) => {
                let mut inputs = vec![("model", step.model.clone())];
                inputs.extend(step.calibrate.clone().map(|name| ("calibrate", name)));
                inputs
            }
            Step::Eval(step) => {
                let mut inputs = vec![("model", step.model.clone())];
                inputs.extend(step.baseline.clone().map(|name| ("baseline", name)));
                inputs.extend(step.data.clone().map(|name| ("data", name)));
                inputs.extend(step.task.clone().map(|name| ("task", name)));
                inputs
            }
            Step::Bundle(step) => {
                let mut inputs = vec![("model", step.model.clone())];
                inputs.extend(step.evaluations.iter().map(|name| ("evaluations", name.clone())));
                inputs.extend(step.documents().into_iter().map(|(role, _, name)| (role, name)));
                inputs
            }
        }
    }
}

/// `kind = "data"`: rows -> documents or conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataStep {
    /// A source, or several with the same columns.
    pub from: OneOrMany,
    /// `documents` (column `text`) or `chat` (column `messages`, or `user` and `assistant`).
    #[serde(default)]
    pub output: DataOutput,
    /// One SQL query over the table `source` (or the sources by name); rows are numbered in column `row`.
    #[serde(default)]
    pub transform: Option<String>,
    /// Unicode normalisation; line ends become `\n` in any case.
    #[serde(default)]
    pub normalize: Normalize,
    /// Removes documents whose text has been seen before.
    #[serde(default = "defaults::yes")]
    pub deduplicate: bool,
    /// How the validation part is chosen.
    #[serde(default)]
    pub split: SplitBy,
    /// The validation part, 0 to 0.5 of the bytes (by position) or of the documents (by hash).
    #[serde(default)]
    pub validation: f64,
    /// More broken rows than this fail the step.
    #[serde(default)]
    pub max_bad_rows: u64,
}

/// What the rows of a data step become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataOutput {
    /// Texts: the column `text`.
    #[default]
    Documents,
    /// Conversations: the column `messages` (JSON, or a list of role and content), or the columns `user` and
    /// `assistant`, and `system` if there is one.
    Chat,
}

/// Unicode normalisation forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// As it is.
    None,
    /// Canonical composition.
    #[default]
    Nfc,
    /// Compatibility composition.
    Nfkc,
}

/// How documents are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// By the hash of the content: stable when other documents come or go.
    #[default]
    Hash,
    /// The last part of the bytes. A text file that lies across the border is cut at the nearest line end; other
    /// documents stay whole.
    Position,
}

/// `kind = "tokenize"`: documents or conversations -> a tokenizer and token shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeStep {
    /// A data step.
    pub from: String,
    /// Trains a byte-level BPE of this many tokens on the training part.
    #[serde(default)]
    pub vocab_size: Option<u32>,
    /// Takes the tokenizer of another step, model or folder instead.
    #[serde(default)]
    pub tokenizer: Option<String>,
}

/// `kind = "train"`: token shards -> a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainStep {
    /// A tokenize step.
    pub data: String,
    /// The shape of the model.
    #[serde(default)]
    pub model: ModelShape,
    /// Attention stops at document borders.
    #[serde(default)]
    pub document_mask: bool,
    /// The prompt for samples during training; empty for none.
    #[serde(default)]
    pub sample_prompt: String,
    /// The training loop.
    #[serde(default)]
    pub schedule: Schedule,
}

/// A Llama-style decoder's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// One matrix for the embedding and the output projection.
    pub tied_embeddings: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl Default for ModelShape {
    fn default() -> Self {
        Self {
            hidden_size: 256,
            intermediate_size: 704,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            tied_embeddings: true,
            rope_theta: 10_000.0,
        }
    }
}

/// The training loop, shared by `train` and `tune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences in one micro-batch.
    pub batch_size: usize,
    /// Micro-batches in one optimizer step.
    pub gradient_accumulation: usize,
    /// Tokens in a sequence.
    pub context: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// The learning rate at the end, as a fraction of the peak.
    pub lr_end: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// `cosine`, or `wsd`: warm-up, stable, decay.
    pub decay: Decay,
    /// For `wsd`: the fraction of all steps spent decaying.
    pub decay_fraction: f64,
    /// Where it runs: `cpu`, or `cuda`, `rocm`, `vulkan`, `metal` or `wgpu` in a build with that feature. Only the CPU promises the
    /// same bytes every time.
    pub device: String,
    /// The numbers that matrix products are computed in.
    pub precision: Precision,
    /// Keeps only what enters each block and computes the rest again on the way back: less memory, about a third more
    /// arithmetic, the same result to the byte.
    pub activation_checkpointing: bool,
    /// How gradients become steps.
    pub optimizer: Optimizer,
    /// Decoupled weight decay (matrices only).
    pub weight_decay: f64,
    /// Decay of AdamW's first moment, and Muon's momentum.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub eps: f64,
    /// Clips the norm over all gradients together; 0 turns it off.
    pub grad_clip: f64,
    /// Dropout probability.
    pub dropout: f64,
    /// Steps between validations; 0 validates at the end only.
    pub eval_every: u64,
    /// Steps between samples; 0 for none.
    pub sample_every: u64,
    /// Steps between checkpoints; 0 for none. Their digests become part of the model's manifest.
    pub checkpoint_every: u64,
    /// Keeps all checkpoints with the model, so that anyone can check parts of the training: `narthex verify`.
    pub keep_checkpoints: bool,
}

impl Schedule {
    /// The devices that can be asked for; all but the first are also features of the build.
    pub const DEVICES: [&'static str; 6] = ["cpu", "cuda", "rocm", "vulkan", "metal", "wgpu"];
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 16,
            gradient_accumulation: 1,
            context: 128,
            lr: 1e-3,
            lr_end: 0.1,
            warmup: 50,
            decay: Decay::Cosine,
            decay_fraction: 0.2,
            device: "cpu".into(),
            precision: Precision::F32,
            activation_checkpointing: false,
            optimizer: Optimizer::Adamw,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            grad_clip: 1.0,
            dropout: 0.0,
            eval_every: 250,
            sample_every: 0,
            checkpoint_every: 200,
            keep_checkpoints: false,
        }
    }
}

/// The numbers that matrix products are computed in. Weights, moments, norms, softmax and loss are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// The factors are rounded to bfloat16 and the sums are f32: about twice as fast where the CPU has bf16
    /// instructions, and slower where it has not.
    Bf16,
}

/// How gradients become steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// AdamW (Loshchilov and Hutter, 2019).
    #[default]
    Adamw,
    /// Muon for the matrices of the blocks (Jordan et al., 2024), its steps scaled to the size of AdamW's so that one
    /// learning rate serves both (Liu et al., 2025); AdamW for the rest.
    Muon,
}

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine from the peak to the end value.
    Cosine,
    /// Constant, then a linear decay over the last `decay_fraction`.
    Wsd,
}

/// `kind = "tune"`: a model and conversations -> a tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TuneStep {
    /// A train, tune or quantize step, a model folder source, or `ref:NAME`. Over integers, adapters are tuned while the
    /// integers stay as they are (QLoRA: Dettmers et al., 2023).
    pub model: String,
    /// A tokenize step over conversations, with the model's tokenizer.
    pub data: String,
    /// Low-rank adapters, or all weights.
    #[serde(default)]
    pub method: TuneMethod,
    /// The adapters.
    #[serde(default)]
    pub lora: Lora,
    /// What the user says in samples during tuning; empty for none.
    #[serde(default)]
    pub sample_prompt: String,
    /// The training loop.
    #[serde(default)]
    pub schedule: Schedule,
}

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TuneMethod {
    /// Low-rank adapters (Hu et al., 2021).
    #[default]
    Lora,
    /// All weights.
    Full,
}

/// Low-rank adapters. The tuned model has them merged; they also stand beside it in PEFT's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank.
    pub rank: usize,
    /// Scale: the update is multiplied by alpha / rank, or alpha / sqrt(rank) with `use_rslora`.
    pub alpha: f64,
    /// The projections that get an adapter, by the last part of their name.
    pub targets: Vec<String>,
    /// Dropout before the first matrix.
    pub dropout: f64,
    /// Scaled for large ranks (Kalajdzievski, "rsLoRA", 2023).
    #[serde(skip_serializing_if = "is_off")]
    pub use_rslora: bool,
    /// With a learned size of each output's weights (Liu et al., "DoRA", 2024).
    #[serde(skip_serializing_if = "is_off")]
    pub use_dora: bool,
}

/// Recipes from before a switch was there stay as they are while it is off.
fn is_off(switch: &bool) -> bool {
    !switch
}

impl Lora {
    /// The projections that can have an adapter.
    pub const TARGETS: [&'static str; 7] =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            targets: Self::TARGETS.map(String::from).to_vec(),
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
        }
    }
}

/// `kind = "quantize"`: a model -> the same with the weights of its layers as small integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizeStep {
    /// A train or tune step, a model folder source, or `ref:NAME`.
    pub model: String,
    /// What weights become.
    pub to: IntegerKind,
    /// Weights that share a scale, with int4: 32, 64 or 128.
    #[serde(default = "defaults::group")]
    pub group: usize,
    /// Text like that which the model will meet: a tokenize step with the model's tokenizer, or a source of plain text. It shows
    /// where errors count most, and a part that is kept back (the validation part, or the last quarter) what they cost.
    #[serde(default)]
    pub calibrate: Option<String>,
}

impl QuantizeStep {
    /// The sizes that groups can have.
    pub const GROUPS: [usize; 3] = [32, 64, 128];
}

/// The integers that weights become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntegerKind {
    /// 8 bits, with a scale for each output.
    Int8,
    /// 4 bits, with a scale for each group of inputs of an output.
    Int4,
}

/// `kind = "eval"`: a model -> figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalStep {
    /// The model to measure.
    pub model: String,
    /// Another model, measured the same way: before and after.
    #[serde(default)]
    pub baseline: Option<String>,
    /// A tokenize step: nats per byte and per token on its validation part.
    #[serde(default)]
    pub data: Option<String>,
    /// A JSONL source. Rows with `prompt` and `answer` are answered greedily and compared; rows with `prompt`, `choices` and
    /// `answer` (an index) are scored by the log-likelihood of each choice.
    #[serde(default)]
    pub task: Option<String>,
    /// Prompts are put through the chat template.
    #[serde(default)]
    pub chat: bool,
    /// At most this many rows of the task.
    #[serde(default = "defaults::max_rows")]
    pub max_rows: usize,
    /// New tokens per answer at most.
    #[serde(default = "defaults::max_answer_tokens")]
    pub max_answer_tokens: usize,
}

/// `kind = "bundle"`: a model -> a folder anyone can use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleStep {
    /// The model.
    pub model: String,
    /// Eval steps whose figures go into the model card.
    #[serde(default)]
    pub evaluations: Vec<String>,
    /// The licence of what this project made; the project's by default. Over somebody else's weights it is an error.
    #[serde(default)]
    pub license: Option<License>,
    /// A paragraph for the model card.
    #[serde(default)]
    pub description: String,
    /// Takes the source code of Narthex along: what defined, trained, ran and measured the model.
    #[serde(default)]
    pub code: bool,
    /// Takes the raw files along that the model was made from.
    #[serde(default)]
    pub data: bool,
    /// Takes along the checkpoints that training kept.
    #[serde(default)]
    pub checkpoints: bool,
    /// A source with a data card, in place of the one that is written from the ledger.
    #[serde(default)]
    pub data_card: Option<String>,
    /// A source with a technical report, in place of the one that is written from the ledger.
    #[serde(default)]
    pub technical_report: Option<String>,
    /// A source with a research paper.
    #[serde(default)]
    pub research_paper: Option<String>,
    /// A source with outputs of the model.
    #[serde(default)]
    pub sample_outputs: Option<String>,
}

impl BundleStep {
    /// The documents that come from sources: (key, what they are, source).
    pub fn documents(&self) -> Vec<(&'static str, ComponentKind, String)> {
        [
            ("data_card", ComponentKind::DataCard, &self.data_card),
            ("technical_report", ComponentKind::TechnicalReport, &self.technical_report),
            ("research_paper", ComponentKind::ResearchPaper, &self.research_paper),
            ("sample_outputs", ComponentKind::SampleOutputs, &self.sample_outputs),
        ]
        .into_iter()
        .filter_map(|(role, kind, source)| Some((role, kind, source.clone()?)))
        .collect()
    }
}

mod defaults {
    pub fn seed() -> u64 {
        1337
    }
    pub fn yes() -> bool {
        true
    }
    pub fn group() -> usize {
        64
    }
    pub fn max_rows() -> usize {
        200
    }
    pub fn max_answer_tokens() -> usize {
        64
    }
}
