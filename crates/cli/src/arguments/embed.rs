//! The arguments of `narthex embed`.

use super::ModelRef;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    pub model: ModelRef,
    /// The texts; `-` reads lines from stdin
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    pub texts: Vec<String>,
    /// Embed each line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub file: Option<PathBuf>,
    /// Put the model's prompt of this name before each text, such as `query`; its default prompt otherwise
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Keep the first N values and give the vector the length 1 again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: Option<u32>,
    /// Threads that compute; all processors by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Objects with the text and its tokens beside the vector
    #[arg(long)]
    pub json: bool,
}
