//! Special cases that only the finished tokens show: `:)` in `(foo:)` was cut in two, and is put together again
//! (`Tokenizer._apply_special_cases` of spaCy's `tokenizer.pyx`). The longest match wins, then the first; one whose
//! characters are no special case, since blanks stand between its tokens, changes nothing but still keeps others out.

use super::{Cutter, Token, affixes, tables::Tables};
use foldhash::fast::FixedState;
use std::{collections::HashMap, sync::OnceLock};

/// The special cases that the rules for affixes would cut, by the first of the tokens that they would give.
pub(crate) struct Patterns {
    by_first: HashMap<Box<str>, Vec<Vec<Box<str>>>, FixedState>,
    /// Whether a first token begins with this byte and has this length.
    shapes: Vec<u32>,
}

impl Patterns {
    fn new(tables: &Tables) -> Self {
        let mut patterns = Patterns { by_first: HashMap::default(), shapes: vec![0; 256] };
        let (mut cutter, mut found) = (Cutter::default(), Vec::new());
        for (text, lengths) in &tables.special {
            affixes::infixes(tables, text, &mut found);
            let cut = affixes::prefix(tables, text) > 0 || affixes::suffix(tables, text) > 0 || !found.is_empty();
            // White space is a token of its own in any case.
            if !cut || text.starts_with(crate::python::is_space) {
                continue;
            }
            let mut start = 0;
            let ends = cutter.cut_with(tables, text, false);
            let pieces: Vec<Box<str>> =
                ends.iter().map(|end| text[std::mem::replace(&mut start, *end)..*end].into()).collect();
            // A token that is a special case by itself stays what it is.
            if pieces.len() > 1 || lengths.len() > 1 {
                patterns.shapes[pieces[0].as_bytes()[0] as usize] |= 1 << pieces[0].len().min(31);
                patterns.by_first.entry(pieces[0].clone()).or_default().push(pieces);
            }
        }
        patterns
    }

    fn matches(&self, text: &str, tokens: &[Token]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let first = token.of(text);
            if self.shapes[first.as_bytes()[0] as usize] & (1 << first.len().min(31)) == 0 {
                continue;
            }
            for pattern in self.by_first.get(first).into_iter().flatten() {
                let here = tokens.get(at..at + pattern.len());
                if here.is_some_and(|here| here.iter().zip(pattern).all(|(token, piece)| token.of(text) == &**piece)) {
                    found.push((at, at + pattern.len()));
                }
            }
        }
        found
    }

    /// Puts special cases together in a text's tokens.
    pub fn apply(tables: &Tables, text: &str, tokens: &mut Vec<Token>) {
        static PATTERNS: OnceLock<Patterns> = OnceLock::new();
        let mut found = PATTERNS.get_or_init(|| Patterns::new(tables)).matches(text, tokens);
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|(start, end)| (std::cmp::Reverse(end - start), *start));
        let mut seen = vec![false; tokens.len()];
        let mut chosen = Vec::new();
        for (start, end) in found {
            if !seen[start] && !seen[end - 1] {
                chosen.push((start, end));
            }
            seen[start..end].fill(true);
        }
        chosen.sort_unstable();
        let mut changed = Vec::with_capacity(tokens.len());
        let mut at = 0;
        for (start, end) in chosen {
            let (first, last) = (tokens[start].start, tokens[end - 1].end);
            let Some(lengths) = tables.special(&text[first as usize..last as usize]) else { continue };
            changed.extend_from_slice(&tokens[at..start]);
            let mut place = first;
            for length in lengths {
                changed.push(Token { start: place, end: place + u32::from(*length), space: false });
                place += u32::from(*length);
            }
            at = end;
        }
        changed.extend_from_slice(&tokens[at..]);
        *tokens = changed;
    }
}
