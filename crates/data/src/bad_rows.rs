//! Counting broken rows, and deciding when there are too many. Knows reasons, not formats.

use narthex_base::{Error, Result};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Broken rows that are told to the user.
pub(crate) const EXAMPLES: usize = 10;

/// A row that can't be used: the short reason that is counted, and what exactly is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub reason: &'static str,
    pub why: String,
}

impl BadRow {
    pub(crate) fn new(reason: &'static str, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }
}

/// What was seen in one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub rows: u64,
    pub bad: u64,
    pub reasons: BTreeMap<String, u64>,
    pub examples: Vec<String>,
}

impl Counts {
    /// Counts a broken row at a line of a file (or at the query's row, where no file is known).
    pub(crate) fn bad(&mut self, place: impl std::fmt::Display, row: &BadRow) {
        self.bad += 1;
        *self.reasons.entry(row.reason.to_string()).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{place}: {}", row.why));
        }
    }

    fn add(&mut self, other: &Counts) {
        self.rows += other.rows;
        self.bad += other.bad;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        let room = EXAMPLES - self.examples.len().min(EXAMPLES);
        self.examples.extend(other.examples.iter().take(room).cloned());
    }
}

/// The state that all readers of one preparation share.
#[derive(Debug)]
pub(crate) struct Tally {
    max_bad_rows: u64,
    sources: Mutex<BTreeMap<usize, Counts>>,
    failure: Mutex<Option<Error>>,
    /// Bytes read from disk.
    pub bytes_done: Arc<AtomicU64>,
}

impl Tally {
    pub(crate) fn new(max_bad_rows: u64) -> Self {
        Self { max_bad_rows, sources: Mutex::default(), failure: Mutex::default(), bytes_done: Arc::default() }
    }

    /// Takes the counts of a source so far. A query may read a source several times: the
    /// farthest reading counts.
    ///
    /// # Errors
    /// If there are more broken rows, over all sources, than allowed.
    pub(crate) fn report(&self, source: usize, counts: &Counts) -> Result<()> {
        let mut sources = lock(&self.sources);
        let known = sources.entry(source).or_default();
        if counts.rows > known.rows || counts.bad > known.bad {
            *known = counts.clone();
        }
        drop(sources);
        let total = self.total();
        if total.bad <= self.max_bad_rows {
            return Ok(());
        }
        let plural = if total.bad == 1 { "row" } else { "rows" };
        let error = Error::input(format!(
            "{} broken {plural} found, more than `max_bad_rows = {}` allows",
            total.bad, self.max_bad_rows
        ));
        let error = total.examples.iter().fold(error, |error, example| error.cause(example));
        Err(error.help(format!("mend the file, or set `max_bad_rows = {}` or more to leave such rows out", total.bad)))
    }

    /// The counts over all sources.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        lock(&self.sources).values().for_each(|counts| total.add(counts));
        total
    }

    /// Keeps an error that has to travel through DataFusion.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    /// The error kept, if any.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    pub(crate) fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }
}

/// A poisoned lock only says that another thread panicked; the counts are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `file:line` for examples.
pub(crate) fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_reading_counts_once() {
        let tally = Tally::new(1);
        let mut counts = Counts { rows: 5, ..Counts::default() };
        counts.bad("a.txt:3", &BadRow::new("odd", "it is odd"));
        tally.report(0, &counts).unwrap();
        tally.report(0, &Counts { rows: 2, ..Counts::default() }).unwrap();
        tally.report(0, &counts).unwrap();
        assert_eq!((tally.total().rows, tally.total().bad), (5, 1));
        let error = tally.report(1, &counts).unwrap_err();
        assert_eq!(error.what(), "2 broken rows found, more than `max_bad_rows = 1` allows");
        assert_eq!(error.causes(), ["a.txt:3: it is odd", "a.txt:3: it is odd"]);
        assert!(error.help_text().unwrap().contains("max_bad_rows = 2"));
        assert_eq!(tally.total().reasons["odd"], 2);
    }
}
