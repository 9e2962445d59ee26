//! How work becomes an artifact: hashed, completed beside the store, and renamed into it. Knows
//! nothing of names: see `names.rs`.

use crate::{
    artifact::{Artifact, MANIFEST_FILE, RUN_FILE, RUN_FOLDER, RunRecord, check_paths, parse_manifest},
    catalog::FileStamp,
    disk, names,
    open::Ledger,
};
use narthex_base::{ArtifactKind, Error, FileEntry, Manifest, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A file changed this recently may change again without its time moving: its digest is not kept.
const SETTLED: Duration = Duration::from_secs(2);

impl Ledger {
    /// The work folder of a step, `work/<key>/`: made, or found as an interrupted run left it.
    /// `files/` in it becomes the artifact; what else the step keeps (checkpoints) stands beside it.
    /// To be called with the lock held.
    ///
    /// # Errors
    /// If the key is no file name, or the folder cannot be made.
    pub fn stage(&self, key: &str) -> Result<PathBuf> {
        let folder = self.work_folder(key)?;
        disk::create_folder(&folder.join("files"))?;
        Ok(folder)
    }

    /// Removes a step's work folder, checkpoints included: its artifact is committed.
    ///
    /// # Errors
    /// If something in it cannot be removed.
    pub fn discard_stage(&self, key: &str) -> Result<()> {
        disk::remove(&self.work_folder(key)?)
    }

    fn work_folder(&self, key: &str) -> Result<PathBuf> {
        names::check(key)?;
        Ok(self.root().join("work").join(key))
    }

    /// The entry of a file outside the store: the path as given, its size and digest. The digest of a
    /// file that has not changed since it was last asked for is not computed again.
    ///
    /// # Errors
    /// If the file cannot be read, changes meanwhile, or its path is not UTF-8.
    pub fn digest_file(&self, path: &Path) -> Result<FileEntry> {
        let given = path.to_str().ok_or_else(|| {
            Error::input(format!("the path {} is not UTF-8", path.display())).help("rename the file or its folder")
        })?;
        let given = if std::path::MAIN_SEPARATOR == '/' { given.into() } else { given.replace('\\', "/") };
        let real = fs::canonicalize(path).map_err(|e| Error::io("cannot read", path, e))?;
        let stat = fs::metadata(&real).map_err(|e| Error::io("cannot read", path, e))?;
        let stamp = real.to_str().map(|real| FileStamp {
            path: real.into(),
            bytes: stat.len() as i64,
            modified_ns: disk::modified_ns(&stat),
            inode: disk::inode(&stat),
        });
        if let Some(stamp) = &stamp
            && let Some(digest) = self.catalog.file_digest(stamp)?
        {
            return Ok(FileEntry { path: given, bytes: stat.len(), digest });
        }
        let (bytes, digest) = disk::hash(&real)?;
        let age = stat.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        // What was hashed is what the stamp describes only if the file has not grown since.
        if let Some(stamp) = &stamp
            && bytes == stat.len()
            && age.is_some_and(|age| age >= SETTLED)
        {
            self.catalog.put_file_digest(stamp, digest)?;
        }
        Ok(FileEntry { path: given, bytes, digest })
    }

    /// Makes an artifact of the files below `files_dir` (a folder that [`Ledger::stage`] gave; it is
    /// used up) and fills in `manifest.files`. What `run_dir` holds is linked beside them as the record
    /// of the run, which is not part of the identity: it must not be written to any more, only replaced. If the
    /// artifact is there already, the old one stays, files of it that are missing or damaged are mended from the new
    /// ones, and the rest of the new ones is dropped. To be called with the lock held.
    ///
    /// # Errors
    /// If a file has a name that the ledger keeps for itself (`manifest.json`, `run`, `narthex.json`),
    /// a parent is not in the store, a figure is not finite, or a disk operation fails; the files are
    /// then back in `files_dir`.
    pub fn commit(
        &self,
        mut manifest: Manifest,
        files_dir: &Path,
        run_dir: Option<&Path>,
        record: RunRecord,
    ) -> Result<Artifact> {
        if manifest.kind == ArtifactKind::Source {
            return Err(Error::internal("a source has no files of its own: `commit_source`"));
        }
        manifest.files = disk::entries(files_dir)?;
        self.check_parents(&manifest)?;
        self.store(manifest, Some(files_dir), run_dir, record)
    }

    /// Makes an artifact of files that stay where they are. `manifest.files` comes from
    /// [`Ledger::digest_file`]; it is sorted here.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub fn commit_source(&self, mut manifest: Manifest, record: RunRecord) -> Result<Artifact> {
        if manifest.kind != ArtifactKind::Source {
            return Err(Error::internal(format!("a {} has files of its own: `commit`", manifest.kind)));
        }
        manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.check_parents(&manifest)?;
        self.store(manifest, None, None, record)
    }

    fn check_parents(&self, manifest: &Manifest) -> Result<()> {
        match manifest.parents.iter().find(|parent| !self.artifact_folder(parent.digest).is_dir()) {
            None => Ok(()),
            Some(parent) => Err(Error::input(format!("the input `{}` is not in the ledger any more", parent.name))
                .cause(format!("artifact {} was removed while the step ran", parent.digest.short()))
                .help("run the same command again: it is made anew")),
        }
    }

    /// Stores a manifest whose files are listed. Without `files`, the manifest alone.
    pub(crate) fn store(
        &self,
        manifest: Manifest,
        files: Option<&Path>,
        run_dir: Option<&Path>,
        record: RunRecord,
    ) -> Result<Artifact> {
        let text = checked_text(&manifest)?;
        let digest = manifest.digest();
        let folder = self.artifact_folder(digest);
        let made = disk::temporary(&self.tmp())?;
        let ready = made.path().join("ready");
        disk::create_folder(&ready)?;
        disk::write_new(&ready.join(MANIFEST_FILE), text.as_bytes())?;
        self.write_run(&ready.join(RUN_FOLDER), run_dir, record)?;
        disk::set_read_only(&ready, true)?;
        if folder.is_dir() {
            mend(&folder, &manifest, files, &ready)?;
        } else if let Err(error) = place(&folder, files, &ready, &made.path().join("artifact")) {
            // Another process may have put the same artifact there in the meantime: then it is done.
            if !self.find(digest).is_ok_and(|found| found.is_some()) {
                return Err(error);
            }
            files.map_or(Ok(()), disk::remove)?;
        }
        let artifact = self.get(digest)?;
        self.index(&artifact)?;
        Ok(artifact)
    }

    fn write_run(&self, run: &Path, run_dir: Option<&Path>, mut record: RunRecord) -> Result<()> {
        match run_dir {
            Some(from) if from.is_dir() => disk::link_folder(from, run)?,
            _ => disk::create_folder(run)?,
        }
        record.created_ms = self.next_ms();
        // JSON has no infinities; a measurement that failed is left out.
        record.seconds = if record.seconds.is_finite() { record.seconds } else { 0.0 };
        record.measured.retain(|_, value| value.is_finite());
        disk::remove(&run.join(RUN_FILE))?;
        let text = serde_json::to_string_pretty(&record).expect("names and numbers always serialize");
        disk::write_new(&run.join(RUN_FILE), format!("{text}\n").as_bytes())?;
        disk::sync_folders(run)
    }
}

