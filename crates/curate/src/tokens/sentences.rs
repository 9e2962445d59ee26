//! Where sentences end: spaCy's `Sentencizer`. Behind one of 128 marks the next token that is neither such a mark nor
//! punctuation begins a sentence; white space does, too.

use super::{
    Token,
    tables::{ENGLISH, PUNCTUATION, SENTENCE},
};

/// The ends of a text's sentences, in bytes, without what stands between them.
pub(crate) fn ends(text: &str, tokens: &[Token]) -> Vec<u32> {
    let tables = &*ENGLISH;
    let mut ends = Vec::new();
    let mut ended = false;
    for (index, token) in tokens.iter().enumerate() {
        let said = token.of(text);
        let mut chars = said.chars();
        let first = chars.next().unwrap_or_default();
        let classes = tables.classes(first);
        let mark = classes & SENTENCE != 0 && chars.next().is_none();
        if ended && !mark && !(classes & PUNCTUATION != 0 && said.chars().all(|c| tables.is(c, PUNCTUATION))) {
            ends.push(tokens[index - 1].end);
            ended = false;
        } else if mark {
            ended = true;
        }
    }
    ends.extend(tokens.last().map(|token| token.end));
    ends
}
