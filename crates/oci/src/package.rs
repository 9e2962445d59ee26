//! A folder of files as what registries store: a ModelPack artifact with a layer for each file, so that what two models
//! share is stored once; with it, where asked for, an image that containers mount or run, with the same files below
//! `/models`. Pure but for reading the files. The same folder makes the same bytes on every machine.
//!
//! Source: CNCF ModelPack model-spec (main of June 2026), OCI image specification 1.1, KServe's "modelcars".

use crate::{blob::Blob, facts::Facts, media, reference::Sha256Digest};
use narthex_base::{Component, ComponentKind, Content, Error, Manifest, Provenance, Recipe, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The user that an image runs as: nobody's, not root.
const USER: &str = "65532:65532";

/// How to pack.
#[derive(Clone, Debug, Default)]
pub struct PackageOptions {
    /// Whether an image goes along.
    pub image: bool,
    /// The `narthex` binary (built without shared libraries or for a base that has them) that the image starts;
    /// without one it holds the model only.
    pub binary: Option<PathBuf>,
}

/// A manifest, with what it points to.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes.
    pub blob: Blob,
    pub(crate) media_type: &'static str,
    pub(crate) artifact_type: Option<&'static str>,
    pub(crate) platform: Option<Value>,
}

impl Document {
    /// As an index points to it.
    pub(crate) fn descriptor(&self) -> Value {
        let mut descriptor =
            json!({ "mediaType": self.media_type, "digest": self.blob.digest.as_str(), "size": self.blob.bytes });
        if let Some(kind) = self.artifact_type {
            descriptor["artifactType"] = json!(kind);
        }
        if let Some(platform) = &self.platform {
            descriptor["platform"] = platform.clone();
        }
        descriptor
    }
}

/// What is pushed.
#[derive(Clone, Debug)]
pub struct Package {
    /// Layers and configurations, those that are needed twice once.
    pub blobs: Vec<Blob>,
    /// The ModelPack manifest, what signatures are about.
    pub model: Document,
    /// The image's, if there is one.
    pub image: Option<Document>,
    /// What the tag points to: the model's manifest, or an index of both.
    pub top: Document,
    /// Layers of the model.
    pub layers: usize,
}

impl Package {
    /// Packs a folder. `created_ms` are milliseconds since 1970, of the artifact and not of today.
    ///
    /// # Errors
    /// If a file cannot be read or its path is none that others can write, or the folder holds no weights.
    pub fn new(folder: &Path, provenance: &Provenance, created_ms: u64, options: &PackageOptions) -> Result<Self> {
        let files = files(folder)?;
        let facts = Facts::of(folder, &files)?;
        let mut blobs: Vec<Blob> = Vec::new();
        let model = model(folder, &files, provenance, (&facts, created_ms), &mut blobs)?;
        let image = if options.image {
            Some(image(folder, &files, provenance, (created_ms, options.binary.as_deref()), &mut blobs)?)
        } else {
            None
        };
        let top = match &image {
            None => model.clone(),
            Some(image) => {
                let index = json!({
                    "schemaVersion": 2, "mediaType": media::INDEX,
                    "manifests": [model.descriptor(), image.descriptor()],
                    "annotations": notes(provenance, created_ms),
                });
                document(&index, media::INDEX, None, None)
            }
        };
        let mut known = std::collections::BTreeSet::new();
        blobs.retain(|blob| known.insert(blob.digest.clone()));
        Ok(Self { blobs, model, image, top, layers: files.len() })
    }

    /// The documents in the order in which they are sent: what points to others comes after them.
    pub fn documents(&self) -> Vec<&Document> {
        let mut all = vec![&self.model];
        all.extend(&self.image);
        if self.image.is_some() {
            all.push(&self.top);
        }
        all
    }

    /// The digest of what the tag points to, as tools print it.
    pub fn digest(&self) -> &Sha256Digest {
        &self.top.blob.digest
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.bytes).sum()
    }
}

/// Something that refers to a manifest: a signature, a bill of materials.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is.
    pub kind: &'static str,
    /// Its bytes.
    pub content: Blob,
}

impl Attachment {
    /// Of bytes of this type.
    pub fn new(kind: &'static str, content: impl Into<Vec<u8>>) -> Self {
        Self { kind, content: Blob::of_bytes(content) }
    }

