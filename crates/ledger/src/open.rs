//! Opening a ledger: its folders, its catalog, and bringing the second up to date with the first.

use crate::{
    artifact::{Artifact, RunRecord},
    catalog::{ArtifactRow, Catalog, OpenError, SCHEMA},
    disk,
    lock::Lock,
};
use narthex_base::{Digest, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// The catalog's file name; what SQLite keeps beside it begins with it too.
pub(crate) const CATALOG_FILE: &str = "catalog.db";

/// What the name of a catalog that was set aside begins with.
pub(crate) const DAMAGED_CATALOG_PREFIX: &str = "damaged-catalog-";

/// The most warnings that are kept until they are taken.
const MAX_WARNINGS: usize = 1000;

/// A project's store of artifacts, opened.
pub struct Ledger {
    root: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) lock_held: Arc<AtomicBool>,
    newest_ms: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

impl Ledger {
    /// Opens the ledger in this folder (a project's `.narthex`), or creates it. A catalog that is
    /// missing or damaged is rebuilt from the folders; where it cannot be written (a full disk, a
    /// read-only folder) one in memory takes its place, so that reading and `gc` still work.
    /// [`Ledger::take_warnings`] tells of either.
    ///
    /// # Errors
    /// If the folder cannot be created or read, or the catalog is held by another process for long.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["artifacts", "refs", "steps", "work", "tmp"] {
            disk::create_folder(&root.join(folder))?;
        }
        let root = fs::canonicalize(root).map_err(|e| Error::io("cannot open", root, e))?;
        let _opening = opening_lock(&root)?;
        let mut warnings = Vec::new();
        let catalog = open_catalog(&root, &mut warnings)?;
        let mut ledger = Self {
            root,
            catalog,
            lock_held: Arc::new(AtomicBool::new(false)),
            newest_ms: AtomicU64::new(0),
            warnings: Mutex::new(warnings),
        };
        if let Err(error) = ledger.index_all() {
            ledger.warn(in_memory_warning(&first_line(&error)));
            ledger.catalog = Catalog::in_memory()?;
            ledger.index_all()?;
        }
        ledger.newest_ms.store(ledger.catalog.newest_ms()?, Ordering::SeqCst);
        Ok(ledger)
    }

    /// Brings the catalog up to date with the folders.
    fn index_all(&self) -> Result<()> {
        self.index_artifacts()?;
        self.index_refs()?;
        self.index_steps()
    }

    /// The ledger's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version of the catalog's tables, which is brought to this when a ledger is opened.
    pub fn schema(&self) -> i64 {
        SCHEMA
    }

    /// Takes the lock that one active run holds: for as long as it works on steps. Reading needs none.
    /// It is released when dropped, and by the system when the process dies.
    ///
    /// # Errors
    /// If another run is active; the cause names its process.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.root.join("lock"), &self.lock_held)
    }

    /// The lock, unless this ledger holds it already.
    pub(crate) fn lock_unless_held(&self) -> Result<Option<Lock>> {
        if self.lock_held.load(Ordering::SeqCst) { Ok(None) } else { self.lock().map(Some) }
    }

    /// What the user should know and has not been told yet.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn warn(&self, message: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    /// Milliseconds since 1970, later than every earlier record even if the clock was set back.
    pub(crate) fn next_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let later = |last: u64| Some(now.max(last + 1));
        let last = self.newest_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).unwrap_or_else(|last| last);
        now.max(last + 1)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn artifact_folder(&self, digest: Digest) -> PathBuf {
        self.root.join("artifacts").join(digest.to_string())
    }

    /// An artifact by its digest.
    ///
    /// # Errors
    /// If it is not in the store, or its manifest is damaged.
    pub fn get(&self, digest: Digest) -> Result<Artifact> {
        self.find(digest)?.ok_or_else(|| {
            Error::input(format!("there is no artifact {} in {}", digest.short(), self.root.display()))
                .help("list what there is: `narthex ls`")
        })
    }

    /// An artifact by its digest, if it is in the store.
    pub fn find(&self, digest: Digest) -> Result<Option<Artifact>> {
        Artifact::load(&self.artifact_folder(digest), digest)
    }

    /// Puts an artifact into the catalog.
    pub(crate) fn index(&self, artifact: &Artifact) -> Result<()> {
        self.catalog.put_artifact(&row_of(artifact))
    }

    /// Adds to the catalog what stands in the store, and drops what no longer does. The catalog is
    /// read first: what another process adds meanwhile is then never dropped.
    fn index_artifacts(&self) -> Result<()> {
        let known: BTreeSet<Digest> = self.catalog.artifacts()?.iter().map(|row| row.digest).collect();
        let stored: BTreeSet<Digest> =
            disk::names_in(&self.root.join("artifacts"))?.iter().filter_map(|name| name.parse().ok()).collect();
        for digest in stored.difference(&known) {
            match self.get(*digest) {
                Ok(artifact) => self.index(&artifact)?,
                Err(error) => self.warn(first_line(&error)),
            }
        }
        for digest in known.difference(&stored) {
            self.catalog.remove_artifact(*digest)?;
        }
        Ok(())
    }
}