/// The manifest's text, once it is sure that it will read back as the same manifest.
fn checked_text(manifest: &Manifest) -> Result<String> {
    if let Some((name, value)) = manifest.figures.iter().find(|(_, value)| !value.is_finite()) {
        return Err(Error::input(format!("the figure `{name}` of step `{}` is {value}", manifest.recipe.step))
            .cause("an artifact's figures are finite numbers")
            .help("if this is a training step, lower its learning rate (`--set STEP.lr=…`) and run again"));
    }
    check_paths(manifest)?;
    let text = serde_json::to_string_pretty(manifest).expect("a manifest always serializes") + "\n";
    match parse_manifest(text.as_bytes()) {
        Ok(read) if read.digest() == manifest.digest() => Ok(text),
        Ok(_) => Err(Error::internal("the manifest would not read back as it was written")),
        Err(error) => Err(Error::internal("the manifest would not read back").cause(error.what())),
    }
}

/// Puts a new artifact into the store: all of it or nothing.
fn place(folder: &Path, files: Option<&Path>, ready: &Path, assembly: &Path) -> Result<()> {
    match files {
        Some(files) => disk::move_folder(files, assembly)?,
        None => disk::create_folder(assembly)?,
    }
    let assemble = || {
        disk::set_read_only(assembly, true)?;
        for name in [MANIFEST_FILE, RUN_FOLDER] {
            disk::rename(&ready.join(name), &assembly.join(name))?;
        }
        disk::sync_folders(assembly)?;
        disk::rename(assembly, folder)?;
        folder.parent().map_or(Ok(()), disk::sync_folder)
    };
    let Err(error) = assemble() else { return Ok(()) };
    if let Some(files) = files
        && assembly.is_dir()
    {
        // Give the step its files back; if that fails too, the first error is the one that counts.
        for name in [MANIFEST_FILE, RUN_FOLDER] {
            let _ = disk::remove(&assembly.join(name));
        }
        let _ = disk::set_read_only(assembly, false);
        let _ = disk::move_folder(assembly, files);
    }
    Err(error)
}

