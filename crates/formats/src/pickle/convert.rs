//! From checkpoints to safetensors, in the number format they have. Knows files and shards, not models.

use super::{StateDict, read_state_dict};
use crate::weights::{Entry, shards, write, write_json};
use narthex_base::{Error, Result};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What was converted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// The checkpoints read.
    pub sources: Vec<PathBuf>,
    /// Names of tensors of whole numbers or truth values, and of what is no tensor: not written.
    pub passed_over: Vec<String>,
}

/// Writes the tensors of a checkpoint, or of a folder with `pytorch_model.bin` or `pytorch_model.bin.index.json`, as
/// `model.safetensors` into a folder that is there; several shards become as many, with an index.
///
/// # Errors
/// As [`read_state_dict`]; if a tensor is in two shards, or a file cannot be written.
pub fn to_safetensors(source: &Path, folder: &Path) -> Result<Converted> {
    let sources = sources(source)?;
    let mut converted = Converted { sources: sources.clone(), ..Converted::default() };
    if let [one] = sources.as_slice() {
        let state = read_state_dict(one)?;
        converted.take(&state, folder.join("model.safetensors"))?;
        return Ok(converted);
    }
    let (mut weight_map, mut total) = (BTreeMap::new(), 0);
    for (number, path) in sources.iter().enumerate() {
        let state = read_state_dict(path)?;
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, sources.len());
        for (name, tensor) in state.tensors() {
            total += tensor.shape.iter().product::<usize>() * tensor.element.width();
            if weight_map.insert(name.clone(), file.clone()).is_some() {
                return Err(Error::input(format!("tensor `{name}` is in two shards")).at(path.display(), None));
            }
        }
        converted.take(&state, folder.join(file))?;
    }
    let index = folder.join("model.safetensors.index.json");
    write_json(&index, &json!({"metadata": {"total_size": total}, "weight_map": weight_map}))?;
    converted.files.push(index);
    Ok(converted)
}

impl Converted {
    fn take(&mut self, state: &StateDict, file: PathBuf) -> Result<()> {
        let entries = state.tensors().iter().map(|(name, tensor)| {
            let bytes = Box::new(move || state.bytes(tensor));
            (name.clone(), Entry { element: tensor.element, shape: tensor.shape.clone(), bytes })
        });
        write(&file, entries.collect())?;
        self.files.push(file);
        self.passed_over.extend(state.passed_over().iter().cloned());
        Ok(())
    }
}

fn sources(source: &Path) -> Result<Vec<PathBuf>> {
    if !source.is_dir() {
        return Ok(vec![source.into()]);
    }
    let (single, index) = (source.join("pytorch_model.bin"), source.join("pytorch_model.bin.index.json"));
    match (single.is_file(), index.is_file()) {
        (true, _) => Ok(vec![single]),
        (false, true) => match shards(&index)? {
            none if none.is_empty() => Err(Error::input("the index names no shards").at(index.display(), None)),
            shards => Ok(shards),
        },
        (false, false) => Err(Error::input("there is no checkpoint in this folder")
            .at(source.display(), None)
            .help("expected pytorch_model.bin or pytorch_model.bin.index.json")),
    }
}
