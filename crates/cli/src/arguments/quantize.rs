//! The arguments of `narthex quantize`.

use clap::{Args, ValueEnum};
use narthex_base::config::QuantizeStep;
use std::path::PathBuf;

#[derive(Args)]
pub struct Quantize {
    /// A model in the ledger, or a folder in Hugging Face layout
    #[arg(value_name = "REF")]
    pub reference: String,
    /// What weights become: 8 bits, or 4 bits in groups
    #[arg(long, value_name = "KIND")]
    pub to: QuantizeKind,
    /// Weights that share a scale, with int4
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = group)]
    pub group: usize,
    /// Text like that which the model will meet: a file of plain text, or what a tokenize step made. It shows where errors
    /// count most, and its last quarter (or the validation part) what they cost
    #[arg(long, value_name = "TEXT")]
    pub calibrate: Option<String>,
    /// What the artifact is called [default: REF-KIND]
    #[arg(long)]
    pub name: Option<String>,
    /// The project whose ledger holds the model and takes the artifact
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Make it even if it is there
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum QuantizeKind {
    Int8,
    Int4,
}

fn group(text: &str) -> Result<usize, String> {
    let known = QuantizeStep::GROUPS;
    text.parse().ok().filter(|size| known.contains(size)).ok_or_else(|| format!("there are groups of {known:?} only"))
}
