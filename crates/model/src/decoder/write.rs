//! Decoders as folders and as tensors by name.

use super::Decoder;
use crate::{
    mapped::to_theirs,
    parameters::{Replacement, map_parameters, named_parameters},
    weights::{TensorMap, mismatch, unknown_tensor, write_safetensors},
};
use narthex_base::{Error, Result};
use std::path::Path;

impl Decoder {
    /// Replaces all weights, by the decoder's own names.
    ///
    /// # Errors
    /// If one is missing, unknown, or has the wrong shape; it is named.
    pub fn load(self, mut weights: TensorMap) -> Result<Self> {
        let mut problem = None;
        let loaded = map_parameters(self, |name, shape| {
            let values = match weights.remove(name) {
                Some((found, values)) if found == shape => Some(values),
                Some((found, _)) => {
                    problem.get_or_insert(format!(
                        "tensor `{name}` has shape {found:?}, but the config asks for {shape:?}"
                    ));
                    None
                }
                None => {
                    problem.get_or_insert(format!("tensor `{name}` is missing"));
                    None
                }
            };
            Replacement { values, trained: false }
        });
        if problem.is_none() {
            problem = unknown_tensor(weights.keys(), loaded.config());
        }
        match problem {
            Some(what) => Err(mismatch(what)),
            None => Ok(loaded),
        }
    }

    /// Writes `config.json` and `model.safetensors`, with the names of its architecture. Adapters must be merged
    /// before.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("config.json");
        let config = serde_json::to_string_pretty(&self.config().to_json()).expect("JSON serializes");
        std::fs::write(&path, config + "\n").map_err(|error| Error::io("cannot write", &path, error))?;
        write_safetensors(&folder.join("model.safetensors"), &to_theirs(&self.config, self.tensors()))
    }

    /// All weights by the decoder's own names.
    pub fn tensors(&self) -> TensorMap {
        named_parameters(self).into_iter().map(|t| (t.name, (t.shape, t.values))).collect()
    }
}
