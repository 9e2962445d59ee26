//! The command line: every verb with its flags and help.

mod adapters;
mod embed;
mod pull;
mod quantize;

use crate::commands::speculative::SpeculativeConfig;
pub use adapters::AdapterFlags;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use embed::Embed;
pub use pull::Pull;
pub use quantize::{Quantize, QuantizeKind};
use std::path::PathBuf;

/// From raw data to a licensed model that answers over the OpenAI API, in one binary
#[derive(Parser)]
#[command(name = "narthex", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a project in a new folder
    New(New),
    /// Make everything in a project that is not made yet
    Run(Run),
    /// Run a data step and what it needs
    Data(Step),
    /// Run a tokenize step and what it needs
    Tokenize(Step),
    /// Run a train step and what it needs
    Train(Step),
    /// Run a tune step and what it needs
    Tune(Step),
    /// Run an eval step and what it needs
    Eval(Step),
    /// Run a bundle step and what it needs
    Bundle(Step),
    /// Continue a prompt
    Generate(Generate),
    /// Talk to a model in the terminal
    Chat(Chat),
    /// Turn texts into vectors, one JSON line each
    Embed(Embed),
    /// Answer over the OpenAI API, with a chat page at /
    Serve(Box<Serve>),
    /// Answer a file of requests, and go on where an interruption stopped
    Batch(Batch),
    /// List artifacts
    Ls(Ls),
    /// Show an artifact: files, licences, recipe, figures
    Show(Look),
    /// Show what an artifact was made from, down to the raw files
    Trace(Trace),
    /// Show components, licences and openness class, or write them in another format
    License(License),
    /// Make an artifact again from its recipe and compare every byte
    Reproduce(Reproduce),
    /// Compute randomly chosen parts of a model's training again and compare
    Verify(Verify),
    /// Sign an exported folder, and its lineage and licences
    Sign(Sign),
    /// Check the signatures of a folder
    VerifySignature(VerifySignature),
    /// Fetch a model or a data set from the Hugging Face Hub
    Pull(Pull),
    /// Write an artifact as a container image of models (ModelPack) for registries
    Push(Push),
    /// Copy an artifact with its papers into a folder
    Export(Export),
    /// Take a model folder into the ledger
    Import(Import),
    /// Make a model of another with its weights in 8 or 4 bits, and show what that costs
    Quantize(Quantize),
    /// Find artifacts that nothing leads to any more, and remove them
    Gc(Gc),
    /// Measure this machine: a training step, or every operator, against its peaks
    Bench(Bench),
    /// Show the resolved configuration, or its JSON schema
    Config(Config),
}

#[derive(Args)]
pub struct New {
    /// The folder to make; its name becomes the project's
    pub name: PathBuf,
}

