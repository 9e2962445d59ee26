//! Models that come from elsewhere in another form, or go there: GGUF files and PyTorch checkpoints. Decides what a
//! path is, and what of its own account of itself is recorded; the formats themselves are another crate's.

use narthex_base::{Error, License, Result, hub_license::from_hub};
use narthex_formats::{
    folder,
    gguf::{self, About, BaseModel, Imported},
    pickle,
};
use narthex_ledger::{Artifact, Ledger};
use std::path::{Path, PathBuf};

pub use narthex_formats::gguf::Stored as GgufWeights;

/// The endings of PyTorch checkpoints.
const CHECKPOINT_ENDINGS: [&str; 4] = ["pt", "pth", "bin", "ckpt"];
/// What is taken along beside a checkpoint: settings, templates, vocabularies, papers.
const BESIDE_ENDINGS: [&str; 5] = ["json", "jinja", "txt", "md", "model"];
/// The papers without an ending.
const BESIDE_NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "README"];
/// The largest file that is taken along; tokenizers have some tens of megabytes.
const BESIDE_BYTES_MAX: u64 = 1 << 28;

/// A model folder that is ready to be taken into a ledger.
#[derive(Debug)]
pub struct ImportSource {
    folder: PathBuf,
    /// Holds what was converted; it goes with this value.
    _made: Option<tempfile::TempDir>,
    /// What the model is called unless the user says otherwise.
    pub name: String,
    /// The licence that the file itself states.
    pub license: Option<License>,
    /// Where it comes from, as the file itself states.
    pub origin: Option<String>,
    /// What the user should know about the conversion; each a line.
    pub notes: Vec<String>,
}

impl ImportSource {
    /// The folder in Hugging Face layout.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Finds out what a path is, and converts it where it is no folder in Hugging Face layout with safetensors. What is
/// made lies in a temporary folder in `project`.
///
/// # Errors
/// If there is nothing, the folder has links that lead out of it, or a file is not supported, damaged, or made to do
/// harm.
pub fn import_source(path: &Path, project: &Path) -> Result<ImportSource> {
    let kind = std::fs::metadata(path).map_err(|error| {
        Error::io("cannot read", path, error)
            .help("name a model folder in Hugging Face layout, a GGUF file, or a checkpoint")
    })?;
    let whole = path.canonicalize().map_err(|error| Error::io("cannot read", path, error))?;
    // A file may be a link into a cache, where it has another name.
    let name = if kind.is_dir() { whole.file_name() } else { path.file_stem() };
    // Only the root of a file system has none.
    let name = name.map_or("model".into(), |name| name.to_string_lossy().into_owned());
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    if kind.is_dir() {
        folder::check(path)?;
        let has = |names: [&str; 2]| names.iter().any(|name| path.join(name).is_file());
        if has(["model.safetensors", "model.safetensors.index.json"])
            || !has(["pytorch_model.bin", "pytorch_model.bin.index.json"])
        {
            return Ok(ImportSource {
                folder: path.into(),
                _made: None,
                name,
                license: None,
                origin: None,
                notes: vec![],
            });
        }
        return checkpoint(path, path, name, project);
    }
    if ending == "gguf" {
        let (made, folder) = temporary(project, &name)?;
        let about = gguf::to_hugging_face(path, &folder)?;
        return Ok(ImportSource {
            folder,
            _made: Some(made),
            license: about
                .license
                .as_deref()
                .or(about.license_name.as_deref())
                .and_then(|name| from_hub(name, about.license_name.as_deref())),
            origin: Some(origin(path, &about)),
            name,
            notes: about.notes,
        });
    }
    if CHECKPOINT_ENDINGS.contains(&ending.as_str()) {
        let beside = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        if !beside.join("config.json").is_file() {
            return Err(Error::input("a checkpoint has weights alone, and there is no config.json beside it")
                .at(path.display(), None)
                .help("put config.json and tokenizer.json of the model into the same folder"));
        }
        return checkpoint(path, beside, name, project);
    }
    Err(Error::input("this is not a kind of model file that is known")
        .at(path.display(), None)
        .help("import a folder in Hugging Face layout, a .gguf file, or a .pt, .pth, .bin or .ckpt checkpoint"))
}

/// Converts a checkpoint, and takes along what lies beside it.
fn checkpoint(source: &Path, beside: &Path, name: String, project: &Path) -> Result<ImportSource> {
    let (made, folder) = temporary(project, &name)?;
    let converted = pickle::to_safetensors(source, &folder)?;
    let entries = std::fs::read_dir(beside).map_err(|error| Error::io("cannot read", beside, error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io("cannot read", beside, error))?.path();
        let Some(file) = path.file_name().map(|file| file.to_string_lossy().into_owned()) else { continue };
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        let is_wanted = BESIDE_ENDINGS.contains(&ending.as_str()) || BESIDE_NAMES.contains(&file.as_str());
        // Papers of a ledger are for the files they were written for; an index of shards is made anew.
        if !is_wanted || file == "narthex.json" || file.ends_with(".index.json") {
            continue;
        }
        let fail = |error| Error::io("cannot copy", &path, error);
        let metadata = std::fs::metadata(&path).map_err(fail)?;
        if metadata.is_file() && metadata.len() <= BESIDE_BYTES_MAX {
            std::fs::copy(&path, folder.join(&file)).map_err(fail)?;
        }
    }
    let mut notes = Vec::new();
    if !converted.passed_over.is_empty() {
        notes.push(format!("not taken over, as they are no weights: {}", shortened(&converted.passed_over)));
    }
    Ok(ImportSource { folder, _made: Some(made), name, license: None, origin: None, notes })
}

pub(crate) fn shortened(names: &[String]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        shown += &format!(" and {} more", names.len() - SHOWN_MAX);
    }
    shown
}

