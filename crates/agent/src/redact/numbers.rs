//! Long numbers that name somebody: cards by issuer, length and check digit (ISO/IEC 7812), bank accounts by country,
//! length and check digits (ISO 13616), phone numbers by form. Knows no directory.

use super::near::{after, before, begins, ends, is_separator};
use regex::Regex;
use std::{collections::VecDeque, sync::LazyLock};

/// Groups of digits that a card's number is written in at most.
const CARD_GROUPS_MAX: usize = 6;

/// Countries and the lengths of their accounts' numbers.
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
    DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 \
    JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 \
    PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 \
    XK20 YE30";

struct Group {
    start: usize,
    end: usize,
    /// What stands between it and the group before, where that is one separator.
    joined: Option<char>,
}

/// Numbers of cards.
pub(super) fn cards(text: &str, found: &mut dyn FnMut(usize, usize)) {
    let bytes = text.as_bytes();
    let mut groups: VecDeque<Group> = VecDeque::new();
    let mut at = 0;
    while let Some(start) = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) {
        let end = (start..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
        let between = groups.back().and_then(|last| {
            let mut between = text[last.end..start].chars();
            between.next().filter(|c| is_separator(*c) && between.next().is_none())
        });
        if between.is_none() {
            groups.clear();
        }
        groups.push_back(Group { start, end, joined: between });
        if groups.len() > CARD_GROUPS_MAX {
            groups.pop_front();
        }
        if ends(text, end) {
            for first in 0..groups.len() {
                if is_card(text, groups.range(first..)) {
                    found(groups[first].start, end);
                    break;
                }
            }
        }
        at = end;
    }
}

fn is_card<'a>(text: &str, groups: impl ExactSizeIterator<Item = &'a Group> + Clone) -> bool {
    let lengths = groups.clone().map(|group| group.end - group.start);
    let total: usize = lengths.clone().sum();
    let mut separators = groups.clone().skip(1).map(|group| group.joined);
    let separator = separators.next();
    let Some(start) = groups.clone().next().map(|group| group.start) else { return false };
    if !(13..=19).contains(&total)
        || (groups.len() > 1 && lengths.clone().any(|length| !(3..=6).contains(&length)))
        || separators.any(|other| Some(other) != separator)
        || !begins(text, start)
    {
        return false;
    }
    let digits: Vec<u32> = groups
        .flat_map(|group| text.as_bytes()[group.start..group.end].iter().map(|byte| u32::from(byte - b'0')))
        .collect();
    let prefix = |length: usize| digits[..length].iter().fold(0, |number, digit| number * 10 + digit);
    let fits = matches!(
        (prefix(4), total),
        (4000..=4999, 13 | 16 | 19)
            | (5100..=5599 | 2221..=2720 | 9792, 16)
            | (3400..=3499 | 3700..=3799, 15)
            | (3000..=3059 | 3090..=3099 | 3600..=3699 | 3800..=3999, 14 | 16)
            | (3528..=3589 | 6011 | 6200..=6299 | 6440..=6599 | 2200..=2204, 16..=19)
            | (5000..=5099 | 5600..=5899 | 6000..=6999, 16 | 18 | 19)
    );

    fits && luhn(&digits)
}

/// Whether the last digit is the check digit of the others.
fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Numbers of bank accounts.
pub(super) fn ibans(text: &str, found: &mut dyn FnMut(usize, usize)) {
    let bytes = text.as_bytes();
    for (start, window) in bytes.windows(4).enumerate() {
        if window[..2].iter().all(u8::is_ascii_alphabetic)
            && window[2..].iter().all(u8::is_ascii_digit)
            && begins(text, start)
            && let Some(end) = iban_end(text, start)
        {
            found(start, end);
        }
    }
}

/// Where the account's number ends that begins here, if it is one.
fn iban_end(text: &str, start: usize) -> Option<usize> {
    let country = text[start..start + 2].to_ascii_uppercase();
    let known = IBAN_LENGTHS.split(' ').find_map(|known| known.strip_prefix(country.as_str()))?;
    let length: usize = known.parse().ok()?;
    let (mut taken, mut end, mut separated) = (Vec::with_capacity(length), start, false);
    for (offset, c) in text[start..].char_indices() {
        if taken.len() == length {
            break;
        }
        if c.is_ascii_alphanumeric() {
            taken.push(c.to_ascii_uppercase());
            (end, separated) = (start + offset + 1, false);
        } else if is_separator(c) && !separated {
            separated = true;
        } else {
            return None;
        }
    }
    if taken.len() < length || !ends(text, end) {
        return None;
    }
    taken.rotate_left(4);
    // Letters count from A = 10: two digits each.
    let rest = taken.iter().fold(0, |rest: u32, c| match c.to_digit(36).unwrap_or(0) {
        value if value > 9 => (rest * 100 + value) % 97,
        value => (rest * 10 + value) % 97,
    });
    (rest == 1).then_some(end)
}

/// Forms of phone numbers: international with `+` or `00`; North American; French, in pairs; others with a leading 0.
/// No form holds a line end, or a point with a space behind it: texts are cut there while they stream.
static PHONES: LazyLock<Regex> = LazyLock::new(|| {
    let between = r"(?:[ \x{a0}\x{202f}.\-/\x{2011}]|\)[ \-/]?|[ \-]?\()";
    let forms = [
        format!(r"(?:\+|\b00)[1-9](?:{between}?[0-9]){{6,14}}"),
        r"(?:\b1[ .\-])?(?:\([2-9][0-9]{2}\)[ \x{a0}.\-]?|\b[2-9][0-9]{2}[ \x{a0}.\-])[2-9][0-9]{2}[ \x{a0}.\-][0-9]{4}".into(),
        r"\b0[1-9](?:[ \x{a0}.\-][0-9]{2}){4}".into(),
        r"\(?\b0[1-9][0-9]{1,4}(?:\)[ \-/]?|[ \x{a0}/\-])[0-9]{3,8}(?:[ \x{a0}\-][0-9]{1,5}){0,3}".into(),
        r"\b0[1-9][0-9]{8,9}".into(),
    ];
    Regex::new(&forms.join("|")).expect("it is ours")
});

/// Phone numbers.
pub(super) fn phones(text: &str, found: &mut dyn FnMut(usize, usize)) {
    let mut at = 0;
    while let Some(candidate) = PHONES.find_at(text, at) {
        let (start, end) = (candidate.start(), candidate.end());
        let digits = candidate.as_str().bytes().filter(u8::is_ascii_digit).count();
        let fits = match &candidate.as_str()[..2] {
            "00" => (11..=17).contains(&digits),
            beginning if beginning.starts_with('+') => (8..=15).contains(&digits),
            _ => (9..=12).contains(&digits),
        };
        if fits && begins_number(text, start) && ends_number(text, end) {
            found(start, end);
            at = end;
        } else {
            // The next may begin within this one; a candidate is short.
            at = start + after(text, start).map_or(1, char::len_utf8);
        }
    }
}

/// A number behind `-` or `:` may be a part of a longer name.
fn begins_number(text: &str, at: usize) -> bool {
    let joined = |c: char| matches!(c, '-' | '/' | '+' | '=' | '#');
    let word = |at: usize| before(text, at).is_some_and(char::is_alphanumeric);
    match before(text, at) {
        Some(c) if joined(c) => !word(at - c.len_utf8()) || c == '=',
        _ => begins(text, at),
    }
}

fn ends_number(text: &str, at: usize) -> bool {
    match after(text, at) {
        Some('-' | '/') => !after(text, at + 1).is_some_and(char::is_alphanumeric),
        _ => ends(text, at),
    }
}
