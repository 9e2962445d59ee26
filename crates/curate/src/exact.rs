//! Equal texts, and texts that repeat what another one said. What is seen is decided by the order of the input alone.

use crate::{
    python,
    simplify::{Simplify, simplify},
    tokens,
};
use xxhash_rust::xxh64::xxh64;

/// How repeated sentences are found: datatrove's `SentDedupConfig`, without its bound for words of a span, of which the
/// peer counts and restores only the first sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Sentences in a row that must be repeated.
    pub sentences: usize,
    /// Sentences, or lines.
    pub by_sentence: bool,
}

impl Spans {
    /// A hash for each span of a text, and the number of its first sentence. Spans without a word have none.
    pub fn hashes(&self, text: &str) -> Vec<(u64, u32)> {
        let parts: Vec<String> = match self.by_sentence {
            true => stripped(&tokens::sentences(text)).map(|part| simplify(part, &Simplify::default())).collect(),
            false => python::lines(text).map(|part| simplify(part, &Simplify::default())).collect(),
        };
        let spans = parts.windows(self.sentences.max(1)).enumerate();
        let hashes = spans.filter_map(|(at, span)| {
            let span = span.join(" ");
            (!python::strip(&span).is_empty()).then(|| (xxh64(span.as_bytes(), 0), at as u32))
        });
        hashes.collect()
    }

    /// The text without the spans that begin at these sentences, which are in order; and whether anything went.
    pub fn without(&self, text: &str, repeated: &[u32]) -> (String, bool) {
        let parts: Vec<&str> = if self.by_sentence { tokens::sentences(text) } else { python::lines(text).collect() };
        let mut repeated = repeated.iter().peekable();
        let mut until = 0;
        let mut kept = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if repeated.next_if(|first| **first as usize == at).is_some() {
                until = at + self.sentences;
            }
            if at >= until {
                kept.push(*part);
            }
        }
        let left = kept.join(if self.by_sentence { "" } else { "\n" });
        (python::strip_start(&left).to_string(), kept.len() < parts.len())
    }
}

/// Parts without the white space around them; empty ones are none.
fn stripped<'a>(parts: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    parts.iter().map(|part| python::strip(part)).filter(|part| !part.is_empty())
}
