//! What the text of a licence says, and the places that it leaves open: SPDX's templates as small programs that are run
//! over the words of a text.

use super::{
    notices::{copyright_lengths, is_name},
    words::{Word, words},
};
use regex::{Regex, RegexBuilder};
use std::{collections::HashSet, ops::Range};

/// The templates, made by `xtask/goldens/licenses.py`.
const TEMPLATES: &str = include_str!("../../licenses/templates.txt");

/// The most words that a place which is left open takes.
const OPEN_WORDS_MAX: usize = 60;
/// The same for copyright notices.
const COPYRIGHT_WORDS_MAX: usize = 800;

/// The fewest words that are a passage of a licence.
const PASSAGE_WORDS_MIN: usize = 8;

/// One instruction.
enum Op {
    /// This word.
    Word(String),
    /// What follows up to here may be left out.
    Optional(usize),
    /// A place that is left open, or has several wordings.
    Open(Open),
}

impl Op {
    /// The words as the list has them.
    fn words(&self) -> &[String] {
        match self {
            Op::Word(word) => std::slice::from_ref(word),
            Op::Open(open) => &open.original,
            Op::Optional(_) => &[],
        }
    }
}

struct Open {
    original: Vec<String>,
    /// The wordings; what is left open in them are the groups `open0`, `open1` and so on.
    pattern: Option<Regex>,
    kind: OpenKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenKind {
    /// Some wordings.
    Choice,
    /// Wordings with names in them.
    Names,
    /// Copyright notices.
    Copyright,
    /// The number or the sign before an item of a list.
    Bullet,
}

/// The text of one licence with its open places.
pub(super) struct Template {
    /// The SPDX identifier.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    ops: Vec<Op>,
    /// The first word that must be there.
    first: usize,
    /// The words that must be there.
    must: Vec<String>,
}

/// Where a text stops being that of a licence.
pub(super) struct Parting {
    /// The word of the text.
    pub at: usize,
    /// What the licence says there.
    pub wanted: String,
}

impl Template {
    /// All that are known, with both OpenMDWs.
    pub fn all() -> Vec<Template> {
        let known = TEMPLATES.split("==== ").filter_map(|part| {
            let (head, text) = part.split_once('\n')?;
            let (id, name) = head.split_once(" | ")?;
            Some(Template::new(id, name, text))
        });
        let own = [("OpenMDW-1.0", super::OPENMDW_1_0), ("LicenseRef-OpenMDW-1.1", super::OPENMDW_1_1)];
        known.chain(own.map(|(id, text)| Template::new(id, id.trim_start_matches("LicenseRef-"), text))).collect()
    }

    fn new(id: &'static str, name: &'static str, markup: &str) -> Self {
        let mut ops = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut depths = Vec::new();
        let mut rest = markup;
        while let Some((before, after)) = rest.split_once("<<") {
            push_words(before, &mut ops);
            depths.resize(ops.len(), open.len());
            let (tag, after) = tag_of(after);
            match tag {
                "beginOptional" => {
                    open.push(ops.len());
                    ops.push(Op::Optional(0));
                }
                "endOptional" => {
                    if let Some(at) = open.pop() {
                        ops[at] = Op::Optional(ops.len());
                    }
                }
                var => ops.push(Op::Open(Open::new(var))),
            }
            depths.resize(ops.len(), open.len());
            rest = after;
        }
        push_words(rest, &mut ops);
        depths.resize(ops.len(), 0);
        let first = ops.iter().zip(&depths).position(|(op, depth)| matches!(op, Op::Word(_)) && *depth == 0);
        let must = ops.iter().zip(&depths).filter(|(_, depth)| **depth == 0).flat_map(|(op, _)| op.words());
        let must = must.cloned().collect();
        Self { id, name, first: first.unwrap_or(0), must, ops }
    }

    /// The words that must be there, with those that it has in its open places.
    pub fn vocabulary(&self) -> &[String] {
        &self.must
    }

