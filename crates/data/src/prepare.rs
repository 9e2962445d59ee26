//! The whole step: sources through the transform to normalised, distinct, shared documents.

use crate::{
    bad_rows::{Counts, EXAMPLES, Tally},
    curation::{Candidate, Curation, DUPLICATE, Judged, NEAR_DUPLICATE},
    documents::{Item, chats, normalized, texts},
    dropped::Dropped,
    files,
    output::Pending,
    pairs::pairs,
    query,
    records::{normalized_record, records},
    spec::{DataOutput, Format, PrepareSpec, TextRows},
    split::Splitter,
    statistics::Statistics,
    table::{Table, nth_row},
};
use datafusion::arrow::array::RecordBatch;
use narthex_base::{Answers, Error, Message, Observer, Pair, Result};
use serde::Serialize;
use std::{collections::HashSet, io::Write, path::Path, sync::Arc};

/// Reads the sources, runs the transform and writes `train.parquet`, `validation.parquet` (if its
/// share is above 0), `dropped.parquet` (if documents are judged by rules or near copies) and `statistics.json` into
/// `out_dir`. In order: normalise, drop empty documents, ask the rules, drop equal ones, drop near copies, split. The
/// same files and specification give the same bytes.
///
/// # Errors
/// If a file can't be read, more rows than allowed are broken, the query fails or has the wrong
/// columns, nothing is left on a side of the split, or the observer interrupts.
pub fn prepare(spec: &PrepareSpec, out_dir: &Path, observer: Observer) -> Result<Statistics> {
    prepare_some(spec, u64::MAX, out_dir, observer)
}

/// The same with the first rows only, to see what becomes of them.
///
/// # Errors
/// As for [`prepare`].
pub fn prepare_some(spec: &PrepareSpec, rows_max: u64, out_dir: &Path, observer: Observer) -> Result<Statistics> {
    if spec.source.is_empty() {
        return Err(Error::input("no source is given").help("name at least one source"));
    }
    std::fs::create_dir_all(out_dir).map_err(|error| Error::io("cannot create the folder", out_dir, error))?;
    let tally = Arc::new(Tally::new(spec.max_bad_rows));
    let mut tables = Vec::new();
    let mut total_bytes = 0;
    for (index, source) in spec.source.iter().enumerate() {
        observer.check()?;
        if spec.source[..index].iter().any(|former| former.name == source.name) {
            return Err(
                Error::input(format!("two sources are named `{}`", source.name)).help("give each source its own name")
            );
        }
        let mut source_bytes = 0;
        for file in &source.files {
            source_bytes += files::size(file)?;
        }
        let table = Table::discover(index, source, &tally, observer)?;
        total_bytes += source_bytes * table.readings();
        tables.push(Arc::new(table));
    }
    let (column, whole_files) = match spec.output {
        DataOutput::Documents => {
            ("text", spec.source.iter().all(|s| s.format == Format::Text && s.rows == TextRows::File))
        }
        DataOutput::Chat => ("messages", false),
        DataOutput::Pairs => ("pair", false),
        DataOutput::Rows => ("record", false),
    };
    let mut intake = Intake {
        spec,
        tally: tally.clone(),
        seen: HashSet::new(),
        splitter: Splitter::create(spec.split, whole_files, out_dir, column)?,
        curation: Curation::new(spec, out_dir)?,
        results: Counts::default(),
        statistics: Statistics::default(),
        tables: tables.clone(),
    };
    let asked = query::run(spec, &tables, &tally, total_bytes, observer, &mut |batch| {
        let left = usize::try_from(rows_max - intake.results.rows).unwrap_or(usize::MAX);
        intake.take(&batch.slice(0, batch.num_rows().min(left)))?;
        match batch.num_rows() < left {
            true => Ok(()),
            // Nobody wants the rest: this ends the query.
            false => Err(Error::interrupted("there are rows enough")),
        }
    });
    match asked {
        Err(_) if intake.results.rows == rows_max => {}
        other => other?,
    }
    observer.progress(total_bytes, total_bytes, "bytes", "reading");
    let statistics = intake.finish(observer)?;
    write_statistics(&statistics, out_dir)?;
    Ok(statistics)
}

/// Where batches go.
struct Intake<'a> {
    spec: &'a PrepareSpec,
    tally: Arc<Tally>,
    seen: HashSet<[u8; 32]>,
    splitter: Splitter,
    curation: Curation,
    /// Broken rows of the query's result.
    results: Counts,
    statistics: Statistics,
    tables: Vec<Arc<Table>>,
}

