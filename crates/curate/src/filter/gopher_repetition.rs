//! Gopher's rules of repetition (Rae et al., 2021, table A1), in datatrove's reading: paragraphs, lines, the most
//! frequent run of 2 to 4 words, runs of 5 to 10 words that stood before. Runs of words are equal if their characters
//! are, one after the other; that is decided by comparing them, hashes only find where.

use super::Verdict;
use crate::{
    document::Document,
    python::{length, strip},
};
use foldhash::fast::FixedState;
use narthex_base::config::GopherRepetition;
use std::collections::{HashMap, HashSet, hash_map::Entry};

const TOP: [&str; 3] = ["top_2_gram", "top_3_gram", "top_4_gram"];
const DUPLICATED: [&str; 6] = [
    "duplicated_5_n_grams",
    "duplicated_6_n_grams",
    "duplicated_7_n_grams",
    "duplicated_8_n_grams",
    "duplicated_9_n_grams",
    "duplicated_10_n_grams",
];

pub(super) fn judge(document: &Document, bounds: &GopherRepetition) -> Verdict {
    let text = document.text;
    if text.is_empty() {
        return Verdict::dropped("empty", 0.0);
    }
    let all = document.length() as f64;
    let too_much = |value: f64, bound: f64| bound > 0.0 && value > bound;
    for (parts, [by_number, by_chars], [number, chars]) in [
        (
            split_ends(strip(text), 2),
            ["dup_para_frac", "dup_para_char_frac"],
            [bounds.max_duplicate_paragraphs, bounds.max_duplicate_paragraph_chars],
        ),
        (
            split_ends(text, 1),
            ["dup_line_frac", "dup_line_char_frac"],
            [bounds.max_duplicate_lines, bounds.max_duplicate_line_chars],
        ),
    ] {
        let (duplicates, characters) = duplicates(parts.iter().copied());
        let share = duplicates as f64 / parts.len() as f64;
        if too_much(share, number) {
            return Verdict::dropped(by_number, share);
        }
        let share = characters as f64 / all;
        if too_much(share, chars) {
            return Verdict::dropped(by_chars, share);
        }
    }
    let words = document.words();
    let (ids, lengths) = numbered(words);
    for (index, bound) in bounds.max_top_ngram_chars.into_iter().enumerate() {
        // The share of a run counts even if it stands there once, as a text of two words has it.
        let Some(most) = top_run(&ids, &lengths, index + 2) else { continue };
        let share = most as f64 / all;
        // The peer has no bound of 0 here: it would drop everything.
        if share > bound && bound > 0.0 {
            return Verdict::dropped(TOP[index], share);
        }
    }
    let joined = Joined::new(words, &lengths);
    for (index, bound) in bounds.max_duplicate_ngram_chars.into_iter().enumerate() {
        let share = joined.repeated(index + 5) as f64 / all;
        if too_much(share, bound) {
            return Verdict::dropped(DUPLICATED[index], share);
        }
    }
    Verdict::Kept
}

/// Split at so many line ends or more.
fn split_ends(text: &str, least: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] != b'\n' {
            at += 1;
            continue;
        }
        let ends = bytes[at..].iter().take_while(|byte| **byte == b'\n').count();
        if ends >= least {
            parts.push(&text[start..at]);
            start = at + ends;
        }
        at += ends;
    }
    parts.push(&text[start..]);
    parts
}

/// How many parts stood before, and their characters.
pub(super) fn duplicates<'a>(parts: impl Iterator<Item = &'a str>) -> (usize, usize) {
    let mut seen: HashSet<&str, FixedState> = HashSet::default();
    let (mut number, mut characters) = (0, 0);
    for part in parts {
        if !seen.insert(part) {
            number += 1;
            characters += length(part);
        }
    }
    (number, characters)
}

/// A number for each different word, and each word's characters.
fn numbered(words: &[&str]) -> (Vec<u32>, Vec<u32>) {
    let mut known: HashMap<&str, (u32, u32), FixedState> = HashMap::default();
    let (mut ids, mut lengths) = (Vec::with_capacity(words.len()), Vec::with_capacity(words.len()));
    for word in words {
        let next = known.len() as u32;
        let (id, length) = *known.entry(word).or_insert_with(|| (next, length(word) as u32));
        ids.push(id);
        lengths.push(length);
    }
    (ids, lengths)
}

/// Characters (with a blank between words) of the most frequent run of n words, times its number; of equally frequent
/// ones, that which came first. Nothing if there are fewer words.
fn top_run(ids: &[u32], lengths: &[u32], n: usize) -> Option<usize> {
    if ids.len() < n {
        return None;
    }
    // Four numbers of 32 bits are one of 128: equal runs, equal keys.
    let mut counts: HashMap<u128, (u32, u32), FixedState> =
        HashMap::with_capacity_and_hasher(ids.len(), FixedState::default());
    for (at, run) in ids.windows(n).enumerate() {
        let key = run.iter().fold(0, |key: u128, id| (key << 32) | u128::from(*id));
        counts.entry(key).or_insert((0, at as u32)).0 += 1;
    }
    let (count, at) = counts.into_values().max_by_key(|(count, at)| (*count, std::cmp::Reverse(*at)))?;
    let characters: u32 = lengths[at as usize..at as usize + n].iter().sum();
    Some((characters as usize + n - 1) * count as usize)
}

