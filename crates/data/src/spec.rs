//! What to prepare: sources, transform, normalisation, split. Plain values; nothing is read here.

pub use narthex_base::config::{DataOutput, FilterName, FilterSettings, NearDuplicates, Normalize, SplitBy, TextRows};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A named set of files of one format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// For tables: whether a field that begins with `"` ends at the next one. Without it: in CSV, not in TSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotes: Option<bool>,
    /// The table's name in the transform.
    pub name: String,
    /// The files, in the order of their rows; see [`expand`](crate::expand).
    pub files: Vec<PathBuf>,
    /// Their format. Names ending in `.gz` or `.zst` are decompressed (not Parquet).
    pub format: Format,
    /// What a row of a text file is.
    pub rows: TextRows,
    /// New column name -> the file's column name.
    pub columns: BTreeMap<String, String>,
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain UTF-8 text (`.txt`); one column, `text`.
    Text,
    /// One JSON object a line (`.jsonl`, `.ndjson`).
    Jsonl,
    /// Comma-separated, with a header line; all columns are text (RFC 4180).
    Csv,
    /// Tab-separated, otherwise as CSV.
    Tsv,
    /// Columns of an Apache Parquet file.
    Parquet,
}

impl Format {
    /// All formats, in the order in which they are listed to people.
    pub const ALL: [Format; 5] = [Format::Text, Format::Jsonl, Format::Csv, Format::Tsv, Format::Parquet];

    /// What it is called in a project file.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Parquet => "parquet",
        }
    }

    /// The format a file's name tells, seeing through `.gz` and `.zst`.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let packed = Compression::of_path(path) != Compression::None;
        let name = if packed { name.rsplit_once('.')?.0 } else { &name };
        let format = match name.rsplit_once('.')?.1 {
            "txt" => Format::Text,
            "jsonl" | "ndjson" => Format::Jsonl,
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            "parquet" => Format::Parquet,
            _ => return None,
        };
        (!packed || format != Format::Parquet).then_some(format)
    }
}

/// How a file is compressed, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("gz") => Compression::Gzip,
            Some(extension) if extension.eq_ignore_ascii_case("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Everything that decides the result of [`prepare`](crate::prepare).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareSpec {
    /// The sources, at least one.
    pub source: Vec<SourceSpec>,
    /// One SQL query over the sources (and over `source`, if there is just one). Without it,
    /// `text` is taken from each source, or for chats `messages`, or `user` and `assistant`
    /// (and `system`, where there is one).
    pub transform: Option<String>,
    /// What the query's rows are.
    pub output: DataOutput,
    /// Unicode normalisation. Line ends become LF in any case.
    pub normalize: Normalize,
    /// Rules that documents are judged by, in this order.
    #[serde(default)]
    pub filters: Vec<FilterName>,
    /// What they are measured by.
    #[serde(default)]
    pub filter: FilterSettings,
    /// How near copies are found, of which only the first is kept.
    #[serde(default)]
    pub near_duplicates: Option<NearDuplicates>,
    /// Whether only the first of equal documents is kept.
    pub deduplicate: bool,
    /// Which documents are kept for validation.
    pub split: Split,
    /// More broken rows than this fail the step.
    pub max_bad_rows: u64,
}

/// How documents are shared between training and validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// What decides about a document.
    pub by: SplitBy,
    /// The share of validation, from 0 (none) to below 1.
    pub validation_fraction: f64,
    /// For `Hash`: other seeds give other shares of the same documents.
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name() {
        for (name, expected) in [
            ("a.txt", Some(Format::Text)),
            ("dir.csv/a.TXT.gz", Some(Format::Text)),
            ("a.b.jsonl.zst", Some(Format::Jsonl)),
            ("a.ndjson", Some(Format::Jsonl)),
            ("a.csv", Some(Format::Csv)),
            ("a.tsv.gz", Some(Format::Tsv)),
            ("a.parquet", Some(Format::Parquet)),
            ("a.parquet.gz", None),
            ("a.gz", None),
            ("txt", None),
            ("a.pdf", None),
            ("", None),
        ] {
            assert_eq!(Format::of_path(Path::new(name)), expected, "{name}");
        }
    }
}
