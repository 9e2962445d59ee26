//! Sources: raw files that stay where they are and are known by digest, and model folders.

use crate::{Project, hub_card::HubCard};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Digest, Error, Evidence, License, Manifest, Recipe, Result,
    config::{OneOrMany, Source, SourceForm, SourceFormat},
    license,
    plan::InputKind,
};
use narthex_data::{Format, SourceSpec, expand};
use narthex_ledger::{Artifact, RunRecord};
use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Under which terms material stands, and how that is known.
pub(crate) struct Terms {
    pub(crate) license: Option<License>,
    pub(crate) evidence: Evidence,
    /// Identifier -> digest of the text.
    pub(crate) license_texts: BTreeMap<String, Digest>,
    /// The texts that lie beside the material.
    pub(crate) texts: BTreeMap<Digest, String>,
    pub(crate) notices: BTreeSet<String>,
}

/// The file names of licence texts.
const LICENSE_FILES: [&str; 6] = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "LICENSE.TXT"];
/// The file names of notices.
const NOTICE_FILES: [&str; 3] = ["NOTICE", "NOTICE.txt", "NOTICE.md"];
/// The largest licence text or notice that is read.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The terms of material: what is declared, held against the text that lies beside it. `file` was named by the user; in
/// `folder`, the usual names are looked for.
pub(crate) fn terms(declared: Option<&License>, file: Option<&Path>, folder: Option<&Path>) -> Result<Terms> {
    let mut terms = Terms {
        license: declared.cloned(),
        evidence: Evidence::Declared,
        license_texts: Component::new("", ComponentKind::Datasets, declared.cloned(), Evidence::Declared).license_texts,
        texts: BTreeMap::new(),
        notices: BTreeSet::new(),
    };
    let beside = |names: &[&str]| {
        names.iter().map(|name| folder.map(|folder| folder.join(name))).find_map(|path| path.filter(|p| p.is_file()))
    };
    if let Some(path) = file.map(Path::to_path_buf).or_else(|| beside(&LICENSE_FILES)) {
        terms.read_license(&path, file.is_some())?;
    }
    // What an export wrote says the same in narthex.json.
    let has_papers = folder.is_some_and(|folder| folder.join("narthex.json").is_file());
    if let Some(path) = beside(&NOTICE_FILES).filter(|_| !has_papers) {
        terms.notices.insert(read_text(&path)?.trim().to_string());
    }
    Ok(terms)
}

impl Terms {
    /// Takes up the licence text in a file. Texts that are not known count only where the user names the file.
    fn read_license(&mut self, path: &Path, named: bool) -> Result<()> {
        let text = read_text(path)?;
        let found = license::detect(&text);
        let id = match (&self.license, found) {
            (None, Some(id)) => {
                self.license = Some(License::parse(id)?);
                self.evidence = Evidence::Text;
                id.to_string()
            }
            (None, None) if named => {
                return Err(Error::input("the text in this file is no licence that is known")
                    .at(path.display(), None)
                    .help("say what it is: `license = \"LicenseRef-NAME\"`, or an SPDX identifier"));
            }
            (None, None) => return Ok(()),
            (Some(license), Some(id)) if license.ids().iter().any(|known| same_text(known, id)) => {
                self.evidence = Evidence::Text;
                license.ids().into_iter().find(|known| same_text(known, id)).unwrap_or_default()
            }
            (Some(license), Some(id)) => {
                return Err(Error::input(format!(
                    "this is the text of {id}, but the material is declared as {license}"
                ))
                .at(path.display(), None)
                .cause("what others have licensed cannot be put under other terms")
                .help(format!("declare it as it is: `license = \"{id}\"`")));
            }
            // A text of somebody's own belongs to the one licence that has no known text.
            (Some(license), None) => match license.ids().into_iter().find(|id| license::text_of(id).is_none()) {
                Some(id) => id,
                None if named => {
                    return Err(Error::input(format!("the text in this file is not that of {license}"))
                        .at(path.display(), None)
                        .help("leave `license_file` out: the text of known licences is carried along anyway"));
                }
                None => return Ok(()),
            },
        };
        let digest = Digest::of(text.as_bytes());
        self.license_texts.insert(id.clone(), digest);
        if license::text_of(&id) != Some(text.as_str()) {
            self.texts.insert(digest, text);
        }
        Ok(())
    }
}

