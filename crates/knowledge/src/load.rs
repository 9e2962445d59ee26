//! Bytes of a file to a document, within limits. A parser's panic is an error like others. A parser that overruns its
//! stack or hangs can be ended only from outside: whoever reads files of strangers calls this in a process of its own,
//! which is what [`Apart`] does. Knows no folders and no passages.

mod apart;
#[cfg(feature = "documents")]
mod docx;
mod html;
mod markdown;
#[cfg(feature = "documents")]
mod pdf;
mod plain;

pub use apart::{Apart, load_here};

use crate::{document::Document, encoding::decode, kind::FileKind, limits::Budget};
use narthex_base::{Error, Result, config::LoadLimits};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rises when the same bytes become another document: what an older version loaded is not taken over then.
pub const LOAD_VERSION: u32 = 1;

/// How files become documents. [`InProcess`] does it here; a front end can do it in a child process.
pub trait Load {
    /// The document in these bytes.
    ///
    /// # Errors
    /// If they are not of this kind, or go beyond the limits. The file is left out then.
    fn load(&self, kind: FileKind, bytes: &[u8], limits: &LoadLimits) -> Result<Document>;
}

/// Loads in this process: right for files of one's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Load for InProcess {
    fn load(&self, kind: FileKind, bytes: &[u8], limits: &LoadLimits) -> Result<Document> {
        load_bytes(kind, bytes, limits)
    }
}

/// The document in these bytes: text, blocks, and where in the file each stands.
///
/// # Errors
/// If they are not of this kind, go beyond the limits, or the parser panics; line, page or part is named where known.
pub fn load_bytes(kind: FileKind, bytes: &[u8], limits: &LoadLimits) -> Result<Document> {
    if bytes.len() as u64 > limits.file_bytes_max {
        let (size, max) = (bytes.len(), limits.file_bytes_max);
        return Err(Error::input(format!(
            "the file has {size} bytes, more than `limits.file_bytes_max = {max}` allows"
        ))
        .help("raise `limits.file_bytes_max`, or leave the file out with `exclude`"));
    }
    let mut budget = Budget::new(limits);
    let parsed = catch_unwind(AssertUnwindSafe(|| parse(kind, bytes, &mut budget)));
    let document = parsed.map_err(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Error::input(format!("the reader of {kind} gave up on the file")).cause(said)
    })??;
    document.check()?;
    Ok(document)
}

fn parse(kind: FileKind, bytes: &[u8], budget: &mut Budget) -> Result<Document> {
    match kind {
        FileKind::Text => plain::load(text_of(bytes, budget)?),
        FileKind::Markdown => markdown::load(text_of(bytes, budget)?, budget),
        FileKind::Html => html::load(&text_of(bytes, budget)?, budget),
        #[cfg(feature = "documents")]
        FileKind::Pdf => pdf::load(bytes, budget),
        #[cfg(feature = "documents")]
        FileKind::Docx => docx::load(bytes, budget),
        #[cfg(not(feature = "documents"))]
        FileKind::Pdf | FileKind::Docx => Err(Error::input(format!("this build does not read {kind}"))
            .help("build it with `--features documents`, or turn the file into Markdown first")),
    }
}

fn text_of(bytes: &[u8], budget: &mut Budget) -> Result<String> {
    let text = decode(bytes)?;
    budget.expand(text.len())?;
    Ok(text)
}

#[cfg(test)]
mod tests;
