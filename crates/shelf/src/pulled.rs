//! What was fetched from the Hugging Face Hub, on its way into the ledger. Knows folders and manifests, no network.

use crate::{hub_card::HubCard, terms::Terms};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, License, Manifest, Recipe, Result, papers::is_paper,
};
use narthex_ledger::{Artifact, Ledger};
use narthex_model::{ModelConfig, StoredWeights};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// The largest `config.json` that is read.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Where something was fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFrom {
    /// `hf:org/name@COMMIT`.
    pub origin: String,
    /// The address that it came from, where that is not Hugging Face's own.
    pub mirror: Option<String>,
    /// The digest by which the Hub knows each file: `sha256:…` or `git-sha1:…`.
    pub checksums: BTreeMap<String, String>,
}

impl PulledFrom {
    /// As it stands in a recipe.
    pub fn config(&self) -> Value {
        let mut config = json!({"origin": self.origin, "files": self.checksums});
        if let Some(mirror) = &self.mirror {
            config["mirror"] = json!(mirror);
        }
        config
    }
}

/// The model in the ledger that came from there with exactly these files.
///
/// # Errors
/// If the ledger cannot be read.
pub fn already_pulled(ledger: &Ledger, from: &PulledFrom) -> Result<Option<Artifact>> {
    let wanted = from.config();
    for line in ledger.list()?.into_iter().filter(|line| line.complete && line.kind == ArtifactKind::Model) {
        let Some(artifact) = ledger.find(line.digest)? else { continue };
        if artifact.manifest.recipe.config.get("hub") == Some(&wanted) {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

/// Whether this version can do something with a model that has this configuration: asked before its weights are
/// fetched.
///
/// # Errors
/// If there is no `config.json`, or it asks for something that is not supported: it is named.
pub fn check_model_config(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    if !path.is_file() && is_adapter(folder) {
        return Ok(());
    }
    if !path.is_file() {
        return Err(Error::input("this is no model folder: it has no config.json").at(folder.display(), None));
    }
    if std::fs::metadata(&path).map_err(|error| Error::io("cannot read", &path, error))?.len() > CONFIG_BYTES_MAX {
        return Err(Error::input("config.json is too long").at(path.display(), None));
    }
    if narthex_model::encoder::is_encoder(folder) {
        // What an encoder's config asks for is checked when it is read.
        return Ok(());
    }
    ModelConfig::read(&path).map(drop)
}

/// Checks a model's folder without loading it: the configuration, and that all files of weights are there and whole.
///
/// # Errors
/// If something is missing or broken: it is named.
pub fn check_model_folder(folder: &Path) -> Result<()> {
    check_model_config(folder)?;
    if is_adapter(folder) || !has_safetensors(folder) {
        return Ok(());
    }
    StoredWeights::open(folder).map(drop)
}

/// Whether a folder's weights are in the form that is loaded; PyTorch's own is kept as it is.
fn has_safetensors(folder: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

fn is_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").is_file()
}

/// The manifest of a fetched model.
///
/// # Errors
/// If the folder is not a model, or its card and its licence say different things.
pub fn pulled_model(folder: &Path, name: &str, license: Option<License>, from: &PulledFrom) -> Result<Manifest> {
    check_model_folder(folder)?;
    let card = HubCard::read(folder)?;
    let (mut component, texts) =
        pulled_component(&card, "weights", ComponentKind::ModelParameters, license, folder, from)?;
    component.paths = from.checksums.keys().filter(|path| !is_paper(path) && *path != "README.md").cloned().collect();
    let mut config = card.config();
    config["hub"] = from.config();
    let recipe = Recipe { config, ..Recipe::new(name, "import") };
    Ok(Manifest { components: vec![component], texts, ..Manifest::new(ArtifactKind::Model, recipe) })
}

type Texts = BTreeMap<narthex_base::Digest, String>;

/// The component that was fetched, without the files that it covers, and the texts of its licences.
///
/// # Errors
/// If its card and its licence say different things.
pub fn pulled_component(
    card: &HubCard,
    name: &str,
    kind: ComponentKind,
    license: Option<License>,
    folder: &Path,
    from: &PulledFrom,
) -> Result<(Component, Texts)> {
    let Terms { license, evidence, license_texts, texts, notices } = card.terms(license, folder)?;
    let origin = Some(from.origin.clone());
    Ok((Component { name: name.into(), kind, license, license_texts, notices, origin, evidence, paths: vec![] }, texts))
}
