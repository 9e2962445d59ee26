//! Raw files to documents, chats or pairs of answers: read, transform with SQL, normalise, deduplicate, split.
//!
//! This is the only user of DataFusion, which it runs inside; its own functions are synchronous.
//! It knows files and rows, but no tokens and no models. What it writes are `train.parquet`,
//! `validation.parquet`, `dropped.parquet` and `statistics.json`; [`read_texts`], [`read_chats`] and [`read_pairs`]
//! read them back.

mod bad_rows;
mod batches;
mod curation;
mod documents;
mod dropped;
mod files;
mod functions;
mod in_order;
mod output;
mod page_functions;
mod pairs;
mod prepare;
mod preview;
mod query;
mod records;
mod rows;
mod scan;
mod spec;
mod split;
mod spool;
mod statistics;
mod table;
mod tables;

#[cfg(test)]
mod tests;

pub use documents::Record;
pub use dropped::{DroppedDocument, read_dropped};
pub use files::{expand, expand_to};
pub use output::{count_rows, read_chats, read_pairs, read_records, read_texts};
pub use prepare::{prepare, prepare_some};
pub use preview::{Preview, preview};
pub use spec::{
    DataOutput, FilterName, FilterSettings, Format, NearDuplicates, Normalize, PrepareSpec, SourceSpec, Split, SplitBy,
    TextRows,
};
pub use statistics::Statistics;
pub use tables::{Rows, Tables};
