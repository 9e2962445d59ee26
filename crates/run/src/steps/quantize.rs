//! `quantize`: a model -> the same with its layers' weights as small integers, and what that costs on text that was
//! kept back.

use super::{Made, StepContext, training::Shards};
use crate::source;
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, Figure, Result,
    config::{IntegerKind, QuantizeStep},
};
use narthex_ledger::Artifact;
use narthex_model::{
    Decoder, ModelConfig, Quantization,
    calibrate::{Calibration, Comparison, calibrate, compare},
    cpu,
    integer_folder::write_quantized,
};
use narthex_shelf::model_files;
use narthex_text::{TokenShard, Tokenizer};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Tokens of a window of text that calibrates or measures, at most.
const WINDOW: usize = 512;

/// Windows that calibrate, and that measure, at most.
const WINDOWS: usize = 64;

/// Largest text that is read.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Files beside a model that belong to its weights, which are written anew, or to a ledger.
const OWN: [&str; 3] = ["config.json", "model.safetensors.index.json", "manifest.json"];

pub(super) fn make(context: &StepContext, step: &QuantizeStep) -> Result<Made> {
    let (input, model) = context.input("model")?;
    let from = context.model_folder(input, model)?;
    let kind = match step.to {
        IntegerKind::Int8 => Quantization::Int8,
        IntegerKind::Int4 => Quantization::Int4 { group: step.group },
    };
    let mut calibration = Calibration::default();
    let mut measured = None;
    if let Some(text) = text(context, &from)? {
        let decoder = Decoder::read(&from, &cpu())?;
        calibration = calibrate(&decoder, &text.calibrates)?;
        if let Quantization::Int4 { group } = kind {
            calibration.scale(decoder.config().design.family.model_type, &decoder.tensors(), group);
        }
        measured = Some((decoder, text));
    }
    context.observer.check()?;
    let written = write_quantized(&from, context.files, kind, &calibration)?;
    for path in model_files(&from)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.ends_with(".safetensors") && !OWN.contains(&name) {
            context.copy(&path, name)?;
        }
    }
    let mut figures = BTreeMap::from([
        ("matrices".to_string(), written.matrices as f64),
        (Figure::BYTES.name.into(), written.bytes_after as f64),
        ("baseline_bytes".into(), written.bytes_before as f64),
        ("relative_weight_error".into(), written.relative_error.sqrt()),
    ]);
    if let Some((original, text)) = measured {
        let Comparison { tokens, nats, other_nats, same_top } =
            compare(&original, &Decoder::read_packed(context.files, None)?, &text.measures);
        let per_byte = |nats: f64| nats / tokens.max(1) as f64 / text.bytes_per_token;
        figures.extend([
            (Figure::NATS_PER_BYTE.name.to_string(), per_byte(other_nats)),
            (Figure::NATS_PER_BYTE.of_baseline(), per_byte(nats)),
            ("same_likeliest_token".into(), same_top as f64 / tokens.max(1) as f64),
        ]);
    }
    Ok(Made::new(ArtifactKind::Model, components(context)?, figures))
}

/// Weights that were rounded from somebody else's stay under the terms of those, and so does what belongs to them.
fn components(context: &StepContext) -> Result<Vec<Component>> {
    let model = context.input("model")?;
    let names = super::paths_below(context.files)?;
    let (weights, rest): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| name.contains(".safetensors"));
    let (tokenizer, rest): (Vec<&str>, Vec<&str>) =
        rest.into_iter().partition(|name| name.contains("token") || name.contains("chat_template"));
    let part = |name: &str, kind, paths: &[&str], ending: &str| {
        (!paths.is_empty()).then(|| context.of_input(model, ending, context.own(name, kind, paths)))
    };
    let parts = [
        part("weights", ComponentKind::ModelParameters, &weights, ".safetensors"),
        part("configuration", ComponentKind::ModelMetadata, &rest, "config.json"),
        part("tokenizer", ComponentKind::ModelMetadata, &tokenizer, "tokenizer.json"),
    ];
    Ok(parts.into_iter().flatten().collect())
}

/// Windows of tokens, of which some calibrate and others measure.
struct Text {
    calibrates: Vec<Vec<u32>>,
    measures: Vec<Vec<u32>>,
    bytes_per_token: f64,
}

