//! Rows to Arrow batches, file after file, numbered over the whole source. Knows one table.

use crate::{
    bad_rows::{Counts, Tally, place},
    files,
    rows::{Cell, Column, FileRows, Kind, Row},
    table::{Columns, Table, damaged_parquet, open_parquet},
};
use datafusion::{
    arrow::{
        array::{
            ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringViewBuilder, UInt64Array,
            new_null_array,
        },
        compute::cast,
    },
    parquet::arrow::arrow_reader::ParquetRecordBatchReader,
};
use narthex_base::{Error, Result};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Text bytes after which a batch is full.
const BATCH_BYTES: usize = 16 << 20;

/// Reads a table's batches from its first file to its last.
pub(crate) struct BatchReader {
    table: Arc<Table>,
    tally: Arc<Tally>,
    counts: Counts,
    /// The next file to open.
    file: usize,
    open: Option<Open>,
    finished: bool,
}

enum Open {
    Rows(PathBuf, FileRows),
    Parquet(PathBuf, ParquetRecordBatchReader),
}

impl BatchReader {
    pub(crate) fn new(table: Arc<Table>, tally: Arc<Tally>) -> Self {
        Self { table, tally, counts: Counts::default(), file: 0, open: None, finished: false }
    }

    /// The next batch; `None` at the end and after an error.
    pub(crate) fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.finished {
            return None;
        }
        let batch = match &self.table.clone().columns {
            Columns::Rows(columns) => self.row_batch(columns),
            Columns::Parquet(columns) => self.parquet_batch(columns),
        };
        let batch = self.tally.report(self.table.index, &self.counts).and(batch);
        self.finished = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }

    /// Opens the next file; false if there is none.
    fn open_next(&mut self) -> Result<bool> {
        let spec = &self.table.spec;
        let Some(path) = spec.files.get(self.file) else { return Ok(false) };
        self.open = Some(match self.table.columns {
            Columns::Rows(_) => {
                let input = files::open(path, &self.tally.bytes_done)?;
                Open::Rows(path.clone(), FileRows::new(path, spec, input)?)
            }
            Columns::Parquet(_) => {
                let reader = open_parquet(path)?.with_batch_size(BATCH_ROWS).build();
                Open::Parquet(path.clone(), reader.map_err(|error| damaged_parquet(path, error))?)
            }
        });
        self.file += 1;
        Ok(true)
    }

    fn row_batch(&mut self, columns: &[Column]) -> Result<Option<RecordBatch>> {
        let mut builders: Vec<Builder> = columns.iter().map(|column| Builder::new(column.kind)).collect();
        let (mut numbers, mut bytes) = (Vec::new(), 0);
        while numbers.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let Some(Open::Rows(path, rows)) = &mut self.open else {
                if self.open_next()? {
                    continue;
                }
                break;
            };
            match rows.next(columns)? {
                None => self.open = None,
                Some(Row::Bad(line, bad)) => {
                    self.counts.bad(place(path, line), &bad);
                    self.counts.rows += 1;
                }
                Some(Row::Cells(cells)) => {
                    for (builder, cell) in builders.iter_mut().zip(cells) {
                        bytes += builder.push(cell)?;
                    }
                    numbers.push(self.counts.rows);
                    self.counts.rows += 1;
                }
            }
        }
        if numbers.is_empty() {
            return Ok(None);
        }
        let arrays = builders.into_iter().map(Builder::finish).collect();
        self.batch(arrays, numbers).map(Some)
    }

    fn parquet_batch(&mut self, columns: &[(String, String)]) -> Result<Option<RecordBatch>> {
        loop {
            let Some(Open::Parquet(path, reader)) = &mut self.open else {
                if self.open_next()? {
                    continue;
                }
                return Ok(None);
            };
            let Some(batch) = reader.next() else {
                self.tally.bytes_done.fetch_add(files::size(path)?, Ordering::Relaxed);
                self.open = None;
                continue;
            };
            let batch = batch.map_err(|error| damaged_parquet(path, error))?;
            let rows = batch.num_rows();
            let mut arrays = Vec::with_capacity(columns.len() + 1);
            for ((_, from), field) in columns.iter().zip(self.table.schema.fields()) {
                let array = batch.column_by_name(from).map(|array| cast(array, field.data_type()));
                let array = array.unwrap_or_else(|| Ok(new_null_array(field.data_type(), rows)));
                arrays.push(array.map_err(|error| damaged_parquet(path, error))?);
            }
            let numbers = (self.counts.rows..).take(rows).collect();
            self.counts.rows += rows as u64;
            return self.batch(arrays, numbers).map(Some);
        }
    }

    fn batch(&self, mut arrays: Vec<ArrayRef>, numbers: Vec<u64>) -> Result<RecordBatch> {
        arrays.push(Arc::new(UInt64Array::from(numbers)));
        RecordBatch::try_new(self.table.schema.clone(), arrays)
            .map_err(|error| Error::internal("the columns do not fit the table").cause(error))
    }
}

enum Builder {
    Text(StringViewBuilder),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::Json => Builder::Text(StringViewBuilder::new()),
            Kind::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Kind::Integer | Kind::Wide => Builder::Integer(Int64Builder::new()),
            Kind::Number => Builder::Number(Float64Builder::new()),
        }
    }

    /// Adds a cell; gives the bytes of its text.
    fn push(&mut self, cell: Cell) -> Result<usize> {
        match (self, cell) {
            (Builder::Text(builder), Cell::Text(text)) => {
                let pushed = builder.try_append_value(&text);
                pushed.map_err(|error| Error::input("a text is too long for the table").cause(error))?;
                return Ok(text.len());
            }
            (Builder::Text(builder), _) => builder.append_null(),
            (Builder::Boolean(builder), Cell::Boolean(truth)) => builder.append_value(truth),
            (Builder::Boolean(builder), _) => builder.append_null(),
            (Builder::Integer(builder), Cell::Integer(number)) => builder.append_value(number),
            (Builder::Integer(builder), _) => builder.append_null(),
            (Builder::Number(builder), Cell::Number(number)) => builder.append_value(number),
            (Builder::Number(builder), _) => builder.append_null(),
        }
        Ok(0)
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Text(mut builder) => Arc::new(builder.finish()),
            Builder::Boolean(mut builder) => Arc::new(builder.finish()),
            Builder::Integer(mut builder) => Arc::new(builder.finish()),
            Builder::Number(mut builder) => Arc::new(builder.finish()),
        }
    }
}
