//! Sharing documents between training and validation. Knows strings with a measure in bytes, and
//! two files to write them to.

use crate::{
    output::{DocumentWriter, Pending},
    spec::{Split, SplitBy},
    spool::Spool,
};
use narthex_base::{Error, Observer, Result, random::Stream};
use std::path::Path;

/// Documents between two looks at the observer.
const CHECK_DOCUMENTS: u64 = 1000;

/// Takes documents in order; writes `train.parquet` and, if there is a share for it, `validation.parquet`.
pub(crate) struct Splitter {
    split: Split,
    /// Whether the document across the border is cut.
    cut: bool,
    train: DocumentWriter,
    validation: Option<DocumentWriter>,
    spool: Option<Spool>,
}

/// Documents and bytes of both sides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    pub train: (u64, u64),
    pub validation: (u64, u64),
}

impl Splitter {
    pub(crate) fn create(split: Split, cut: bool, folder: &Path, column: &str) -> Result<Self> {
        let fraction = split.validation_fraction;
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::input(format!("the validation share {fraction} is not between 0 and 1"))
                .help("set `validation = 0.1`, or 0 for no validation"));
        }
        let train = DocumentWriter::create(folder, "train.parquet", column)?;
        let validation =
            (fraction > 0.0).then(|| DocumentWriter::create(folder, "validation.parquet", column)).transpose()?;
        let spool = match (split.by, &validation) {
            (SplitBy::Position, Some(_)) => Some(Spool::create(Pending::new(folder, "documents.spool"))?),
            _ => None,
        };
        Ok(Self { split, cut, train, validation, spool })
    }

    /// Takes a document (its string, its measure, its content's hash).
    pub(crate) fn push(&mut self, text: &str, bytes: u64, hash: &blake3::Hash) -> Result<()> {
        if let Some(spool) = &mut self.spool {
            return spool.push(text, bytes);
        }
        match &mut self.validation {
            Some(validation) if is_validation(self.split, hash) => validation.push(text, bytes),
            _ => self.train.push(text, bytes),
        }
    }

    /// Completes the files.
    pub(crate) fn finish(mut self, observer: Observer) -> Result<Shares> {
        if let Some(spool) = self.spool.take() {
            self.unspool(spool, observer)?;
        }
        let wanted = self.validation.is_some();
        let counted = |writer: &DocumentWriter| writer.documents;
        let (train, validation) = (counted(&self.train), self.validation.as_ref().map_or(0, counted));
        if train == 0 {
            return Err(Error::input(if validation == 0 {
                "no document is left"
            } else {
                "no document is left for training"
            })
            .help("check the sources, the `transform` and `validation`"));
        }
        if wanted && validation == 0 {
            let share = self.split.validation_fraction;
            return Err(Error::input(format!("no document is left for validation: {share} of {train} documents"))
                .help("set a larger `validation`, or 0 for no validation"));
        }
        let validation = self.validation.map(DocumentWriter::finish).transpose()?.unwrap_or_default();
        Ok(Shares { train: self.train.finish()?, validation })
    }

    /// Shares the spooled documents at the border.
    fn unspool(&mut self, spool: Spool, observer: Observer) -> Result<()> {
        let (documents, total) = (spool.documents, spool.total_bytes);
        let border = total - (total as f64 * self.split.validation_fraction).round() as u64;
        let Some(validation) = &mut self.validation else { return Ok(()) };
        let mut reader = spool.rewind()?;
        let mut start = 0;
        for document in 0..documents {
            if document.is_multiple_of(CHECK_DOCUMENTS) {
                observer.check()?;
                observer.progress(start, total, "bytes", "splitting");
            }
            let (text, bytes) = reader.next()?;
            let end = start + bytes;
            if end <= border {
                self.train.push(&text, bytes)?;
            } else if start >= border {
                validation.push(&text, bytes)?;
            } else if self.cut {
                let (left, right) = text.split_at(nearest_line_end(&text, (border - start) as usize));
                for (side, part) in [(&mut self.train, left), (validation, right)] {
                    if !part.is_empty() {
                        side.push(part, part.len() as u64)?;
                    }
                }
            } else if border - start >= end - border {
                self.train.push(&text, bytes)?;
            } else {
                validation.push(&text, bytes)?;
            }
            start = end;
        }
        Ok(())
    }
}

/// Decided by the content and the seed alone.
fn is_validation(split: Split, hash: &blake3::Hash) -> bool {
    let word = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes"));
    Stream::new(split.seed, "split").uniform_f64(word) < split.validation_fraction
}

/// The place after a line end that is nearest to `at`; the ends of the text only if there is no
/// line end inside. The first of two equally near.
fn nearest_line_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let before = bytes[..at].iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
    let inner = &bytes[..bytes.len().saturating_sub(1)];
    let after = inner.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')).map(|end| at + end + 1);
    match (before, after) {
        (Some(before), Some(after)) if after - at < at - before => after,
        (Some(before), _) => before,
        (None, Some(after)) => after,
        (None, None) if at * 2 < bytes.len() => 0,
        (None, None) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_near_the_border() {
        for (text, at, expected) in [
            ("aaaa\nbbbb\n", 5, 5),
            ("aaaa\nbbbb\n", 6, 5),
            ("aaaa\nbbbb\n", 1, 5),
            ("aaaa\nbbbb\n", 9, 5),
            ("aaaa\nbbbb\ncc", 8, 10),
            ("a\nb\nc", 3, 2),
            ("aaaa", 1, 0),
            ("aaaa", 3, 4),
            ("aaaa\n", 3, 5),
            ("ééé\né", 3, 7),
        ] {
            assert_eq!(nearest_line_end(text, at), expected, "{text:?} at {at}");
        }
    }

    #[test]
    fn hash_shares_are_as_large_as_asked() {
        let split = |seed, validation_fraction| Split { by: SplitBy::Hash, validation_fraction, seed };
        let hashes: Vec<blake3::Hash> = (0..10_000u32).map(|i| blake3::hash(&i.to_le_bytes())).collect();
        let chosen = |split: Split| hashes.iter().filter(|hash| is_validation(split, hash)).count();
        assert!((900..1100).contains(&chosen(split(1, 0.1))));
        assert!((4800..5200).contains(&chosen(split(2, 0.5))));
        let both = |hash: &&blake3::Hash| is_validation(split(1, 0.1), hash) && is_validation(split(2, 0.1), hash);
        assert!((50..150).contains(&hashes.iter().filter(both).count()), "seeds are independent");
    }
}
