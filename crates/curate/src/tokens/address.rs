//! Whether a run of characters is an address of the Web, which stays one token: spaCy's `URL_PATTERN`
//! (`spacy/lang/tokenizer_exceptions.py`), as a reader of its parts.

use super::tables::{LOWER, Tables};
use crate::python::{is_digit, is_word};

/// Whether the whole text is an address: perhaps a scheme, perhaps a user, a host or a public IPv4 address, perhaps a
/// port and a path.
pub(crate) fn is_address(tables: &Tables, text: &str) -> bool {
    // Every host has a dot in it.
    if !text.contains('.') {
        return false;
    }
    let after_scheme = text.find("://").filter(|end| {
        let scheme = &text[..*end];
        scheme.chars().count() >= 2 && scheme.chars().all(|c| is_word(c) || matches!(c, '+' | '-' | '.'))
    });
    let starts = [Some(0), after_scheme.map(|end| end + 3)].into_iter().flatten();
    // A user ends at an `@`; no host has one, so of those between two delimiters only the last can be it.
    let mut end = text.len();
    let users = text.rsplit(DELIMITERS).filter_map(|part| {
        let start = end - part.len();
        end = start.saturating_sub(1);
        part.rfind('@').map(|at| start + at).filter(|at| *at > 0).map(|at| at + 1)
    });
    let users: Vec<usize> = users.collect();
    starts.chain(users).any(|start| is_place(tables, &text[start..]))
}

/// What ends a host.
const DELIMITERS: [char; 4] = [':', '/', '?', '#'];

/// Host or IPv4 address, port, path.
fn is_place(tables: &Tables, text: &str) -> bool {
    let end = text.find(DELIMITERS).unwrap_or(text.len());
    let (host, rest) = text.split_at(end);
    is_rest(rest) && (is_ip(host) || is_host(tables, host))
}

/// `(?::\d{2,5})?(?:[/?#]\S*)?`: nothing that follows in a run is a space.
fn is_rest(text: &str) -> bool {
    let path = match text.strip_prefix(':') {
        None => text,
        Some(port) => {
            // More than five are no port, however many they are.
            let digits: Vec<char> = port.chars().take(6).take_while(|c| is_digit(*c)).collect();
            if !(2..=5).contains(&digits.len()) {
                return false;
            }
            &port[digits.into_iter().map(char::len_utf8).sum()..]
        }
    };
    path.is_empty() || path.starts_with(['/', '?', '#'])
}

/// Labels and a top domain of lower-case letters.
fn is_host(tables: &Tables, host: &str) -> bool {
    let Some((labels, top)) = host.rsplit_once('.') else { return false };
    let letters = top.chars().count();
    let inner = |c: char| c.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&c);
    let label = |label: &str| {
        let length = label.chars().count();
        (1..=64).contains(&length)
            && label.starts_with(inner)
            && label.ends_with(inner)
            && label.chars().all(|c| inner(c) || matches!(c, '_' | '-'))
    };
    (2..=63).contains(&letters) && top.chars().all(|c| tables.is(c, LOWER)) && labels.split('.').all(label)
}

/// Four octets that are neither of a private network nor reserved. The pattern writes the octets in the middle with
/// `\d` of any script.
fn is_ip(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    let [first, second, third, fourth] = parts[..] else { return false };
    let ascii = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| part.parse::<u16>().ok().filter(|_| ascii(part) && !part.is_empty() && part.len() <= 3);
    let leading = |part: &str| number(part).filter(|_| !part.starts_with('0'));
    let (Some(a), Some(d)) = (leading(first), leading(fourth)) else { return false };
    // `1?\d{1,2}` lets one and two digits begin with 0.
    let middle = |part: &str| number(part).filter(|n| *n <= 255 && !(part.len() == 3 && part.starts_with('0')));
    let (Some(b), Some(_)) = (middle(second), middle(third)) else { return false };
    let private =
        matches!(a, 10 | 127) || matches!((a, b), (169, 254) | (192, 168)) || (a == 172 && (16..32).contains(&b));
    (1..=223).contains(&a) && (1..=254).contains(&d) && !private
}
