//! Words and sentences of English as spaCy's blank `en` and its sentencizer find them, since datatrove's filters count
//! those. The rules are spaCy 3.8.18's (MIT), written anew for speed: what has no mark in it is a word at a glance, and
//! what was taken apart once is remembered.
//!
//! A token is a place in the text: the characters between two tokens are blanks.

mod address;
mod affixes;
mod sentences;
mod special;
pub(crate) mod tables;

use crate::python;
use foldhash::fast::FixedState;
use special::Patterns;
use std::{cell::RefCell, collections::HashMap};
use tables::{ENGLISH, Tables};

/// Runs that a thread remembers, and their longest in bytes.
const REMEMBERED_RUNS: usize = 1 << 17;
const REMEMBERED_BYTES: usize = 48;
/// What one text may have: places are kept in 32 bits, and spaCy stops at 2^30 characters.
pub const MAX_TEXT_BYTES: usize = 1 << 30;

/// A token: where it begins and ends in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its first byte.
    pub start: u32,
    /// The byte behind it.
    pub end: u32,
    /// Whether it is made of white space only; such ones are no words.
    pub space: bool,
}

impl Token {
    /// What it says.
    #[inline]
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start as usize..self.end as usize]
    }
}

/// All tokens of a text, spaces included.
///
/// # Panics
/// If the text has more than [`MAX_TEXT_BYTES`].
pub fn tokens(text: &str) -> Vec<Token> {
    assert!(text.len() <= MAX_TEXT_BYTES, "a text of {} bytes", text.len());
    thread_local! {
        static MEMORY: RefCell<Memory> = RefCell::new(Memory::default());
    }
    MEMORY.with_borrow_mut(|memory| memory.tokens(text))
}

/// The words of a text.
pub fn words(text: &str) -> Vec<&str> {
    tokens(text).iter().filter(|token| !token.space).map(|token| token.of(text)).collect()
}

/// The sentences of a text; joined they are the text.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut start = 0;
    let mut sentences: Vec<&str> = Vec::new();
    let ends = sentences::ends(text, &tokens(text));
    for (index, end) in ends.iter().enumerate() {
        let end = if index + 1 == ends.len() { text.len() } else { *end as usize };
        sentences.push(&text[start..end]);
        start = end;
    }
    if ends.is_empty() {
        sentences.push(text);
    }
    sentences
}

/// How many sentences a text has; one without a word is one.
pub(crate) fn count_sentences(text: &str) -> u64 {
    sentences::ends(text, &tokens(text)).len().max(1) as u64
}

/// What was taken apart before: a run of characters -> the lengths of its tokens in bytes.
#[derive(Default)]
struct Memory {
    known: HashMap<Box<str>, Box<[u8]>, FixedState>,
    cutter: Cutter,
}

impl Memory {
    fn tokens(&mut self, text: &str) -> Vec<Token> {
        let tables = &*ENGLISH;
        let mut tokens = Vec::with_capacity(text.len() / 5 + 4);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            let space = space_at(text, at) > 0;
            let mut letters = 0;
            while at < bytes.len() {
                let byte = bytes[at];
                if byte.is_ascii_alphabetic() && !space {
                    letters += 1;
                    at += 1;
                    continue;
                }
                let length = space_at(text, at);
                if (length > 0) != space {
                    break;
                }
                at += if length > 0 { length } else { char_length(byte) };
            }
            if space {
                // One blank between two runs is not a token.
                let start = if start > 0 && bytes[start] == b' ' { start + 1 } else { start };
                if start < at {
                    tokens.push(Token { start: start as u32, end: at as u32, space: true });
                }
                continue;
            }
            self.run(tables, text, start, at, letters, &mut tokens);
        }
        Patterns::apply(tables, text, &mut tokens);
        tokens
    }

    /// A run without spaces, which has so many ASCII letters.
    fn run(&mut self, tables: &Tables, text: &str, start: usize, end: usize, letters: usize, tokens: &mut Vec<Token>) {
        let run = &text[start..end];
        let mut push = |start: usize, end: usize| {
            tokens.push(Token { start: start as u32, end: end as u32, space: false });
        };
        let last = run.as_bytes()[run.len() - 1];
        if letters == run.len() && tables.special(run).is_none() {
            return push(start, end);
        }
        // A word and the mark behind it.
        let mark = match last {
            b',' | b';' | b':' | b'!' | b'?' | b')' => true,
            b'.' => run.len() > 1 && run.as_bytes()[run.len() - 2].is_ascii_lowercase(),
            _ => false,
        };
        if mark
            && letters > 0
            && letters + 1 == run.len()
            && tables.special(run).is_none()
            && tables.special(&run[..letters]).is_none()
        {
            push(start, end - 1);
            return push(end - 1, end);
        }
        let mut at = start;
        if let Some(lengths) = self.known.get(run) {
            for length in lengths {
                push(at, at + *length as usize);
                at += *length as usize;
            }
            return;
        }
        let ends = self.cutter.cut(tables, run);
        for end in ends {
            push(at, start + *end);
            at = start + *end;
        }
        if run.len() <= REMEMBERED_BYTES {
            if self.known.len() >= REMEMBERED_RUNS {
                self.known.clear();
            }
            let starts = std::iter::once(&0).chain(ends);
            let lengths = ends.iter().zip(starts).map(|(end, start)| (end - start) as u8).collect();
            self.known.insert(run.into(), lengths);
        }
    }
}

