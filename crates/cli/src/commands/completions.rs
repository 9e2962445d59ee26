//! `narthex completions`, and the pages of the manual that packages take along: both are made from the flags
//! themselves. Knows no verbs.

use clap::{Args, Command};
use clap_complete::Shell;
use narthex_base::{Error, Result};
use std::path::{Path, PathBuf};

/// The verb that writes the manual.
pub const MAN: &str = "man";

/// The arguments of `narthex completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell that completes
    pub shell: Shell,
}

/// The arguments of `narthex man`.
#[derive(Args)]
pub struct Manual {
    /// The folder to write into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// The script by which a shell completes the flags of this command.
pub fn script(mut command: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_string();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page of section 1 of the manual for the command and for each below it that is shown.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_manual(command: Command, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|error| Error::io("cannot create", out, error))?;
    clap_mangen::generate_to(command, out).map_err(|error| Error::io("cannot write the manual into", out, error))
}
