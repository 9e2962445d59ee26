//! Sources: raw files that stay where they are and are known by digest, and model folders.

use crate::project::Project;
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, Manifest, Recipe, Result,
    config::{OneOrMany, Source, SourceForm, SourceFormat, TextRows},
    plan::InputKind,
};
use narthex_data::{Format, SourceSpec, expand, expand_to};
use narthex_knowledge::FileKind;
use narthex_ledger::{Artifact, RunRecord};
use narthex_shelf::{HubCard, Terms, model_files};
use std::{collections::BTreeMap, path::PathBuf};

/// The files of a source, in order.
pub(crate) fn files(project: &Project, name: &str, source: &Source) -> Result<Vec<PathBuf>> {
    let (root, paths) = (&project.root, source.path.to_vec());
    if !forms(project, name).any(|form| form == SourceForm::Files) {
        return expand(root, &paths);
    }
    let belongs = |path: &std::path::Path| FileKind::of_name(&path.to_string_lossy()).is_some();
    expand_to(root, &paths, belongs, "known are .txt, .md, .html, .pdf and .docx")
}

/// What the steps of the plan take a source for.
fn forms<'p>(project: &'p Project, name: &'p str) -> impl Iterator<Item = SourceForm> + 'p {
    let inputs = project.plan.steps.iter().flat_map(|planned| &planned.inputs);
    inputs
        .filter(move |input| input.kind == InputKind::Source && input.name == name)
        .filter_map(|input| input.accepts.source)
}

/// What the data crate reads of a source.
pub(crate) fn spec(project: &Project, name: &str, source: &Source) -> Result<SourceSpec> {
    let files = files(project, name, source)?;
    let format = match source.format {
        SourceFormat::Text => Format::Text,
        SourceFormat::Jsonl => Format::Jsonl,
        SourceFormat::Csv => Format::Csv,
        SourceFormat::Tsv => Format::Tsv,
        SourceFormat::Parquet => Format::Parquet,
        SourceFormat::Auto => common_format(name, &files)?,
        SourceFormat::HuggingFace => return Err(Error::input(format!("source `{name}` is a model folder, not data"))),
    };
    let (quotes, columns) = (source.quotes, source.columns.clone());
    Ok(SourceSpec { quotes, name: name.into(), files, format, rows: source.rows, columns })
}

/// What the data crate reads of a data step.
pub(crate) fn of_artifact(name: &str, artifact: &Artifact) -> SourceSpec {
    let files = ["train.parquet", "validation.parquet"].map(|file| artifact.path(file));
    SourceSpec {
        quotes: None,
        name: name.into(),
        files: files.into_iter().filter(|path| path.is_file()).collect(),
        format: Format::Parquet,
        rows: TextRows::File,
        columns: BTreeMap::new(),
    }
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

/// Keys that say nothing of files in this format would be passed over without a word.
fn refuse_idle_keys(name: &str, source: &Source, format: Format) -> Result<()> {
    let rows = source.rows != TextRows::default() && format != Format::Text;
    let quotes = source.quotes.is_some() && !matches!(format, Format::Csv | Format::Tsv);
    match [("rows", rows), ("quotes", quotes)].into_iter().find(|(_, idle)| *idle) {
        None => Ok(()),
        Some((key, _)) => Err(Error::input(format!("source `{name}`: `{key}` means nothing for its files"))
            .cause(format!("`rows` is for text, `quotes` for CSV and TSV; these are {}", format.name()))
            .help(format!("leave `{key}` out of [sources.{name}]"))),
    }
}

/// The manifest of a source as its files are now.
pub(crate) fn manifest(project: &Project, name: &str, source: &Source) -> Result<Manifest> {
    let is_model = source.format == SourceFormat::HuggingFace;
    if !is_model && let Ok(spec) = spec(project, name, source) {
        refuse_idle_keys(name, source, spec.format)?;
    }
    let paths =
        if is_model { model_files(&model_folder(project, name, source)?)? } else { files(project, name, source)? };
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
    let paths = source.path.to_vec();
    let folder = match paths.as_slice() {
        [one] => Some(project.root.join(one)).filter(|path| path.is_dir()),
        _ => None,
    };
    let file = source.license_file.as_ref().map(|file| project.root.join(file));
    let terms = match &folder {
        // A model folder's card speaks for it where the project file is silent.
        Some(folder) if is_model && file.is_none() => HubCard::read(folder)?.terms(source.license.clone(), folder),
        _ => Terms::find(source.license.as_ref(), file.as_deref(), folder.as_deref()),
    };
    let Terms { license, evidence, license_texts, texts, mut notices } =
        terms.map_err(|error| error.context(format!("source `{name}`: its licence cannot be right")))?;
    notices.extend(source.notice.iter().flat_map(OneOrMany::to_vec));
    let component = Component {
        name: name.into(),
        kind: if is_model { ComponentKind::ModelParameters } else { kind_of(project, name) },
        license,
        license_texts,
        notices,
        origin: source.origin.clone(),
        evidence,
        paths: entries.iter().map(|entry| entry.path.clone()).collect(),
    };
    let mut config = serde_json::json!({
        "path": source.path, "format": source.format, "rows": source.rows, "columns": source.columns,
        "license_file": source.license_file,
    });
    if let Some(quotes) = source.quotes {
        config["quotes"] = quotes.into();
    }
    let recipe = Recipe { config, ..Recipe::new(name, "source") };
    let files = entries;
    let mut manifest =
        Manifest { files, components: vec![component], texts, ..Manifest::new(ArtifactKind::Source, recipe) };
    // A model that an export wrote brings along what it was made from.
    if let Some(papers) = folder.map(|folder| folder.join("narthex.json")).filter(|path| is_model && path.is_file()) {
        manifest.inherit(&narthex_ledger::read_provenance(&papers)?.manifest);
    }
    Ok(manifest)
}

/// What a source of files is: a document where a bundle takes it for one, else data.
fn kind_of(project: &Project, name: &str) -> ComponentKind {
    let document = forms(project, name).find_map(|form| match form {
        SourceForm::Document(kind) => Some(kind),
        _ => None,
    });
    document.unwrap_or(ComponentKind::Datasets)
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