fn text(context: &StepContext, model: &Path) -> Result<Option<Text>> {
    let Some((input, artifact)) = context.inputs_as("calibrate").next() else { return Ok(None) };
    let len = WINDOW.min(ModelConfig::read(&model.join("config.json"))?.context);
    let text = match artifact.manifest.kind {
        ArtifactKind::Tokens => {
            context.require_same_tokenizer(model, &artifact.folder, "calibrate")?;
            let shards = Shards::open(&artifact.folder)?;
            if shards.train.has_pairs() {
                return Err(Error::input(format!("`{}` holds pairs of answers, which cannot calibrate", input.name))
                    .help("name a tokenize step over text or conversations"));
            }
            of_shards(&shards, len)
        }
        ArtifactKind::Source => of_files(&source_files(context, &input.name, artifact)?, model, len)?,
        kind => {
            return Err(Error::input(format!("`{}` is of kind {kind}, which cannot calibrate", input.name))
                .help("name a tokenize step, or a source of plain text"));
        }
    };
    if text.measures.iter().all(|window| window.len() < 2) {
        return Err(Error::input(format!("`{}` is too short to measure on", input.name))
            .help("a few hundred kilobytes are plenty, a few kilobytes the least"));
    }
    Ok(Some(text))
}

/// So many windows over a row of tokens, evenly spread.
fn windows(tokens: usize, len: usize, mut read: impl FnMut(std::ops::Range<usize>) -> Vec<u32>) -> Vec<Vec<u32>> {
    let step = (tokens / WINDOWS).max(len).max(1);
    (0..tokens).step_by(step).map(|first| read(first..tokens.min(first + len))).collect()
}

/// The training part calibrates and the validation part measures; without one, the last quarter of the other.
fn of_shards(shards: &Shards, len: usize) -> Text {
    let read = |shard: &TokenShard, range: std::ops::Range<usize>| {
        let mut ids = vec![];
        shard.read(range, &mut ids);
        ids
    };
    let train = &shards.train;
    let cut = if shards.validation.is_some() { train.len() } else { train.len() / 4 * 3 };
    let calibrates = windows(cut, len, |range| read(train, range));
    let measures = match &shards.validation {
        Some(validation) => windows(validation.len(), len, |range| read(validation, range)),
        None => windows(train.len() - cut, len, |range| read(train, cut + range.start..cut + range.end)),
    };
    let measured = shards.validation.as_ref().unwrap_or(train);
    // The bytes are those of the tokens that train: in conversations, the answers.
    let counted = match measured.has_mask() {
        true => (0..measured.len()).filter(|position| measured.mask(*position)).count(),
        false => measured.len(),
    };
    Text { calibrates, measures, bytes_per_token: measured.text_bytes().max(1) as f64 / counted.max(1) as f64 }
}

/// The first three quarters calibrate, the last one measures.
fn of_files(files: &[PathBuf], model: &Path, len: usize) -> Result<Text> {
    let mut text = String::new();
    for path in files {
        let fail = |error| Error::io("cannot read", path, error);
        let bytes = text.len() as u64 + std::fs::metadata(path).map_err(fail)?.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(Error::input(format!("this text has more than {TEXT_BYTES_MAX} bytes"))
                .at(path.display(), None)
                .help("a few megabytes are plenty: take a part of it"));
        }
        text += &std::fs::read_to_string(path).map_err(fail)?;
    }
    let tokenizer = Tokenizer::read(model)?;
    let cut = text.floor_char_boundary(text.len() / 4 * 3);
    let ids = |text: &str| tokenizer.encode(text, false);
    let (first, last) = (ids(&text[..cut])?, ids(&text[cut..])?);
    let of = |ids: &[u32]| windows(ids.len(), len, |range| ids[range].to_vec());
    Ok(Text {
        calibrates: of(&first),
        measures: of(&last),
        bytes_per_token: (text.len() - cut) as f64 / last.len().max(1) as f64,
    })
}

/// The files of a source, as they were when it was recorded.
fn source_files(context: &StepContext, name: &str, artifact: &Artifact) -> Result<Vec<PathBuf>> {
    match context.project.plan.sources.get(name) {
        Some(source) => source::files(context.project, name, source),
        None => Ok(artifact.manifest.files.iter().map(|file| context.project.root.join(&file.path)).collect()),
    }
}
