//! Groups of flags that several verbs share, and what they mean. Knows no verbs.

use clap::{Args, ValueEnum};
#[cfg(feature = "serve")]
use narthex_infer::EncoderOptions;
use narthex_model::Precision;
use narthex_shelf::WeightForm;
use std::path::PathBuf;

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

/// Which model.
#[derive(Args)]
pub struct ModelRef {
    /// A step's name, `name@digest-prefix`, a digest, a model folder, as `./DIR`, or a GGUF file
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub opening: Opening,
}

/// How a model is opened.
#[derive(Args)]
pub struct Opening {
    /// The project whose ledger knows it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// How weights are stored and multiplied, and keys and values too
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,
    /// Use the files of a model in the ledger as they are: do not compute their digests again
    #[arg(long)]
    pub skip_digest_check: bool,
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

impl Dtype {
    /// How weights are loaded for inference.
    pub fn form(self) -> WeightForm {
        WeightForm::Packed(self.precision())
    }

    /// The precision that was asked for.
    pub fn precision(self) -> Option<Precision> {
        match self {
            Dtype::Auto => None,
            Dtype::Float32 => Some(Precision::F32),
            Dtype::Bfloat16 => Some(Precision::Bf16),
        }
    }
}

/// Whether a run tells what happens to people or to programs.
#[derive(Args)]
pub struct EventsFlag {
    /// Events and the report as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

/// Whether results are for people or for programs.
#[derive(Args)]
pub struct JsonFlag {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Which ledger.
#[derive(Args)]
pub struct LedgerFlag {
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
}

/// Who may reach a server over HTTP, and how.
#[cfg(feature = "agents")]
#[derive(Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpFlags {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// Ask clients for one of the keys in this file, one a line, and behind it perhaps whose it is; `sha256:` begins a
    /// key's digest, `#` a comment
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// A further host name under which the server may be addressed, as by a reverse proxy
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Another site whose pages may use the server, as `https://chat.example`; `*` is any
    #[arg(long, value_name = "ORIGIN")]
    pub allowed_origin: Vec<String>,
}

/// How many threads compute.
#[derive(Args)]
pub struct ThreadsFlag {
    /// Threads that compute; all processors by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
}

#[cfg(feature = "serve")]
impl ThreadsFlag {
    /// How an encoder runs.
    pub fn encoder_options(&self) -> EncoderOptions {
        let threads = self.threads.map_or(0, |threads| threads as usize);
        EncoderOptions { threads, ..EncoderOptions::default() }
    }
}