/// A folder that bears the model's name, in a temporary one.
fn temporary(project: &Path, name: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    // A project that is not there yet is made when the model is taken in.
    let parent = if project.is_dir() { project } else { Path::new(".") };
    let fail = |error| Error::io("cannot write into", parent, error);
    let made = tempfile::Builder::new().prefix(".narthex-import-").tempdir_in(parent).map_err(fail)?;
    let folder = made.path().join(name);
    std::fs::create_dir(&folder).map_err(fail)?;
    Ok((made, folder))
}

/// One line on where a file comes from, and what it was made from.
fn origin(file: &Path, about: &Imported) -> String {
    let mut parts: Vec<String> = about.url.iter().cloned().collect();
    parts.push(format!("GGUF file {}", file.file_name().unwrap_or_default().to_string_lossy()));
    parts.extend(about.license_link.iter().map(|link| format!("licence at {link}")));
    parts.extend(about.base_models.iter().map(|base| format!("based on {}", described(base))));
    parts.join("; ")
}

fn described(base: &BaseModel) -> String {
    let name = base.name.as_deref().unwrap_or("a model without a name");
    let maker = base.organization.iter().map(|maker| format!(" by {maker}"));
    let url = base.url.iter().map(|url| format!(" ({url})"));
    [name.to_string()].into_iter().chain(maker).chain(url).collect()
}

/// Writes a model in a ledger as one GGUF file that is not there yet.
///
/// # Errors
/// If the artifact is no model, its architecture or tokenizer is not supported, or the file is there or cannot be
/// written.
pub fn export_gguf(ledger: &Ledger, artifact: &Artifact, file: &Path, weights: GgufWeights) -> Result<()> {
    if file.exists() {
        return Err(Error::input("this is there already")
            .at(file.display(), None)
            .help("name a file that is not there yet"));
    }
    let name = artifact.name();
    if artifact.manifest.file("config.json").is_none() || !artifact.is_complete() {
        return Err(Error::input(format!("`{name}` holds no model here, so it cannot be written as GGUF"))
            .help("`narthex ls` lists what there is"));
    }
    ledger.verify(artifact)?;
    let about = About {
        name: Some(name.to_string()),
        license: artifact.manifest.license().map(|license| license.as_str().to_string()),
        license_link: None,
    };
    gguf::from_hugging_face(&artifact.folder, file, weights, &about)
}
