//! `metrics.jsonl`: one line a step, cut back to the checkpoint when a run is resumed.

use crate::objective::Values;
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    /// The optimizer step, counted from 1.
    pub(crate) step: u64,
    /// Training loss: a mean over what the step weighs.
    pub(crate) loss: f64,
    /// Learning rate of the step.
    pub(crate) lr: f64,
    /// Norm over all gradients before clipping.
    pub(crate) grad_norm: f64,
    /// What was done, and how fast.
    #[serde(flatten)]
    pub(crate) work: Work,
    /// The most resident memory that the process has had so far, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// What each of several processes has needed.
    #[serde(flatten)]
    pub(crate) ranks: Option<OfRanks>,
    /// Validation, on the steps that validate, then the objective's own numbers.
    #[serde(flatten)]
    pub(crate) values: Values,
}

/// The work of a step; its keys are named after what is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    /// What is counted: `tokens`.
    pub(crate) item: &'static str,
    /// What counted in the step's loss: `tokens`.
    pub(crate) weight: u64,
    /// Items put through per second: `tokens_per_second`.
    pub(crate) items_per_second: f64,
    /// Model FLOP utilisation, 0 to 1, against the measured peak of multiply-adds in the schedule's precision; none
    /// where the operations of an item are not known.
    pub(crate) mfu: Option<f64>,
}

impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.item, &self.weight)?;
        map.serialize_entry(&format!("{}_per_second", self.item), &self.items_per_second)?;
        if let Some(mfu) = self.mfu {
            map.serialize_entry("mfu", &mfu)?;
        }
        map.end()
    }
}

/// What processes that train together have needed, in the order of ranks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct OfRanks {
    /// The most resident memory of each so far, in bytes.
    pub(crate) rank_peak_memory_bytes: Vec<u64>,
    /// What each has sent to the others in this step, in bytes.
    pub(crate) rank_sent_bytes: Vec<u64>,
    /// How long each has waited for the others in this step, in seconds.
    pub(crate) rank_waited_seconds: Vec<f64>,
    /// The mean part of the step in which a process did not wait, 0 to 1.
    pub(crate) scaling_efficiency: f64,
}

/// What of a line decides whether it is kept.
#[derive(Deserialize)]
struct Head {
    step: u64,
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
                match serde_json::from_str::<Head>(&text) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_line_keep_their_order() {
        let work = Work { item: "tokens", weight: 7, items_per_second: 2.5, mfu: Some(0.5) };
        let line = Line {
            step: 1,
            loss: 3.0,
            lr: 0.1,
            grad_norm: 2.0,
            work,
            peak_memory_bytes: 9,
            ranks: None,
            values: Values::new(),
        };
        let rows = Work { item: "rows", mfu: None, ..work };
        let values = Values::from([("validation_loss".into(), 1.5), ("accuracy".into(), 0.25)]);
        for (line, expected) in [
            (
                line.clone(),
                r#"{"step":1,"loss":3.0,"lr":0.1,"grad_norm":2.0,"tokens":7,"tokens_per_second":2.5,"mfu":0.5,"peak_memory_bytes":9}"#,
            ),
            (
                Line { work: rows, values, ..line },
                r#"{"step":1,"loss":3.0,"lr":0.1,"grad_norm":2.0,"rows":7,"rows_per_second":2.5,"peak_memory_bytes":9,"validation_loss":1.5,"accuracy":0.25}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&line).unwrap(), expected);
        }
    }
}
