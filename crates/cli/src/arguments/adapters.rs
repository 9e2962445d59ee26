//! The adapters of a server.

use clap::Args;
use std::path::PathBuf;

/// Adapters in memory unless set otherwise.
const LOADED_MAX: u32 = 32;

#[derive(Args)]
pub struct AdapterFlags {
    /// Serve a PEFT adapter over the model under a name of its own, from a folder or a tuned model of the ledger, if the
    /// policy lets it; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = name_and_path)]
    pub lora_modules: Vec<(String, String)>,
    /// Let clients load and unload adapters of this folder while the server runs: those that the policy lets be served
    #[arg(long, value_name = "DIR")]
    pub lora_dir: Option<PathBuf>,
    /// Adapters in memory at most: those that were used longest ago make room
    #[arg(long, default_value_t = LOADED_MAX, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_loras: u32,
}

fn name_and_path(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err("write NAME=PATH, such as french=adapters/french".into()),
    }
}
