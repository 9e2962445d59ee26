//! Documents and chats as Parquet files, written and read. Knows one column of strings.

use crate::{
    documents::Record,
    table::{damaged_parquet, open_parquet},
};
use datafusion::{
    arrow::{
        array::{Array, LargeStringArray, RecordBatch, StringBuilder},
        compute::cast,
        datatypes::{DataType, Field, Schema},
    },
    parquet::{
        arrow::{ArrowWriter, ProjectionMask},
        basic::{Compression, ZstdLevel},
        file::properties::{EnabledStatistics, WriterProperties},
    },
};
use narthex_base::{Conversation, Error, Pair, Result};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes gathered before they go to the Parquet writer.
const BATCH_BYTES: usize = 4 << 20;
/// Rows gathered before they go to the Parquet writer.
const BATCH_ROWS: usize = 8192;
/// Bytes of text in a row group: what a reader may have to hold.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Rows that the readers take at a time.
const READ_ROWS: usize = 256;
const COMPRESSION_LEVEL: i32 = 3;

/// A temporary file that becomes the real one when finished, and is removed otherwise.
pub(crate) struct Pending {
    path: PathBuf,
    temporary: PathBuf,
}

impl Pending {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), temporary: folder.join(format!("{name}.partial")) }
    }

    pub(crate) fn create(&self) -> Result<File> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&self.temporary);
        file.map_err(|error| Error::io("cannot create", &self.temporary, error))
    }

    /// What to say when the temporary file can't be written or read.
    pub(crate) fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::io(what, &self.temporary, error)
    }

    pub(crate) fn finish(self, file: &File) -> Result<()> {
        let synced = file.sync_all().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        synced.map_err(|error| Error::io("cannot write", &self.path, error))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After `finish` the name is gone; after a failure there is nothing better to do.
        _ = std::fs::remove_file(&self.temporary);
    }
}

/// Writes one column of strings. The same strings give the same bytes.
pub(crate) struct DocumentWriter {
    pending: Pending,
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    builder: StringBuilder,
    gathered_bytes: usize,
    gathered_rows: usize,
    group_bytes: usize,
    pub documents: u64,
    /// By the writer's user's measure.
    pub bytes: u64,
}

impl DocumentWriter {
    pub(crate) fn create(folder: &Path, name: &str, column: &str) -> Result<Self> {
        let pending = Pending::new(folder, name);
        let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
        let level = ZstdLevel::try_new(COMPRESSION_LEVEL).expect("zstd knows the level");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("narthex".into())
            .build();
        let writer = ArrowWriter::try_new(pending.create()?, schema.clone(), Some(properties))
            .map_err(|error| cannot_write(&pending.path, error))?;
        let builder = StringBuilder::new();
        let (gathered_bytes, gathered_rows, group_bytes) = (0, 0, 0);
        Ok(Self {
            pending,
            writer,
            schema,
            builder,
            gathered_bytes,
            gathered_rows,
            group_bytes,
            documents: 0,
            bytes: 0,
        })
    }

    /// Adds a string, which counts as so many bytes.
    pub(crate) fn push(&mut self, text: &str, bytes: u64) -> Result<()> {
        self.builder.append_value(text);
        self.gathered_bytes += text.len();
        self.gathered_rows += 1;
        self.documents += 1;
        self.bytes += bytes;
        if self.gathered_bytes >= BATCH_BYTES || self.gathered_rows >= BATCH_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let column = Arc::new(self.builder.finish());
        let fail = |error: &dyn std::fmt::Display| cannot_write(&self.pending.path, error);
        let batch = RecordBatch::try_new(self.schema.clone(), vec![column]).map_err(|error| fail(&error))?;
        self.writer.write(&batch).map_err(|error| fail(&error))?;
        self.group_bytes += self.gathered_bytes;
        if self.group_bytes >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(|error| fail(&error))?;
            self.group_bytes = 0;
        }
        (self.gathered_bytes, self.gathered_rows) = (0, 0);
        Ok(())
    }

    /// Completes the file and gives it its name; tells documents and bytes.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        if self.gathered_rows > 0 {
            self.flush()?;
        }
        let file = self.writer.into_inner().map_err(|error| cannot_write(&self.pending.path, error))?;
        self.pending.finish(&file)?;
        Ok((self.documents, self.bytes))
    }
}