/// An error in one line, for a warning.
pub(crate) fn first_line(error: &Error) -> String {
    let place = error.place().map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}: {}", error.what(), error.causes().join(": "))
}

/// Opens the catalog's file. One that is damaged is set aside for a new one; one that cannot be
/// written is replaced by one in memory.
fn open_catalog(root: &Path, warnings: &mut Vec<String>) -> Result<Catalog> {
    let path = root.join(CATALOG_FILE);
    if !path.exists() && !disk::names_in(&root.join("artifacts"))?.is_empty() {
        warnings.push("the catalog was missing: rebuilt from the artifacts".into());
    }
    let mut opened = Catalog::open(&path);
    if let Err(OpenError::Damaged(reason)) = &opened {
        match set_aside(root) {
            Ok(aside) => {
                let aside = aside.display();
                warnings.push(format!(
                    "the catalog was unusable ({reason}): moved to {aside} and rebuilt from the artifacts"
                ));
                opened = Catalog::open(&path);
            }
            Err(error) => opened = Err(OpenError::Unwritable(format!("{reason}; {}", first_line(&error)))),
        }
    }
    match opened {
        Ok(catalog) => Ok(catalog),
        Err(OpenError::Other(error)) => Err(error),
        Err(OpenError::Damaged(reason) | OpenError::Unwritable(reason)) => {
            warnings.push(in_memory_warning(&reason));
            Catalog::in_memory()
        }
    }
}

fn in_memory_warning(reason: &str) -> String {
    format!("the catalog cannot be used ({reason}): this command works with one in memory")
}

/// Opening is one process's business at a time; it takes milliseconds. Where nothing can be written,
/// there is nothing to guard.
fn opening_lock(root: &Path) -> Result<Option<File>> {
    let path = root.join("catalog.lock");
    let open = || -> std::io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    match open() {
        Ok(file) => Ok(Some(file)),
        Err(error) => match error.kind() {
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::StorageFull => Ok(None),
            _ => Err(Error::io("cannot lock", &path, error)),
        },
    }
}

/// Renames the catalog and what SQLite keeps beside it; returns the new name.
fn set_aside(root: &Path) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    for name in disk::names_in(root)? {
        if let Some(rest) = name.strip_prefix(CATALOG_FILE) {
            disk::rename(&root.join(&name), &root.join(format!("{DAMAGED_CATALOG_PREFIX}{now}.db{rest}")))?;
        }
    }
    Ok(root.join(format!("{DAMAGED_CATALOG_PREFIX}{now}.db")))
}

fn row_of(artifact: &Artifact) -> ArtifactRow {
    let RunRecord { created_ms, seconds, measured } = &artifact.run;
    ArtifactRow {
        digest: artifact.digest,
        kind: artifact.manifest.kind.to_string(),
        step: artifact.manifest.recipe.step.clone(),
        created_ms: *created_ms,
        bytes: artifact.bytes(),
        license: artifact.manifest.license().map(|license| license.to_string()),
        seconds: *seconds,
        figures: json_of(&artifact.manifest.figures),
        measured: json_of(measured),
        complete: artifact.is_complete(),
    }
}

