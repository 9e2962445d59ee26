//! What a client's grammar in Lark's syntax may bring together: expressions that must hold at once, and JSON schemas
//! within. Knows no more of the syntax than where its texts, expressions and remarks begin and end.

use super::meeting::{Meetings, PATTERN_SQUARES_MAX, TEXTS_MAX};
use narthex_base::{Error, Result};
use serde_json::Value;

/// Refuses what the engine would compute without end.
///
/// # Errors
/// If too many expressions must hold at once.
pub(super) fn judged(grammar: &str) -> Result<()> {
    let (intersections, squares) = counted(grammar);
    if intersections > TEXTS_MAX {
        return Err(Error::input(format!("the operator `&` of more than {TEXTS_MAX} expressions is not supported")));
    }
    if squares > PATTERN_SQUARES_MAX {
        let most = PATTERN_SQUARES_MAX.isqrt();
        return Err(Error::input(format!("regular expressions of some {most} bytes or more are not supported")));
    }
    for (at, keyword) in grammar.match_indices("%json") {
        let rest = &grammar[at + keyword.len()..];
        let schema = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next();
        let Some(Ok(schema)) = schema else { continue };
        if let Some((keyword, where_it_is)) = Meetings::of(&schema).too_many() {
            return Err(Error::input(format!("the keyword `{keyword}` is not supported {where_it_is}")));
        }
    }
    Ok(())
}

/// How many `&` stand outside of texts, expressions and remarks, and the squares of the bytes of expressions.
fn counted(grammar: &str) -> (usize, usize) {
    let (mut intersections, mut squares, mut rest) = (0, 0, grammar);
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '&' => intersections += 1,
            '/' if rest.starts_with('/') => rest = &rest[rest.find('\n').unwrap_or(rest.len())..],
            '"' => rest = behind(rest, first),
            '/' => {
                let bytes = rest.len() - behind(rest, first).len();
                (squares, rest) = (squares + bytes * bytes, &rest[bytes..]);
            }
            _ => {}
        }
    }
    (intersections, squares)
}

/// What stands behind the next of these marks on the line that no backslash precedes.
fn behind(text: &str, mark: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => return &text[at..],
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == mark => return &text[at + c.len_utf8()..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(grammar: &str, expected: bool) {
        assert_eq!(judged(grammar).is_ok(), expected, "{grammar}");
    }

    #[test]
    fn what_must_hold_at_once_is_bounded() {
        let many = |part: &str, by: &str| vec![part; 14].join(by);
        check("start: \"a\" | B\nB: /[a-z]+/ & /.{1,3}/", true);
        check(&format!("start: {}", many("\"&amp;\"", " | ")), true);
        check(&format!("start: {}", many("/a&b/", " | ")), true);
        check(&format!("start: \"a\" // {}", many("x", " & ")), true);
        check(&format!("start: A\nA: {}", many("/a.b/", " & ")), false);
        check(&format!("start: \"\\\"\" A\nA: {}", many("/a.b/", "&")), false);
        check(&format!("start: /{}/ /b/", "a?".repeat(4000)), true);
        check(&format!("start: /b/ /{}/", "a?".repeat(4100)), false);
        check("start: %json {\"type\": \"object\"}", true);
        let all = many("{\"pattern\": \"a.b\"}", ", ");
        check(&format!("start: %json {{\"allOf\": [{all}]}}"), false);
        check(&format!("start: %json {{\"anyOf\": [{all}]}}"), true);
    }
}
