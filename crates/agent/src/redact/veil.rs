//! Pieces of an answer while it streams: held back until nothing that is to be masked can begin in one piece and end in
//! the next. Knows no model and no follower.

use super::masker::Masker;
use crate::model::Delta;

/// Where a key begins that may be many lines long.
const KEY: &str = "-----BEGIN ";
/// Where it ends.
const KEY_ENDS: &str = "-----END ";
/// What ends a line of either.
const LINE: &str = "-----";
/// What is longer without a place to cut it is told at the end.
const HELD_BYTES_MAX: usize = 64 << 10;

/// A text and a thought that come in pieces.
pub(crate) struct Veil {
    masker: Masker,
    text: String,
    thought: String,
}

impl Veil {
    pub(crate) fn new(masker: Masker) -> Self {
        Self { masker, text: String::new(), thought: String::new() }
    }

    /// A piece comes: what can be told by now.
    pub(crate) fn push(&mut self, delta: Delta) -> Option<Delta> {
        if self.masker.is_idle() {
            return Some(delta);
        }
        let (held, piece) = match &delta {
            Delta::Text(piece) => (&mut self.text, piece),
            Delta::Thought(piece) => (&mut self.thought, piece),
        };
        let from = held.len();
        held.push_str(piece);
        let cut = cut(held, from)?;
        let rest = held.split_off(cut);
        let told = std::mem::replace(held, rest);
        Some(self.tell(&delta, &told))
    }

    /// No more pieces come: what was held back.
    pub(crate) fn finish(&mut self) -> Vec<Delta> {
        let (thought, text) = (std::mem::take(&mut self.thought), std::mem::take(&mut self.text));
        let held = [Delta::Thought(thought), Delta::Text(text)];
        let told = held.iter().filter_map(|delta| match delta {
            Delta::Text(text) | Delta::Thought(text) if text.is_empty() => None,
            Delta::Text(text) | Delta::Thought(text) => Some(self.tell(delta, text)),
        });
        told.collect()
    }

    fn tell(&self, kind: &Delta, text: &str) -> Delta {
        let masked = self.masker.text(text).into_owned();
        match kind {
            Delta::Text(_) => Delta::Text(masked),
            Delta::Thought(_) => Delta::Thought(masked),
        }
    }
}

/// The last place behind a byte where a text can be cut: behind a line, or a sentence and its space. No form holds
/// either but a key, which is many lines.
fn cut(text: &str, from: usize) -> Option<usize> {
    if text.len() > HELD_BYTES_MAX {
        return None;
    }
    let cut = last_end(text, from, text.len())?;
    let mut at = 0;
    while let Some(key) = text[at..cut].find(KEY).map(|offset| at + offset) {
        let close = text[key..cut].find(KEY_ENDS).map(|offset| key + offset + KEY_ENDS.len());
        match close.and_then(|close| text[close..cut].find(LINE).map(|offset| close + offset + LINE.len())) {
            Some(end) => at = end,
            None => return last_end(text, at, key),
        }
    }
    Some(cut)
}

/// The place behind the last line or sentence that ends between two bytes.
fn last_end(text: &str, from: usize, to: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let ends = |at: &usize| match bytes[*at] {
        b'\n' => true,
        b' ' => *at > 0 && matches!(bytes[*at - 1], b'.' | b'!' | b'?'),
        _ => false,
    };
    (from..to).rev().find(ends).map(|at| at + 1)
}
