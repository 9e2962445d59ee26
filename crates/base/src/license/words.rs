//! A text as the words that count when licences are compared: without case, punctuation, comment signs, ways of
//! wrapping and spelling.
//!
//! Source: SPDX License List Matching Guidelines (SPDX 2.3, annex B), with the list's `equivalentwords.txt`.

use unicode_normalization::UnicodeNormalization;

/// One word: as it is compared, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// As it is compared.
    pub form: String,
    /// Where it begins in the text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Spellings that are one word.
const EQUIVALENT: [(&str, &str); 34] = [
    ("acknowledgement", "acknowledgment"),
    ("analogue", "analog"),
    ("analyse", "analyze"),
    ("artefact", "artifact"),
    ("authorisation", "authorization"),
    ("authorised", "authorized"),
    ("calibre", "caliber"),
    ("cancelled", "canceled"),
    ("capitalisations", "capitalizations"),
    ("catalogue", "catalog"),
    ("categorise", "categorize"),
    ("centre", "center"),
    ("emphasised", "emphasized"),
    ("favour", "favor"),
    ("favourite", "favorite"),
    ("fulfil", "fulfill"),
    ("fulfilment", "fulfillment"),
    ("https", "http"),
    ("initialise", "initialize"),
    ("judgement", "judgment"),
    ("labelling", "labeling"),
    ("labour", "labor"),
    ("licence", "license"),
    ("licences", "licenses"),
    ("maximise", "maximize"),
    ("merchantibility", "merchantability"),
    ("modelling", "modeling"),
    ("optimise", "optimize"),
    ("organisation", "organization"),
    ("practise", "practice"),
    ("programme", "program"),
    ("recognise", "recognize"),
    ("utilisation", "utilization"),
    ("whilst", "while"),
];

/// The text of a file, whatever its encoding: UTF-8 or UTF-16 with a byte order mark, UTF-8 without, else Windows-1252.
pub fn decode(bytes: &[u8]) -> String {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => bytes.iter().map(|&byte| windows_1252(byte)).collect(),
        },
    }
}

fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', ' ', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', ' ', 'Ž', ' ', ' ', '‘', '’', '“', '”', '•',
        '–', '—', '˜', '™', 'š', '›', 'œ', ' ', 'ž', 'Ÿ',
    ];
    if (0x80..0xa0).contains(&byte) { HIGH[usize::from(byte) - 0x80] } else { char::from(byte) }
}

/// The words of a text.
/// What stands for a sign that strikes words out: no licence has it.
pub(super) const STRUCK: &str = "~~";

/// Whether what is struck out begins or ends here: `~~` as Markdown has it, and a comment of HTML in the middle of a
/// text. A line of tildes under a heading is neither.
fn strikes(text: &str, at: usize, within: bool) -> bool {
    let (before, after) = (&text[..at], &text[at..]);
    let struck = after.starts_with("~~") && !after.starts_with("~~~") && !before.ends_with('~');
    struck || (within && after.starts_with("<!--"))
}

pub(super) fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        // `©`, and `(c)` before a year, are the word that they stand for; after that word they add nothing.
        let bracketed = text[start..].strip_prefix("(c)").or_else(|| text[start..].strip_prefix("(C)"));
        let again = words
            .last()
            .is_some_and(|last| last.form == "copyright" && !text[last.end..start].contains(char::is_alphanumeric));
        let year = |after: &str| after.trim_start().starts_with(|c: char| c.is_ascii_digit());
        if c == '©' || bracketed.is_some_and(|after| again || year(after)) {
            if !again {
                words.push(Word { form: "copyright".into(), start, end: start + c.len_utf8() });
            }
            if bracketed.is_some() {
                chars.nth(1);
            }
            continue;
        }
        if c == '&' {
            words.push(Word { form: "and".into(), start, end: start + 1 });
        }
        if strikes(text, start, !words.is_empty()) {
            words.push(Word { form: STRUCK.into(), start, end: start + 1 });
        }
        if !c.is_alphanumeric() {
            continue;
        }
        let mut end = start + c.len_utf8();
        while let Some(&(at, c)) = chars.peek() {
            if !c.is_alphanumeric() && !is_ignorable(c) && !is_inside_word(text, at, c) {
                break;
            }
            end = at + c.len_utf8();
            chars.next();
        }
        let written = text[start..end].nfkc().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        let form = written.collect::<String>().replace('ß', "ss");
        let same = EQUIVALENT.iter().find(|(other, _)| *other == form).map(|(_, form)| (*form).to_string());
        let form = same.unwrap_or(form);
        // A copyright owner is a copyright holder.
        let owner = words.last().is_some_and(|before| before.form == "copyright");
        let form = match form.as_str() {
            "owner" if owner => "holder".into(),
            "owners" if owner => "holders".into(),
            _ => form,
        };
        words.push(Word { form, start, end });
    }
    words
}

/// Marks that are not seen: soft hyphens, joiners, marks of direction, variation selectors.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

/// An apostrophe between letters.
fn is_inside_word(text: &str, at: usize, c: char) -> bool {
    matches!(c, '\'' | '’') && text[at + c.len_utf8()..].starts_with(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.form).collect()
    }

    #[test]
    fn what_does_not_count() {
        let plain = forms("the Licensor's license, to copyright holders and others: http");
        for text in [
            "// The licensor’s LICENCE to Copyright Owners & others https://",
            " * the Licensor's\n * license, to *copyright*\n * owners and others -- HTTP",
            "the Licen\u{ad}sor's lic\u{200b}ense; to copyright holders, and others http",
        ] {
            assert_eq!(forms(text), plain, "{text}");
        }
        for text in ["Copyright (c) 2015 A (c) x", "copyright © 2015 A (c) x", "(C) 2015 A, (c) x"] {
            assert_eq!(forms(text), ["copyright", "2015", "a", "c", "x"], "{text}");
        }
        let found = words("a «Wort»");
        assert_eq!((&*found[1].form, found[1].start, found[1].end), ("wort", 4, 8));
    }

    #[test]
    fn encodings() {
        let wide = |order: fn(u16) -> [u8; 2], mark: [u8; 2]| {
            mark.into_iter().chain("é ok".encode_utf16().flat_map(order)).collect::<Vec<u8>>()
        };
        for bytes in [
            b"\xef\xbb\xbf\xc3\xa9 ok".to_vec(),
            b"\xc3\xa9 ok".to_vec(),
            b"\xe9 ok".to_vec(),
            wide(u16::to_le_bytes, [0xff, 0xfe]),
            wide(u16::to_be_bytes, [0xfe, 0xff]),
        ] {
            assert_eq!(decode(&bytes), "é ok", "{bytes:?}");
        }
        assert_eq!(decode(b"\x93quoted\x94 \x97"), "“quoted” —");
    }
}
