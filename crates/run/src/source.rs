//! Sources: raw files that stay where they are and are known by digest, and model folders.

use crate::Project;
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, License, Manifest, Recipe, Result,
    artifact::MANIFEST_SCHEMA,
    config::{Source, SourceFormat},
};
use narthex_data::{Format, SourceSpec, expand};
use narthex_ledger::{Artifact, RunRecord};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The files of a source, in order.
pub(crate) fn files(project: &Project, source: &Source) -> Result<Vec<PathBuf>> {
    expand(&project.root, &source.path.to_vec())
}

/// What the data crate reads of a source.
pub(crate) fn spec(project: &Project, name: &str, source: &Source) -> Result<SourceSpec> {
    let files = files(project, source)?;
    let format = match source.format {
        SourceFormat::Text => Format::Text,
        SourceFormat::Jsonl => Format::Jsonl,
        SourceFormat::Csv => Format::Csv,
        SourceFormat::Tsv => Format::Tsv,
        SourceFormat::Parquet => Format::Parquet,
        SourceFormat::Auto => common_format(name, &files)?,
        SourceFormat::HuggingFace => return Err(Error::input(format!("source `{name}` is a model folder, not data"))),
    };
    Ok(SourceSpec { name: name.into(), files, format, rows: source.rows, columns: source.columns.clone() })
}

fn common_format(name: &str, files: &[PathBuf]) -> Result<Format> {
    let mut common = None;
    for file in files {
        let format = Format::of_path(file).ok_or_else(|| {
            Error::input(format!("the format of {} cannot be told from its name", file.display()))
                .help(format!("set `format` in [sources.{name}]: text, jsonl, csv, tsv or parquet"))
        })?;
        if common.is_some_and(|common| common != format) {
            return Err(Error::input(format!("the files of source `{name}` have different formats"))
                .at(file.display(), None)
                .help("make one source for each format; a data step can read several"));
        }
        common = Some(format);
    }
    common.ok_or_else(|| Error::input(format!("source `{name}` has no files")))
}

/// The manifest of a source as its files are now.
pub(crate) fn manifest(project: &Project, name: &str, source: &Source) -> Result<Manifest> {
    let is_model = source.format == SourceFormat::HuggingFace;
    let paths = if is_model { model_files(&model_folder(project, name, source)?)? } else { files(project, source)? };
    let mut entries = Vec::new();
    for path in paths {
        let mut entry = project.ledger.digest_file(&path)?;
        // Named from the project's folder: the same project elsewhere is still the same.
        if let Ok(inside) = path.strip_prefix(&project.root) {
            entry.path = inside.to_string_lossy().replace('\\', "/");
        }
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let component = Component {
        name: name.into(),
        kind: if is_model { ComponentKind::ModelParameters } else { ComponentKind::Dataset },
        license: source.license.clone(),
        origin: source.origin.clone(),
        paths: entries.iter().map(|entry| entry.path.clone()).collect(),
    };
    Ok(Manifest {
        schema: MANIFEST_SCHEMA,
        kind: ArtifactKind::Source,
        files: entries,
        parents: vec![],
        components: vec![component],
        recipe: Recipe {
            step: name.into(),
            kind: "source".into(),
            config: serde_json::json!({ "format": source.format, "rows": source.rows, "columns": source.columns }),
            seed: 0,
            narthex: env!("CARGO_PKG_VERSION").into(),
            version: 1,
        },
        figures: BTreeMap::new(),
    })
}

/// Records the source as it is now.
pub(crate) fn record(project: &Project, name: &str, source: &Source) -> Result<Artifact> {
    let artifact = project.ledger.commit_source(manifest(project, name, source)?, RunRecord::default())?;
    project.ledger.set_ref(name, artifact.digest)?;
    Ok(artifact)
}

/// The folder of a source in Hugging Face layout.
pub(crate) fn model_folder(project: &Project, name: &str, source: &Source) -> Result<PathBuf> {
    match source.path.to_vec().as_slice() {
        [one] if project.root.join(one).join("config.json").is_file() => Ok(project.root.join(one)),
        _ => Err(Error::input(format!("source `{name}` is not a model folder"))
            .help(format!("`path` in [sources.{name}] must name one folder with a config.json"))),
    }
}

/// The regular files directly in a model folder that belong to the model.
pub(crate) fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("cannot read", folder, error))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.is_file()
                && path
                    .extension()
                    .is_some_and(|e| ["json", "safetensors", "jinja"].contains(&e.to_string_lossy().as_ref()))
        })
        .collect();
    files.sort();
    Ok(files)
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
    narthex_model::Decoder::read(folder, &narthex_model::cpu())?;
    let names = model_files(folder)?.into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_string()));
    let component = Component {
        name: "weights".into(),
        kind: ComponentKind::ModelParameters,
        license,
        origin,
        paths: names.collect(),
    };
    Ok(Manifest {
        schema: MANIFEST_SCHEMA,
        kind: ArtifactKind::Model,
        files: vec![],
        parents: vec![],
        components: vec![component],
        recipe: Recipe {
            step: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "import".into()),
            kind: "import".into(),
            config: serde_json::json!({}),
            seed: 0,
            narthex: env!("CARGO_PKG_VERSION").into(),
            version: 1,
        },
        figures: BTreeMap::new(),
    })
}