/// The words one after the other, without blanks between them, and hashes of all that begins at the start.
struct Joined {
    bytes: Vec<u8>,
    /// Where each word begins, and the end of the last one: in bytes, and in characters.
    places: Vec<(u32, u32)>,
    /// The hash of everything before each word.
    hashes: Vec<u64>,
    /// Powers of the base, as far as most runs go.
    powers: Vec<u64>,
}

/// A prime: hashes are sums modulo 2^61 - 1.
const MODULUS: u64 = (1 << 61) - 1;
/// Powers that are kept.
const POWERS: usize = 1 << 12;
const BASE: u64 = 0x1234_5678_9abc_def1 % MODULUS;

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & MODULUS) + (product >> 61) as u64;
    if sum >= MODULUS { sum - MODULUS } else { sum }
}

impl Joined {
    fn new(words: &[&str], lengths: &[u32]) -> Self {
        let size: usize = words.iter().map(|word| word.len()).sum();
        let mut joined = Self {
            bytes: Vec::with_capacity(size),
            places: Vec::with_capacity(words.len() + 1),
            hashes: Vec::with_capacity(words.len() + 1),
            powers: Vec::new(),
        };
        let (mut hash, mut characters, mut longest) = (0, 0, 0);
        for (word, length) in words.iter().zip(lengths) {
            joined.places.push((joined.bytes.len() as u32, characters));
            joined.hashes.push(hash);
            joined.bytes.extend_from_slice(word.as_bytes());
            for byte in word.bytes() {
                let sum = times(hash, BASE) + u64::from(byte) + 1;
                hash = if sum >= MODULUS { sum - MODULUS } else { sum };
            }
            characters += length;
            longest = longest.max(word.len());
        }
        joined.places.push((joined.bytes.len() as u32, characters));
        joined.hashes.push(hash);
        // No run has more than ten words; a longer one gets its power by squaring.
        let mut power = 1;
        for _ in 0..=(longest * 10).min(POWERS) {
            joined.powers.push(power);
            power = times(power, BASE);
        }
        joined
    }

    fn bytes(&self, first: usize, n: usize) -> &[u8] {
        &self.bytes[self.places[first].0 as usize..self.places[first + n].0 as usize]
    }

    fn hash(&self, first: usize, n: usize) -> u64 {
        let length = self.places[first + n].0 - self.places[first].0;
        let sum = self.hashes[first + n] + MODULUS - times(self.hashes[first], self.power(length as usize));
        if sum >= MODULUS { sum - MODULUS } else { sum }
    }

    fn power(&self, exponent: usize) -> u64 {
        if let Some(power) = self.powers.get(exponent) {
            return *power;
        }
        let half = self.power(exponent / 2);
        let square = times(half, half);
        if exponent.is_multiple_of(2) { square } else { times(square, BASE) }
    }

    /// Characters in runs of n words that stood before. Behind such a run the next one begins after it.
    fn repeated(&self, n: usize) -> usize {
        let words = self.places.len() - 1;
        let mut seen: HashMap<u64, u32, FixedState> =
            HashMap::with_capacity_and_hasher((words + 1).saturating_sub(n), FixedState::default());
        let (mut characters, mut at) = (0, 0);
        while at + n <= words {
            let mut key = self.hash(at, n);
            let stood_before = loop {
                match seen.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(at as u32);
                        break false;
                    }
                    Entry::Occupied(entry) if self.bytes(*entry.get() as usize, n) == self.bytes(at, n) => break true,
                    // Another run with the same hash: it has the next key.
                    Entry::Occupied(_) => key = key.wrapping_add(1 << 62),
                }
            };
            if stood_before {
                characters += (self.places[at + n].1 - self.places[at].1) as usize;
                at += n;
            } else {
                at += 1;
            }
        }
        characters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_runs() {
        assert_eq!(split_ends("a\n\nb\nc", 2), ["a", "b\nc"]);
        assert_eq!(split_ends("\na\n\nb", 1), ["", "a", "b"]);
        let words = ["ab", "c", "a", "bc", "é"];
        let (ids, lengths) = numbered(&words);
        assert_eq!(top_run(&ids, &lengths, 2), Some(4), "the first of equally frequent ones: `ab c`");
        assert_eq!(top_run(&ids, &lengths, 6), None);
        // `ab` + `c` and `a` + `bc` are the same characters.
        assert_eq!(Joined::new(&words, &lengths).repeated(2), 3);
        assert_eq!(Joined::new(&words, &lengths).repeated(10), 0);
    }
}
