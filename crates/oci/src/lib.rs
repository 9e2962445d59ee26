//! A model as an OCI image layout (OCI image specification 1.1) with the media types of the CNCF's ModelPack: what
//! registries and their tools copy (`oras cp --from-oci-layout`, `skopeo copy oci:…`). One layer for each file, so that
//! what two models share is stored once. Each layer says which component it is and under which licence. Knows files and
//! their papers; no network.

use narthex_base::{Component, ComponentKind, Error, Provenance, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";

/// Where to write: `oci:DIR[:TAG]`, as skopeo writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciTarget {
    /// The folder of the layout.
    pub folder: PathBuf,
    /// The tag; `latest` if none is given.
    pub tag: String,
}

impl OciTarget {
    /// Reads `oci:DIR[:TAG]`.
    ///
    /// # Errors
    /// If it is written otherwise, or the tag has characters that tags may not have.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::usage(format!("`{text}` {what}")).help("write `oci:DIR` or `oci:DIR:TAG`");
        let rest = text.strip_prefix("oci:").ok_or_else(|| wrong("is not an OCI image layout"))?;
        let (folder, tag) = match rest.rsplit_once(':') {
            Some((folder, tag)) if !tag.contains('/') => (folder, tag),
            _ => (rest, "latest"),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if folder.is_empty() {
            return Err(wrong("names no folder"));
        }
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(fits) || tag.starts_with(['.', '-']) {
            return Err(wrong("has no tag that registries take"));
        }
        Ok(Self { folder: folder.into(), tag: tag.into() })
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest: `sha256:…`.
    pub digest: String,
    /// How many layers the image has.
    pub layers: usize,
    /// Bytes of all layers.
    pub bytes: u64,
}

/// Adds the files of an exported folder to an image layout under a tag. The index is replaced last and at once: until
/// then nothing points to what was written.
///
/// # Errors
/// If a file cannot be read or written, or the target is a folder of something else.
pub fn push(folder: &Path, provenance: &Provenance, created_ms: u64, target: &OciTarget) -> Result<Pushed> {
    let mut index = open_layout(&target.folder)?;
    let mut layers = Vec::new();
    let mut bytes = 0;
    for path in files(folder)? {
        let component = covering(&provenance.manifest.components, &path);
        let (digest, size) = blob_of_file(&target.folder, &folder.join(&path))?;
        bytes += size;
        let mut annotations = json!({ "org.cncf.model.filepath": path });
        if let Some(component) = component {
            annotations["narthex.component"] = json!(component.kind.slug());
            annotations["org.opencontainers.image.licenses"] = json!(component.license_name());
        }
        let kind = layer_kind(component.map(|component| component.kind), &path);
        layers.push(json!({
            "mediaType": format!("application/vnd.cncf.model.{kind}.v1.raw"), "digest": digest, "size": size,
            "annotations": annotations,
        }));
    }
    let config = config(provenance, created_ms, &layers);
    let (config_digest, config_size) = blob(&target.folder, config.to_string().as_bytes())?;
    let count = layers.len();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
        "config": { "mediaType": CONFIG, "digest": config_digest, "size": config_size },
        "layers": layers,
        "annotations": { "narthex.digest": provenance.manifest.digest() },
    });
    let (digest, size) = blob(&target.folder, manifest.to_string().as_bytes())?;
    let entry = json!({
        "mediaType": MANIFEST, "artifactType": ARTIFACT, "digest": digest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": target.tag },
    });
    let manifests = index["manifests"].as_array_mut().ok_or_else(|| not_a_layout(&target.folder))?;
    manifests.retain(|known| known["annotations"]["org.opencontainers.image.ref.name"] != target.tag.as_str());
    manifests.push(entry);
    replace(&target.folder.join("index.json"), index.to_string().as_bytes())?;
    Ok(Pushed { digest, layers: count, bytes })
}

fn config(provenance: &Provenance, created_ms: u64, layers: &[Value]) -> Value {
    let manifest = &provenance.manifest;
    let licenses: Vec<String> = manifest.license().map(|license| license.ids()).unwrap_or_default();
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    json!({
        "descriptor": {
            "createdAt": rfc_3339(created_ms), "name": manifest.recipe.project, "version": manifest.digest().short(),
            "vendor": manifest.recipe.project, "licenses": licenses,
        },
        "config": { "architecture": "transformer", "format": "safetensors" },
        "modelfs": { "type": "layers", "diffIds": digests },
    })
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
    match kind {
        Some(ComponentKind::ModelParameters | ComponentKind::IntermediateParameters) => "weight",
        Some(ComponentKind::ModelMetadata) => "weight.config",
        Some(ComponentKind::Datasets | ComponentKind::EvaluationData) => "dataset",
        Some(kind) if kind.content() == narthex_base::Content::Code => "code",
        None if path.ends_with(".safetensors") => "weight",
        None if path.ends_with(".json") && !path.contains('/') && path != "narthex.json" => "weight.config",
        _ => "doc",
    }
}

fn not_a_layout(folder: &Path) -> Error {
    Error::input(format!("{} is a folder of something else", folder.display()))
        .help("name a folder that does not exist yet, or one that holds an OCI image layout")
}

