//! Artifacts in and out of the store as plain folders, with their lineage in `narthex.json`.

use crate::{
    artifact::{Artifact, MANIFEST_FILE, PROVENANCE_FILE, RUN_FOLDER, RunRecord, parse_manifest},
    disk::{self, Links},
    names,
    open::Ledger,
};
use narthex_base::{
    ArtifactKind, Digest, Error, FileEntry, Manifest, Parent, Provenance, Result, papers, papers::is_paper,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The largest `narthex.json` that is read.
const MAX_PROVENANCE_BYTES: u64 = 256 << 20;

/// The largest signature that is known for one: it names every file of a folder.
const MAX_SIGNATURE_BYTES: u64 = 64 << 20;

/// What an artifact is to the one that it is a change of.
const CHANGED_FROM: &str = "changed from";

/// The most ancestors that a folder may bring along.
const MAX_ANCESTORS: usize = 10_000;

/// Folders of version control and of download tools, which are no part of what is imported.
const PASSED_OVER: [&str; 2] = [".git", ".cache"];

impl Ledger {
    /// Copies an artifact's files, checked on the way, and `narthex.json` (its manifest and those of its
    /// ancestors) to a folder that is new or empty. Returns what was written. All of it appears at once.
    ///
    /// # Errors
    /// If the folder is not empty, the artifact has no files here, or a file is damaged.
    pub fn export(&self, artifact: &Artifact, to: &Path) -> Result<Vec<PathBuf>> {
        self.export_by(artifact, to, disk::copy_file)
    }

    /// The same for somebody who reads the files once, and writes nothing: they take no place on the disk a second
    /// time where it can give a file a second name.
    ///
    /// # Errors
    /// As [`Ledger::export`].
    pub fn lay_out(&self, artifact: &Artifact, to: &Path) -> Result<Vec<PathBuf>> {
        self.export_by(artifact, to, disk::link_file)
    }

    fn export_by(&self, artifact: &Artifact, to: &Path, take: fn(&Path, &Path) -> Result<()>) -> Result<Vec<PathBuf>> {
        let short = artifact.digest.short();
        if artifact.manifest.kind == ArtifactKind::Source {
            let files = artifact.manifest.files.iter().take(3).map(|file| file.path.as_str()).collect::<Vec<_>>();
            return Err(Error::input(format!(
                "`{}` ({short}) is a source: its files were never copied",
                artifact.name()
            ))
            .cause(format!("they are where they were: {}", files.join(", ")))
            .help("export what was made from it, or copy the files themselves"));
        }
        if !artifact.is_complete() {
            return Err(Error::input(format!("the files of `{}` ({short}) are not in this ledger", artifact.name()))
                .help("export it in the project that made it, or make it again: `narthex run`"));
        }
        let to = free_folder(to)?;
        let parent = to.parent().unwrap_or(Path::new("/"));
        disk::create_folder(parent)?;
        let made = tempfile::Builder::new()
            .prefix(".narthex-export-")
            .tempdir_in(parent)
            .map_err(|e| Error::io("cannot write into", parent, e))?;
        let folder = made.path().join("new");
        disk::create_folder(&folder)?;
        let mut written = Vec::new();
        for file in &artifact.manifest.files {
            let copy = folder.join(&file.path);
            take(&artifact.path(&file.path), &copy)?;
            if !disk::matches(&copy, file) {
                self.verify(artifact)?;
                return Err(Error::input(format!("{} did not arrive as it was stored", file.path))
                    .help("check the disk that you export to"));
            }
            written.push(to.join(&file.path));
        }
        // What was made for passing on brings its papers; all else gets them here.
        let title = artifact.name();
        let papers = papers(title, &artifact.manifest.components, &artifact.manifest.texts);
        for (path, text) in papers.files {
            if artifact.manifest.file(&path).is_none() {
                disk::create_folder(folder.join(&path).parent().unwrap_or(&folder))?;
                disk::write_new(&folder.join(&path), text.as_bytes())?;
                written.push(to.join(path));
            }
        }
        let provenance = serde_json::to_string_pretty(&self.provenance(artifact)?).expect("manifests always serialize");
        disk::write_new(&folder.join(PROVENANCE_FILE), format!("{provenance}\n").as_bytes())?;
        written.push(to.join(PROVENANCE_FILE));
        disk::sync_folders(&folder)?;
        disk::rename(&folder, &to)?;
        disk::sync_folder(parent)?;
        written.sort();
        Ok(written)
    }

    /// Copies a folder's files into the store and gives the artifact a name. A folder that an export
    /// wrote, and whose files are still the same, signed since or not, becomes the very artifact that it was,
    /// with its lineage (of the ancestors the manifests only). One that was changed since becomes what `manifest`
    /// says, with what it was as its parent; any other becomes what `manifest` says. Folders of version control are
    /// passed over.
    ///
    /// # Errors
    /// If the folder is empty or holds something other than files (a link that leaves it, a socket), if
    /// the name is not fit to be one, or another run is active.
    pub fn import(&self, folder: &Path, name: &str, manifest: Manifest) -> Result<Artifact> {
        names::check(name)?;
        if manifest.kind == ArtifactKind::Source {
            return Err(Error::internal("a source is not imported: `commit_source`"));
        }
        let _lock = self.lock_unless_held()?;
        let found = importable(folder)?;
        let made = disk::temporary(&self.tmp())?;
        let files_dir = made.path().join("files");
        for (path, real) in &found {
            disk::copy_file(real, &files_dir.join(path))?;
        }
        let files = disk::entries(&files_dir)?;
        let papers = self.papers(folder);
        let changed = papers.as_ref().and_then(|papers| changed_since(papers, &files_dir, &files));
        let artifact = match (papers, changed) {
            (None, _) => self.commit(manifest, &files_dir, None, RunRecord::default())?,
            (Some(Provenance { manifest, lineage }), None) => {
                // The papers that an export added are made again when it is passed on again; signatures are over the
                // folder.
                for file in files.iter().filter(|file| manifest.file(&file.path).is_none()) {
                    disk::remove(&files_dir.join(&file.path))?;
                }
                self.store_ancestors(&manifest, lineage)?;
                self.store(manifest, Some(&files_dir), None, RunRecord::default())?
            }
            (Some(Provenance { manifest: before, lineage }), Some(path)) => {
                self.warn(format!(
                    "{path} differs from what {} describes: imported as a change of {}, whose terms still hold",
                    folder.join(PROVENANCE_FILE).display(),
                    before.digest().short()
                ));
                self.store_ancestors(&before, lineage)?;
                if !self.artifact_folder(before.digest()).is_dir() {
                    self.store(before.clone(), None, None, RunRecord::default())?;
                }
                let mut manifest = manifest;
                manifest.inherit(&before);
                manifest.parents.push(Parent {
                    role: CHANGED_FROM.into(),
                    name: before.recipe.step.clone(),
                    kind: before.kind,
                    digest: before.digest(),
                });
                self.commit(manifest, &files_dir, None, RunRecord::default())?
            }
        };
        self.set_ref(name, artifact.digest)?;
        Ok(artifact)
    }

    /// The folder's `narthex.json`, if it has one that can be read.
    fn papers(&self, folder: &Path) -> Option<Provenance> {
        let path = folder.join(PROVENANCE_FILE);
        fs::symlink_metadata(&path).ok()?;
        let warn = |error: Error| {
            let causes = error.causes().iter().map(|cause| format!(": {cause}")).collect::<String>();
            let what = error.what();
            self.warn(format!("{} is not used: {what}{causes}; imported without its lineage", path.display()));
        };
        read_provenance(&path).map_err(warn).ok()
    }

    /// Stores the manifests of an artifact's ancestors that are not here yet, ancestors first.
    fn store_ancestors(&self, manifest: &Manifest, lineage: Vec<Manifest>) -> Result<()> {
        let known: BTreeMap<Digest, Manifest> =
            lineage.into_iter().map(|ancestor| (ancestor.digest(), ancestor)).collect();
        let mut ordered = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next: Vec<Digest> = manifest.parents.iter().map(|parent| parent.digest).collect();
        // Nearest first, each once; a manifest that no other names is left out.
        while let Some(digest) = next.pop() {
            if let Some(ancestor) = known.get(&digest)
                && seen.insert(digest)
            {
                next.extend(ancestor.parents.iter().map(|parent| parent.digest));
                ordered.push(digest);
            }
        }
        for digest in ordered.into_iter().rev() {
            if !self.artifact_folder(digest).is_dir() {
                self.store(known[&digest].clone(), None, None, RunRecord::default())?;
            }
        }
        Ok(())
    }
}

/// Reads the `narthex.json` that an export wrote.
///
/// # Errors
/// If it cannot be read or is not what an export writes.
pub fn read_provenance(path: &Path) -> Result<Provenance> {
    let read = || -> Result<Provenance> {
        let bytes = disk::read_limited(path, MAX_PROVENANCE_BYTES)?;
        let provenance: Provenance = serde_json::from_slice(&bytes)
            .map_err(|error| Error::input("it is not what an export writes").cause(error))?;
        for manifest in provenance.all() {
            // Once through text, as it will be read from the store: format and paths are checked there.
            parse_manifest(&serde_json::to_vec(manifest).expect("a manifest always serializes"))?;
        }
        if provenance.lineage.len() > MAX_ANCESTORS {
            return Err(Error::input(format!("it names more than {MAX_ANCESTORS} ancestors")));
        }
        Ok(provenance)
    };
    read().map_err(|error| error.at(path.display(), None))
}

/// The first path at which a folder differs from what its papers describe. Papers that an export wrote beside the
/// files, signatures over the folder, and what version control and file managers leave there, are no part of it.
fn changed_since(papers: &Provenance, folder: &Path, files: &[FileEntry]) -> Option<String> {
    let own = |file: &&FileEntry| {
        papers.manifest.file(&file.path).is_some()
            || !(is_paper(&file.path) || is_left_behind(&file.path) || is_signature(&folder.join(&file.path)))
    };
    let files: Vec<FileEntry> = files.iter().filter(own).cloned().collect();
    difference(&papers.manifest.files, &files)
}

/// Files that tools leave in folders.
fn is_left_behind(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [".gitattributes", ".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini"].contains(&name)
}

/// Whether a file is a signature: a Sigstore bundle, whatever its name.
fn is_signature(path: &Path) -> bool {
    let is_bundle = |bytes: &[u8]| {
        let value: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
        let kind = value.as_ref().and_then(|value| value.get("mediaType")?.as_str());
        kind.is_some_and(|kind| kind.starts_with("application/vnd.dev.sigstore.bundle"))
    };
    disk::read_limited(path, MAX_SIGNATURE_BYTES).is_ok_and(|bytes| is_bundle(&bytes))
}

/// The first path at which two sorted lists of files differ.
fn difference(expected: &[FileEntry], found: &[FileEntry]) -> Option<String> {
    if let Some((expected, found)) = expected.iter().zip(found).find(|(expected, found)| expected != found) {
        return Some(expected.path.clone().min(found.path.clone()));
    }
    let longer = if expected.len() > found.len() { expected } else { found };
    longer.get(expected.len().min(found.len())).map(|file| file.path.clone())
}

/// The absolute path of a folder to be written, which is not there or empty.
fn free_folder(to: &Path) -> Result<PathBuf> {
    if fs::symlink_metadata(to).is_err() {
        return std::path::absolute(to).map_err(|e| Error::io("cannot use", to, e));
    }
    let real = fs::canonicalize(to).map_err(|e| Error::io("cannot use", to, e))?;
    let names = if real.is_dir() { disk::names_in(&real)? } else { vec![] };
    if real.is_dir() && names.is_empty() {
        return Ok(real);
    }
    let what = if real.is_dir() { "is not empty" } else { "is not a folder" };
    let error = Error::input(format!("{} {what}", to.display()));
    let error = match names.first() {
        Some(first) => error.cause(format!("it holds `{first}`")),
        None => error,
    };
    Err(error.help(format!("export to a folder that does not exist yet, such as {}-new", to.display())))
}

/// The files of a folder that is to be imported.
fn importable(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Err(
            Error::input(format!("{} is not a folder", folder.display())).help("give the folder that holds the files")
        );
    }
    let mut found = disk::walk(folder, Links::Inside)?;
    found.retain(|(path, _)| {
        let first = path.split('/').next().unwrap_or_default();
        path != PROVENANCE_FILE && !PASSED_OVER.contains(&first)
    });
    if found.is_empty() {
        return Err(
            Error::input(format!("{} holds no files", folder.display())).help("give the folder that holds the files")
        );
    }
    if let Some((path, _)) =
        found.iter().find(|(path, _)| path == MANIFEST_FILE || path.starts_with(&format!("{RUN_FOLDER}/")))
    {
        return Err(Error::input(format!("{} cannot be imported: it holds `{path}`", folder.display()))
            .cause(format!("`{MANIFEST_FILE}` and `{RUN_FOLDER}/` are names that the ledger keeps for itself"))
            .help("give it another name, or, if this is the folder of an artifact, export that first: `narthex export REF DIR`"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Project, chain, manifest, write_below};
    use narthex_base::Presence;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn out_and_into_another_project_it_is_the_same_artifact() {
        let project = Project::new();
        let chat = chain(&project);
        let to = project.folder.path().join("out/deep/bard");
        let written = project.ledger().export(&chat, &to).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.strip_prefix(&to).unwrap().display().to_string()).collect();
        assert_eq!(names, ["LICENSE", "NOTICE", "card/README.md", "model.safetensors", "narthex.json"]);
        assert_eq!(disk::names_in(&to).unwrap(), ["LICENSE", "NOTICE", "card", "model.safetensors", "narthex.json"]);
        assert_eq!(disk::names_in(to.parent().unwrap()).unwrap(), ["bard"], "nothing is left beside it");
        assert_ne!(fs::metadata(to.join("model.safetensors")).unwrap().permissions().mode() & 0o200, 0);

        let other = Project::new();
        let unused = manifest(ArtifactKind::Model, "import");
        let copy = other.ledger().import(&to, "my-bard", unused.clone()).unwrap();
        assert_eq!((copy.digest, &copy.manifest), (chat.digest, &chat.manifest));
        other.ledger().verify(&copy).unwrap();
        assert_eq!(other.ledger().resolve("my-bard").unwrap().digest, chat.digest);
        let tree = other.ledger().lineage(copy.digest).unwrap();
        assert_eq!((tree.presence, tree.parents[0].presence), (Presence::Complete, Presence::ManifestOnly));
        assert_eq!(tree.parents[0].parents[0].parents[0].name, "plays");
        let bard = other.ledger().resolve(&tree.parents[0].digest.to_string()).unwrap();
        assert!(!bard.is_complete());
        assert!(
            other.ledger().export(&bard, &other.folder.path().join("x")).unwrap_err().what().contains("not in this")
        );
        assert_eq!(other.ledger().take_warnings(), Vec::<String>::new());
        // Its files arrive later: the manifest becomes an artifact.
        let files = project.folder.path().join("bard-out");
        let bard = project.ledger().resolve("bard").unwrap();
        project.ledger().export(&bard, &files).unwrap();
        let bard = other.ledger().import(&files, "bard", unused).unwrap();
        other.ledger().verify(&bard).unwrap();
        assert!(other.ledger().list().unwrap().iter().any(|line| line.name == "bard" && line.complete));
    }

    #[test]
    fn a_folder_that_was_changed_is_a_new_artifact() {
        let project = Project::new();
        let chat = chain(&project);
        type Harm<'a> = &'a dyn Fn(&Path);
        let cases: [(Harm, &str, bool); 5] = [
            (&|to| fs::write(to.join("model.safetensors"), "w3").unwrap(), "model.safetensors differs", true),
            (&|to| fs::write(to.join("a-new-one"), "").unwrap(), "a-new-one differs", true),
            (&|to| fs::remove_file(to.join("card/README.md")).unwrap(), "card/README.md differs", true),
            (&|to| fs::write(to.join("narthex.json"), "{}").unwrap(), "not what an export writes", false),
            (&|to| fs::remove_file(to.join("narthex.json")).unwrap(), "", false),
        ];
        for (index, (harm, warning, is_known)) in cases.into_iter().enumerate() {
            let to = project.folder.path().join(format!("out{index}"));
            project.ledger().export(&chat, &to).unwrap();
            harm(&to);
            let other = Project::new();
            let made = other.ledger().import(&to, "copy", manifest(ArtifactKind::Model, "import")).unwrap();
            assert_ne!(made.digest, chat.digest);
            assert_eq!((made.name(), made.manifest.file("narthex.json")), ("import", None));
            let warnings = other.ledger().take_warnings().join("\n");
            assert!(warnings.contains(warning) && warnings.is_empty() == warning.is_empty(), "{warnings}");
            // What it was made from is known still, and its terms hold.
            let parents: Vec<_> = made.manifest.parents.iter().map(|p| (p.role.as_str(), p.digest)).collect();
            assert_eq!(parents, if is_known { vec![("changed from", chat.digest)] } else { vec![] });
            let names: BTreeSet<&str> = made.manifest.components.iter().map(|c| c.name.as_str()).collect();
            let before = chat.manifest.components.iter().filter(|_| is_known);
            assert!(before.into_iter().all(|component| names.contains(component.name.as_str())), "{names:?}");
            assert!(other.ledger().provenance(&made).unwrap().missing().is_none());
        }
    }

    #[test]
    fn signatures_and_what_tools_leave_there_are_no_change() {
        let project = Project::new();
        let chat = chain(&project);
        let to = project.folder.path().join("out");
        project.ledger().export(&chat, &to).unwrap();
        let bundle = r#"{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": {}}"#;
        let left = ["model.sig", "openness.sig", "signatures/elsewhere.json", ".gitattributes", "card/.DS_Store"];
        write_below(&to, &left.map(|name| (name, bundle)));
        let other = Project::new();
        let copy = other.ledger().import(&to, "copy", manifest(ArtifactKind::Model, "import")).unwrap();
        assert_eq!((copy.digest, &copy.manifest), (chat.digest, &chat.manifest));
        other.ledger().verify(&copy).unwrap();
        assert_eq!(other.ledger().take_warnings(), Vec::<String>::new());
        assert!(other.ledger().provenance(&copy).unwrap().missing().is_none());
        // A name alone makes no signature.
        fs::write(to.join("model.sig"), "{\"mediaType\": \"text/plain\"}").unwrap();
        let copy = other.ledger().import(&to, "copy", manifest(ArtifactKind::Model, "import")).unwrap();
        assert_ne!(copy.digest, chat.digest);
    }

    #[test]
    fn manifests_from_outside_cannot_reach_outside() {
        let project = Project::new();
        let chat = chain(&project);
        let to = project.folder.path().join("out");
        project.ledger().export(&chat, &to).unwrap();
        let text = fs::read_to_string(to.join("narthex.json")).unwrap();
        // An ancestor that claims a file outside its folder.
        fs::write(to.join("narthex.json"), text.replace("\"train.bin\"", "\"../../../evil\"")).unwrap();
        let other = Project::new();
        other.ledger().import(&to, "copy", manifest(ArtifactKind::Model, "import")).unwrap();
        assert!(other.ledger().take_warnings()[0].contains("not a path inside"));
        assert_eq!(other.ledger().list().unwrap().len(), 1);
    }

    #[test]
    fn export_refuses_what_it_would_overwrite() {
        let project = Project::new();
        let chat = chain(&project);
        let full = project.write("full", &[("x", "mine")]);
        let error = project.ledger().export(&chat, &full).unwrap_err();
        assert!(error.what().contains("full is not empty") && error.causes()[0].contains("`x`"), "{error}");
        assert!(error.help_text().unwrap().contains("full-new"), "{error}");
        assert!(project.ledger().export(&chat, &full.join("x")).unwrap_err().what().contains("not a folder"));
        let empty = project.folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        project.ledger().export(&chat, &empty).unwrap();
        assert!(empty.join("model.safetensors").exists());
        let source = project.ledger().resolve("plays").unwrap();
        let error = project.ledger().export(&source, &full.join("y")).unwrap_err();
        assert!(error.what().contains("is a source"), "{error}");
        // A damaged file stops it and leaves nothing behind.
        fs::remove_file(chat.path("model.safetensors")).unwrap();
        fs::write(chat.path("model.safetensors"), "2w").unwrap();
        let target = project.folder.path().join("late/new");
        let error = project.ledger().export(&chat, &target).unwrap_err();
        assert!(error.what().contains("model.safetensors") && error.what().contains("differs"), "{error}");
        assert!(disk::names_in(target.parent().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn import_takes_regular_files_only() {
        let project = Project::new();
        let import = |folder: &Path| project.ledger().import(folder, "hf", manifest(ArtifactKind::Model, "import"));
        let folder = project.write("hf", &[("config.json", "{}"), (".git/HEAD", "x"), ("a/model", "w")]);
        symlink("a/model", folder.join("model")).unwrap();
        let made = import(&folder).unwrap();
        let paths: Vec<_> = made.manifest.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/model", "config.json", "model"]);
        assert!(fs::symlink_metadata(made.path("model")).unwrap().is_file());
        assert!(folder.join("config.json").exists(), "the folder stays as it was");

        write_below(project.folder.path(), &[("secret", "s"), ("reserved/run/x", ""), ("reserved2/manifest.json", "")]);
        symlink("../secret", folder.join("leaves")).unwrap();
        fs::create_dir(project.folder.path().join("nothing")).unwrap();
        for (name, what, help) in [
            ("hf", "is a symbolic link to", "cp -rL"),
            ("nothing", "holds no files", "folder"),
            ("absent", "is not a folder", "folder"),
            ("reserved", "it holds `run/x`", "another name"),
            ("reserved2", "it holds `manifest.json`", "narthex export"),
        ] {
            let error = import(&project.folder.path().join(name)).unwrap_err();
            assert!(error.what().contains(what), "{error}");
            assert!(error.help_text().unwrap().contains(help), "{error}");
        }
        assert!(disk::names_in(&project.root().join("tmp")).unwrap().is_empty());
        let held = project.ledger().lock().unwrap();
        fs::remove_file(folder.join("leaves")).unwrap();
        import(&folder).unwrap();
        drop(held);
        let other = Ledger::open(&project.root()).unwrap();
        let _held = other.lock().unwrap();
        assert!(import(&folder).unwrap_err().what().contains("another narthex run"));
    }
}
