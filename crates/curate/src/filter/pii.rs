//! Masks what names a person: e-mail addresses and IPv4 addresses as datatrove finds them, phone numbers in
//! international form, and numbers of cards whose check digit is right (ISO/IEC 7812, Luhn). Replacements are taken in
//! turn within a document and begin anew with the next, so that a document's text depends on nothing else; the peer
//! carries on across documents. As with the peer, an IPv4 address may stand between any characters.

use super::Verdict;
use crate::{document::Document, simplify::pattern};
use narthex_base::config::Pii;
use regex::{Captures, Match, Regex};
use std::{borrow::Cow, net::Ipv4Addr, sync::LazyLock};

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\b[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*",
        r"[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|\[(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}",
        r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?|[A-Za-z0-9-]*[A-Za-z0-9]:)\])"
    ))
});
static IP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)")
});
/// `+`, a country code and 6 to 13 more digits, with single blanks, dots, hyphens and brackets between them (E.164).
static PHONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\+[1-9](?:[ .()/-]{0,2}[0-9]){6,14}\b"));
/// 13 to 19 digits, alone or in groups.
static CARD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[0-9](?:[ -]?[0-9]){12,18}\b"));

pub(super) fn judge(document: &Document, what: &Pii) -> Verdict {
    let mut text = Cow::Borrowed(document.text);
    // A regular expression is asked only where its mark is.
    let bytes = |text: &str, mark: fn(&u8) -> bool| text.as_bytes().iter().any(mark);
    if bytes(&text, |byte| *byte == b'@') {
        text = masked(text, &EMAIL, &what.emails, |_, _| true);
    }
    if bytes(&text, u8::is_ascii_digit) {
        let public = what.only_public_ips;
        text = masked(text, &IP, &what.ips, |found, _| is_ip(found.as_str(), public));
        text = masked(text, &CARD, &what.cards, |found, _| is_card(found.as_str()));
        if bytes(&text, |byte| *byte == b'+') {
            text = masked(text, &PHONE, &what.phones, |_, before| !before.is_some_and(char::is_alphanumeric));
        }
    }
    match text {
        Cow::Borrowed(_) => Verdict::Kept,
        Cow::Owned(text) if text == document.text => Verdict::Kept,
        Cow::Owned(text) => Verdict::Changed(text),
    }
}

fn masked<'a>(
    text: Cow<'a, str>,
    pattern: &Regex,
    replacements: &[String],
    is_one: impl Fn(Match, Option<char>) -> bool,
) -> Cow<'a, str> {
    let mut turns = replacements.iter().cycle();
    if replacements.is_empty() {
        return text;
    }
    let mut changed = false;
    let replaced = pattern.replace_all(&text, |found: &Captures| {
        let found = found.get(0).expect("the whole match is there");
        let before = text[..found.start()].chars().next_back();
        match is_one(found, before) {
            true => {
                changed = true;
                turns.next().cloned().unwrap_or_default()
            }
            false => found.as_str().to_string(),
        }
    });
    match changed {
        true => Cow::Owned(replaced.into_owned()),
        false => text,
    }
}

/// Whether it is an IPv4 address, and one that is reachable from anywhere if only such are asked for: Python's
/// `ipaddress.is_global`, to whom multicast is global.
fn is_ip(text: &str, only_public: bool) -> bool {
    // Rust's parser, too, takes no leading zeros.
    let Ok(address) = text.parse::<Ipv4Addr>() else { return false };
    let [a, b, c, d] = address.octets();
    let reserved = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 2)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (240..=255, ..)
    ) || ((a, b, c) == (192, 0, 0) && d != 9 && d != 10);
    !only_public || !reserved
}

/// Whether the check digit is right (Luhn). A number of one digit over and over is none.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => digit * 2 % 10 + digit * 2 / 10,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_tags() {
        for (text, expected) in [
            ("write to a.b+c@example.com or <X@y.org>", "write to <EMAIL> or <<EMAIL>>"),
            ("8.8.8.8, 10.0.0.1, 08.8.8.8 and 300.1.1.1", "<IP>, 10.0.0.1, 08.8.8.8 and 300.1.1.1"),
            ("call +49 (0)30 901820-12 now", "call <PHONE> now"),
            ("1+49301234567 is a sum", "1+49301234567 is a sum"),
            ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", "card <CARD>, not 4111 1111 1111 1112"),
            ("0000 0000 0000 0000", "0000 0000 0000 0000"),
            ("nothing here", "nothing here"),
        ] {
            let expected = match expected == text {
                true => Verdict::Kept,
                false => Verdict::Changed(expected.into()),
            };
            assert_eq!(judge(&Document::new(text), &Pii::default()), expected, "{text}");
        }
    }
}
