//! `narthex self`: what this program is.

use super::print_json;
use crate::{flags::JsonFlag, style::table};
use clap::{Args, Subcommand};
use narthex_base::Result;
use narthex_kernels::{Isa, isa};
use serde::Serialize;

/// The arguments of `narthex self`.
#[derive(Args)]
pub struct Myself {
    #[command(subcommand)]
    pub command: MyselfCommand,
}

/// What is asked about the program.
#[derive(Subcommand)]
pub enum MyselfCommand {
    /// The version, what it was built from and for, and what it runs on
    Version {
        #[command(flatten)]
        output: JsonFlag,
    },
}

/// What this program is.
#[derive(Serialize)]
pub struct Identity {
    pub version: &'static str,
    /// The commit it was built from; none where whoever built it did not say.
    pub commit: Option<&'static str>,
    pub target: &'static str,
    pub features: Vec<&'static str>,
    pub burn: Option<&'static str>,
    /// The C library it runs with; none where that is not glibc.
    pub glibc: Option<String>,
    /// The instruction set that kernels use here.
    pub instruction_set: &'static str,
    /// Those that this machine has, slowest first.
    pub instruction_sets: Vec<&'static str>,
    pub debug_assertions: bool,
}

/// The features that this program was compiled with.
pub fn features() -> Vec<&'static str> {
    let all = [
        ("run", cfg!(feature = "run")),
        ("serve", cfg!(feature = "serve")),
        ("agents", cfg!(feature = "agents")),
        ("postgres", cfg!(feature = "postgres")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("wgpu", cfg!(feature = "wgpu")),
    ];
    all.into_iter().filter_map(|(name, is_in)| is_in.then_some(name)).collect()
}

/// The version of the C library that the program runs with, where it is glibc.
fn glibc() -> Option<String> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes nothing, and gives a string that lives as long as the program (gnu_get_libc_version(3)).
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        Some(version.to_string_lossy().into_owned())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// What this program is.
pub fn identity() -> Identity {
    Identity {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("NARTHEX_COMMIT").filter(|commit| !commit.is_empty()),
        target: env!("NARTHEX_TARGET"),
        features: features(),
        burn: option_env!("NARTHEX_BURN_VERSION"),
        glibc: glibc(),
        instruction_set: isa().name(),
        instruction_sets: Isa::available().into_iter().map(Isa::name).collect(),
        debug_assertions: cfg!(debug_assertions),
    }
}

pub fn run(args: &Myself) -> Result<()> {
    let MyselfCommand::Version { output } = &args.command;
    let identity = identity();
    if output.json {
        print_json(&identity);
        return Ok(());
    }
    let rows = [
        ("narthex", identity.version.to_string()),
        ("commit", identity.commit.unwrap_or("unknown").into()),
        ("target", identity.target.into()),
        ("features", identity.features.join(", ")),
        ("Burn", identity.burn.unwrap_or("unknown").into()),
        ("glibc", identity.glibc.unwrap_or_else(|| "none".into())),
        ("instruction set", identity.instruction_set.into()),
        ("instruction sets", identity.instruction_sets.join(", ")),
    ];
    out!("{}", table(&rows.map(|(key, value)| vec![key.to_string(), value])));
    Ok(())
}
