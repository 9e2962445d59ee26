//! What text is worth: rules that keep, change or drop a document, and what finds copies and near copies.
//!
//! Verdicts, reasons and rewritten texts are those of datatrove 0.10.1, down to its words, which are those of spaCy's
//! blank English; where that is plainly wrong, the place says so. All here is pure: a text goes in, a verdict comes
//! out. It knows neither files nor tables, except the spools of [`near::Bands`].

pub mod decontaminate;
mod document;
pub mod exact;
pub mod extract;
pub mod filter;
pub mod near;
pub mod python;
pub mod simplify;
pub mod tokens;

pub use document::Document;