    /// The manifest that says what it refers to, and the configuration it needs to have.
    pub(crate) fn document(&self, subject: &Document) -> (Document, Blob) {
        let empty = Blob::of_bytes("{}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": self.kind,
            "config": { "mediaType": media::EMPTY, "digest": empty.digest.as_str(), "size": empty.bytes },
            "layers": [{
                "mediaType": self.kind, "digest": self.content.digest.as_str(), "size": self.content.bytes,
            }],
            "subject": {
                "mediaType": subject.media_type, "digest": subject.blob.digest.as_str(), "size": subject.blob.bytes,
            },
        });
        (document(&manifest, media::MANIFEST, Some(self.kind), None), empty)
    }
}

fn document(
    value: &Value,
    media_type: &'static str,
    artifact_type: Option<&'static str>,
    platform: Option<Value>,
) -> Document {
    Document { blob: Blob::of_bytes(value.to_string()), media_type, artifact_type, platform }
}

fn descriptor(blob: &Blob, media_type: &str) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest.as_str(), "size": blob.bytes })
}

/// What an artifact is called: by its project, or, where it was made in none, by its step.
fn name(manifest: &Manifest) -> &str {
    let Recipe { project, step, .. } = &manifest.recipe;
    [project.as_str(), step.as_str()].into_iter().find(|name| !name.is_empty()).unwrap_or("model")
}

/// Annotations of a manifest: what it is, and under which licences.
fn notes(provenance: &Provenance, created_ms: u64) -> Value {
    let manifest = &provenance.manifest;
    let mut notes = json!({
        media::TITLE: name(manifest), media::CREATED: rfc_3339(created_ms),
        "narthex.digest": manifest.digest(),
    });
    if let Some(license) = manifest.license() {
        notes[media::LICENSES] = json!(license.to_string());
    }
    notes
}

fn model(
    folder: &Path,
    files: &[String],
    provenance: &Provenance,
    (facts, created_ms): (&Facts, u64),
    blobs: &mut Vec<Blob>,
) -> Result<Document> {
    let mut layers = Vec::new();
    for path in files {
        let blob = Blob::of_file(&folder.join(path))?;
        let component = covering(&provenance.manifest.components, path);
        // Whatever machine the files lie on: who owns them and when they were written says nothing of them.
        let name = path.rsplit('/').next().unwrap_or(path);
        let metadata = json!({
            "name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": blob.bytes, "mtime": "1970-01-01T00:00:00Z",
            "typeflag": i32::from(b'0'),
        });
        let mut annotations = json!({
            media::FILE_PATH: path, media::TITLE: path, media::FILE_METADATA: metadata.to_string(),
        });
        if let Some(component) = component {
            annotations["narthex.component"] = json!(component.kind.slug());
            annotations[media::LICENSES] = json!(component.license_name());
        }
        let kind = layer_kind(component.map(|component| component.kind), path);
        let mut layer = descriptor(&blob, &format!("{}{kind}.v1.raw", media::MODEL_LAYER));
        layer["annotations"] = annotations;
        layers.push(layer);
        blobs.push(blob);
    }
    if !layers.iter().any(|layer| layer["mediaType"].as_str().is_some_and(|kind| kind.contains("model.weight.v1"))) {
        return Err(Error::input("there are no weights among these files, so they make no model artifact")
            .at(folder.display(), None)
            .help("push a model or a bundle"));
    }
    let config = Blob::of_bytes(config(provenance, (facts, created_ms), &layers).to_string());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": media::MODEL,
        "config": descriptor(&config, media::MODEL_CONFIG), "layers": layers,
        "annotations": notes(provenance, created_ms),
    });
    blobs.push(config);
    Ok(document(&manifest, media::MANIFEST, Some(media::MODEL), None))
}

fn config(provenance: &Provenance, (facts, created_ms): (&Facts, u64), layers: &[Value]) -> Value {
    let manifest = &provenance.manifest;
    let licenses: Vec<String> = manifest.license().map(|license| license.ids()).unwrap_or_default();
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let name = name(manifest);
    let mut config = json!({
        "descriptor": {
            "createdAt": rfc_3339(created_ms), "name": name, "version": manifest.digest().short(), "vendor": name,
            "licenses": licenses, "title": name,
        },
        "config": {
            "architecture": "transformer", "format": facts.format.unwrap_or("safetensors"), "paramSize": facts.size(),
            "precision": facts.precision.iter().copied().collect::<Vec<_>>().join(","),
        },
        "modelfs": { "type": "layers", "diffIds": digests },
    });
    if let Some(family) = &facts.family {
        config["descriptor"]["family"] = json!(family);
    }
    if let Some(quantization) = &facts.quantization {
        config["config"]["quantization"] = json!(quantization);
    }
    config
}

