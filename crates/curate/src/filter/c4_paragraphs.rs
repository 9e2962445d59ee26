//! mC4's rule: enough long lines (Xue et al., 2021).

use super::Verdict;
use crate::{document::Document, python::length};
use narthex_base::config::C4Paragraphs;

pub(super) fn judge(document: &Document, bounds: &C4Paragraphs) -> Verdict {
    let long = document.text.split('\n').filter(|line| length(line) as u64 >= bounds.min_length).count() as u64;
    if long >= bounds.min_paragraphs { Verdict::Kept } else { Verdict::dropped("too_few_paragraphs", long as f64) }
}