    /// Whether words are a passage of the licence itself, such as the appendix that tells how to apply it.
    pub fn quotes(&self, words: &[Word]) -> bool {
        let all: Vec<&String> = self.ops.iter().flat_map(Op::words).collect();
        let same = |window: &[&String]| window.iter().zip(words).all(|(own, word)| **own == word.form);
        words.len() >= PASSAGE_WORDS_MIN && all.windows(words.len()).any(same)
    }

    /// The first range of words, from `from` on, that says what the licence says.
    pub fn find(&self, text: &str, words: &[Word], from: usize) -> Option<(usize, usize)> {
        let Some(Op::Word(first)) = self.ops.get(self.first) else { return None };
        for start in from..words.len() {
            if !begins(first, words, start) {
                continue;
            }
            if let Ok(end) = self.run(text, words, self.first..self.ops.len(), start, None) {
                let earlier = (from.max(start.saturating_sub(self.first + OPEN_WORDS_MAX))..start)
                    .find(|before| self.run(text, words, 0..self.first, *before, Some(start)).is_ok());
                return Some((earlier.unwrap_or(start), end));
            }
        }
        None
    }

    /// Where the text that comes nearest stops saying what the licence says.
    pub fn parting(&self, text: &str, words: &[Word]) -> Option<Parting> {
        let Some(Op::Word(first)) = self.ops.get(self.first) else { return None };
        let starts = (0..words.len()).filter(|start| begins(first, words, *start));
        let (op, at) =
            starts.filter_map(|start| self.run(text, words, self.first..self.ops.len(), start, None).err()).max()?;
        let wanted = self.ops[op..].iter().filter_map(|op| match op {
            Op::Word(word) => Some(word.clone()),
            Op::Open(open) => Some(open.original.join(" ")),
            Op::Optional(_) => None,
        });
        Some(Parting { at, wanted: wanted.take(8).collect::<Vec<_>>().join(" ") })
    }

    /// Runs a part of the instructions from the word `start` on, to the word `end` where one is given. Returns the word
    /// after them, or the instruction and the word at which no way went on.
    fn run(
        &self,
        text: &str,
        words: &[Word],
        ops: Range<usize>,
        start: usize,
        end: Option<usize>,
    ) -> Result<usize, (usize, usize)> {
        let mut seen = HashSet::new();
        let mut ways = vec![(ops.start, start)];
        let mut furthest = (ops.start, start);
        while let Some((op, at)) = ways.pop() {
            if op >= ops.end && end.is_none_or(|end| end == at) {
                return Ok(at);
            }
            if op >= ops.end || end.is_some_and(|end| at > end) || !seen.insert((op, at)) {
                continue;
            }
            furthest = furthest.max((op, at));
            match &self.ops[op] {
                Op::Optional(after) => ways.extend([(*after, at), (op + 1, at)]),
                Op::Word(wanted) => {
                    let Some(found) = words.get(at).map(|word| word.form.as_str()) else { continue };
                    if found == wanted {
                        ways.push((op + 1, at + 1));
                    } else if let Some(next) = words.get(at + 1)
                        && is_joined(wanted, found, &next.form)
                    {
                        ways.push((op + 1, at + 2));
                    } else if let Some(Op::Word(next)) = self.ops.get(op + 1)
                        && is_joined(found, wanted, next)
                    {
                        ways.push((op + 2, at + 1));
                    } else if is_number(found) && text[words[at].end..].starts_with(['.', ')']) {
                        // The number of an item that the list does not number.
                        ways.push((op, at + 1));
                    }
                }
                Op::Open(open) => {
                    let lengths = open.lengths(text, &words[at..]);
                    ways.extend(lengths.into_iter().rev().map(|length| (op + 1, at + length)));
                }
            }
        }
        Err(furthest)
    }
}

/// Whether a word, or two that are written as one, begins here.
fn begins(wanted: &str, words: &[Word], at: usize) -> bool {
    words[at].form == wanted || words.get(at + 1).is_some_and(|next| is_joined(wanted, &words[at].form, &next.form))
}

/// Whether a word is two others written as one: `sublicense` and `sub-license`.
fn is_joined(whole: &str, first: &str, second: &str) -> bool {
    whole.strip_prefix(first) == Some(second)
}

fn push_words(text: &str, ops: &mut Vec<Op>) {
    ops.extend(words(text).into_iter().map(|word| Op::Word(word.form)));
}

/// Splits what follows `<<` into the tag and the rest. A pattern in it may hold anything but its end.
fn tag_of(after: &str) -> (&str, &str) {
    let close = if after.starts_with("var;") { "\">>" } else { ">>" };
    match after.find(close) {
        Some(at) => (&after[..at], &after[at + close.len()..]),
        None => (after, ""),
    }
}

impl Open {
    /// From `var;original="…";match="…`.
    fn new(var: &str) -> Self {
        let (original, pattern) =
            var.trim_start_matches("var;original=\"").split_once("\";match=\"").unwrap_or((var, ""));
        let kind = match pattern {
            ".{0,5000}" => OpenKind::Copyright,
            ".{0,20}" => OpenKind::Bullet,
            other if other.contains('.') => OpenKind::Names,
            _ => OpenKind::Choice,
        };
        let pattern = RegexBuilder::new(&format!("^(?:{})$", with_groups(pattern)))
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .build()
            .ok();
        let original = words(original).into_iter().map(|word| word.form).collect();
        Self { original, pattern, kind }
    }

