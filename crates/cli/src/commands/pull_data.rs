//! `narthex pull` of a data set: its files go into the project's folder, where its sources lie.

use narthex_base::{Error, License, Result};
use narthex_hub::{Checksum, Download};
use narthex_ledger::{Artifact, Ledger};
use narthex_run::pulled_dataset;
use narthex_shelf::PulledFrom;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether this build has a use for data sets.
///
/// # Errors
/// Never: this one does.
pub fn is_possible() -> Result<()> {
    Ok(())
}

/// Moves the files into `data` below the project's folder, where all sources lie, and records them under a name.
///
/// # Errors
/// If other files are there already, or something cannot be read or written.
pub fn take(
    ledger: &Ledger,
    (project, data): (&Path, &str),
    download: Download,
    name: &str,
    license: Option<License>,
    from: &PulledFrom,
) -> Result<Artifact> {
    let to = project.join(data);
    if to.exists() {
        let same = |(path, checksum): (&String, &Checksum)| checksum.matches(&to.join(path)).unwrap_or(false);
        if !download.fetched().checksums.iter().all(same) {
            return Err(Error::input(format!("{} is there already, with other files", to.display()))
                .help("give the data another name: `--as NAME`"));
        }
        download.remove()?;
    } else {
        move_folder(&download.folder, &to)?;
    }
    pulled_dataset(ledger, project, data, name, license, from)
}

/// Moves a folder, to another disk too. It appears at once.
fn move_folder(from: &Path, to: &Path) -> Result<()> {
    let fail = |error| Error::io("cannot write", to, error);
    let above = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(fail)?;
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    let made = tempfile::Builder::new().prefix(".narthex-pull-").tempdir_in(above).map_err(fail)?;
    let copy = made.path().join("copy");
    let mut open: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        fs::create_dir_all(copy.join(&inside)).map_err(fail)?;
        for entry in fs::read_dir(from.join(&inside)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = inside.join(entry.file_name());
            match entry.file_type().map_err(fail)?.is_dir() {
                true => open.push(path),
                false => drop(fs::copy(entry.path(), copy.join(path)).map_err(fail)?),
            }
        }
    }
    fs::rename(&copy, to).map_err(fail)?;
    fs::remove_dir_all(from).map_err(fail)
}
