//! An artifact as it lies in the store, and the check that it is what it says. Reads only.

use crate::disk;
use narthex_base::{ArtifactKind, Digest, Error, FileEntry, Manifest, Result, artifact::MANIFEST_SCHEMA};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The manifest's file name in an artifact's folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The folder of the run's record in an artifact's folder.
pub(crate) const RUN_FOLDER: &str = "run";

/// The file of the run's record in [`RUN_FOLDER`].
pub(crate) const RUN_FILE: &str = "run.json";

/// The file that carries manifest and lineage in an exported folder.
pub const PROVENANCE_FILE: &str = "narthex.json";

/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// What a run measured. Not part of an artifact's identity: it differs from run to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// When the artifact was made: milliseconds since 1970. Filled in by the ledger.
    pub created_ms: u64,
    /// Wall-clock seconds that the step took.
    pub seconds: f64,
    /// What was measured, by name (`tokens_per_second`).
    pub measured: BTreeMap<String, f64>,
}

/// An artifact in the store.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The artifact's identity.
    pub digest: Digest,
    /// What it is.
    pub manifest: Manifest,
    /// Where it lies.
    pub folder: PathBuf,
    /// The run that made it.
    pub run: RunRecord,
}

impl Artifact {
    /// Where a file of it lies.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Where a file of the run's record lies (`metrics.jsonl`).
    pub fn run_path(&self, file: &str) -> PathBuf {
        self.folder.join(RUN_FOLDER).join(file)
    }

    /// The step that made it.
    pub fn name(&self) -> &str {
        &self.manifest.recipe.step
    }

    /// The size of its files.
    pub fn bytes(&self) -> u64 {
        total_bytes(&self.manifest.files)
    }

    /// A file's content.
    ///
    /// # Errors
    /// If the file is not there or cannot be read.
    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.path(file);
        fs::read(&path).map_err(|e| Error::io("cannot read", path, e))
    }

    /// A file's content as text.
    ///
    /// # Errors
    /// If the file is not there, cannot be read, or is not UTF-8.
    pub fn read_text(&self, file: &str) -> Result<String> {
        let path = self.path(file);
        fs::read_to_string(&path).map_err(|e| Error::io("cannot read", path, e))
    }

    /// Whether all its files are in the store. An artifact that came in only as an ancestor of an
    /// imported one has its manifest and no files. A source's files stay where they are, so it is
    /// always complete. Sizes are compared, contents not: see [`crate::Ledger::verify`].
    pub fn is_complete(&self) -> bool {
        self.manifest.kind == ArtifactKind::Source
            || self.manifest.files.iter().all(|file| {
                fs::symlink_metadata(self.path(&file.path)).is_ok_and(|stat| stat.is_file() && stat.len() == file.bytes)
            })
    }

    /// Reads and checks the artifact in a folder of the store; `None` if there is no such folder.
    pub(crate) fn load(folder: &Path, digest: Digest) -> Result<Option<Self>> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let path = folder.join(MANIFEST_FILE);
        let manifest = disk::read_limited(&path, MAX_MANIFEST_BYTES)
            .and_then(|bytes| parse_manifest(&bytes))
            .map_err(|error| damaged(error, &path, digest))?;
        let found = manifest.digest();
        if found != digest {
            let error = Error::input(format!("its content has the digest {found}"));
            return Err(damaged(error, &path, digest));
        }
        let run = fs::read(folder.join(RUN_FOLDER).join(RUN_FILE)).ok();
        let run = run.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Some(Self { digest, manifest, folder: folder.to_path_buf(), run }))
    }
}

fn damaged(error: Error, path: &Path, digest: Digest) -> Error {
    let help = error.help_text().map(str::to_string);
    error.context(format!("the manifest of artifact {} is damaged", digest.short())).at(path.display(), None).help(
        help.unwrap_or_else(|| "make the artifact again: `narthex run --force STEP` with the step that made it".into()),
    )
}

/// The size of these files together.
pub(crate) fn total_bytes(files: &[FileEntry]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

/// Reads a manifest and refuses one that would name files outside its folder.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    let schema: Schema =
        serde_json::from_slice(bytes).map_err(|error| Error::input("it is not a manifest").cause(error))?;
    if schema.schema > MANIFEST_SCHEMA {
        return Err(Error::input(format!("it was written by a newer Narthex (format {})", schema.schema))
            .help("install the newest Narthex, then run the same command again"));
    }
    if schema.schema < MANIFEST_SCHEMA {
        return Err(Error::input(format!("it was written by an older Narthex (format {})", schema.schema))
            .help("remove the folder .narthex and run the project again; keep exported folders that you need"));
    }
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| Error::input("it is not a manifest").cause(error))?;
    check_paths(&manifest)?;
    Ok(manifest)
}

/// Refuses paths that leave the folder or that the ledger keeps for itself. A source's paths name
/// files elsewhere and are not bound.
pub(crate) fn check_paths(manifest: &Manifest) -> Result<()> {
    if manifest.kind == ArtifactKind::Source {
        return Ok(());
    }
    for FileEntry { path, .. } in &manifest.files {
        if !disk::stays_inside(path) {
            return Err(Error::input(format!("`{path}` is not a path inside the artifact")));
        }
        let first = path.split('/').next().unwrap_or_default();
        if [MANIFEST_FILE, RUN_FOLDER, PROVENANCE_FILE].contains(&first) {
            return Err(Error::input(format!("`{path}`: the name `{first}` is the ledger's own"))
                .cause(format!(
                    "the ledger writes `{MANIFEST_FILE}`, `{RUN_FOLDER}/` and, on export, `{PROVENANCE_FILE}`"
                ))
                .help(format!("give `{first}` another name")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest;

    #[test]
    fn reads_a_manifest_back_with_the_same_digest() {
        let mut full = manifest(ArtifactKind::Model, "bard");
        full.recipe.config =
            serde_json::json!({"lr": 0.1 + 0.2, "tiny": 5e-324, "large": 1.7976931348623157e308, "z": 1, "a": -0.0});
        full.figures = BTreeMap::from([("loss".into(), 1.0 / 3.0), ("x".into(), 123_456_789.123_456_78)]);
        let pretty = serde_json::to_vec_pretty(&full).unwrap();
        assert_eq!(parse_manifest(&pretty).unwrap().digest(), full.digest());
    }

    #[test]
    fn refuses_paths_that_are_not_its_own() {
        for (path, expected) in [
            ("model.safetensors", None),
            ("deep/manifest.json", None),
            ("manifest.json", Some("the ledger's own")),
            ("run/x", Some("the ledger's own")),
            ("narthex.json", Some("the ledger's own")),
            ("../x", Some("not a path inside")),
            ("/x", Some("not a path inside")),
        ] {
            let mut manifest = manifest(ArtifactKind::Model, "bard");
            manifest.files = vec![FileEntry { path: path.into(), bytes: 0, digest: Digest::of(b"") }];
            let error = check_paths(&manifest).err().map(|error| error.what().to_string());
            match expected {
                None => assert_eq!(error, None, "{path}"),
                Some(text) => assert!(error.as_ref().is_some_and(|e| e.contains(text)), "{path}: {error:?}"),
            }
        }
    }

    #[test]
    fn other_formats_are_named() {
        let mut value = serde_json::to_value(manifest(ArtifactKind::Model, "bard")).unwrap();
        for (schema, expected) in [(99, "newer Narthex"), (1, "older Narthex")] {
            value["schema"] = schema.into();
            let error = parse_manifest(&serde_json::to_vec(&value).unwrap()).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
