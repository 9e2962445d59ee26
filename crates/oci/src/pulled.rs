//! What a tag points to, as files with paths: of a ModelPack artifact, of an image with a model below `/models`, of a
//! model of Ollama's. What a manifest says is believed only as far as its digests hold and its paths stay inside.
//! Reads manifests, fetches nothing.

use crate::{media, reference::Sha256Digest};
use narthex_base::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The longest path of a file.
const PATH_BYTES_MAX: usize = 1024;
/// Layers that a manifest may have.
const LAYERS_MAX: usize = 10_000;

/// A pointer to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// SHA-256 of its bytes.
    pub digest: Sha256Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Descriptor {
    /// From its JSON.
    ///
    /// # Errors
    /// If it has no size, or its digest is none.
    pub(crate) fn read(value: &Value) -> Result<Self> {
        let wrong = |what: &str| Error::input(format!("a manifest names a blob {what}")).help("ask who pushed it");
        Ok(Self {
            media_type: value["mediaType"].as_str().unwrap_or_default().to_string(),
            digest: value["digest"].as_str().ok_or_else(|| wrong("without a digest"))?.parse()?,
            bytes: value["size"].as_u64().ok_or_else(|| wrong("without a size"))?,
        })
    }
}

/// What a blob becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// The file at this path.
    File(String),
    /// The files of an archive, below this path of it alone.
    Archive {
        /// How it is compressed.
        packing: Packing,
        /// The folder in it that counts; empty for all.
        below: &'static str,
    },
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Tar,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            _ if media_type.ends_with("tar+gzip") || media_type.ends_with("tar.gzip") => Some(Self::Gzip),
            _ if media_type.ends_with("tar+zstd") => Some(Self::Zstd),
            _ if media_type.ends_with("tar") => Some(Self::Tar),
            _ => None,
        }
    }
}

/// A model in a registry or a layout.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The digest of what the tag points to.
    pub top: Sha256Digest,
    /// The digest of the manifest whose files these are: what signatures are about.
    pub manifest: Sha256Digest,
    /// Blobs, and what each becomes.
    pub blobs: Vec<(Descriptor, Becomes)>,
    /// SPDX identifiers that its papers name, which nobody has checked.
    pub licenses: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Listing {
    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|(blob, _)| blob.bytes).sum()
    }

    /// The digests by path.
    pub fn checksums(&self) -> BTreeMap<String, String> {
        let named = |(blob, becomes): &(Descriptor, Becomes)| match becomes {
            Becomes::File(path) => (path.clone(), blob.digest.to_string()),
            Becomes::Archive { .. } => (blob.digest.to_string(), blob.digest.to_string()),
        };
        self.blobs.iter().map(named).collect()
    }
}

/// Which manifest of an index holds the model: ModelPack's; otherwise one that is for no platform; otherwise an image
/// for this processor.
pub(crate) fn choose(index: &Value) -> Result<Sha256Digest> {
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let rank = |entry: &&Value| {
        if entry["artifactType"] == media::MODEL {
            0
        } else if entry["platform"].is_null() {
            1
        } else if entry["platform"]["architecture"] == architecture {
            2
        } else {
            3
        }
    };
    let best = manifests
        .iter()
        .min_by_key(rank)
        .ok_or_else(|| Error::input("the tag points to an index without manifests"))?;
    Ok(Descriptor::read(best)?.digest)
}

/// The files of a manifest.
///
/// # Errors
/// If it is none of a model, or a path would lead elsewhere, or two files have one place.
pub(crate) fn list(manifest: &Value, top: Sha256Digest, digest: Sha256Digest) -> Result<Listing> {
    let mut listing = Listing { top, manifest: digest, blobs: vec![], licenses: vec![], notes: vec![] };
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if layers.len() > LAYERS_MAX {
        return Err(Error::input(format!("the manifest has more than {LAYERS_MAX} layers")));
    }
    if let Some(licenses) = manifest["annotations"][media::LICENSES].as_str() {
        listing.licenses.push(licenses.to_string());
    }
    let mut counts = BTreeMap::new();
    for layer in layers {
        let blob = Descriptor::read(layer)?;
        let kind = blob.media_type.clone();
        let becomes = if let Some(part) = kind.strip_prefix(media::OLLAMA_LAYER) {
            match ollama(part, &mut counts) {
                Some(path) => Becomes::File(path),
                None => {
                    listing.notes.push(format!("a layer `{part}` is left out: nothing here uses it"));
                    continue;
                }
            }
        } else if manifest["config"]["mediaType"] == media::IMAGE_CONFIG
            || kind.contains(".image.layer.")
            || kind.contains(".image.rootfs.")
        {
            let packing = Packing::of(&kind).ok_or_else(|| unknown(&kind))?;
            Becomes::Archive { packing, below: "models" }
        } else if let Some(packing) = Packing::of(&kind).filter(|_| kind.starts_with(media::MODEL_LAYER)) {
            Becomes::Archive { packing, below: "" }
        } else {
            let notes = &layer["annotations"];
            let path = notes[media::FILE_PATH].as_str().or(notes[media::TITLE].as_str()).ok_or_else(|| {
                Error::input("the manifest has a layer that says no path").cause(format!("{kind}, {}", blob.digest))
            })?;
            Becomes::File(inside(path)?)
        };
        listing.blobs.push((blob, becomes));
    }
    if listing.blobs.is_empty() {
        return Err(Error::input("the manifest has no layers: there is nothing to pull"));
    }
    let mut places = BTreeSet::new();
    for (_, becomes) in &listing.blobs {
        if let Becomes::File(path) = becomes
            && !places.insert(path.as_str())
        {
            return Err(Error::input(format!("the manifest has two layers for `{path}`")));
        }
    }
    Ok(listing)
}

