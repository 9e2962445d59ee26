//! An artifact as the documents about it see it.

use crate::{
    Project,
    recipe::folder_of,
    reproduce::{check_folder, whole_provenance},
};
use narthex_base::{ArtifactKind, FileEntry, Result};
use narthex_openness::{Subject, openness};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

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
            if Path::new(reference).is_dir() {
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
