//! The whole step: sources through the transform to normalised, distinct, shared documents.

use crate::{
    bad_rows::{Counts, EXAMPLES, Tally},
    documents::{Item, chats, normalized, texts},
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
/// share is above 0) and `statistics.json` into `out_dir`. In order: normalise, drop empty
/// documents, drop equal ones, split. The same files and specification give the same bytes.
///
/// # Errors
/// If a file can't be read, more rows than allowed are broken, the query fails or has the wrong
/// columns, nothing is left on a side of the split, or the observer interrupts.
pub fn prepare(spec: &PrepareSpec, out_dir: &Path, observer: Observer) -> Result<Statistics> {
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
        results: Counts::default(),
        statistics: Statistics::default(),
        tables: tables.clone(),
    };
    query::run(spec, &tables, &tally, total_bytes, observer, &mut |batch| intake.take(batch))?;
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
    /// Broken rows of the query's result.
    results: Counts,
    statistics: Statistics,
    tables: Vec<Arc<Table>>,
}

impl Intake<'_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let items = match self.spec.output {
            DataOutput::Documents => texts(batch)?,
            DataOutput::Chat => chats(batch)?,
            DataOutput::Pairs => pairs(batch)?,
            DataOutput::Rows => records(batch)?,
        };
        for item in items {
            self.results.rows += 1;
            match item {
                Item::Empty => self.statistics.empty_removed += 1,
                Item::Bad(bad) => {
                    let place = self.place();
                    self.results.bad(place, &bad);
                }
                Item::Text(text) => {
                    let text = normalized(text, self.spec.normalize);
                    let bytes = text.len() as u64;
                    self.keep(&text, bytes)?;
                }
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

    fn finish(self, observer: Observer) -> Result<Statistics> {
        let (mut statistics, total) = (self.statistics, self.tally.total());
        statistics.rows_read = total.rows;
        statistics.bad_rows = total.bad;
        statistics.reasons = total.reasons;
        for (reason, count) in [("empty", statistics.empty_removed), ("duplicate", statistics.duplicates_removed)] {
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
