//! What is cut off in front of a run of characters, behind it and inside it: spaCy's prefixes, suffixes and infixes of
//! English, which are regular expressions there (`spacy/lang/punctuation.py`, `spacy/lang/en/punctuation.py`). Where
//! several match, the first of their list wins in front and inside, the longest behind.

use super::tables::{BEFORE_DOT, ICON, LETTER, LOWER_OR_QUOTE, PREFIX, SUFFIX, Tables, UPPER, UPPER_OR_QUOTE};

/// What may be cut off behind a digit is shorter; a test holds it.
const LONGEST_UNIT_BYTES: usize = 16;

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The bytes cut off in front; 0 if none are.
pub(crate) fn prefix(tables: &Tables, text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    if tables.is(first, PREFIX | ICON) {
        return first.len_utf8();
    }
    match first {
        '+' if !chars.next().is_some_and(is_digit) => 1,
        '.' => {
            let dots = text.bytes().take_while(|byte| *byte == b'.').count();
            if dots >= 2 { dots } else { 0 }
        }
        _ => tables.long_currency.iter().find(|piece| text.starts_with(&***piece)).map_or(0, |piece| piece.len()),
    }
}

/// The bytes cut off behind; 0 if none are.
pub(crate) fn suffix(tables: &Tables, text: &str) -> usize {
    let mut chars = text.chars();
    let Some(last) = chars.next_back() else { return 0 };
    let (before, second) = (chars.next_back(), chars.next_back());
    let mut longest = 0;
    if tables.is(last, SUFFIX | ICON) {
        longest = last.len_utf8();
    }
    match (last, before) {
        ('…', Some('…')) => longest = 6,
        ('s' | 'S', Some(quote @ ('\'' | '’'))) => longest = quote.len_utf8() + 1,
        ('+', Some(before)) if is_digit(before) => longest = 1,
        ('.', Some('.')) => longest = text.bytes().rev().take_while(|byte| *byte == b'.').count(),
        ('.', Some(before)) => {
            let degrees = second == Some('°') && "FfCcKk".contains(before);
            let initials = tables.is(before, UPPER) && second.is_some_and(|second| tables.is(second, UPPER));
            if degrees || initials || tables.is(before, BEFORE_DOT) {
                longest = 1;
            }
        }
        _ => {}
    }
    // A unit or a currency needs a digit in front of it, and is not long: looking no further keeps runs of a million
    // marks as cheap as others.
    if text.bytes().rev().take(LONGEST_UNIT_BYTES + 1).any(|byte| byte.is_ascii_digit()) {
        for piece in &tables.after_digit {
            if piece.len() <= longest {
                break;
            }
            let cut = text.strip_suffix(&**piece);
            if cut.is_some_and(|rest| rest.ends_with(is_digit)) {
                return piece.len();
            }
        }
    }
    longest
}

/// Places inside the text that are tokens of their own, from left to right: (start, end) in bytes.
pub(crate) fn infixes(tables: &Tables, text: &str, found: &mut Vec<(usize, usize)>) {
    found.clear();
    let (mut at, mut before) = (0, None::<char>);
    while let Some(c) = text[at..].chars().next() {
        let length = infix(tables, &text[at..], c, before);
        let step = length.max(c.len_utf8());
        if length > 0 {
            found.push((at, at + length));
        }
        before = text[at..at + step].chars().next_back();
        at += step;
    }
}

/// The length of what begins here and is a token of its own; 0 if nothing is.
fn infix(tables: &Tables, text: &str, c: char, before: Option<char>) -> usize {
    let classes = tables.classes(c);
    if c == '…' || classes & ICON != 0 {
        return c.len_utf8();
    }
    // Everything else lies between marks, which are none of these.
    if classes & LETTER != 0 || is_digit(c) {
        return 0;
    }
    let after = text[c.len_utf8()..].chars().next();
    if c == '.' && after == Some('.') {
        return text.bytes().take_while(|byte| *byte == b'.').count();
    }
    let Some(before) = before else { return 0 };
    let is = |c: Option<char>, class| c.is_some_and(|c| tables.is(c, class));
    let word_before = tables.is(before, LETTER) || is_digit(before);
    match c {
        '+' | '-' | '*' | '^' if is_digit(before) && after.is_some_and(|after| is_digit(after) || after == '-') => 1,
        '.' if tables.is(before, LOWER_OR_QUOTE) && is(after, UPPER_OR_QUOTE) => 1,
        ',' if tables.is(before, LETTER) && is(after, LETTER) => 1,
        '-' | '–' | '—' | '~' if word_before => {
            let hyphens = ["-", "–", "—", "--", "---", "——", "~"].into_iter();
            let mut between =
                hyphens.filter(|hyphen| text.strip_prefix(hyphen).is_some_and(|rest| is(rest.chars().next(), LETTER)));
            between.next().map_or(0, str::len)
        }
        ':' | '<' | '>' | '=' | '/' if word_before && is(after, LETTER) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tables::ENGLISH;

    #[test]
    fn units_are_short() {
        assert!(ENGLISH.after_digit.iter().all(|piece| piece.len() <= LONGEST_UNIT_BYTES));
    }
}
