//! Documents on their way through the rules of `curate`: all of a batch at once on all cores, told of in their order.
//! Near copies wait on disk until every document has been seen.

use crate::{
    dropped::{Dropped, DroppedWriter},
    output::Pending,
    spec::PrepareSpec,
    spool::{Spool, SpoolReader},
};
use narthex_base::{
    Error, Observer, Result,
    config::{FilterName, NearDuplicates},
};
use narthex_curate::{
    filter::{Filters, Reason},
    near::{Bands, BandsError, Clusters, Signer},
};
use rayon::prelude::*;
use std::path::Path;

/// Memory for sorting a band.
const SORT_BYTES: usize = 256 << 20;
/// What `dropped.parquet` calls the rules that are no filters.
pub(crate) const DUPLICATE: &str = "duplicate";
pub(crate) const NEAR_DUPLICATE: &str = "near_duplicate";

/// A document that the rules were asked about.
pub(crate) enum Judged {
    /// It stays so far.
    Kept(Candidate),
    /// A rule dropped it.
    Dropped(FilterName, Reason, String),
}

/// A document that stays so far.
pub(crate) struct Candidate {
    pub text: String,
    pub hash: blake3::Hash,
    keys: Option<Vec<u64>>,
}

/// The rules of a step.
pub(crate) struct Curation {
    filters: Filters,
    near: Option<Near>,
    dropped: Option<DroppedWriter>,
}

struct Near {
    signer: Signer,
    bands: Bands,
    spool: Spool,
    /// The row of each document.
    rows: Vec<u64>,
}

impl Curation {
    /// Makes ready; writes into the folder if there is anything to judge by.
    pub fn new(spec: &PrepareSpec, folder: &Path) -> Result<Self> {
        let near = spec.near_duplicates.clone().map(|how| Near::new(how, folder)).transpose()?;
        let judges = !spec.filters.is_empty() || near.is_some();
        Ok(Self {
            filters: Filters::new(spec.filters.clone(), spec.filter.clone()),
            near,
            dropped: judges.then(|| DroppedWriter::create(folder)).transpose()?,
        })
    }

    /// Asks the rules about normalised texts; the answers are in the order of the texts.
    pub fn judge(&self, texts: Vec<String>, normalize: impl Fn(String) -> String + Sync) -> Vec<Judged> {
        let (filters, signer) = (&self.filters, self.near.as_ref().map(|near| &near.signer));
        let one = |text: String| match filters.judge(normalize(text)) {
            Err((rule, reason, text)) => Judged::Dropped(rule, reason, text),
            Ok(text) => {
                let keys = signer.and_then(|signer| Some(signer.keys(&signer.sign(&text)?)));
                Judged::Kept(Candidate { hash: blake3::hash(text.as_bytes()), text, keys })
            }
        };
        texts.into_par_iter().map(one).collect()
    }

    /// Notes that a row's document goes.
    pub fn drop(&mut self, dropped: Dropped) -> Result<()> {
        self.dropped.as_mut().map_or(Ok(()), |writer| writer.push(dropped))
    }

    /// Lets a document wait for its near copies; gives it back if none are looked for.
    pub fn wait(&mut self, row: u64, candidate: Candidate) -> Result<Option<Candidate>> {
        let Some(near) = &mut self.near else { return Ok(Some(candidate)) };
        let bytes = candidate.text.len() as u64;
        near.spool.push(&candidate.text, bytes)?;
        near.rows.push(row);
        let numbered = near.bands.push(candidate.keys.as_deref()).map_err(|error| failed(&error))?;
        match numbered {
            true => Ok(None),
            false => Err(Error::input("there are too many documents to look for near copies: 2^32")
                .help("split the source, and look for near copies in each part")),
        }
    }

    /// Gives those that waited to `keep`, in their order, and notes which go. Tells how many went.
    pub fn release(&mut self, observer: Observer, keep: &mut dyn FnMut(&str) -> Result<()>) -> Result<u64> {
        let Some(Near { bands, spool, rows, .. }) = self.near.take() else { return Ok(0) };
        let clusters: Clusters = bands.clusters(SORT_BYTES, |part| {
            observer.progress((part * 1000.0) as u64, 1000, "‰", "near copies");
            observer.check().map_err(Stop::Error)
        })?;
        let mut reader: SpoolReader = spool.rewind()?;
        let mut went = 0;
        for (document, row) in rows.iter().enumerate() {
            if document.is_multiple_of(1000) {
                observer.check()?;
            }
            let (text, _) = reader.next()?;
            let first = clusters.first(document as u32) as usize;
            if first == document {
                keep(&text)?;
                continue;
            }
            went += 1;
            self.drop(Dropped {
                row: *row,
                rule: NEAR_DUPLICATE,
                reason: NEAR_DUPLICATE,
                value: None,
                of_row: Some(rows[first]),
                text: &text,
            })?;
        }
        Ok(went)
    }

    /// Completes what was written.
    pub fn finish(self) -> Result<()> {
        self.dropped.map_or(Ok(()), DroppedWriter::finish)
    }
}

impl Near {
    fn new(how: NearDuplicates, folder: &Path) -> Result<Self> {
        let signer = Signer::new(how);
        let bands = Bands::create(folder, signer.bands()).map_err(|error| failed(&error))?;
        let spool = Spool::create(Pending::new(folder, "candidates.spool"))?;
        Ok(Self { signer, bands, spool, rows: Vec::new() })
    }
}

/// Why looking for near copies ended early.
enum Stop {
    Bands(BandsError),
    Error(Error),
}

impl From<BandsError> for Stop {
    fn from(error: BandsError) -> Self {
        Stop::Bands(error)
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Bands(error) => failed(&error),
            Stop::Error(error) => error,
        }
    }
}

fn failed(error: &BandsError) -> Error {
    let cause = std::io::Error::new(error.error.kind(), error.error.to_string());
    Error::io("cannot keep the signatures of documents", &error.path, cause)
}
