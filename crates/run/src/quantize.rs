//! A model's folder written again with its weights as small integers, and what that costs on given text.

use crate::{LoadedModel, Project, WeightForm, loaded::require_model};
use narthex_base::{Error, Result};
use narthex_model::{
    Decoder, Quantization,
    calibrate::{Calibration, Comparison, calibrate, compare},
    quantized::{Written, write_quantized},
};
use std::path::{Path, PathBuf};

/// Tokens of a window of text that calibrates or measures, at most.
const WINDOW: usize = 512;

/// Windows that calibrate, and that measure, at most.
const WINDOWS: usize = 64;

/// Largest text that is read.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Files of a folder that belong to its weights or vouch for them; others are copied.
const OWN: [&str; 4] = ["config.json", "manifest.json", "narthex.json", "model.safetensors.index.json"];

/// What was written, and how it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Sizes and errors.
    pub written: Written,
    /// How it does on the part of the text that did not calibrate, beside the original; none without text.
    pub comparison: Option<Comparison>,
    /// Bytes of that part for each of its tokens.
    pub bytes_per_token: f64,
}

/// Writes a model, by reference or folder, into a folder that is new or empty. A text calibrates with its first three
/// quarters and measures with the last one.
///
/// # Errors
/// If the model or the text cannot be read, the model is quantized already, or the folder is not empty.
pub fn quantize(
    project: &Path,
    reference: &str,
    to: &Path,
    kind: Quantization,
    text: Option<&Path>,
) -> Result<Quantized> {
    let from = folder_of(project, reference)?;
    std::fs::create_dir_all(to).map_err(|error| Error::io("cannot make", to, error))?;
    let mut there = std::fs::read_dir(to).map_err(|error| Error::io("cannot read", to, error))?;
    if there.next().is_some() {
        return Err(Error::input("this folder is not empty").at(to.display(), None).help("give one that is new"));
    }
    let mut calibration = Calibration::default();
    let mut measured = None;
    if let Some(path) = text {
        let model = LoadedModel::open(project, reference, WeightForm::Full)?;
        let text = read_text(path)?;
        let cut = text.floor_char_boundary(text.len() / 4 * 3);
        let len = WINDOW.min(model.decoder.config().context);
        let windows = |text: &str| -> Result<(Vec<Vec<u32>>, usize)> {
            let ids = model.tokenizer.encode(text, false)?;
            let step = (ids.len() / WINDOWS).max(len);
            let starts = (0..ids.len()).step_by(step);
            Ok((starts.map(|first| ids[first..ids.len().min(first + len)].to_vec()).collect(), ids.len()))
        };
        calibration = calibrate(&model.decoder, &windows(&text[..cut])?.0)?;
        if let Quantization::Int4 { group } = kind {
            calibration.scale(&model_type(&from)?, &model.decoder.tensors(), group);
        }
        let (windows, tokens) = windows(&text[cut..])?;
        if windows.iter().all(|window| window.len() < 2) {
            return Err(Error::input("this text is too short to measure on").at(path.display(), None));
        }
        measured = Some((model.decoder, windows, (text.len() - cut) as f64 / tokens.max(1) as f64));
    }
    let written = write_quantized(&from, to, kind, &calibration)?;
    copy_the_rest(&from, to)?;
    let Some((original, windows, bytes_per_token)) = measured else {
        return Ok(Quantized { written, comparison: None, bytes_per_token: 0.0 });
    };
    let comparison = compare(&original, &Decoder::read_packed(to, None)?, &windows);
    Ok(Quantized { written, comparison: Some(comparison), bytes_per_token })
}

/// The folder of a model.
fn folder_of(project: &Path, reference: &str) -> Result<PathBuf> {
    if Path::new(reference).join("config.json").is_file() {
        return Ok(reference.into());
    }
    let artifact = Project::ledger(project)?.resolve(reference)?;
    require_model(&artifact, reference)?;
    Ok(artifact.folder)
}

fn model_type(folder: &Path) -> Result<String> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::input("config.json is not valid JSON").at(path.display(), error.line()).cause(error))?;
    Ok(config["model_type"].as_str().unwrap_or_default().into())
}

fn read_text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?.len();
    if size > TEXT_BYTES_MAX {
        return Err(Error::input(format!("this text has {size} bytes, more than {TEXT_BYTES_MAX}"))
            .at(path.display(), None)
            .help("a few megabytes are plenty: take a part of it"));
    }
    std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))
}

/// Copies plain files that are not weights: tokenizer, template, licences.
fn copy_the_rest(from: &Path, to: &Path) -> Result<()> {
    let entries = std::fs::read_dir(from).map_err(|error| Error::io("cannot read", from, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("cannot read", from, error))?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let weights = [".safetensors", ".bin", ".pt", ".gguf", ".msgpack", ".h5"].iter().any(|end| text.ends_with(end));
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if plain && !weights && !OWN.contains(&&*text) {
            std::fs::copy(entry.path(), to.join(&name))
                .map_err(|error| Error::io("cannot copy", entry.path(), error))?;
        }
    }
    Ok(())
}