/// An image with the files below `/models`: a layer for each file of weights, one for all others, one for the binary.
fn image(
    folder: &Path,
    files: &[String],
    provenance: &Provenance,
    (created_ms, binary): (u64, Option<&Path>),
    blobs: &mut Vec<Blob>,
) -> Result<Document> {
    let inside = |path: &String| (format!("models/{path}"), folder.join(path));
    let is_large = |path: &&String| [".safetensors", ".gguf"].iter().any(|ending| path.ends_with(ending));
    let others: Vec<_> = files.iter().filter(|path| !is_large(path)).map(inside).collect();
    let mut tars = Vec::new();
    if let Some(binary) = binary {
        tars.push(Blob::of_tar_with(&[("usr/bin/narthex".into(), binary.into())], 0o755)?);
    }
    if !others.is_empty() {
        tars.push(Blob::of_tar(&others)?);
    }
    for path in files.iter().filter(is_large) {
        tars.push(Blob::of_tar(&[inside(path)])?);
    }
    let mut run = json!({
        "User": USER, "WorkingDir": "/", "Labels": notes(provenance, created_ms),
        "Env": ["PATH=/usr/bin:/bin", "HOME=/tmp"],
    });
    if binary.is_some() {
        run["Entrypoint"] = json!(["/usr/bin/narthex"]);
        run["Cmd"] = json!(["serve", "/models", "--host", "0.0.0.0", "--port", "8000"]);
        run["ExposedPorts"] = json!({ "8000/tcp": {} });
    }
    let (os, architecture) = ("linux", architecture());
    let diff_ids: Vec<&str> = tars.iter().map(|tar| tar.digest.as_str()).collect();
    let config = Blob::of_bytes(
        json!({
            "created": rfc_3339(created_ms), "os": os, "architecture": architecture, "config": run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string(),
    );
    let layers: Vec<Value> = tars.iter().map(|tar| descriptor(tar, media::IMAGE_LAYER)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST, "config": descriptor(&config, media::IMAGE_CONFIG),
        "layers": layers, "annotations": notes(provenance, created_ms),
    });
    blobs.extend(tars);
    blobs.push(config);
    let platform = json!({ "os": os, "architecture": architecture });
    Ok(document(&manifest, media::MANIFEST, None, Some(platform)))
}

/// As OCI calls the processor.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Milliseconds since 1970 as RFC 3339 has them.
fn rfc_3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(chrono::DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The component that covers a file: by its path, or by a pattern that ends in `**`.
fn covering<'a>(components: &'a [Component], path: &str) -> Option<&'a Component> {
    let covers = |pattern: &String| match pattern.strip_suffix("**") {
        Some(beginning) => path.starts_with(beginning),
        None => pattern == path,
    };
    components.iter().find(|component| component.paths.iter().any(covers))
}

/// ModelPack's kind of layer.
fn layer_kind(kind: Option<ComponentKind>, path: &str) -> &'static str {
    let is_weights = [".safetensors", ".gguf"].iter().any(|ending| path.ends_with(ending));
    match kind {
        _ if is_weights && !path.contains('/') => "weight",
        Some(ComponentKind::ModelParameters | ComponentKind::IntermediateParameters) if is_weights => "weight",
        Some(ComponentKind::ModelMetadata) => "weight.config",
        Some(ComponentKind::Datasets | ComponentKind::EvaluationData) => "dataset",
        Some(kind) if kind.content() == Content::Code => "code",
        _ if path.ends_with(".json") && !path.contains('/') && path != "narthex.json" => "weight.config",
        _ => "doc",
    }
}

/// Regular files below a folder, by path.
fn files(folder: &Path) -> Result<Vec<String>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(|error| Error::io("cannot read", &next, error))? {
            let path = entry.map_err(|error| Error::io("cannot read", &next, error))?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let Ok(inside) = path.strip_prefix(folder) else { continue };
            let name = inside.to_str().filter(|name| !name.contains('\\') && !name.chars().any(char::is_control));
            let name = name.ok_or_else(|| {
                Error::input("this name cannot be written by all who pull")
                    .at(path.display(), None)
                    .help("rename the file")
            })?;
            found.push(name.to_string());
        }
    }
    found.sort();
    Ok(found)
}
