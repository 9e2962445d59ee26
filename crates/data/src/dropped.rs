//! The documents that a step dropped: which row, which rule, why, what was measured, and how the text begins. Written
//! beside the documents that stay, and read back to be looked at.

use crate::{
    output::Pending,
    table::{damaged_parquet, open_parquet},
};
use datafusion::{
    arrow::{
        array::{Array, AsArray, Float64Builder, RecordBatch, StringBuilder, UInt64Builder},
        datatypes::{DataType, Field, Float64Type, Schema, UInt64Type},
    },
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::{EnabledStatistics, WriterProperties},
    },
};
use narthex_base::{Error, Result};
use serde::Serialize;
use std::{fs::File, path::Path, sync::Arc};

/// Its name in an artifact.
pub(crate) const FILE: &str = "dropped.parquet";
/// Characters of a text that are kept to look at.
const BEGINNING_CHARS: usize = 1000;
/// Rows gathered before they are written.
const BATCH_ROWS: usize = 4096;

/// A document that goes.
pub(crate) struct Dropped<'a> {
    pub row: u64,
    pub rule: &'static str,
    pub reason: &'static str,
    pub value: Option<f64>,
    pub of_row: Option<u64>,
    pub text: &'a str,
}

/// A document that went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DroppedDocument {
    /// Its row among those of the query, or of the sources one after the other, from 0.
    pub row: u64,
    /// The rule.
    pub rule: String,
    /// What it failed.
    pub reason: String,
    /// What was measured, where something was.
    pub value: Option<f64>,
    /// The row that it is a copy of.
    pub of_row: Option<u64>,
    /// How it begins.
    pub text: String,
}

/// Writes the file. The same documents give the same bytes.
pub(crate) struct DroppedWriter {
    pending: Pending,
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    rows: UInt64Builder,
    rules: StringBuilder,
    reasons: StringBuilder,
    values: Float64Builder,
    of_rows: UInt64Builder,
    texts: StringBuilder,
    gathered: usize,
}

impl DroppedWriter {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let pending = Pending::new(folder, FILE);
        let field = |name: &str, kind, nullable| Field::new(name, kind, nullable);
        let schema = Arc::new(Schema::new(vec![
            field("row", DataType::UInt64, false),
            field("rule", DataType::Utf8, false),
            field("reason", DataType::Utf8, false),
            field("value", DataType::Float64, true),
            field("of_row", DataType::UInt64, true),
            field("text", DataType::Utf8, false),
        ]));
        let level = ZstdLevel::try_new(3).expect("zstd knows the level");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("narthex".into())
            .build();
        let writer = ArrowWriter::try_new(pending.create()?, schema.clone(), Some(properties)).map_err(cannot_write)?;
        Ok(Self {
            pending,
            writer,
            schema,
            rows: UInt64Builder::new(),
            rules: StringBuilder::new(),
            reasons: StringBuilder::new(),
            values: Float64Builder::new(),
            of_rows: UInt64Builder::new(),
            texts: StringBuilder::new(),
            gathered: 0,
        })
    }

    pub(crate) fn push(&mut self, dropped: Dropped) -> Result<()> {
        self.rows.append_value(dropped.row);
        self.rules.append_value(dropped.rule);
        self.reasons.append_value(dropped.reason);
        self.values.append_option(dropped.value);
        self.of_rows.append_option(dropped.of_row);
        let end = dropped.text.char_indices().nth(BEGINNING_CHARS).map_or(dropped.text.len(), |(at, _)| at);
        self.texts.append_value(&dropped.text[..end]);
        self.gathered += 1;
        if self.gathered == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.gathered = 0;
        let batch = RecordBatch::try_new(
            self.schema.clone(),
            vec![
                Arc::new(self.rows.finish()),
                Arc::new(self.rules.finish()),
                Arc::new(self.reasons.finish()),
                Arc::new(self.values.finish()),
                Arc::new(self.of_rows.finish()),
                Arc::new(self.texts.finish()),
            ],
        );
        self.writer.write(&batch.map_err(cannot_write)?).map_err(cannot_write)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        if self.gathered > 0 {
            self.flush()?;
        }
        let file = self.writer.into_inner().map_err(cannot_write)?;
        self.pending.finish(&file)
    }
}

fn cannot_write(error: impl std::fmt::Display) -> Error {
    Error::input(format!("cannot write {FILE}"))
        .cause(error.to_string())
        .help("free some space, then run the same command again: finished steps are kept")
}

/// The documents that a data artifact dropped, in the order in which they went; none if it judged none.
///
/// # Errors
/// If the file can't be opened; later, if it is damaged.
pub fn read_dropped(folder: &Path) -> Result<impl Iterator<Item = Result<DroppedDocument>> + use<>> {
    let path = folder.join(FILE);
    let reader = match path.is_file() {
        true => Some(open_parquet(&path)?.build().map_err(|error| damaged_parquet(&path, error))?),
        false => None,
    };
    let rows = reader.into_iter().flatten().flat_map(move |batch| {
        let rows = batch.map_err(|error| damaged_parquet(&path, error)).and_then(|batch| {
            rows(&batch).ok_or_else(|| damaged_parquet(&path, "its columns are others than were written"))
        });
        match rows {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    });
    Ok(rows)
}

/// The documents of a batch; nothing if its columns are not those of the file.
fn rows(batch: &RecordBatch) -> Option<Vec<DroppedDocument>> {
    let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let numbers = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
    let values = batch.column_by_name("value")?.as_primitive_opt::<Float64Type>()?;
    let (rows, of_rows) = (numbers("row")?, numbers("of_row")?);
    let (rules, reasons, beginnings) = (texts("rule")?, texts("reason")?, texts("text")?);
    let document = |at: usize| DroppedDocument {
        row: rows.value(at),
        rule: rules.value(at).into(),
        reason: reasons.value(at).into(),
        value: values.is_valid(at).then(|| values.value(at)),
        of_row: of_rows.is_valid(at).then(|| of_rows.value(at)),
        text: beginnings.value(at).into(),
    };
    Some((0..batch.num_rows()).map(document).collect())
}
