//! Folders in Hugging Face layout: which files belong to a model, and how one is taken into a ledger. Knows files and
//! papers, no projects.

use crate::{hub_card::HubCard, terms::Terms};
use narthex_base::{ArtifactKind, Component, ComponentKind, Error, License, Manifest, Recipe, Result};
use std::path::{Path, PathBuf};

/// Whether a folder is in Hugging Face layout.
pub fn is_model_folder(folder: &Path) -> bool {
    folder.join("config.json").is_file()
}

/// The regular files directly in a model folder that belong to the model.
///
/// # Errors
/// If the folder cannot be read.
pub fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("cannot read", folder, error))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.is_file()
                && path.file_name().is_none_or(|name| name != "narthex.json")
                && path
                    .extension()
                    .is_some_and(|e| ["json", "safetensors", "jinja"].contains(&e.to_string_lossy().as_ref()))
        })
        .collect();
    files.sort();
    Ok(files)
}

/// The files of the modules that sentence-transformers keeps in folders of their own, such as `1_Pooling/config.json`.
fn module_files(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("cannot read", folder, error))?;
    let mut found = Vec::new();
    for place in entries.flatten().map(|entry| entry.path()) {
        let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if place.is_dir() && name.starts_with(|first: char| first.is_ascii_digit()) {
            let files = model_files(&place)?;
            let files = files.iter().filter_map(|file| Some(format!("{name}/{}", file.file_name()?.to_str()?)));
            found.extend(files);
        }
    }
    found.sort();
    Ok(found)
}

/// The manifest of a model folder that is taken into the ledger.
///
/// # Errors
/// If the folder is not a model that this version can load: what is wrong is named before anything is copied.
pub fn import_manifest(folder: &Path, license: Option<License>, origin: Option<String>) -> Result<Manifest> {
    if !folder.is_dir() {
        return Err(Error::input(format!("there is no folder {}", folder.display()))
            .help("name a model folder in Hugging Face layout"));
    }
    let encoder = narthex_model::encoder::is_encoder(folder);
    if encoder {
        crate::encoder::read(folder, None)?;
    } else {
        narthex_model::Decoder::read(folder, &narthex_model::cpu())?;
    }
    let names = model_files(folder)?.into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_string()));
    let mut names: Vec<String> = names.collect();
    if encoder {
        names.extend(module_files(folder)?);
    }
    let card = HubCard::read(folder)?;
    let Terms { license, evidence, license_texts, texts, notices } = card.terms(license, folder)?;
    let component = Component {
        name: "weights".into(),
        kind: ComponentKind::ModelParameters,
        license,
        license_texts,
        notices,
        origin,
        evidence,
        paths: names,
    };
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "import".into());
    let recipe = Recipe { config: card.config(), ..Recipe::new(name, "import") };
    let manifest = Manifest::new(ArtifactKind::Model, recipe);
    Ok(Manifest { components: vec![component], texts, ..manifest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_in_folders_belong_to_the_model() {
        let folder = tempfile::tempdir().unwrap();
        for (path, _) in [
            ("1_Pooling/config.json", 0),
            ("2_Dense/model.safetensors", 0),
            ("onnx/config.json", 0),
            ("1_Pooling/x.bin", 0),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        assert_eq!(module_files(folder.path()).unwrap(), ["1_Pooling/config.json", "2_Dense/model.safetensors"]);
    }
}
