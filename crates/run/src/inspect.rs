//! What a data step kept and dropped, by reason, with examples; and the same for settings that are only tried. Changes
//! nothing.

use crate::{project::Project, steps::data_spec_of};
use narthex_base::{ArtifactKind, Error, Observer, Result};
use narthex_data::{DroppedDocument, Statistics, prepare_some, read_dropped};
use narthex_ledger::Artifact;
use serde::Serialize;
use std::collections::BTreeMap;

/// What became of a step's rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Rows that were judged.
    pub rows: u64,
    /// Documents that stay.
    pub kept: u64,
    /// Why the others went, the most frequent reason first.
    pub reasons: Vec<ReasonCount>,
}

/// A reason and what went for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonCount {
    /// What failed.
    pub reason: String,
    /// The rule that said so; the reason itself where no filter did.
    pub rule: String,
    /// How many documents.
    pub count: u64,
    /// Some of them, spread over the input.
    pub samples: Vec<DroppedDocument>,
}

impl Inspection {
    /// Numbers and documents become one.
    fn new(statistics: &Statistics, dropped: Vec<DroppedDocument>) -> Self {
        let mut reasons: BTreeMap<String, ReasonCount> = BTreeMap::new();
        for (reason, count) in &statistics.reasons {
            let (reason, rule) = (reason.clone(), reason.clone());
            reasons.insert(reason.clone(), ReasonCount { reason, rule, count: *count, samples: Vec::new() });
        }
        for document in dropped {
            if let Some(reason) = reasons.get_mut(&document.reason) {
                reason.rule.clone_from(&document.rule);
                reason.samples.push(document);
            }
        }
        let mut reasons: Vec<ReasonCount> = reasons.into_values().collect();
        reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
        let dropped: u64 = reasons.iter().map(|reason| reason.count).sum();
        Self { rows: statistics.documents + dropped, kept: statistics.documents, reasons }
    }

    /// Only one reason; nothing if it isn't there.
    pub fn only(mut self, reason: &str) -> Option<Self> {
        self.reasons.retain(|known| known.reason == reason);
        (!self.reasons.is_empty()).then_some(self)
    }

    /// With so many examples of each reason at most, from the first to the last.
    pub fn with_samples(mut self, count: usize) -> Self {
        for reason in &mut self.reasons {
            let all = std::mem::take(&mut reason.samples);
            let step = all.len().div_ceil(count.max(1)).max(1);
            reason.samples = all.into_iter().step_by(step).take(count).collect();
        }
        self
    }
}

/// What a data artifact says of itself.
///
/// # Errors
/// If it is none, or its files can't be read.
pub fn inspect(artifact: &Artifact) -> Result<Inspection> {
    let path = artifact.path("statistics.json");
    let kind = artifact.manifest.kind;
    if !path.is_file() || kind == ArtifactKind::Tokens {
        return Err(Error::input(format!("`{}` judged no rows: it is of the kind {kind}", artifact.name()))
            .help("name a `data` step"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let statistics: Statistics = serde_json::from_str(&text).map_err(|error| {
        Error::input("the statistics are damaged").at(path.display(), None).cause(error.to_string())
    })?;
    Ok(Inspection::new(&statistics, read_dropped(&artifact.folder)?))
}

/// Settings that are tried on a part of a step's rows.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The step.
    pub step: &'a str,
    /// The rows that are judged, from the first on.
    pub rows: u64,
}

/// Judges the first rows of a step by what the project file says now. What is written goes with the temporary folder.
///
/// # Errors
/// If there is no such step, what it needs is not made yet, a file can't be read, or nothing stays.
pub fn try_out(project: &Project, trial: Trial, observer: Observer) -> Result<Inspection> {
    let spec = data_spec_of(project, trial.step)?;
    let folder =
        tempfile::tempdir().map_err(|error| Error::io("cannot create a folder below", std::env::temp_dir(), error))?;
    let statistics = prepare_some(&spec, trial.rows, folder.path(), observer)?;
    Ok(Inspection::new(&statistics, read_dropped(folder.path())?))
}