fn cannot_write(path: &Path, error: impl std::fmt::Display) -> Error {
    let error = error.to_string();
    let full = error.contains("No space left") || error.contains("os error 28");
    let report = Error::input(format!("cannot write {}", path.display())).cause(error);
    match full {
        true => report.help("free some space, then run the same command again: finished steps are kept"),
        false => report,
    }
}

/// The texts of a `train.parquet` or `validation.parquet` with documents, in order.
///
/// # Errors
/// If the file can't be opened or has no column `text`; later, if it is damaged.
pub fn read_texts(path: &Path) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
    read_column(path, "text", "chats, or not made by a `data` step")
}

/// The chats of a `train.parquet` or `validation.parquet` with chats, in order.
///
/// # Errors
/// If the file can't be opened or has no column `messages`; later, if it is damaged.
pub fn read_chats(path: &Path) -> Result<impl Iterator<Item = Result<Conversation>> + Send + use<>> {
    let name = path.to_path_buf();
    let chats = read_column(path, "messages", "documents, not chats, or not made by a `data` step")?;
    Ok(chats.map(move |json| serde_json::from_str(&json?).map_err(|error| damaged_parquet(&name, error))))
}

/// The pairs of a `train.parquet` or `validation.parquet` with pairs, in order.
///
/// # Errors
/// If the file can't be opened or has no column `pair`; later, if it is damaged.
pub fn read_pairs(path: &Path) -> Result<impl Iterator<Item = Result<Pair>> + Send + use<>> {
    let name = path.to_path_buf();
    let pairs = read_column(path, "pair", "documents or chats, not pairs, or not made by a `data` step")?;
    Ok(pairs.map(move |json| serde_json::from_str(&json?).map_err(|error| damaged_parquet(&name, error))))
}

/// The rows of a `train.parquet` or `validation.parquet` with rows of named columns, in order.
///
/// # Errors
/// If the file can't be opened or has no column `record`; later, if it is damaged.
pub fn read_records(path: &Path) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let name = path.to_path_buf();
    let rows = read_column(path, "record", "documents, chats or pairs, or not made by a `data` step")?;
    Ok(rows.map(move |json| serde_json::from_str(&json?).map_err(|error| damaged_parquet(&name, error))))
}

/// How many documents, chats, pairs or rows a `train.parquet` or `validation.parquet` holds.
///
/// # Errors
/// If the file can't be opened or is damaged.
pub fn count_rows(path: &Path) -> Result<u64> {
    let rows = open_parquet(path)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or_default())
}

fn read_column(
    path: &Path,
    name: &str,
    otherwise: &str,
) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
    let builder = open_parquet(path)?;
    let Ok(at) = builder.schema().index_of(name) else {
        return Err(Error::input(format!("the file has no column `{name}`"))
            .at(path.display(), None)
            .cause(format!("it holds {otherwise}")));
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [at]);
    let reader = builder.with_projection(mask).with_batch_size(READ_ROWS).build();
    let reader = reader.map_err(|error| damaged_parquet(path, error))?;
    let path = path.to_path_buf();
    Ok(reader.flat_map(move |batch| {
        let column = batch.and_then(|batch| cast(batch.column(0), &DataType::LargeUtf8));
        let column = match column {
            Ok(column) => column,
            Err(error) => return vec![Err(damaged_parquet(&path, error))],
        };
        let column = column.as_any().downcast_ref::<LargeStringArray>().expect("a cast gives the type asked for");
        (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| Ok(column.value(row).to_string())).collect()
    }))
}
