//! Packages through a layout and through registries with the habits of real ones.

use crate::{
    Attachment, Layout, OciReference, Package, PackageOptions, Puller, RegistrySettings, SIGNATURE,
    fake::{Fake, Habits},
    push,
};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, Evidence, License, Manifest, Observer, Provenance, Recipe, Result,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// Files by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Bytes of the weights: enough for several reads.
const WEIGHTS_BYTES: usize = 3 << 20;

fn weights() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..WEIGHTS_BYTES).map(|i| (i % 251) as u8));
    bytes
}

/// A folder with two files that are the same, one below another folder, and one that is empty.
fn bard() -> (TempDir, Provenance) {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let at = folder.path().join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, bytes).unwrap();
    };
    write("model.safetensors", &weights());
    write("config.json", br#"{"model_type":"llama"}"#);
    write("data/plays.txt", b"To be");
    write("README.md", b"card");
    write("LICENSE", b"terms");
    write("LICENSES/A.txt", b"terms");
    write("empty.txt", b"");
    let mut manifest = Manifest::new(ArtifactKind::Bundle, Recipe::new("release", "bundle"));
    let part = |kind, path: &str, id| Component {
        paths: vec![path.into()],
        ..Component::new("a", kind, License::parse(id).ok(), Evidence::Made)
    };
    manifest.components = vec![
        part(ComponentKind::ModelParameters, "model.safetensors", "OpenMDW-1.1"),
        part(ComponentKind::Datasets, "data/**", "CC0-1.0"),
    ];
    (folder, Provenance { manifest, lineage: vec![] })
}

fn package(folder: &Path, provenance: &Provenance, image: bool) -> Package {
    Package::new(folder, provenance, 0, &PackageOptions { image, binary: None }).unwrap()
}