impl Intake<'_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut items = match self.spec.output {
            DataOutput::Documents => texts(batch)?,
            DataOutput::Chat => chats(batch)?,
            DataOutput::Pairs => pairs(batch)?,
            DataOutput::Rows => records(batch)?,
        };
        let mut judged = self.judge(&mut items).into_iter();
        for item in items {
            let row = self.results.rows;
            self.results.rows += 1;
            match item {
                Item::Empty => self.statistics.empty_removed += 1,
                Item::Bad(bad) => {
                    let place = self.place();
                    self.results.bad(place, &bad);
                }
                Item::Text(_) => match judged.next() {
                    Some(Judged::Kept(candidate)) => self.candidate(row, candidate)?,
                    Some(Judged::Dropped(rule, reason, text)) => {
                        *self.statistics.reasons.entry(reason.name.into()).or_default() += 1;
                        let (rule, value) = (rule.name(), Some(reason.value));
                        self.curation.drop(Dropped {
                            row,
                            rule,
                            reason: reason.name,
                            value,
                            of_row: None,
                            text: &text,
                        })?;
                    }
                    None => return Err(Error::internal("a text was not judged")),
                },
                Item::Chat(mut chat) => {
                    let bytes = self.normalize_chat(&mut chat.messages);
                    self.keep(&json(&chat)?, bytes)?;
                }
                Item::Pair(mut pair) => {
                    let bytes = match &mut pair {
                        Pair::Text(Answers { prompt, chosen, rejected }) => {
                            [prompt, chosen, rejected].map(|text| self.normalize_text(text)).iter().sum()
                        }
                        Pair::Chat(Answers { prompt, chosen, rejected }) => {
                            [prompt, chosen, rejected].map(|chat| self.normalize_chat(chat)).iter().sum()
                        }
                    };
                    self.keep(&json(&pair)?, bytes)?;
                }
                Item::Record(record) => {
                    let row = json(&normalized_record(record, self.spec.normalize))?;
                    self.keep(&row, row.len() as u64)?;
                }
            }
        }
        self.tally.report(self.spec.source.len(), &Counts { rows: 0, ..self.results.clone() })
    }

    /// What the rules say of the texts of a batch, which are taken out of it.
    fn judge(&self, items: &mut [Item]) -> Vec<Judged> {
        let texts = items.iter_mut().filter_map(|item| match item {
            Item::Text(text) => Some(std::mem::take(text)),
            _ => None,
        });
        let form = self.spec.normalize;
        self.curation.judge(texts.collect(), |text| normalized(text, form))
    }

    /// A document that the rules let through.
    fn candidate(&mut self, row: u64, candidate: Candidate) -> Result<()> {
        let text = &candidate.text;
        if text.trim().is_empty() {
            // A rule left nothing of it.
            self.statistics.empty_removed += 1;
            return Ok(());
        }
        if self.spec.deduplicate && !self.seen.insert(*candidate.hash.as_bytes()) {
            self.statistics.duplicates_removed += 1;
            return self.curation.drop(Dropped {
                row,
                rule: DUPLICATE,
                reason: DUPLICATE,
                value: None,
                of_row: None,
                text,
            });
        }
        match self.curation.wait(row, candidate)? {
            Some(candidate) => self.stays(&candidate.text, &candidate.hash),
            None => Ok(()),
        }
    }

    fn stays(&mut self, text: &str, hash: &blake3::Hash) -> Result<()> {
        let bytes = text.len() as u64;
        self.statistics.documents += 1;
        self.statistics.bytes += bytes;
        self.splitter.push(text, bytes, hash)
    }

    /// Where the row at hand stands: in the file, where no transform lies between.
    fn place(&self) -> String {
        let row = self.results.rows;
        let wanted = self.spec.transform.is_none() && self.results.examples.len() < EXAMPLES;
        let found = wanted.then(|| nth_row(&self.tables, row)).flatten();
        found.unwrap_or_else(|| format!("row {row} of the transform's result"))
    }

    /// Normalises in place and tells the bytes.
    fn normalize_text(&self, text: &mut String) -> u64 {
        *text = normalized(std::mem::take(text), self.spec.normalize);
        text.len() as u64
    }

    fn normalize_chat(&self, chat: &mut [Message]) -> u64 {
        let bytes = chat.iter_mut().map(|message| {
            message.change_texts(|text| normalized(text, self.spec.normalize));
            message.text().len() as u64
        });
        bytes.sum()
    }

    fn keep(&mut self, text: &str, bytes: u64) -> Result<()> {
        let hash = blake3::hash(text.as_bytes());
        if self.spec.deduplicate && !self.seen.insert(*hash.as_bytes()) {
            self.statistics.duplicates_removed += 1;
            return Ok(());
        }
        self.statistics.documents += 1;
        self.statistics.bytes += bytes;
        self.splitter.push(text, bytes, &hash)
    }

    fn finish(mut self, observer: Observer) -> Result<Statistics> {
        let (statistics, splitter) = (&mut self.statistics, &mut self.splitter);
        let near_copies = self.curation.release(observer, &mut |text| {
            statistics.documents += 1;
            statistics.bytes += text.len() as u64;
            splitter.push(text, text.len() as u64, &blake3::hash(text.as_bytes()))
        })?;
        self.curation.finish()?;
        let (mut statistics, total) = (self.statistics, self.tally.total());
        statistics.rows_read = total.rows;
        statistics.bad_rows = total.bad;
        statistics.reasons.extend(total.reasons);
        let copies = statistics.duplicates_removed;
        for (reason, count) in [("empty", statistics.empty_removed), (DUPLICATE, copies), (NEAR_DUPLICATE, near_copies)]
        {
            if count > 0 {
                statistics.reasons.insert(reason.into(), count);
            }
        }
        statistics.bad_row_examples = total.examples.into_iter().take(EXAMPLES).collect();
        let shares = self.splitter.finish(observer)?;
        (statistics.train_documents, statistics.train_bytes) = shares.train;
        (statistics.validation_documents, statistics.validation_bytes) = shares.validation;
        Ok(statistics)
    }
}

fn json(row: &impl Serialize) -> Result<String> {
    serde_json::to_string(row).map_err(|error| Error::internal("a row can't be written as JSON").cause(error))
}

fn write_statistics(statistics: &Statistics, out_dir: &Path) -> Result<()> {
    let pending = Pending::new(out_dir, "statistics.json");
    let mut json = serde_json::to_string_pretty(statistics)
        .map_err(|error| Error::internal("the statistics can't be written as JSON").cause(error))?;
    json.push('\n');
    let mut file = pending.create()?;
    file.write_all(json.as_bytes()).map_err(|error| pending.failed("cannot write", error))?;
    pending.finish(&file)
}
