//! Knowledge: folders of text, Markdown, HTML, PDF and DOCX become passages that are found by words and by meaning,
//! and cited by file and place. The only crate that knows tantivy. It knows no encoder and no tokenizer: whoever
//! builds or asks brings them ([`Embed`], [`Measure`], [`Rerank`]); and it knows no ledger: it writes below one
//! folder, which whoever asked for it commits.

mod artifact;
mod build;
mod document;
mod embed;
mod encoding;
mod fuse;
mod graph;
mod kind;
mod lexical;
mod limits;
mod load;
mod passage;
mod place;
mod previous;
mod render;
mod scored;
mod search;
mod source;
mod split;
mod vectors;
mod words;

pub use artifact::{Card, CardFile, CardSource, Encoder, LeftOut, PASSAGES_MAX};
pub use build::{EMBED_BATCH, Making, Progress, Report, build};
pub use document::{Block, BlockForm, Document, HEADING_LEVEL_MAX, Mark};
pub use embed::{Embed, EmbedKind, Rerank};
pub use kind::FileKind;
pub use load::{Apart, InProcess, LOAD_VERSION, Load, load_bytes, load_here};
pub use passage::Passage;
pub use place::{Place, PlaceUnit};
pub use render::render;
pub use search::{Found, Knowledge, QUESTION_BYTES_MAX, SearchOptions};
pub use source::Source;
pub use split::{Characters, Estimated, Measure, Piece, SPLIT_VERSION, split};