    /// How many of these words it may take: as many as the wording of the list, else the fewest first.
    fn lengths(&self, text: &str, words: &[Word]) -> Vec<usize> {
        let same = |(wanted, word): (&String, &Word)| *wanted == word.form;
        let length = self.original.len();
        let as_listed = length <= words.len() && self.original.iter().zip(words).all(same);
        let others = match self.kind {
            OpenKind::Copyright => copyright_lengths(text, &words[..words.len().min(COPYRIGHT_WORDS_MAX)]),
            OpenKind::Bullet => (0..=words.iter().take(2).take_while(|word| is_number(&word.form)).count()).collect(),
            OpenKind::Names | OpenKind::Choice => {
                let lengths = 0..=words.len().min(OPEN_WORDS_MAX);
                lengths.filter(|length| self.takes(&slice(text, &words[..*length]))).collect()
            }
        };
        as_listed.then_some(length).into_iter().chain(others).collect()
    }

    /// Whether it may be filled with this.
    fn takes(&self, written: &str) -> bool {
        let Some(pattern) = &self.pattern else { return false };
        let fits = |form: &str| {
            let Some(found) = pattern.captures(form) else { return false };
            let open = pattern.capture_names().flatten().filter_map(|name| found.name(name));
            self.kind == OpenKind::Choice || open.into_iter().all(|part| is_name(part.as_str()))
        };
        fits(written)
            || fits(&format!(" {written}"))
            || fits(&format!("{written} "))
            || [".", ",", ")"].iter().any(|end| fits(&format!("{written}{end}")))
    }
}

/// Whether a word numbers an item: `1`, `a`, `iv`.
fn is_number(form: &str) -> bool {
    let all = |digits: &str| form.chars().all(|c| digits.contains(c));
    form.chars().count() == 1 || all("0123456789") || all("ivx")
}

/// A pattern whose open parts (`.+`, `.*`, `.{0,20}`) are named groups.
fn with_groups(pattern: &str) -> String {
    let (mut out, mut rest, mut count) = (String::new(), pattern, 0);
    while let Some(at) = rest.find('.') {
        let after = &rest[at + 1..];
        let end = match after.chars().next() {
            Some('+' | '*') => 1,
            Some('{') => after.find('}').map_or(0, |end| end + 1),
            _ => 0,
        };
        let (before, whole) = (&rest[..at], &rest[at..at + 1 + end]);
        if end == 0 || before.ends_with('\\') {
            out += &rest[..at + 1];
            rest = after;
            continue;
        }
        out += &format!("{before}(?P<open{count}>{whole})");
        count += 1;
        rest = &after[end..];
    }
    out + rest
}

/// The text that words cover, with single spaces; quotation marks and sharp brackets are not those of the template.
pub(super) fn slice(text: &str, words: &[Word]) -> String {
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return String::new() };
    text[first.start..last.end].split_whitespace().collect::<Vec<_>>().join(" ")
}