/// How a project is opened.
#[derive(Args)]
pub struct Settings {
    /// Set a value: `--set train.lr=3e-4` (a step or its kind, then the key). The environment does the
    /// same, weaker: NARTHEX_SET='train.lr=3e-4; tune.lr=1e-3'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Train and tune on this device: cpu, or cuda, rocm, vulkan, metal or wgpu in a binary built with that
    /// feature. The same as setting `device` in the schedule of each step
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

#[derive(Args)]
pub struct Run {
    /// The project: a folder with a narthex.toml
    #[arg(default_value = ".")]
    pub project: PathBuf,
    /// Only this step and what it needs
    #[arg(long, value_name = "STEP")]
    pub to: Option<String>,
    /// Run this step even if its result is known
    #[arg(long, value_name = "STEP")]
    pub force: Vec<String>,
    /// Say what would run, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Say by which rule of the policy each component may be used, or not
    #[arg(long)]
    pub explain: bool,
    /// Send OpenLineage events to this address, or add them to this file as JSON lines
    #[arg(long, value_name = "URL|FILE", env = "OPENLINEAGE_URL", hide_env_values = true)]
    pub openlineage: Option<String>,
    /// Serve the last model afterwards
    #[arg(long, conflicts_with = "dry_run")]
    pub serve: bool,
    #[command(flatten)]
    pub settings: Settings,
    /// Events and the report as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Step {
    /// The step's name; the last of its kind by default
    pub step: Option<String>,
    /// The project: a folder with a narthex.toml
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Run it even if its result is known
    #[arg(long)]
    pub force: bool,
    /// Say what would run, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Say by which rule of the policy each component may be used, or not
    #[arg(long)]
    pub explain: bool,
    /// Send OpenLineage events to this address, or add them to this file as JSON lines
    #[arg(long, value_name = "URL|FILE", env = "OPENLINEAGE_URL", hide_env_values = true)]
    pub openlineage: Option<String>,
    #[command(flatten)]
    pub settings: Settings,
    /// Events and the report as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

/// Which model.
#[derive(Args)]
pub struct ModelRef {
    /// A step's name, `name@digest-prefix`, a digest, or a folder in Hugging Face layout
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project whose ledger knows it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// How weights are stored and multiplied, and keys and values too
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,
}

/// Number types, under vLLM's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// bfloat16 for weights that are stored in 16 bits, else float32
    Auto,
    /// Single precision
    #[value(alias = "float", alias = "f32")]
    Float32,
    /// Half the memory; sums stay in single precision
    #[value(alias = "bf16")]
    Bfloat16,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvCacheDtype {
    /// As the model computes: bfloat16 or float32
    Auto,
    /// 8-bit integers, with a scale for each position and head
    Int8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchedulingPolicy {
    /// In the order of arrival
    Fcfs,
    /// Lower numbers of the request's `priority` first, then in the order of arrival
    Priority,
}

/// How tokens are chosen.
#[derive(Args)]
pub struct Sampling {
    /// 0 always takes the likeliest token; the model's own setting by default, else 0.8
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens up to this probability
    #[arg(long)]
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long)]
    pub top_k: Option<usize>,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// New tokens at most
    #[arg(long, default_value_t = 200)]
    pub max_tokens: usize,
}

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    pub model: ModelRef,
    /// The text to continue; `-` reads it from stdin
    #[arg(long, short)]
    pub prompt: String,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Text and counts as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Chat {
    #[command(flatten)]
    pub model: ModelRef,
    /// Instructions that come before the conversation
    #[arg(long)]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: Sampling,
}

/// What the engine may take; the names are vLLM's where it has them.
#[derive(Args)]
pub struct EngineLimits {
    /// Tokens that prompt and answer may have together; what the model can hold by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Sequences that run at once
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_seqs: u32,
    /// Tokens that one step computes, of all sequences together; prompts get a sixth of it while most sequences generate
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_batched_tokens: u32,
    /// Tokens of one prompt in a step: longer ones come in pieces, so that others get in between
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub long_prefill_token_threshold: u32,
    /// Requests that wait at most; further ones get 503 and a Retry-After
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_waiting: u32,
    /// The share of the memory available at the start that keys and values may take
    #[arg(long, default_value_t = 0.25, value_name = "SHARE", conflicts_with = "kv_cache_memory_bytes")]
    pub kv_cache_memory_share: f64,
    /// The bytes that keys and values may take: a number, or one with K, M or G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub kv_cache_memory_bytes: Option<usize>,
    /// How keys and values are stored: as the model computes, or as 8-bit integers with scales in half the bytes of bf16
    #[arg(long, value_enum, default_value = "auto")]
    pub kv_cache_dtype: KvCacheDtype,
    /// Compute every prompt from its beginning, whatever earlier ones began with
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// Who goes first
    #[arg(long, value_enum, default_value = "fcfs")]
    pub scheduling_policy: SchedulingPolicy,
    /// Guess tokens ahead and check several in one step, from the text itself: `{"method":"ngram","num_speculative_tokens":5}`
    /// (also `prompt_lookup_max`, 4, and `prompt_lookup_min`, 2), or by a smaller model:
    /// `{"model":"REF","num_speculative_tokens":3}`. Answers stay the same
    #[arg(long, value_name = "JSON", value_parser = SpeculativeConfig::parse)]
    pub speculative_config: Option<SpeculativeConfig>,
    /// Threads that compute; all processors by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Keep each of those threads on a processor of its own
    #[arg(long)]
    pub pin_threads: bool,
}

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    pub model: ModelRef,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// The name clients ask for; the reference by default
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Ask clients for one of the keys in this file, one a line; `sha256:` begins a key's digest, `#` a comment
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Say by which rule of the policy each component may be served, or not
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub engine: EngineLimits,
    #[command(flatten)]
    pub adapters: AdapterFlags,
    /// Go over to the newest version of the model as soon as its name points to one; SIGHUP does so once
    #[arg(long)]
    pub follow: bool,
    /// Speak TLS with this certificate, followed by those that vouch for it, as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    pub ssl_certfile: Option<PathBuf>,
    /// The certificate's private key as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    pub ssl_keyfile: Option<PathBuf>,
    /// Add a line of JSON for each request to this file, without its content; `-` is standard error
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Send an OpenTelemetry span for each generation, without its content, to this collector by OTLP over HTTP
    #[arg(long, value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,
    /// Seconds that answers under way get after the signal to stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub shutdown_timeout: u64,
    /// A further host name under which the server may be addressed, as by a reverse proxy
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
}

