//! Text made simple, so that near copies become equal: lower case, numbers as `0`, marks as blanks, one blank for any
//! white space, no accents. datatrove's `simplify_text`, in its order.

use crate::{
    python::{is_digit, is_nonspacing_mark, is_space, strip},
    tokens::tables::{BLANKED, ENGLISH},
};
use regex::Regex;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;

/// What is simplified; all but the names of days and months by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simplify {
    /// Lower case.
    pub lowercase: bool,
    /// One blank for white space, none at the ends.
    pub white_space: bool,
    /// Blanks for marks.
    pub punctuation: bool,
    /// Accents removed.
    pub diacritics: bool,
    /// `0` for each number.
    pub numbers: bool,
    /// `WEEKDAY` for the English names of days.
    pub weekdays: bool,
    /// `MONTH` for the English names of months.
    pub months: bool,
}

impl Default for Simplify {
    fn default() -> Self {
        Self {
            lowercase: true,
            white_space: true,
            punctuation: true,
            diacritics: true,
            numbers: true,
            weekdays: false,
            months: false,
        }
    }
}

static WEEKDAYS: LazyLock<Regex> =
    LazyLock::new(|| pattern("monday|tuesday|wednesday|thursday|friday|saturday|sunday"));
static MONTHS: LazyLock<Regex> =
    LazyLock::new(|| pattern("january|february|march|april|may|june|july|august|september|october|november|december"));

pub(crate) fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is ours")
}

/// Simplifies a text.
pub fn simplify(text: &str, how: &Simplify) -> String {
    let mut text = if how.lowercase { lowercase(text) } else { text.to_string() };
    if how.numbers {
        text = numbers_as_0(&text);
    }
    if how.weekdays {
        text = WEEKDAYS.replace_all(&text, "WEEKDAY").into_owned();
    }
    if how.months {
        text = MONTHS.replace_all(&text, "MONTH").into_owned();
    }
    let tables = &*ENGLISH;
    let blanked = |c: char| how.punctuation && tables.is(c, BLANKED);
    if how.white_space {
        // What a mark leaves is white space, too; the ends were stripped before, so only then is one blank left there.
        let mut out = String::with_capacity(text.len());
        let mut blank = false;
        for c in text.chars() {
            if is_space(c) || blanked(c) {
                blank = true;
            } else {
                if blank && !out.is_empty() {
                    out.push(' ');
                }
                blank = false;
                out.push(c);
            }
        }
        text = out;
    } else if how.punctuation {
        text = text.chars().map(|c| if blanked(c) { ' ' } else { c }).collect();
    }
    if how.diacritics && !text.is_ascii() {
        text = text.nfd().filter(|c| !is_nonspacing_mark(*c)).collect();
    }
    let stripped = strip(&text);
    if stripped.len() == text.len() { text } else { stripped.to_string() }
}

fn lowercase(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

/// `\p{Nd}+([.,،٫⎖⎗⎘]\p{Nd}+)?` as `0`.
fn numbers_as_0(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_digit) {
        out.push_str(&rest[..start]);
        out.push('0');
        rest = rest[start..].trim_start_matches(is_digit);
        let mut after = rest.chars();
        if after.next().is_some_and(|c| matches!(c, '.' | ',' | '،' | '٫' | '⎖' | '⎗' | '⎘'))
            && after.next().is_some_and(is_digit)
        {
            let separator = rest.chars().next().map_or(0, char::len_utf8);
            rest = rest[separator..].trim_start_matches(is_digit);
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple() {
        for (text, expected) in [
            ("", ""),
            ("  Ein Café, 3.14159 und 1,000,000!\n", "ein cafe 0 und 0 0"),
            ("1|2|3", "0 0 0"),
            ("٣٫٥ x", "0 x"),
            ("ÀÉÎ ΑΣ", "aei ας"),
            ("a\u{1c}b", "a b"),
        ] {
            assert_eq!(simplify(text, &Simplify::default()), expected, "{text:?}");
        }
    }
}
