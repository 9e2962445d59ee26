//! What the rules of English stand on, read once from `assets/english.json`: classes of characters, special cases, the
//! pieces that are cut off in front and behind. Knows no text.

use crate::python;
use foldhash::fast::FixedState;
use serde::Deserialize;
use std::{collections::HashMap, sync::LazyLock};

/// Letters of spaCy's class `ALPHA`.
pub(crate) const LETTER: u32 = 1;
/// Letters of `ALPHA_LOWER`.
pub(crate) const LOWER: u32 = 1 << 1;
/// Letters of `ALPHA_UPPER`; those of scripts without case are in both.
pub(crate) const UPPER: u32 = 1 << 2;
/// Symbols and emoji that are tokens of their own.
pub(crate) const ICON: u32 = 1 << 3;
pub(crate) const LOWER_OR_QUOTE: u32 = 1 << 4;
pub(crate) const UPPER_OR_QUOTE: u32 = 1 << 5;
/// After these a full stop at the end is cut off.
pub(crate) const BEFORE_DOT: u32 = 1 << 6;
/// Cut off in front, alone.
pub(crate) const PREFIX: u32 = 1 << 7;
/// Cut off behind, alone.
pub(crate) const SUFFIX: u32 = 1 << 8;
/// One of the 281 marks that make a word a symbol.
pub(crate) const SYMBOL: u32 = 1 << 9;
/// One of the 159 marks that end a line well.
pub(crate) const TERMINAL: u32 = 1 << 10;
/// One of the 128 marks that end a sentence.
pub(crate) const SENTENCE: u32 = 1 << 11;
/// One of the 129 marks that simplifying turns into blanks.
pub(crate) const BLANKED: u32 = 1 << 12;
/// Of a category of punctuation.
pub(crate) const PUNCTUATION: u32 = 1 << 13;
/// Of a category of letters.
pub(crate) const ALPHABETIC: u32 = 1 << 14;

#[derive(Deserialize)]
struct Asset {
    special_cases: HashMap<String, Vec<String>>,
    prefixes_plain: Vec<String>,
    punctuation: Vec<String>,
    quotes: Vec<String>,
    currency: Vec<String>,
    units: Vec<String>,
    letters: Vec<(u32, u32)>,
    lower: Vec<(u32, u32)>,
    upper: Vec<(u32, u32)>,
    icons: Vec<(u32, u32)>,
    lower_or_quote: Vec<(u32, u32)>,
    upper_or_quote: Vec<(u32, u32)>,
    before_final_dot: Vec<(u32, u32)>,
    marks_punctuation: String,
    marks_terminal: String,
    marks_sentence: String,
}

/// See the module.
pub(crate) struct Tables {
    /// Classes of the characters below U+20000; those above are looked up in `rest`.
    classes: Vec<u32>,
    rest: Vec<(u32, u32, u32)>,
    /// A special case -> the lengths of its pieces in bytes.
    pub special: HashMap<Box<str>, Box<[u8]>, FixedState>,
    /// Whether a special case begins with this byte and has this length.
    special_shapes: Vec<u32>,
    /// What is cut off behind a digit, the longest first.
    pub after_digit: Vec<Box<str>>,
    /// Currencies of several characters, which are cut off in front.
    pub long_currency: Vec<Box<str>>,
}

const TABLE: usize = 0x2_0000;

/// The tables of English.
pub(crate) static ENGLISH: LazyLock<Tables> = LazyLock::new(|| {
    let asset = serde_json::from_str(include_str!("../../assets/english.json")).expect("the asset is ours");
    Tables::new(asset)
});

impl Tables {
    fn new(asset: Asset) -> Self {
        let mut tables = Tables {
            classes: vec![0; TABLE],
            rest: Vec::new(),
            special: HashMap::default(),
            special_shapes: vec![0; 256],
            after_digit: asset.currency.iter().chain(&asset.units).map(|s| s.as_str().into()).collect(),
            long_currency: Vec::new(),
        };
        tables.after_digit.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        for (ranges, class) in [
            (asset.letters, LETTER),
            (asset.upper, UPPER),
            (asset.icons, ICON),
            (asset.lower_or_quote, LOWER_OR_QUOTE),
            (asset.upper_or_quote, UPPER_OR_QUOTE),
            (asset.before_final_dot, BEFORE_DOT),
            (asset.lower, LOWER),
        ] {
            for (first, last) in ranges {
                tables.add(first, last, class);
            }
        }
        for (marks, class) in [
            (&asset.marks_punctuation, SYMBOL | BLANKED),
            (&asset.marks_terminal, SYMBOL | TERMINAL),
            (&asset.marks_sentence, SENTENCE),
        ] {
            for mark in marks.chars() {
                tables.add(mark.into(), mark.into(), class);
            }
        }
        let single = |pieces: &[String]| -> Vec<char> {
            let alone = |piece: &String| piece.chars().next().filter(|c| c.len_utf8() == piece.len());
            pieces.iter().filter_map(alone).collect()
        };
        for pieces in [&asset.prefixes_plain, &asset.punctuation, &asset.quotes, &asset.currency] {
            for c in single(pieces) {
                tables.add(c.into(), c.into(), PREFIX);
            }
        }
        for c in [single(&asset.punctuation), single(&asset.quotes), vec!['—', '–']].concat() {
            tables.add(c.into(), c.into(), SUFFIX);
        }
        tables.long_currency = asset
            .currency
            .iter()
            .filter(|piece| piece.chars().count() > 1)
            .map(|piece| piece.as_str().into())
            .collect();
        for code in 0..TABLE as u32 {
            let Some(c) = char::from_u32(code) else { continue };
            let class = |truth, class| if truth { class } else { 0 };
            tables.classes[code as usize] |=
                class(python::is_punctuation(c), PUNCTUATION) | class(python::is_letter(c), ALPHABETIC);
        }
        for (text, pieces) in asset.special_cases {
            let lengths: Box<[u8]> = pieces.iter().map(|piece| piece.len() as u8).collect();
            tables.special_shapes[text.as_bytes()[0] as usize] |= 1 << text.len().min(31);
            tables.special.insert(text.into(), lengths);
        }
        tables
    }

    fn add(&mut self, first: u32, last: u32, class: u32) {
        for code in first..=last.min(TABLE as u32 - 1) {
            self.classes[code as usize] |= class;
        }
        if last as usize >= TABLE {
            self.rest.push((first.max(TABLE as u32), last, class));
        }
    }

    /// The classes of a character.
    #[inline]
    pub fn classes(&self, c: char) -> u32 {
        match self.classes.get(c as usize) {
            Some(classes) => *classes,
            None => {
                let code = c as u32;
                let of = self.rest.iter().filter(|(first, last, _)| (*first..=*last).contains(&code));
                let named: u32 = of.fold(0, |classes, (_, _, class)| classes | class);
                let class = |truth, class| if truth { class } else { 0 };
                named | class(python::is_punctuation(c), PUNCTUATION) | class(python::is_letter(c), ALPHABETIC)
            }
        }
    }

    /// Whether a character is of (one of) the class.
    #[inline]
    pub fn is(&self, c: char, class: u32) -> bool {
        self.classes(c) & class != 0
    }

    /// The lengths of the pieces of a special case.
    #[inline]
    pub fn special(&self, text: &str) -> Option<&[u8]> {
        let first = *text.as_bytes().first()?;
        if self.special_shapes[first as usize] & (1 << text.len().min(31)) == 0 {
            return None;
        }
        self.special.get(text).map(|lengths| &**lengths)
    }
}
