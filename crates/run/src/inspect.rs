//! What a data step kept and dropped, by reason, with examples; and the same for settings that are only tried. Changes
//! nothing.

use crate::{project::Project, steps::data_spec_of};
use narthex_base::{ArtifactKind, Error, Observer, Result};
use narthex_data::{DroppedDocument, Statistics, prepare_some, read_dropped};
use narthex_ledger::Artifact;
use serde::Serialize;
use std::path::Path;

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

/// How much of what went is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Only this reason.
    pub reason: Option<&'a str>,
    /// Examples of each reason at most, from the first to the last.
    pub samples: u64,
}

impl Inspection {
    /// Reads what went once, and holds only what is shown of it.
    fn new(statistics: &Statistics, folder: &Path, shown: Shown) -> Result<Self> {
        let dropped: u64 = statistics.reasons.values().sum();
        let wanted = statistics.reasons.iter().filter(|(name, _)| shown.reason.is_none_or(|reason| reason == *name));
        let mut reasons: Vec<ReasonCount> = wanted
            .map(|(reason, count)| {
                let (reason, rule) = (reason.clone(), reason.clone());
                ReasonCount { reason, rule, count: *count, samples: Vec::new() }
            })
            .collect();
        if let (Some(reason), true) = (shown.reason, reasons.is_empty()) {
            return Err(Error::input(format!("nothing was dropped for the reason `{reason}`"))
                .help("leave `--reason` out to see all reasons"));
        }
        let mut seen = vec![0; reasons.len()];
        for document in read_dropped(folder)? {
            let document = document?;
            let Some(at) = reasons.iter().position(|known| known.reason == document.reason) else { continue };
            let reason = &mut reasons[at];
            reason.rule.clone_from(&document.rule);
            let step = reason.count.div_ceil(shown.samples.max(1)).max(1);
            if u64::is_multiple_of(seen[at], step) && (reason.samples.len() as u64) < shown.samples {
                reason.samples.push(document);
            }
            seen[at] += 1;
        }
        reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
        Ok(Self { rows: statistics.documents + dropped, kept: statistics.documents, reasons })
    }
}

/// What a data artifact says of itself.
///
/// # Errors
/// If it is none, its files can't be read, or nothing went for the reason that is asked for.
pub fn inspect(artifact: &Artifact, shown: Shown) -> Result<Inspection> {
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
    Inspection::new(&statistics, &artifact.folder, shown)
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
/// If there is no such step, what it needs is not made yet, a file can't be read, nothing stays, or nothing went
/// for the reason that is asked for.
pub fn try_out(project: &Project, trial: Trial, shown: Shown, observer: Observer) -> Result<Inspection> {
    let spec = data_spec_of(project, trial.step)?;
    let folder =
        tempfile::tempdir().map_err(|error| Error::io("cannot create a folder below", std::env::temp_dir(), error))?;
    let statistics = prepare_some(&spec, trial.rows, folder.path(), observer)?;
    Inspection::new(&statistics, folder.path(), shown)
}
