//! The papers of a reference, and an artifact as the documents about it see it.

use crate::{
    known::gap,
    project::{open_ledger, root_of},
    reference::{Reference, resolve},
};
use narthex_base::{ArtifactKind, Error, FileEntry, Manifest, Provenance, Result};
use narthex_ledger::hash_file;
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
    match gap(&provenance) {
        Some(gap) => Err(Error::input(format!("the lineage of `{reference}` is not whole")).cause(gap)),
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

/// The papers of a reference, none of them missing or changed.
///
/// # Errors
/// If there are none, or one that is named is not here or was changed.
pub fn whole_provenance(project: &Path, reference: &str) -> Result<Provenance> {
    let provenance = provenance_of(project, reference)?.ok_or_else(|| {
        Error::input(format!("{reference} has no papers: there is no narthex.json in it"))
            .help("name an artifact of a ledger, or a folder that `narthex export` wrote")
    })?;
    if let Some((child, parent)) = provenance.missing() {
        let digest = parent.digest.short();
        let found = provenance.all().find(|manifest| manifest.recipe.step == parent.name);
        let error =
            Error::input(format!("the record of `{}` is not the one that `{}` names", parent.name, child.recipe.step));
        return Err(match found {
            Some(found) => error
                .cause(format!("named is {digest}, the record here has {}: it was changed", found.digest().short())),
            None => error.cause(format!("named is {digest}, and there is no record of it")),
        }
        .help("get the papers again from where the artifact comes from"));
    }
    for manifest in provenance.all() {
        if let Some(broken) = manifest.broken_link() {
            return Err(Error::input(format!(
                "the checkpoint of step {} of `{}` is not linked to those before it",
                broken.step, manifest.recipe.step
            ))
            .cause("the record of its training was changed")
            .help("get the papers again from where the artifact comes from"));
        }
    }
    Ok(provenance)
}

/// Whether the files of an exported folder are those of its manifest.
///
/// # Errors
/// Names the first file that is missing or was changed.
pub fn check_folder(folder: &Path, manifest: &Manifest) -> Result<()> {
    check_files(folder, &manifest.files.iter().collect::<Vec<_>>())
}

/// The same of its weights alone: what else lies there may have been written anew.
pub(crate) fn check_weights(folder: &Path, manifest: &Manifest) -> Result<()> {
    check_files(folder, &manifest.files.iter().filter(|file| file.path.ends_with(".safetensors")).collect::<Vec<_>>())
}

fn check_files(folder: &Path, files: &[&FileEntry]) -> Result<()> {
    for entry in files {
        let path = folder.join(&entry.path);
        let found = if path.is_file() { Some(hash_file(&path)?.1) } else { None };
        if found != Some(entry.digest) {
            let what = if found.is_some() { "was changed" } else { "is missing" };
            return Err(Error::input(format!("{} {what} since the folder was exported", entry.path))
                .at(folder.display(), None)
                .help("export it again: what its papers say is not true of this folder"));
        }
    }
    Ok(())
}

/// Calls `write` with what there is to say about a reference: an artifact of the project's ledger, or an exported
/// folder.
///
/// # Errors
/// If the reference is unknown or has no papers.
pub fn with_subject<T>(project: &Path, reference: &str, write: impl FnOnce(&Subject) -> T) -> Result<T> {
    let provenance = whole_provenance(project, reference)?;
    let manifest = &provenance.manifest;
    let (folder, created_ms): (PathBuf, u64) = match Reference::of(reference).papers_folder() {
        Some(folder) => {
            // Papers alone, as a server gives them, are taken at their word.
            if Reference::of(reference).folder().is_some() {
                check_folder(&folder, manifest)?;
            }
            (folder, 0)
        }
        None => {
            let artifact = open_ledger(project)?.resolve(reference)?;
            let folder = if manifest.kind == ArtifactKind::Source { root_of(project) } else { artifact.folder };
            (folder, artifact.run.created_ms)
        }
    };
    let sha256 = |file: &FileEntry| sha256(&folder.join(&file.path));
    let class = openness(manifest).class;
    let family = family_of(&folder);
    Ok(write(&Subject {
        name: &manifest.recipe.step,
        provenance: &provenance,
        created_ms,
        family: family.as_deref(),
        class,
        sha256: &sha256,
    }))
}

/// A model's family, where its folder says it.
fn family_of(folder: &Path) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()?;
    config["model_type"].as_str().map(str::to_string)
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