fn json_of(numbers: &BTreeMap<String, f64>) -> String {
    serde_json::to_string(numbers).expect("names and numbers always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Project, manifest};
    use narthex_base::ArtifactKind;
    use serde_json::json;

    /// What a user could see of a ledger.
    fn seen(ledger: &Ledger) -> (Vec<crate::Listing>, Option<crate::StepRecord>, Vec<String>) {
        let resolved = ["data", "bard"].map(|name| ledger.resolve(name).unwrap().digest.to_string());
        (ledger.list().unwrap(), ledger.last_step("bard").unwrap(), resolved.to_vec())
    }

    fn filled() -> Project {
        let project = Project::new();
        let data = project.commit("data", &[], &[("train.jsonl", "a"), ("deep/val.jsonl", "b")]);
        let first = project.commit("bard", &[&data], &[("model.safetensors", "w1")]);
        let second = project.commit("bard", &[&data], &[("model.safetensors", "w2")]);
        for (name, artifact) in [("data", &data), ("bard", &first), ("bard", &second)] {
            project.ledger().set_ref(name, artifact.digest).unwrap();
        }
        let key = Digest::of(b"key");
        project.ledger().remember_step("bard", key, second.digest, &json!({"lr": 0.1})).unwrap();
        project
    }

    #[test]
    fn a_lost_or_damaged_catalog_is_rebuilt() {
        let truncate = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        };
        let scribble = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[4096..].fill(0xa5);
            fs::write(path, &bytes).unwrap();
        };
        type Harm<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Harm, &str); 5] = [
            ("missing", &|path| fs::remove_file(path).unwrap(), "was missing"),
            ("not a database", &|path| fs::write(path, "x".repeat(5000)).unwrap(), "unusable"),
            ("truncated", &truncate, "unusable"),
            ("scribbled over", &scribble, "unusable"),
            ("untouched", &|_| {}, ""),
        ];
        for (case, harm, warning) in cases {
            let mut project = filled();
            let before = seen(project.ledger());
            project.close();
            harm(&project.root().join(CATALOG_FILE));
            project.reopen();
            let warnings = project.ledger().take_warnings().join("\n");
            assert_eq!(warnings.is_empty(), warning.is_empty(), "{case}: {warnings}");
            assert!(warnings.contains(warning), "{case}: {warnings}");
            assert_eq!(seen(project.ledger()), before, "{case}");
        }
    }

    #[test]
    fn a_crash_between_folder_and_catalog_is_made_good() {
        let mut project = filled();
        let artifact = project.ledger().resolve("bard").unwrap();
        let before = seen(project.ledger());
        // As if the process had died after the rename and before the row.
        project.ledger().catalog.remove_artifact(artifact.digest).unwrap();
        project.ledger().catalog.put_ref("bard", &[]).unwrap();
        project.ledger().catalog.remove_step(Digest::of(b"key")).unwrap();
        project.reopen();
        assert_eq!(seen(project.ledger()), before);
        // And as if a row had outlived its folder.
        let extra = project.commit("extra", &[], &[("x", "x")]);
        fs::remove_dir_all(&extra.folder).unwrap();
        project.reopen();
        assert_eq!(seen(project.ledger()), before);
    }

    #[test]
    fn a_damaged_manifest_is_named_and_the_rest_works() {
        let mut project = filled();
        let bard = project.ledger().resolve("bard").unwrap();
        let path = bard.folder.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        for (harmed, reason) in
            [(text.replace("\"seed\": 0", "\"seed\": 1"), "has the digest"), (text[..40].to_string(), "not a manifest")]
        {
            fs::remove_file(&path).unwrap();
            fs::write(&path, harmed).unwrap();
            project.reopen();
            let error = project.ledger().resolve("bard").unwrap_err();
            assert!(error.what().contains("damaged"), "{error}");
            assert!(error.place().unwrap().ends_with("manifest.json"), "{error}");
            assert!(error.causes().join(" ").contains(reason), "{error}");
            assert!(error.help_text().is_some());
            project.ledger().resolve("data").unwrap();
            assert_eq!(project.ledger().known_step(Digest::of(b"key")).unwrap().map(|a| a.digest), None);
        }
        // Making it again mends it.
        let data = project.ledger().resolve("data").unwrap();
        project.commit("bard", &[&data], &[("model.safetensors", "w2")]);
        assert_eq!(project.ledger().resolve("bard").unwrap().manifest, bard.manifest);
    }

    #[test]
    fn refuses_a_place_that_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Ledger::open(&path.join(".narthex")).err().unwrap();
        assert!(error.what().contains("cannot create the folder"), "{error}");
    }

    #[test]
    fn times_only_rise() {
        let project = Project::new();
        let times: Vec<u64> = (0..100).map(|_| project.ledger().next_ms()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(manifest(ArtifactKind::Model, "x").recipe.step, "x");
    }
}
