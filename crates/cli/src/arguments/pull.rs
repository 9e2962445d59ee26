//! The flags of `narthex pull`.

use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "\
Examples:
  narthex pull hf:HuggingFaceTB/SmolLM2-135M-Instruct --as smol && narthex serve smol
  narthex pull hf:datasets/org/name@v1.0 --include 'data/train-*'

HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to Hugging Face's own tools.")]
pub struct Pull {
    /// `hf:ORG/NAME` or `hf:datasets/ORG/NAME`, and perhaps a branch, tag or commit: `hf:ORG/NAME@REVISION`
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// Fetch the weights or data files that fit this pattern instead of the usual ones; may be given several times. Card,
    /// licence, configuration and tokenizer always come along
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// The name in the ledger; the repository's by default
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
    /// The SPDX licence, where you know better than the card
    #[arg(long, value_name = "SPDX")]
    pub license: Option<String>,
    /// List what would be fetched; fetch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The project whose ledger takes it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Events and the report as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}