/// Whether two identifiers stand for one text: `GPL-3.0-or-later` and `GPL-3.0-only` do.
fn same_text(a: &str, b: &str) -> bool {
    let base = |id: &str| id.trim_end_matches("-only").trim_end_matches("-or-later").trim_end_matches('+').to_string();
    base(a) == base(b)
}

fn read_text(path: &Path) -> Result<String> {
    let fail = |error| Error::io("cannot read", path, error);
    if std::fs::metadata(path).map_err(fail)?.len() > TEXT_BYTES_MAX {
        return Err(Error::input("this is too long for a licence or a notice").at(path.display(), None));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(path).map_err(fail)?).into_owned())
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
    let paths = source.path.to_vec();
    let folder = match paths.as_slice() {
        [one] => Some(project.root.join(one)).filter(|path| path.is_dir()),
        _ => None,
    };
    let file = source.license_file.as_ref().map(|file| project.root.join(file));
    let terms = match &folder {
        // A model folder's card speaks for it where the project file is silent.
        Some(folder) if is_model && file.is_none() => HubCard::read(folder)?.terms(source.license.clone(), folder),
        _ => terms(source.license.as_ref(), file.as_deref(), folder.as_deref()),
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
    let config = serde_json::json!({
        "path": source.path, "format": source.format, "rows": source.rows, "columns": source.columns,
        "license_file": source.license_file,
    });
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
    let mut inputs = project.plan.steps.iter().flat_map(|planned| &planned.inputs);
    let document = inputs.find_map(|input| match input.accepts.source {
        Some(SourceForm::Document(kind)) if input.kind == InputKind::Source && input.name == name => Some(kind),
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

/// The regular files directly in a model folder that belong to the model.
pub(crate) fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
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
pub(crate) fn module_files(folder: &Path) -> Result<Vec<String>> {
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

    #[test]
    fn what_is_declared_is_held_against_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let mit = license::text_of("MIT").unwrap().replace("<year> <copyright holders>", "2015 A");
        let file = folder.path().join("LICENSE");
        std::fs::write(folder.path().join("NOTICE"), "Keep this\n").unwrap();
        let check = |declared: Option<&str>, text: &str, named: bool| {
            std::fs::write(&file, text).unwrap();
            let declared = declared.map(|id| License::parse(id).unwrap());
            terms(declared.as_ref(), named.then_some(file.as_path()), Some(folder.path()))
        };
        let found = check(None, &mit, false).unwrap();
        assert_eq!((found.license.unwrap().as_str(), found.evidence), ("MIT", Evidence::Text));
        assert_eq!(found.texts.values().collect::<Vec<_>>(), [&mit], "the copyright line is kept");
        assert_eq!(found.notices, BTreeSet::from(["Keep this".to_string()]));
        let found = check(Some("Apache-2.0 OR MIT"), &mit, false).unwrap();
        assert_eq!((found.license_texts["MIT"], found.license_texts.len()), (Digest::of(mit.as_bytes()), 2));
        let found = check(Some("LicenseRef-mine"), "You may look at this.", true).unwrap();
        assert_eq!(found.texts.len(), 1);
        assert!(check(None, "You may look at this.", false).unwrap().license.is_none());
        for (declared, text, named, expected) in [
            (Some("CC0-1.0"), mit.as_str(), false, "this is the text of MIT, but the material is declared as CC0-1.0"),
            (None, "You may look at this.", true, "no licence that is known"),
            (Some("MIT"), "You may look at this.", true, "is not that of MIT"),
        ] {
            let error = check(declared, text, named).err().unwrap();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
