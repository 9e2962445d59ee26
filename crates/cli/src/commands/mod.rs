//! One file for each group of verbs. Data goes to stdout, all else to stderr.

pub mod adapters;
pub mod bench;
pub mod chat;
pub mod config;
pub mod embed;
pub mod generate;
pub mod look;
pub mod new;
pub mod openness;
pub mod pull;
pub mod quantize;
pub mod recheck;
pub mod run;
pub mod serve;
pub mod signing;
pub mod speculative;
pub mod transfer;

use crate::arguments::{Arguments, Settings};
use clap::CommandFactory;
use narthex_base::{Error, Result};
use narthex_run::{OpenOptions, Project, SourceCode};
use std::path::{Path, PathBuf};

/// The source code that this program was built from, as a gzipped tar archive that `build.rs` packs.
static SOURCE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/source.tar.gz"));
const SOURCE_NAME: &str = concat!("narthex-", env!("CARGO_PKG_VERSION"), ".tar.gz");

/// Bare `narthex`: short help and the next command to type.
pub fn welcome() -> Result<()> {
    Arguments::command().print_help().map_err(|error| Error::io("cannot write to", "stdout", error))?;
    let program = program();
    println!("\nstart here:\n  {program} new hello && {program} run hello");
    Ok(())
}

/// How this program was called, so that printed commands can be pasted.
pub fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(char::is_whitespace)).unwrap_or_else(|| "narthex".into())
}

/// ` --project DIR`, where a command needs it.
pub fn project_flag(project: &Path) -> String {
    if project == Path::new(".") { String::new() } else { format!(" --project {}", project.display()) }
}

/// The options that flags, environment and the user's own file give. `--device` is a setting of every step that trains.
pub fn open_options(project: &Path, settings: &Settings) -> Result<OpenOptions> {
    let mut options = base_options(&settings.set);
    if let Some(device) = &settings.device {
        let plan = Project::plan(project, &options)?;
        let training = plan.steps.iter().filter(|step| ["train", "tune"].contains(&step.step.kind()));
        options.flags.extend(training.map(|step| format!("{}.device={device}", step.name)));
    }
    Ok(options)
}

/// The options that environment and the user's own file give, with these assignments.
pub fn base_options(set: &[String]) -> OpenOptions {
    let environment = std::env::var("NARTHEX_SET").unwrap_or_default();
    OpenOptions {
        flags: set.to_vec(),
        environment: environment.split(';').map(str::trim).filter(|a| !a.is_empty()).map(str::to_string).collect(),
        user_file: user_file(),
        source_code: Some(SourceCode { name: SOURCE_NAME, bytes: SOURCE }),
    }
}

/// `$XDG_CONFIG_HOME/narthex/config.toml`
fn user_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    config.or_else(home).map(|folder| folder.join("narthex/config.toml"))
}

/// Prints a value as JSON on stdout.
pub fn print_json(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("our own types serialize"));
}