fn unknown(kind: &str) -> Error {
    Error::input(format!(
        "the manifest has a layer of a type that is not read: {}",
        kind.chars().take(100).collect::<String>()
    ))
    .help("read are ModelPack artifacts, images with files below /models, and models of Ollama's")
}

/// Where a layer of Ollama's goes.
fn ollama(part: &str, counts: &mut BTreeMap<String, usize>) -> Option<String> {
    let (name, ending) = match part {
        "model" => ("model", ".gguf"),
        "license" => ("LICENSE", ""),
        "template" => ("template", ""),
        "system" => ("system", ""),
        "params" => ("params", ".json"),
        _ => return None,
    };
    let count = counts.entry(part.to_string()).or_insert(0);
    *count += 1;
    Some(if *count == 1 { format!("{name}{ending}") } else { format!("{name}-{count}{ending}") })
}

/// A path that stays inside the folder it is relative to.
///
/// # Errors
/// If it does not, or cannot be one on all systems.
pub(crate) fn inside(path: &str) -> Result<String> {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_whole = |c: char| !c.is_control() && c != '\\' && c != ':';
    if path.len() > PATH_BYTES_MAX || !path.split('/').all(is_part) || !path.chars().all(is_whole) {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(Error::input(format!("the manifest names a file outside its folder: `{shown}`"))
            .help("nothing was written; ask who pushed it"));
    }
    Ok(path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest() -> Sha256Digest {
        Sha256Digest::of_bytes(b"x")
    }

    fn layer(kind: &str, path: &str) -> Value {
        json!({"mediaType": kind, "digest": digest().as_str(), "size": 1, "annotations": {media::FILE_PATH: path}})
    }

    fn listed(layers: Vec<Value>) -> Result<Listing> {
        list(&json!({"layers": layers}), digest(), digest())
    }

    #[test]
    fn paths_stay_inside() {
        let raw = "application/vnd.cncf.model.weight.v1.raw";
        for path in ["a", "a/b.json", "ü/ä b", ".hidden"] {
            assert!(listed(vec![layer(raw, path)]).is_ok(), "{path}");
        }
        for path in ["", "/x", "../x", "a/../../x", "a//b", "./a", "a\\b", "a\nb", "C:x", "a/."] {
            assert!(listed(vec![layer(raw, path)]).is_err(), "{path}");
        }
        assert!(listed(vec![layer(raw, "a"), layer(raw, "a")]).is_err());
        assert!(listed(vec![]).is_err());
        let mut evil = layer(raw, "a");
        evil["digest"] = json!("sha256:../../../x");
        assert!(listed(vec![evil]).is_err());
    }

    #[test]
    fn what_layers_become() {
        let of = |kind: &str| listed(vec![layer(kind, "p")]).map(|listing| listing.blobs[0].1.clone());
        let archive = |packing, below| Becomes::Archive { packing, below };
        assert_eq!(of("application/vnd.cncf.model.weight.v1.raw").unwrap(), Becomes::File("p".into()));
        assert_eq!(of("application/vnd.cncf.model.weight.v1.tar").unwrap(), archive(Packing::Tar, ""));
        assert_eq!(of("application/vnd.cncf.model.doc.v1.tar+gzip").unwrap(), archive(Packing::Gzip, ""));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd").unwrap(), archive(Packing::Zstd, "models"));
        assert_eq!(of("application/vnd.docker.image.rootfs.diff.tar.gzip").unwrap(), archive(Packing::Gzip, "models"));
        assert_eq!(of("application/vnd.ollama.image.model").unwrap(), Becomes::File("model.gguf".into()));
        assert!(of("application/vnd.oci.image.layer.v1.tar+lz4").is_err());
        let two = ["license", "license", "projector"].map(|part| layer(&format!("{}{part}", media::OLLAMA_LAYER), ""));
        let listing = listed(two.into()).unwrap();
        let paths: Vec<String> = listing.checksums().into_keys().collect();
        assert_eq!(paths, ["LICENSE", "LICENSE-2"]);
        assert_eq!(listing.notes.len(), 1);
    }

    #[test]
    fn the_model_of_an_index() {
        let entry = |bytes: &[u8], kind: Value, platform: Value| json!({"digest": Sha256Digest::of_bytes(bytes).as_str(), "size": 1, "artifactType": kind, "platform": platform});
        let arm = entry(b"arm", Value::Null, json!({"architecture": "s390x"}));
        let model = entry(b"model", json!(media::MODEL), Value::Null);
        let index = json!({"manifests": [arm, entry(b"plain", Value::Null, Value::Null), model]});
        assert_eq!(choose(&index).unwrap(), Sha256Digest::of_bytes(b"model"));
        assert!(choose(&json!({"manifests": []})).is_err());
    }
}