fn contents(folder: &Path) -> Files {
    let (mut found, mut open) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().into(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn settings(cache: &Path) -> RegistrySettings {
    let file = cache.join("auth.json");
    fs::write(&file, r#"{"auths": {"127.0.0.1": {"username": "other", "password": "x"}}}"#).unwrap();
    RegistrySettings {
        certificates: None,
        plain_http: true,
        credential_files: vec![file],
        cache: cache.into(),
        backoff: Duration::from_millis(1),
    }
}

/// Pushes to a registry with these habits and pulls into another cache.
fn there_and_back(habits: Habits) -> (Fake, Files, Files) {
    let (folder, provenance) = bard();
    let fake = Fake::start(habits);
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let reference = reference(&fake, "org/bard:v1");
    push_to(&reference, &package(folder.path(), &provenance, false), &with_login(&fake, caches[0].path())).unwrap();
    let pulled = pull(&reference, &with_login(&fake, caches[1].path())).unwrap();
    (fake, contents(folder.path()), pulled)
}

fn with_login(fake: &Fake, cache: &Path) -> RegistrySettings {
    let settings = settings(cache);
    let login = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, fake.host);
    fs::write(&settings.credential_files[0], login).unwrap();
    settings
}

fn reference(fake: &Fake, rest: &str) -> OciReference {
    OciReference::parse(&format!("oci://{}/{rest}", fake.host)).unwrap()
}

fn push_to(reference: &OciReference, package: &Package, settings: &RegistrySettings) -> Result<crate::Pushed> {
    let OciReference::Registry(remote) = reference else { panic!("{reference}") };
    let attachment = [Attachment::new(SIGNATURE, "signed")];
    push(package, &attachment, remote, &["org/other".into()], settings, Observer::silent())
}

fn pull(reference: &OciReference, settings: &RegistrySettings) -> Result<Files> {
    let puller = Puller::new(reference, settings)?;
    let listing = puller.list(Observer::silent())?;
    assert_eq!(puller.attached(&listing, SIGNATURE, Observer::silent())?, [b"signed".to_vec()]);
    assert!(puller.attached(&listing, crate::SPDX, Observer::silent())?.is_empty());
    let pulled = puller.fetch(&listing, |_| Ok(()), Observer::silent())?;
    Ok(contents(&pulled.folder))
}

#[test]
fn every_file_is_a_layer_with_its_licence() {
    let (folder, provenance) = bard();
    let made = tempfile::tempdir().unwrap();
    let layout = Layout { folder: made.path().join("layout"), tag: "v1".into() };
    let first = package(folder.path(), &provenance, false);
    layout.push(&first, &[Attachment::new(SIGNATURE, "signed")]).unwrap();
    // Again, and under a second tag: the same blobs, one entry for each tag.
    layout.push(&package(folder.path(), &provenance, false), &[Attachment::new(SIGNATURE, "signed")]).unwrap();
    let second = Layout { tag: "v2".into(), ..layout.clone() };
    second.push(&first, &[]).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(layout.folder.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    let manifest: Value = serde_json::from_slice(&layout.document(first.digest()).unwrap()).unwrap();
    let layers: Vec<[&str; 3]> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| {
            let notes = &layer["annotations"];
            let text = |key: &str| notes[key].as_str().unwrap_or_default();
            assert_eq!(text("org.opencontainers.image.title"), text("org.cncf.model.filepath"));
            let kind = layer["mediaType"].as_str().unwrap().strip_prefix("application/vnd.cncf.model.").unwrap();
            [kind, text("org.cncf.model.filepath"), text("org.opencontainers.image.licenses")]
        })
        .collect();
    assert_eq!(
        layers,
        [
            ["doc.v1.raw", "LICENSE", ""],
            ["doc.v1.raw", "LICENSES/A.txt", ""],
            ["doc.v1.raw", "README.md", ""],
            ["weight.config.v1.raw", "config.json", ""],
            ["dataset.v1.raw", "data/plays.txt", "CC0-1.0"],
            ["doc.v1.raw", "empty.txt", ""],
            ["weight.v1.raw", "model.safetensors", "LicenseRef-OpenMDW-1.1"],
        ]
    );
    let config = fs::read(layout.blob(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap())).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    // Made in no project: the step names it, since the specification wants a name.
    assert_eq!((&config["descriptor"]["name"], &config["descriptor"]["title"]), (&"release".into(), &"release".into()));
    assert_eq!(config["config"]["paramSize"], "1.0K");
    assert_eq!((&config["config"]["precision"], &config["descriptor"]["family"]), (&"float32".into(), &"llama".into()));
    let elsewhere = Layout { folder: folder.path().into(), tag: "x".into() };
    assert!(elsewhere.push(&first, &[]).is_err());
    // And back.
    let cache = tempfile::tempdir().unwrap();
    let reference = OciReference::Layout(layout.clone());
    assert_eq!(pull(&reference, &settings(cache.path())).unwrap(), contents(folder.path()));
    let reference = OciReference::Layout(Layout { tag: "v3".into(), ..layout });
    let error = Puller::new(&reference, &settings(cache.path())).unwrap().list(Observer::silent()).unwrap_err();
    assert!(error.help_text().unwrap().contains("`v1`, `v2`"), "{error}");
}

#[test]
fn an_image_holds_the_same_files() {
    let (folder, provenance) = bard();
    let made = tempfile::tempdir().unwrap();
    let layout = Layout { folder: made.path().join("layout"), tag: "v1".into() };
    let both = package(folder.path(), &provenance, true);
    layout.push(&both, &[]).unwrap();
    let image = both.image.as_ref().unwrap();
    let manifest: Value = serde_json::from_slice(&layout.document(&image.blob.digest).unwrap()).unwrap();
    assert!(manifest["artifactType"].is_null());
    let cache = tempfile::tempdir().unwrap();
    // The image alone, as somebody may have copied it.
    let listing = crate::pulled::list(&manifest, image.blob.digest.clone(), image.blob.digest.clone()).unwrap();
    let puller = Puller::new(&OciReference::Layout(layout.clone()), &settings(cache.path())).unwrap();
    let pulled = puller.fetch(&listing, |_| Ok(()), Observer::silent()).unwrap();
    assert_eq!(contents(&pulled.folder), contents(folder.path()));
    // The index leads to the artifact.
    assert_eq!(puller.list(Observer::silent()).unwrap().manifest, both.model.blob.digest);
}

#[test]
fn registries_have_habits() {
    let cases: [(&str, Habits); 8] = [
        ("none", Habits::default()),
        ("bearer", Habits { bearer: true, ..Habits::default() }),
        ("redirects", Habits { redirects: true, bearer: false, ..Habits::default() }),
        ("no pieces", Habits { no_chunks: true, ..Habits::default() }),
        ("no large blobs at once", Habits { whole_max: Some(1 << 20), ..Habits::default() }),
        ("no referrers", Habits { no_referrers: true, ..Habits::default() }),
        ("flaky", Habits { flaky: 3, ..Habits::default() }),
        ("cut", Habits { cut_once: Some(2 << 20), ..Habits::default() }),
    ];
    for (name, habits) in cases {
        let (fake, before, after) = there_and_back(habits);
        assert_eq!(before, after, "{name}");
        let (state, size) = (fake.state(), weights().len());
        if name == "cut" {
            // What arrived before the cut is not sent again.
            assert!(state.received < size + (100 << 10), "{} of {size}", state.received);
        }
    }
}

#[test]
fn a_pull_that_was_cut_goes_on() {
    let (folder, provenance) = bard();
    let fake = Fake::start(Habits::default());
    let cache = tempfile::tempdir().unwrap();
    let (reference, settings) = (reference(&fake, "org/bard:v1"), settings(cache.path()));
    push_to(&reference, &package(folder.path(), &provenance, false), &settings).unwrap();
    fake.state().habits.cut_once = Some(2 << 20);
    assert_eq!(pull(&reference, &settings).unwrap(), contents(folder.path()));
    let (size, sent) = (weights().len(), fake.state().sent);
    assert!((size..size + (100 << 10)).contains(&sent), "{sent} of {size}");
    // Again: nothing comes.
    assert_eq!(pull(&reference, &settings).unwrap(), contents(folder.path()));
    assert!(fake.state().sent < size + (100 << 10));
}

#[test]
fn nothing_is_sent_twice() {
    let (folder, provenance) = bard();
    let fake = Fake::start(Habits::default());
    let cache = tempfile::tempdir().unwrap();
    let package = package(folder.path(), &provenance, false);
    let settings = settings(cache.path());
    let first = push_to(&reference(&fake, "org/other:v1"), &package, &settings).unwrap();
    assert!(first.network_bytes > WEIGHTS_BYTES as u64 && first.mounted_bytes == 0);
    // From another repository of the registry, and then from its own.
    let second = push_to(&reference(&fake, "org/bard:v1"), &package, &settings).unwrap();
    assert_eq!(second.mounted_bytes, package.bytes());
    let third = push_to(&reference(&fake, "org/bard:v2"), &package, &settings).unwrap();
    assert_eq!(third.there_bytes, package.bytes());
}

#[test]
fn what_was_changed_is_refused() {
    let (folder, provenance) = bard();
    let fake = Fake::start(Habits::default());
    let cache = tempfile::tempdir().unwrap();
    let (reference, settings) = (reference(&fake, "org/bard:v1"), settings(cache.path()));
    push_to(&reference, &package(folder.path(), &provenance, false), &settings).unwrap();
    let puller = Puller::new(&reference, &settings).unwrap();
    let listing = puller.list(Observer::silent()).unwrap();
    fake.state().habits.corrupts = true;
    let error = puller.fetch(&listing, |_| Ok(()), Observer::silent()).err().unwrap();
    assert!(error.what().contains("did not arrive as it was pushed"), "{error}");
    fake.state().habits.corrupts = false;
    // Whoever may not use it fetches no weights.
    let refuse = |_: &Path| Err(Error::input("not here"));
    assert_eq!(puller.fetch(&listing, refuse, Observer::silent()).err().unwrap().what(), "not here");
    assert!(fake.state().sent < WEIGHTS_BYTES);
    // A tag that was moved meanwhile is not what was asked for by digest.
    let pinned = OciReference::parse(&format!("oci://{}/org/bard:v1@{}", fake.host, listing.top)).unwrap();
    let key = ("org/bard".to_string(), listing.top.to_string());
    fake.state().manifests.get_mut(&key).unwrap().1.push(b' ');
    let error = Puller::new(&pinned, &settings).unwrap().list(Observer::silent()).unwrap_err();
    assert!(error.what().contains("did not arrive as it was pushed"), "{error}");
}

#[test]
fn who_may_not_is_told_to_log_in() {
    let fake = Fake::start(Habits { bearer: true, ..Habits::default() });
    let cache = tempfile::tempdir().unwrap();
    let reference = reference(&fake, "org/bard:v1");
    let puller = Puller::new(&reference, &settings(cache.path())).unwrap();
    let error = puller.list(Observer::silent()).unwrap_err();
    assert!(error.help_text().unwrap().contains("docker login"), "{error}");
    let puller = Puller::new(&reference, &with_login(&fake, cache.path())).unwrap();
    let error = puller.list(Observer::silent()).unwrap_err();
    assert!(error.what().starts_with("there is no oci://"), "{error}");
    assert!(!format!("{error}").contains("secret"));
}
