//! Hugging Face's own cache, read and never written: `models--org--name/{refs,snapshots,blobs}`. Files are named there
//! by the digest that they must have.
//!
//! Source: documentation of `huggingface_hub`, "Understand caching".

use super::{
    Checksum, HubSettings, Listing, RepoFile, RepoSpec,
    address::is_commit,
    listing::{DEPTH_MAX, FILES_MAX, check_path},
};
use narthex_base::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The longest content of a reference.
const REF_BYTES_MAX: u64 = 256;

/// What the cache holds of a repository, at the commit that it knows the revision by.
pub(super) fn listing(settings: &HubSettings, spec: &RepoSpec) -> Result<Listing> {
    let nothing = |cause: String| {
        Error::input(format!("{} is not in Hugging Face's cache at `{}`", spec.origin(), spec.revision))
            .cause("HF_HUB_OFFLINE is set: nothing is asked of the network")
            .cause(cause)
            .help("run the same command without HF_HUB_OFFLINE")
    };
    let Some(folder) = folder(settings, spec) else {
        let place = settings.hub_cache.as_ref().map_or("no cache".into(), |path| path.display().to_string());
        return Err(nothing(format!("there is no folder {} in {place}", spec.cache_folder())));
    };
    let commit = match is_commit(&spec.revision) {
        true => spec.revision.clone(),
        false => reference(&folder, &spec.revision).ok_or_else(|| nothing(format!("it knows: {}", known(&folder))))?,
    };
    let snapshot = folder.join("snapshots").join(&commit);
    let real = fs::canonicalize(&folder).map_err(|error| Error::io("cannot read", &folder, error))?;
    let mut files = Vec::new();
    let mut open = vec![(snapshot.clone(), String::new(), 1)];
    while let Some((at, prefix, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            check_path(&name)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < DEPTH_MAX {
                    open.push((entry.path(), format!("{name}/"), depth + 1));
                }
            } else if let Some(path) = inside(&real, &entry.path()) {
                let bytes = fs::metadata(&path).ok().map(|stat| stat.len());
                files.push(RepoFile { checksum: named(&path), path: name, bytes, cached: Some(path) });
            }
            if files.len() > FILES_MAX {
                return Err(Error::input(format!("{} holds more than {FILES_MAX} files", snapshot.display())));
            }
        }
    }
    if files.is_empty() {
        return Err(nothing(format!("it has no files of commit {commit}")));
    }
    files.sort();
    Ok(Listing { spec: spec.clone(), commit, files })
}

/// Where the cache holds a file that the Hub lists, if it does.
pub(super) fn find(settings: &HubSettings, listing: &Listing, file: &RepoFile) -> Option<PathBuf> {
    let folder = folder(settings, &listing.spec)?;
    let real = fs::canonicalize(&folder).ok()?;
    let blob = file.checksum.as_ref().map(|checksum| folder.join("blobs").join(checksum.digits()));
    let snapshot = folder.join("snapshots").join(&listing.commit).join(&file.path);
    let places = blob.into_iter().chain([snapshot]);
    let mut found = places.filter_map(|path| inside(&real, &path));
    found.find(|path| fs::metadata(path).is_ok_and(|stat| file.bytes.is_none_or(|bytes| bytes == stat.len())))
}

fn folder(settings: &HubSettings, spec: &RepoSpec) -> Option<PathBuf> {
    let folder = settings.hub_cache.as_ref()?.join(spec.cache_folder());
    folder.is_dir().then_some(folder)
}

/// The file behind a link, if it is one and lies in the repository's folder.
fn inside(real_folder: &Path, path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    (real.starts_with(real_folder) && real.is_file()).then_some(real)
}

/// The digest by which a file is named.
fn named(path: &Path) -> Option<Checksum> {
    Checksum::from_tag(path.file_name()?.to_str()?)
}

fn reference(folder: &Path, revision: &str) -> Option<String> {
    let path = folder.join("refs").join(revision);
    if fs::metadata(&path).ok()?.len() > REF_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_string()).filter(|commit| is_commit(commit))
}

/// The branches and commits that the cache knows, in words.
fn known(folder: &Path) -> String {
    let names = |path: &str| {
        let entries = fs::read_dir(folder.join(path)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut all = names("refs");
    all.extend(names("snapshots"));
    all.sort();
    all.truncate(8);
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}