#[derive(Args)]
pub struct Batch {
    #[command(flatten)]
    pub model: ModelRef,
    /// Requests as JSON lines: `{"custom_id", "method", "url", "body"}`, as OpenAI's batches have them
    pub input: PathBuf,
    /// Where answers go, a line as soon as it is there; lines of an earlier run are not asked again
    pub output: PathBuf,
    /// The name that the requests ask for; the reference by default
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    #[command(flatten)]
    pub engine: EngineLimits,
    /// The summary as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Ls {
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Only artifacts of this kind: source, documents, chat, tokens, model, evaluation, bundle
    #[arg(long)]
    pub kind: Option<String>,
    /// Also what names pointed to earlier
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Look {
    /// A step's or source's name, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    pub look: Look,
    /// As an HTML page with a drawing, on stdout
    #[arg(long, conflicts_with = "json")]
    pub html: bool,
}

/// How components and licences are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LicenseFormat {
    /// For people
    Table,
    /// As JSON
    Json,
    /// YAML for the Model Openness Tool
    Mof,
    /// SPDX 3.0 (JSON-LD) with the AI and Dataset profiles
    Spdx,
    /// CycloneDX 1.6 ML-BOM (JSON)
    Cyclonedx,
    /// Metadata of a Hugging Face model card (YAML)
    ModelCard,
    /// Metadata of a Hugging Face dataset card (YAML)
    DatasetCard,
    /// Croissant (JSON-LD), for documents, conversations, tokens and sources
    Croissant,
}

