//! One file for each group of verbs. Data goes to stdout, all else to stderr.

#[cfg(not(all(feature = "run", feature = "serve")))]
mod absent;
#[cfg(feature = "serve")]
pub mod adapters;
#[cfg(feature = "agents")]
pub mod agent;
pub mod bench;
pub mod bench_machine;
#[cfg(feature = "run")]
pub mod bench_train;
pub mod chat;
#[cfg(feature = "serve")]
pub mod classify;
pub mod completions;
pub mod config;
#[cfg(feature = "run")]
pub mod data_inspect;
#[cfg(feature = "run")]
pub mod data_show;
pub mod deploy;
pub mod doctor;
#[cfg(feature = "serve")]
pub mod embed;
#[cfg(feature = "serve")]
pub mod engine;
pub mod generate;
pub mod look;
#[cfg(all(feature = "agents", feature = "run"))]
pub mod mcp;
#[cfg(feature = "serve")]
mod models_file;
#[cfg(feature = "run")]
pub mod new;
pub mod openness;
#[cfg(feature = "run")]
pub mod plan;
pub mod pull;
#[cfg(feature = "run")]
pub mod pull_data;
pub mod pull_oci;
pub mod push;
#[cfg(feature = "run")]
pub mod quantize;
#[cfg(feature = "run")]
pub mod ranks;
#[cfg(feature = "run")]
pub mod recheck;
mod registry;
#[cfg(feature = "serve")]
pub mod route;
#[cfg(feature = "run")]
pub mod run;
pub mod search;
#[cfg(feature = "run")]
pub mod seat;
pub mod self_version;
#[cfg(feature = "serve")]
pub mod serve;
pub mod signing;
#[cfg(feature = "serve")]
mod source;
pub mod step_verb;
#[cfg(feature = "serve")]
pub mod texts;
pub mod transfer;

use crate::flags::{ModelRef, Opening, Settings};
#[cfg(not(feature = "run"))]
pub use absent::without_run::{bench_train, data_inspect, data_show, new, plan, pull_data, quantize, recheck, run};
#[cfg(not(feature = "serve"))]
pub use absent::without_serve::{classify, embed, route, serve};
use narthex_base::{Error, Result};
use narthex_kernels::{ForceIsaError, Isa, force_isa};
#[cfg(feature = "run")]
use narthex_knowledge::Apart;
#[cfg(feature = "run")]
use narthex_run::{OpenOptions, SourceCode};
use narthex_shelf::{PlanOptions, Reference, Shelf, read_plan};
use std::path::{Path, PathBuf};

/// The source code that this program was built from, as a gzipped tar archive that `build.rs` packs.
#[cfg(feature = "run")]
static SOURCE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/source.tar.gz"));
#[cfg(feature = "run")]
const SOURCE_NAME: &str = concat!("narthex-", env!("CARGO_PKG_VERSION"), ".tar.gz");

/// The verb by which this program reads one document of a stranger, in a process of its own.
pub const LOAD_DOCUMENT: &str = "load-document";

/// Makes kernels compute with the instruction set of this name, before anything is computed.
///
/// # Errors
/// If there is none, or this machine does not have it.
pub fn choose_isa(name: &str) -> Result<()> {
    let names = |sets: Vec<Isa>| sets.into_iter().map(Isa::name).collect::<Vec<_>>().join(", ");
    let set = Isa::from_name(name).ok_or_else(|| {
        Error::usage(format!("there is no instruction set `{name}`"))
            .help(format!("one of: {}", names(Isa::ALL.to_vec())))
    })?;
    force_isa(set).map_err(|error| match error {
        ForceIsaError::Missing(available) => {
            Error::usage(format!("this machine has no {name}")).help(format!("it has: {}", names(available)))
        }
        ForceIsaError::InUse(other) => {
            Error::usage(format!("{} is in use already", other.name())).help("leave `--isa` or NARTHEX_ISA out")
        }
    })
}

/// The instruction set that the environment asks for, if it does.
pub fn choose_isa_of_environment() -> Result<()> {
    match std::env::var("NARTHEX_ISA") {
        Ok(name) if !name.is_empty() => {
            choose_isa(&name).map_err(|error| error.context("NARTHEX_ISA cannot be followed"))
        }
        _ => Ok(()),
    }
}

/// How this program was called, so that printed commands can be pasted.
pub fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(char::is_whitespace)).unwrap_or_else(|| "narthex".into())
}

/// A folder or file as a reference to it is written.
pub fn place(path: &Path) -> String {
    let shown = path.display().to_string();
    quoted(&if matches!(Reference::of(&shown), Reference::Name(_)) { format!("./{shown}") } else { shown })
}

/// A word as a shell takes it for one.
pub fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:@%+=,~".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// ` --project DIR`, where a command needs it.
pub fn project_flag(project: &Path) -> String {
    if project == Path::new(".") {
        String::new()
    } else {
        format!(" --project {}", quoted(&project.display().to_string()))
    }
}

/// What flags, environment and the user's own file say of a plan. `--device` is a setting of every step that trains.
pub fn plan_options(project: &Path, settings: &Settings) -> Result<PlanOptions> {
    let mut options = base_options(&settings.set);
    if let Some(device) = &settings.device {
        let plan = read_plan(project, &options)?;
        let training = plan.steps.iter().filter(|step| step.step.schedule().is_some());
        options.flags.extend(training.map(|step| format!("{}.device={device}", step.name)));
    }
    Ok(options)
}

/// What environment and the user's own file say of a plan, with these assignments.
pub fn base_options(set: &[String]) -> PlanOptions {
    let environment = std::env::var("NARTHEX_SET").unwrap_or_default();
    PlanOptions {
        flags: set.to_vec(),
        environment: environment.split(';').map(str::trim).filter(|a| !a.is_empty()).map(str::to_string).collect(),
        user_file: user_file(),
    }
}

/// How a project is opened to be run: with the source code of this program, which bundles take along.
#[cfg(feature = "run")]
pub fn open_options(plan: PlanOptions) -> OpenOptions {
    // A program that does not know where it lies reads everything itself.
    let loader = std::env::current_exe().ok().map(|program| Apart::new(program, vec![LOAD_DOCUMENT.into()]));
    OpenOptions { plan, source_code: Some(SourceCode { name: SOURCE_NAME, bytes: SOURCE }), loader }
}

/// What a project holds, to be opened under the policy that environment and the user's own file complete.
pub fn shelf(project: &Path) -> Shelf {
    Shelf::new(project, base_options(&[]))
}

/// The same for a model that was asked for.
pub fn shelf_of(model: &ModelRef) -> Shelf {
    shelf_in(&model.opening)
}

/// The same for models that are opened so.
pub fn shelf_in(opening: &Opening) -> Shelf {
    shelf(&opening.project).trusting_files(opening.skip_digest_check)
}

/// `$XDG_CONFIG_HOME/narthex/config.toml`
fn user_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    config.or_else(home).map(|folder| folder.join("narthex/config.toml"))
}

/// Prints a value as JSON on stdout.
pub fn print_json(value: &impl serde::Serialize) {
    outln!("{}", serde_json::to_string_pretty(value).expect("our own types serialize"));
}
