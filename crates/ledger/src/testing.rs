//! A throw-away project for tests.

use crate::{Artifact, Ledger, RunRecord};
use narthex_base::{ArtifactKind, Component, ComponentKind, Evidence, License, Manifest, Parent, Recipe};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A manifest without files or parents.
pub(crate) fn manifest(kind: ArtifactKind, step: &str) -> Manifest {
    let recipe = Recipe { config: serde_json::json!({"lr": 0.001}), ..Recipe::new(step, "test") };
    Manifest { figures: BTreeMap::from([("loss".into(), 1.5)]), ..Manifest::new(kind, recipe) }
}

/// A parent entry for an artifact.
pub(crate) fn parent(artifact: &Artifact) -> Parent {
    Parent { role: "from".into(), name: artifact.name().into(), kind: artifact.manifest.kind, digest: artifact.digest }
}

pub(crate) struct Project {
    ledger: Option<Ledger>,
    pub folder: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut project = Self { ledger: None, folder };
        project.reopen();
        project
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join(".narthex")
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    pub(crate) fn close(&mut self) {
        self.ledger = None;
    }

    pub(crate) fn reopen(&mut self) {
        self.close();
        self.ledger = Some(Ledger::open(&self.root()).unwrap());
    }

    /// Writes files below a folder of the project and returns the folder.
    pub(crate) fn write(&self, folder: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.folder.path().join(folder);
        write_below(&root, files);
        root
    }

    /// Stages these files and commits them as what `step` made from `parents`.
    pub(crate) fn commit(&self, step: &str, parents: &[&Artifact], files: &[(&str, &str)]) -> Artifact {
        let ledger = self.ledger();
        let work = ledger.stage(step).unwrap();
        write_below(&work.join("files"), files);
        let mut manifest = manifest(ArtifactKind::Model, step);
        manifest.parents = parents.iter().map(|artifact| parent(artifact)).collect();
        let record = RunRecord { seconds: 2.5, ..RunRecord::default() };
        let artifact = ledger.commit(manifest, &work.join("files"), None, record).unwrap();
        ledger.discard_stage(step).unwrap();
        artifact
    }
}

pub(crate) fn write_below(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// plays (source) -> plays-data -> bard -> bard-chat, which also uses plays-data. Each has a name.
pub(crate) fn chain(project: &Project) -> Artifact {
    let ledger = project.ledger();
    let raw = project.write("raw", &[("plays.txt", "To be, or not to be")]).join("plays.txt");
    let mut source = manifest(ArtifactKind::Source, "plays");
    source.files = vec![ledger.digest_file(&raw).unwrap()];
    source.components = vec![Component {
        origin: Some("https://example.org/plays".into()),
        paths: source.files.iter().map(|file| file.path.clone()).collect(),
        ..Component::new("plays", ComponentKind::Datasets, Some(License::parse("CC0-1.0").unwrap()), Evidence::Declared)
    }];
    let source = ledger.commit_source(source, RunRecord::default()).unwrap();
    let data = project.commit("plays-data", &[&source], &[("train.bin", "tokens")]);
    let bard = project.commit("bard", &[&data], &[("model.safetensors", "w"), ("LICENSES/CC0.txt", "cc0")]);
    let chat = project.commit("bard-chat", &[&bard, &data], &[("model.safetensors", "w2"), ("card/README.md", "hi")]);
    for artifact in [&source, &data, &bard, &chat] {
        ledger.set_ref(artifact.name(), artifact.digest).unwrap();
    }
    chat
}