#[derive(Args)]
pub struct License {
    /// A step's or source's name, `name@digest-prefix`, a digest, or an exported folder
    #[arg(value_name = "REF", required_unless_present = "mof")]
    pub reference: Option<String>,
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// How to write it
    #[arg(long, value_enum, default_value = "table", conflicts_with = "json")]
    pub format: LicenseFormat,
    /// Give the class of a file of the Model Openness Tool instead, as that tool gives it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "format"])]
    pub mof: Option<PathBuf>,
    /// Say by which rule of the policy each component may be used, or not
    #[arg(long, conflicts_with = "mof")]
    pub explain: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Reproduce {
    /// A name or digest in the ledger, an exported folder, or its narthex.json
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project, where the sources lie
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Threads that compute; all processors by default. The bytes are the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Work in this folder and keep it; a temporary one by default
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Follow the recipe even where narthex.toml says something else by now
    #[arg(long)]
    pub ignore_project_file: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Verify {
    /// A name or digest of a model or bundle in the ledger
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project whose ledger has the checkpoints
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Intervals between checkpoints to compute again
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Which intervals; a number that whoever trained could not know. The clock's by default
    #[arg(long)]
    pub seed: Option<u64>,
    /// Threads that compute; all processors by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Sign {
    /// A folder that `narthex export` wrote, or any other
    pub folder: PathBuf,
    /// The private key as PEM: ECDSA on P-256 or P-384, PKCS#8 or SEC1
    #[arg(long, value_name = "FILE")]
    pub private_key: PathBuf,
    /// Where the signature goes; `model.sig` in the folder by default
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

#[derive(Args)]
pub struct VerifySignature {
    /// The signed folder
    pub folder: PathBuf,
    /// The public key as PEM
    #[arg(long, value_name = "FILE")]
    pub public_key: PathBuf,
    /// Where the signature is; `model.sig` in the folder by default
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

#[derive(Args)]
pub struct Push {
    /// A step's name, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    /// An OCI image layout, as a folder and perhaps a tag: `oci:DIR[:TAG]`
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Say by which rule of the policy each component may be passed on, or not
    #[arg(long)]
    pub explain: bool,
}

#[derive(Args)]
pub struct Export {
    /// A step's name, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    /// A folder that is new or empty; with `--format gguf`, a file that is not there yet
    pub folder: PathBuf,
    /// Its files and papers, or one file for llama.cpp
    #[arg(long, value_enum, default_value = "folder")]
    pub format: ExportFormat,
    /// How a GGUF file stores matrices
    #[arg(long, value_enum, default_value = "f16")]
    pub weights: ExportWeights,
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Folder,
    Gguf,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ExportWeights {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

#[derive(Args)]
pub struct Import {
    /// A model folder in Hugging Face layout, or one that `narthex export` wrote; a GGUF file; a PyTorch
    /// checkpoint (.pt, .bin) beside its config.json and tokenizer.json
    #[arg(value_name = "FOLDER|FILE")]
    pub folder: PathBuf,
    /// The name in the ledger; by default the folder's, or the file's without its ending
    #[arg(long)]
    pub name: Option<String>,
    /// The SPDX licence of the model; without one it cannot be bundled
    #[arg(long, value_name = "SPDX")]
    pub license: Option<String>,
    /// Where it comes from
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// The project whose ledger takes it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
}

#[derive(Args)]
pub struct Gc {
    /// The project whose ledger to clean
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Remove what was found; without it nothing changes
    #[arg(long)]
    pub apply: bool,
    /// Keep what names pointed to earlier
    #[arg(long)]
    pub keep_history: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    pub command: BenchCommand,
}

#[derive(Subcommand)]
pub enum BenchCommand {
    /// Time whole training steps of a known shape on random tokens
    Train(BenchTrain),
    /// Time every operator alone beside the machine's measured peaks
    Kernels(BenchKernels),
}

/// The machine as a benchmark uses it.
#[derive(Args)]
pub struct BenchMachine {
    /// Threads; all processors by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The instruction set: portable, neon, avx2, avx512, avx512-bf16 or amx; the best by default
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchTrain {
    /// llama-10m (8 x 256 tokens a step) or llama-100m (4 x 512)
    #[arg(long, default_value = "llama-10m")]
    pub shape: String,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    pub precision: String,
    /// Steps to time, after three to warm up
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Keep only what enters each block and compute the rest again
    #[arg(long)]
    pub activation_checkpointing: bool,
    /// cpu, or cuda, rocm, vulkan, metal or wgpu in a binary built with that feature
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub device: String,
    /// Say `ready`, then time the steps and print one line of JSON for each line on stdin: so that a
    /// script can take turns between programs
    #[arg(long)]
    pub repeat: bool,
    #[command(flatten)]
    pub machine: BenchMachine,
}

#[derive(Args)]
pub struct BenchKernels {
    /// Calls of each operator, after one to warm up
    #[arg(long, default_value_t = 10)]
    pub repetitions: usize,
    #[command(flatten)]
    pub machine: BenchMachine,
}

#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Every value of a project with its origin
    Show {
        /// The project: a folder with a narthex.toml
        #[arg(default_value = ".")]
        project: PathBuf,
        #[command(flatten)]
        settings: Settings,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// The JSON schema of narthex.toml
    Schema,
}

/// A number of bytes, with a unit of 1024 or not.
fn bytes(text: &str) -> Result<usize, String> {
    let unit = |suffix: &str, shift: u32| text.strip_suffix(suffix).map(|number| (number, shift));
    let (number, shift) = unit("K", 10).or(unit("M", 20)).or(unit("G", 30)).unwrap_or((text, 0));
    let bytes = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a whole number, or one with K, M or G, such as 512M".to_string())
}
