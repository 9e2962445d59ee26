//! `narthex new`

use super::{program, quoted};
use clap::Args;
use narthex_base::Result;
use std::path::PathBuf;

/// The arguments of `narthex new`.
#[derive(Args)]
pub struct New {
    /// The folder to make; its name becomes the project's
    pub name: PathBuf,
}

pub fn run(args: &New) -> Result<()> {
    narthex_run::scaffold(&args.name)?;
    let folder = args.name.display();
    noteln!("made {folder}/narthex.toml and {folder}/data/sample.txt");
    noteln!("next: {} run {}", program(), quoted(&folder.to_string()));
    Ok(())
}