/// Keeps an artifact that is there, replaces what is missing or damaged in it, drops the new files.
fn mend(folder: &Path, manifest: &Manifest, files: Option<&Path>, ready: &Path) -> Result<()> {
    if let Some(files) = files {
        for file in &manifest.files {
            let target = folder.join(&file.path);
            if !disk::matches(&target, file) {
                if let Some(parent) = target.parent() {
                    disk::create_folder(parent)?;
                }
                if target.is_dir() {
                    disk::remove(&target)?;
                }
                take_file(&files.join(&file.path), &target)?;
            }
        }
        disk::remove(files)?;
    }
    let is_sound = fs::read(folder.join(MANIFEST_FILE))
        .ok()
        .and_then(|bytes| parse_manifest(&bytes).ok())
        .is_some_and(|found| found == *manifest);
    if !is_sound {
        disk::rename(&ready.join(MANIFEST_FILE), &folder.join(MANIFEST_FILE))?;
    }
    if !folder.join(RUN_FOLDER).join(RUN_FILE).is_file() {
        disk::remove(&folder.join(RUN_FOLDER))?;
        disk::rename(&ready.join(RUN_FOLDER), &folder.join(RUN_FOLDER))?;
    }
    disk::set_read_only(folder, true)?;
    disk::sync_folders(folder)
}

