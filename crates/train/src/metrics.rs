//! `metrics.jsonl`: one line a step, cut back to the checkpoint when a run is resumed.

use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The optimizer step, counted from 1.
    pub step: u64,
    /// Training loss: nats per counted token.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm over all gradients before clipping.
    pub grad_norm: f64,
    /// Counted tokens of the step.
    pub tokens: u64,
    /// Tokens put through per second.
    pub tokens_per_second: f64,
    /// Model FLOP utilisation, 0 to 1, against the measured peak of multiply-adds in the schedule's precision.
    pub mfu: f64,
    /// The most resident memory that the process has had so far, in bytes.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Validation loss in nats per token, on the steps that validate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_nats_per_token: Option<f64>,
    /// Validation loss in nats per byte, on the steps that validate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_nats_per_byte: Option<f64>,
}

/// The file, open for appending.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file and drops the lines after `step`.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self> {
        let fail = |error| Error::io("cannot write", path, error);
        let mut kept = String::new();
        if let Ok(file) = File::open(path) {
            for line in BufReader::new(file).lines() {
                let Ok(text) = line else { break };
                match serde_json::from_str::<Line>(&text) {
                    Ok(line) if line.step <= step => kept += &(text + "\n"),
                    _ => break,
                }
            }
        }
        // A new file: the old one may be linked into an artifact.
        if path.exists() {
            std::fs::remove_file(path).map_err(fail)?;
        }
        std::fs::write(path, kept).map_err(fail)?;
        let file = OpenOptions::new().append(true).open(path).map_err(fail)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    pub(crate) fn write(&mut self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line).expect("our own types serialize") + "\n";
        self.file.write_all(text.as_bytes()).map_err(|error| Error::io("cannot write", &self.path, error))
    }
}
