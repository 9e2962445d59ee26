//! C4's rules (Raffel et al., 2020), in datatrove's reading. Lines that fail go, and the text is what is left of it;
//! the order of the rules decides which lines count.

use super::Verdict;
use crate::{
    document::Document,
    python::{length, lines, split, strip},
    simplify::pattern,
    tokens,
};
use narthex_base::config::C4;
use regex::Regex;
use std::{borrow::Cow, sync::LazyLock};

/// `\d` takes digits of all scripts.
static CITATIONS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\[\d*\]|\[edit\]|\[citation needed\]"));

const POLICIES: [&str; 6] =
    ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

pub(super) fn judge(document: &Document, rules: &C4) -> Verdict {
    let text = document.text;
    let parts: Vec<&str> = if rules.by_line { lines(text).collect() } else { tokens::sentences(text) };
    let mut sentences = 0;
    let mut kept: Vec<Cow<str>> = Vec::new();
    for part in parts {
        let part = strip(part);
        let (mut words, mut longest) = (0, 0);
        for word in split(part) {
            words += 1;
            longest = longest.max(word.len());
        }
        let limit = rules.max_word_length as usize;
        // Bytes are at least as many as characters.
        if limit > 0 && longest > limit && split(part).any(|word| length(word) > limit) {
            continue;
        }
        let line = match rules.remove_citations && part.contains('[') {
            true => CITATIONS.replace_all(part, ""),
            false => Cow::Borrowed(part),
        };
        if rules.terminal_punctuation && (!line.ends_with(['.', '?', '!', '"', '\'']) || line.ends_with("...")) {
            continue;
        }
        if words < rules.min_words_per_line {
            continue;
        }
        let lower = if line.is_ascii() { line.to_ascii_lowercase() } else { line.to_lowercase() };
        if rules.drop_lorem_ipsum && lower.contains("lorem ipsum") {
            return Verdict::dropped("lorem_ipsum", 1.0);
        }
        if rules.drop_javascript && lower.contains("javascript") {
            continue;
        }
        if rules.drop_curly_brackets && line.contains('{') {
            return Verdict::dropped("curly_bracket", 1.0);
        }
        if rules.drop_policies && POLICIES.iter().any(|policy| lower.contains(policy)) {
            continue;
        }
        if rules.min_sentences > 0 {
            sentences += if rules.by_line { tokens::count_sentences(&line) } else { 1 };
        }
        kept.push(line);
    }
    if sentences < rules.min_sentences {
        return Verdict::dropped("too_few_sentences", sentences as f64);
    }
    let left = kept.join(if rules.by_line { "\n" } else { " " });
    let left = strip(&left);
    if left == text { Verdict::Kept } else { Verdict::Changed(left.to_string()) }
}