/// Renames a file into place, or, from another disk, copies it beside its place and renames that.
fn take_file(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let near = to.with_extension("narthex-part");
            disk::remove(&near)?;
            disk::copy_file(from, &near)?;
            disk::rename(&near, to)
        }
        other => other.map_err(|e| Error::io(&format!("cannot move {} to", from.display()), to, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Project, manifest, parent, write_below};
    use narthex_base::Digest;
    use std::{collections::BTreeMap, fs::File, os::unix::fs::PermissionsExt};

    #[test]
    fn a_commit_is_complete_read_only_and_named_by_its_manifest() {
        let project = Project::new();
        let ledger = project.ledger();
        let work = ledger.stage("bard").unwrap();
        write_below(&work, &[("files/model.safetensors", "w"), ("files/LICENSES/MIT.txt", "mit")]);
        write_below(&work, &[("run/metrics.jsonl", "{}"), ("run/run.json", "ours wins"), ("checkpoints/last", "c")]);
        let measured = BTreeMap::from([("tokens_per_second".into(), 9.5), ("broken".into(), f64::NAN)]);
        let record = RunRecord { seconds: 1.25, measured, created_ms: 0 };
        let made = ledger
            .commit(manifest(ArtifactKind::Model, "bard"), &work.join("files"), Some(&work.join("run")), record)
            .unwrap();
        let paths: Vec<&str> = made.manifest.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["LICENSES/MIT.txt", "model.safetensors"]);
        assert_eq!(made.manifest.files[1].digest, Digest::of(b"w"));
        assert_eq!(made.folder, ledger.root().join("artifacts").join(made.manifest.digest().to_string()));
        assert_eq!(made.read_text("LICENSES/MIT.txt").unwrap(), "mit");
        assert_eq!(fs::read_to_string(made.run_path("metrics.jsonl")).unwrap(), "{}");
        assert_eq!((made.run.seconds, made.run.measured.len()), (1.25, 1));
        assert!(made.run.created_ms > 1_500_000_000_000);
        assert!(made.is_complete());
        for file in ["model.safetensors", "manifest.json", "run/run.json"] {
            assert_eq!(fs::metadata(made.path(file)).unwrap().permissions().mode() & 0o222, 0, "{file}");
        }
        ledger.verify(&made).unwrap();
        assert!(work.join("checkpoints/last").exists(), "checkpoints are the step's to remove");
        assert!(!work.join("files").exists());
        assert!(disk::names_in(&ledger.tmp()).unwrap().is_empty());
        ledger.discard_stage("bard").unwrap();
        assert!(!work.exists());
    }

    #[test]
    fn the_same_again_keeps_the_old_one_and_mends_it() {
        let project = Project::new();
        let files = [("a", "one"), ("b/c", "two")];
        let old = project.commit("bard", &[], &files);
        let created = old.run.created_ms;
        let harm: [&dyn Fn(); 4] = [
            &|| {},
            &|| fs::remove_file(old.path("b/c")).unwrap(),
            &|| {
                fs::remove_file(old.path("a")).unwrap();
                fs::write(old.path("a"), "eno").unwrap();
            },
            &|| fs::remove_dir_all(old.path("b")).unwrap(),
        ];
        for harm in harm {
            harm();
            let new = project.commit("bard", &[], &files);
            assert_eq!((new.digest, new.run.created_ms), (old.digest, created));
            project.ledger().verify(&new).unwrap();
        }
        assert_eq!(project.ledger().list().unwrap().len(), 1);
    }

    #[test]
    fn the_same_from_several_processes_is_one() {
        for _ in 0..5 {
            let project = Project::new();
            let root = project.root();
            std::thread::scope(|scope| {
                for worker in 0..4 {
                    let root = &root;
                    scope.spawn(move || {
                        let ledger = Ledger::open(root).unwrap();
                        let work = ledger.stage(&format!("worker-{worker}")).unwrap();
                        write_below(&work, &[("files/w", "same")]);
                        let same = manifest(ArtifactKind::Model, "bard");
                        let made = ledger.commit(same, &work.join("files"), None, RunRecord::default()).unwrap();
                        ledger.verify(&made).unwrap();
                        assert!(!work.join("files").exists());
                    });
                }
            });
            assert_eq!(project.ledger().list().unwrap().len(), 1);
        }
    }

    #[test]
    fn refusals_leave_the_files_where_they_were() {
        let project = Project::new();
        let ledger = project.ledger();
        let mut orphan = manifest(ArtifactKind::Model, "bard");
        orphan.parents = vec![parent(&project.commit("gone", &[], &[("x", "x")]))];
        fs::remove_dir_all(ledger.artifact_folder(orphan.parents[0].digest)).unwrap();
        let mut infinite = manifest(ArtifactKind::Model, "bard");
        infinite.figures.insert("loss".into(), f64::NAN);
        let plain = manifest(ArtifactKind::Model, "bard");
        for (manifest, file, expected) in [
            (orphan, "x", "not in the ledger any more"),
            (infinite, "x", "figure `loss`"),
            (plain.clone(), "manifest.json", "the ledger's own"),
            (plain.clone(), "run/x", "the ledger's own"),
        ] {
            let work = ledger.stage("bard").unwrap();
            write_below(&work.join("files"), &[(file, "x")]);
            let error = ledger.commit(manifest, &work.join("files"), None, RunRecord::default()).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
            assert_eq!(fs::read_to_string(work.join("files").join(file)).unwrap(), "x");
            ledger.discard_stage("bard").unwrap();
        }
        // The last moment at which it can fail: the place in the store is taken by a file.
        let work = ledger.stage("bard").unwrap();
        write_below(&work.join("files"), &[("x", "x")]);
        let mut taken = plain.clone();
        taken.files = disk::entries(&work.join("files")).unwrap();
        fs::write(ledger.artifact_folder(taken.digest()), "").unwrap();
        ledger.commit(plain, &work.join("files"), None, RunRecord::default()).unwrap_err();
        assert_eq!(disk::names_in(&work.join("files")).unwrap(), ["x"]);
        fs::OpenOptions::new().write(true).open(work.join("files/x")).unwrap();
        assert_eq!(fs::metadata(work.join("files/x")).unwrap().permissions().mode() & 0o200, 0o200);
    }

    #[test]
    fn sources_stay_where_they_are() {
        let project = Project::new();
        let ledger = project.ledger();
        let folder = project.write("raw", &[("b.txt", "bb"), ("a.txt", "a")]);
        let mut source = manifest(ArtifactKind::Source, "plays");
        source.files = ["b.txt", "a.txt"].map(|name| ledger.digest_file(&folder.join(name)).unwrap()).into();
        let made = ledger.commit_source(source, RunRecord::default()).unwrap();
        let files: Vec<_> = made.manifest.files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
        assert_eq!(files, [(format!("{}/a.txt", folder.display()), 1), (format!("{}/b.txt", folder.display()), 2)]);
        assert!(made.is_complete());
        ledger.verify(&made).unwrap();
        fs::write(folder.join("a.txt"), "x").unwrap();
        assert!(ledger.verify(&made).unwrap_err().what().contains("a.txt"));
    }

    #[test]
    fn only_changed_files_are_hashed_again() {
        let project = Project::new();
        let path = project.write("raw", &[("a.txt", "one")]).join("a.txt");
        let set_time = |seconds| {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let digest = || project.ledger().digest_file(&path).unwrap().digest;
        set_time(1_000_000);
        assert_eq!(digest(), Digest::of(b"one"));
        // Same size, time and inode: taken for the same file, which shows that the digest is remembered.
        fs::write(&path, "two").unwrap();
        set_time(1_000_000);
        assert_eq!(digest(), Digest::of(b"one"));
        set_time(1_000_001);
        assert_eq!(digest(), Digest::of(b"two"));
        // A file that was only just written is not remembered.
        fs::write(&path, "new").unwrap();
        let stat = fs::metadata(&path).unwrap();
        assert_eq!(digest(), Digest::of(b"new"));
        fs::write(&path, "old").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(stat.modified().unwrap()).unwrap();
        assert_eq!(digest(), Digest::of(b"old"));
    }

    #[test]
    fn an_interrupted_step_finds_its_work_again() {
        let mut project = Project::new();
        let work = project.ledger().stage("train-abc").unwrap();
        write_below(&work, &[("checkpoints/100", "state"), ("files/half", "h")]);
        project.reopen();
        let again = project.ledger().stage("train-abc").unwrap();
        assert_eq!(again, work);
        assert_eq!(fs::read_to_string(again.join("checkpoints/100")).unwrap(), "state");
        assert!(project.ledger().stage("../out").is_err());
    }
}