/// The index of a layout; a new one where there is no folder.
fn open_layout(folder: &Path) -> Result<Value> {
    let index = folder.join("index.json");
    if index.is_file() && folder.join("oci-layout").is_file() {
        let text = fs::read(&index).map_err(|error| Error::io("cannot read", &index, error))?;
        return serde_json::from_slice(&text).map_err(|error| not_a_layout(folder).cause(error));
    }
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(not_a_layout(folder));
    }
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|error| Error::io("cannot write", &blobs, error))?;
    replace(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index_value = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    replace(&index, index_value.to_string().as_bytes())?;
    Ok(index_value)
}

/// Regular files below a folder, by path.
fn files(folder: &Path) -> Result<Vec<String>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(|error| Error::io("cannot read", &next, error))? {
            let path = entry.map_err(|error| Error::io("cannot read", &next, error))?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(inside) = path.strip_prefix(folder) {
                found.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes bytes as a blob: digest and size.
fn blob(folder: &Path, bytes: &[u8]) -> Result<(String, u64)> {
    let name = hex(&Sha256::digest(bytes));
    replace(&folder.join("blobs/sha256").join(&name), bytes)?;
    Ok((format!("sha256:{name}"), bytes.len() as u64))
}

/// Copies a file as a blob, hashed on the way.
fn blob_of_file(folder: &Path, from: &Path) -> Result<(String, u64)> {
    let blobs = folder.join("blobs/sha256");
    let fail = |error| Error::io("cannot write into", &blobs, error);
    let read = |error| Error::io("cannot read", from, error);
    let mut source = File::open(from).map_err(read)?;
    let mut made = tempfile::NamedTempFile::new_in(&blobs).map_err(fail)?;
    let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let count = source.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        made.write_all(&buffer[..count]).map_err(fail)?;
        size += count as u64;
    }
    let name = hex(&hasher.finalize());
    made.as_file().sync_all().map_err(fail)?;
    made.persist(blobs.join(&name)).map_err(|error| fail(error.error))?;
    Ok((format!("sha256:{name}"), size))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let fail = |error| Error::io("cannot write", path, error);
    let mut made = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    made.write_all(bytes).map_err(fail)?;
    made.as_file().sync_all().map_err(fail)?;
    made.persist(path).map(|_| ()).map_err(|error| fail(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::{ArtifactKind, Evidence, License, Manifest, Recipe};

    #[test]
    fn targets() {
        for (text, expected) in [
            ("oci:out", Some(("out", "latest"))),
            ("oci:out/a:v1", Some(("out/a", "v1"))),
            ("oci:/x/y:1.0", Some(("/x/y", "1.0"))),
            ("docker://x", None),
            ("oci:", None),
            ("oci:x:", None),
            ("oci:x:a b", None),
        ] {
            let found = OciTarget::parse(text).ok();
            let found = found.as_ref().map(|target| (target.folder.to_str().unwrap(), target.tag.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn every_file_is_a_layer_with_its_licence() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("bard");
        fs::create_dir_all(from.join("data")).unwrap();
        fs::write(from.join("model.safetensors"), "w").unwrap();
        fs::write(from.join("data/plays.txt"), "To be").unwrap();
        fs::write(from.join("README.md"), "card").unwrap();
        let mut manifest = Manifest::new(ArtifactKind::Bundle, Recipe::new("release", "bundle"));
        let part = |kind, path: &str, id| Component {
            paths: vec![path.into()],
            ..Component::new("a", kind, License::parse(id).ok(), Evidence::Made)
        };
        manifest.components = vec![
            part(ComponentKind::ModelParameters, "model.safetensors", "OpenMDW-1.1"),
            part(ComponentKind::Datasets, "data/**", "CC0-1.0"),
        ];
        let provenance = Provenance { manifest, lineage: vec![] };
        let target = OciTarget { folder: folder.path().join("layout"), tag: "v1".into() };
        let first = push(&from, &provenance, 0, &target).unwrap();
        assert_eq!((first.layers, first.bytes), (3, 10));
        // Again, and under a second tag: the same blobs, one entry for each tag.
        assert_eq!(push(&from, &provenance, 0, &target).unwrap(), first);
        push(&from, &provenance, 0, &OciTarget { tag: "v2".into(), ..target.clone() }).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(target.folder.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let blobs = target.folder.join("blobs/sha256");
        let read = |digest: &str| fs::read(blobs.join(digest.trim_start_matches("sha256:"))).unwrap();
        let manifest: Value = serde_json::from_slice(&read(&first.digest)).unwrap();
        let layers: Vec<(&str, &str, &Value)> = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| {
                let notes = &layer["annotations"];
                (layer["mediaType"].as_str().unwrap(), notes["org.cncf.model.filepath"].as_str().unwrap(), notes)
            })
            .collect();
        assert_eq!(layers[0].0, "application/vnd.cncf.model.doc.v1.raw");
        assert_eq!((layers[1].0, layers[1].1), ("application/vnd.cncf.model.dataset.v1.raw", "data/plays.txt"));
        assert_eq!(layers[2].0, "application/vnd.cncf.model.weight.v1.raw");
        assert_eq!(layers[2].2["org.opencontainers.image.licenses"], "LicenseRef-OpenMDW-1.1");
        // Every blob has the digest that is its name.
        for entry in fs::read_dir(&blobs).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(hex(&Sha256::digest(fs::read(entry.path()).unwrap())), name);
        }
        assert!(push(&from, &provenance, 0, &OciTarget { folder: from.clone(), tag: "x".into() }).is_err());
    }
}