/// The length of the space that begins here; 0 if none does.
#[inline]
fn space_at(text: &str, at: usize) -> usize {
    match text.as_bytes()[at] {
        b'\t'..=b'\r' | 0x1c..=b' ' => 1,
        byte if byte.is_ascii() => 0,
        // The first bytes of those spaces that are not ASCII.
        0xc2 | 0xe1..=0xe3 => text[at..].chars().next().filter(|c| python::is_space(*c)).map_or(0, char::len_utf8),
        _ => 0,
    }
}

#[inline]
fn char_length(first: u8) -> usize {
    match first {
        ..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    }
}

/// Takes one run apart (`Tokenizer._tokenize` of spaCy's `tokenizer.pyx`).
#[derive(Default)]
pub(super) struct Cutter {
    ends: Vec<usize>,
    suffixes: Vec<usize>,
    infixes: Vec<(usize, usize)>,
}

impl Cutter {
    /// The ends of the run's tokens, in bytes.
    fn cut(&mut self, tables: &Tables, run: &str) -> &[usize] {
        self.cut_with(tables, run, true)
    }

    /// The same, with or without special cases.
    fn cut_with(&mut self, tables: &Tables, run: &str, with_special: bool) -> &[usize] {
        self.ends.clear();
        self.suffixes.clear();
        let special = |text: &str| if with_special { tables.special(text) } else { None };
        let (mut start, mut end) = (0, run.len());
        while start < end {
            let rest = &run[start..end];
            if special(rest).is_some() {
                break;
            }
            let prefix = affixes::prefix(tables, rest);
            if prefix > 0 && special(&rest[prefix..]).is_some() {
                start += prefix;
                self.ends.push(start);
                break;
            }
            let suffix = affixes::suffix(tables, &rest[prefix..]);
            if suffix > 0 && special(&rest[..rest.len() - suffix]).is_some() {
                self.suffixes.push(end);
                end -= suffix;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                start += prefix;
                self.ends.push(start);
            }
            if suffix > 0 {
                self.suffixes.push(end);
                end -= suffix;
            }
        }
        if start < end {
            self.middle(tables, run, start, end, with_special);
        }
        self.ends.extend(self.suffixes.drain(..).rev());
        &self.ends
    }

    /// What is left between prefixes and suffixes.
    fn middle(&mut self, tables: &Tables, run: &str, start: usize, end: usize, with_special: bool) {
        let rest = &run[start..end];
        if let Some(lengths) = tables.special(rest).filter(|_| with_special) {
            let mut at = start;
            for length in lengths {
                at += *length as usize;
                self.ends.push(at);
            }
            return;
        }
        if address::is_address(tables, rest) {
            self.ends.push(end);
            return;
        }
        affixes::infixes(tables, rest, &mut self.infixes);
        let mut at = 0;
        for (first, last) in &self.infixes {
            if *first == 0 {
                continue;
            }
            if *first != at {
                self.ends.push(start + first);
            }
            self.ends.push(start + last);
            at = *last;
        }
        if at < rest.len() {
            self.ends.push(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_english() {
        for (text, expected) in [
            ("", &[][..]),
            (" \n", &[]),
            ("Hello, world!", &["Hello", ",", "world", "!"]),
            ("can't won't cannot,", &["ca", "n't", "wo", "n't", "can", "not", ","]),
            ("the U.S. and the UK.", &["the", "U.S.", "and", "the", "UK", "."]),
            ("(see www.example.com/a?b=c).", &["(", "see", "www.example.com/a?b=c", ")", "."]),
            ("5km at 10€ (20 °C.)", &["5", "km", "at", "10", "€", "(", "20", "°", "C", ".", ")"]),
            (
                "well-known a--b 3-4 x=y a/b",
                &["well", "-", "known", "a", "--", "b", "3", "-", "4", "x", "=", "y", "a", "/", "b"],
            ),
            ("end.Next John's", &["end", ".", "Next", "John", "'s"]),
            ("wait... what…", &["wait", "...", "what", "…"]),
            ("(foo:)", &["(", "foo", ":)"]),
            ("a.m. 8a.m. e.g.", &["a.m.", "8", "a.m.", "e.g."]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    /// Each of these would take hours if a run's length were paid for each of its characters.
    #[test]
    fn long_runs_are_no_dearer_than_others() {
        for (piece, per_piece) in [("(", 1), ("a@", 0), ("a@b.c:", 0), ("x.", 0), ("-", 0), ("a-", 2), ("'s", 0)] {
            let run = piece.repeat(500_000);
            let found = words(&run);
            assert_eq!(found.iter().map(|word| word.len()).sum::<usize>(), run.len(), "{piece}");
            assert!(per_piece == 0 || found.len() >= 500_000 * per_piece - 1, "{piece}: {}", found.len());
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("example.com", true),
            ("http://a.b.co.uk:8080/x", true),
            ("user@host.org", true),
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("1.2.3", false),
            ("lower.Upper", false),
            ("a-.com", false),
            ("example.com:1", false),
            ("example.c", false),
            ("a@b@example.com/x@y", true),
            ("a@example.com:80@", false),
            ("@example.com", false),
            ("u:p@example.com?q", true),
        ] {
            assert_eq!(address::is_address(&ENGLISH, text), expected, "{text}");
        }
    }
}
