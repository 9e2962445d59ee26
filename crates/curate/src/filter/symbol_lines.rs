//! Removes lines that are made of marks only, runs of them at once; a line of white space is none. datatrove's
//! `SymbolLinesFormatter`.

use super::Verdict;
use crate::{
    document::Document,
    python::{lines, strip},
    tokens::tables::{ENGLISH, SYMBOL},
};
use narthex_base::config::SymbolLines;

pub(super) fn judge(document: &Document, how: &SymbolLines) -> Verdict {
    let tables = &*ENGLISH;
    let is_symbols = |line: &str| !strip(line).is_empty() && line.chars().all(|c| c == ' ' || tables.is(c, SYMBOL));
    let mut kept = Vec::new();
    let mut in_run = false;
    for line in lines(document.text) {
        if !is_symbols(line) {
            kept.push(line);
            in_run = false;
        } else if !in_run {
            if !how.replacement.is_empty() {
                kept.push(&how.replacement);
            }
            in_run = true;
        }
    }
    let left = kept.join("\n");
    if left == document.text { Verdict::Kept } else { Verdict::Changed(left) }
}
