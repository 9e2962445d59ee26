//! The papers of a reference, and an artifact as the documents about it see it.

use crate::{
    Project,
    reference::{Reference, resolve},
    reproduce::{check_folder, whole_provenance},
};
use narthex_base::{ArtifactKind, Error, FileEntry, Provenance, Result};
use narthex_openness::{Subject, openness};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// What is known of a reference: a name or digest of the project's ledger, a folder that `export` wrote, or the
/// `narthex.json` of one. None for a folder without papers.
///
/// # Errors
/// If the reference is unknown, or its papers are damaged.
pub fn provenance_of(project: &Path, reference: &str) -> Result<Option<Provenance>> {
    let name = match Reference::of(reference) {
        Reference::Place(place) => return papers_in(place),
        Reference::Name(name) => name,
    };
    let (ledger, artifact) = resolve(project, name)?;
    let provenance = ledger.provenance(&artifact)?;
    let warnings = ledger.take_warnings();
    match warnings.first() {
        Some(warning) => Err(Error::input(format!("the lineage of `{reference}` is not whole")).cause(warning)),
        None => Ok(Some(provenance)),
    }
}

/// The papers that lie in a folder, or that a file is. None for a folder without any.
///
/// # Errors
/// If there is nothing, or the papers are damaged.
pub fn papers_in(place: &Path) -> Result<Option<Provenance>> {
    if place.is_file() {
        return narthex_ledger::read_provenance(place).map(Some);
    }
    if !place.is_dir() {
        return Err(Error::input(format!("there is no folder {}", place.display()))
            .help("name a folder that `narthex export` wrote; a name in the ledger has no separators"));
    }
    let file = place.join("narthex.json");
    file.is_file().then(|| narthex_ledger::read_provenance(&file)).transpose()
}

/// The folder of a reference that names one, or the papers in one.
pub(crate) fn folder_of(reference: &str) -> Option<PathBuf> {
    match Reference::of(reference) {
        Reference::Place(path) if path.is_dir() => Some(path.to_path_buf()),
        Reference::Place(path) if path.is_file() => Some(path.parent().unwrap_or(Path::new(".")).to_path_buf()),
        _ => None,
    }
}

/// Calls `write` with what there is to say about a reference: an artifact of the project's ledger, or an exported folder.
///
/// # Errors
/// If the reference is unknown or has no papers.
pub fn with_subject<T>(project: &Path, reference: &str, write: impl FnOnce(&Subject) -> T) -> Result<T> {
    let provenance = whole_provenance(project, reference)?;
    let manifest = &provenance.manifest;
    let root = if project.is_file() { project.parent().unwrap_or(Path::new(".")) } else { project };
    let (folder, created_ms): (PathBuf, u64) = match folder_of(reference) {
        Some(folder) => {
            // Papers alone, as a server gives them, are taken at their word.
            if Reference::of(reference).folder().is_some() {
                check_folder(&folder, manifest)?;
            }
            (folder, 0)
        }
        None => {
            let artifact = Project::ledger(project)?.resolve(reference)?;
            let folder = if manifest.kind == ArtifactKind::Source { root.to_path_buf() } else { artifact.folder };
            (folder, artifact.run.created_ms)
        }
    };
    let sha256 = |file: &FileEntry| sha256(&folder.join(&file.path));
    let class = openness(manifest).class;
    Ok(write(&Subject { name: &manifest.recipe.step, provenance: &provenance, created_ms, class, sha256: &sha256 }))
}

/// The SHA-256 of a file, where it can be read.
fn sha256(path: &Path) -> Option<String> {
    let mut hasher = Sha256::new();
    let (mut file, mut buffer) = (File::open(path).ok()?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
