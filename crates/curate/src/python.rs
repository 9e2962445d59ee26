//! Text as Python takes it apart: which characters are spaces and letters, where lines end, what `strip` and `split`
//! do. The published filters are written in Python, and a verdict hangs on these details. Knows no filter.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// `str.isspace` of one character. It knows four more than Unicode's `White_Space`: U+001C to U+001F.
pub fn is_space(c: char) -> bool {
    match c {
        '\t'..='\r' | '\x1c'..=' ' => true,
        c if c.is_ascii() => false,
        c => c.is_whitespace(),
    }
}

/// `str.isalpha` of one character: a letter by its general category, which leaves out what Unicode's `Alphabetic` adds.
pub fn is_letter(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    c.general_category_group() == GeneralCategoryGroup::Letter
}

/// Whether a character's category is one of punctuation (`P*`).
pub fn is_punctuation(c: char) -> bool {
    match c {
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => false,
        c if c.is_ascii() => c.is_ascii_punctuation(),
        c => c.general_category_group() == GeneralCategoryGroup::Punctuation,
    }
}

/// Whether a character counts as part of a word in Python's `\w`: letters, numbers and the underscore.
pub fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}

/// Whether a character is a decimal digit (`Nd`), which is what Python's `\d` takes.
pub fn is_digit(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_digit();
    }
    c.general_category() == GeneralCategory::DecimalNumber
}

/// Whether a character is a mark that takes no room of its own (`Mn`).
pub fn is_nonspacing_mark(c: char) -> bool {
    !c.is_ascii() && c.general_category() == GeneralCategory::NonspacingMark
}

/// `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.lstrip`.
pub fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// `str.rstrip`.
pub fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.split` without arguments.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|part| !part.is_empty())
}

/// `len` of a text: its code points.
pub fn length(text: &str) -> usize {
    // Every byte that does not continue a character begins one.
    text.as_bytes().iter().filter(|byte| (**byte as i8) >= -0x40).count()
}

/// `str.splitlines`: ends at any of Python's ten ends of lines; nothing follows the last one.
pub fn lines(text: &str) -> Lines<'_> {
    Lines { rest: text }
}

/// See [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            // U+0085 and U+2028, U+2029 in UTF-8.
            let length = match bytes[at] {
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => 2,
                b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e => 1,
                0xc2 if bytes[at + 1] == 0x85 => 2,
                0xe2 if bytes[at + 1] == 0x80 && matches!(bytes[at + 2], 0xa8 | 0xa9) => 3,
                _ => 0,
            };
            if length > 0 {
                let line = &self.rest[..at];
                self.rest = &self.rest[at + length..];
                return Some(line);
            }
            at += 1;
        }
        Some(std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        for (text, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\n\nb\rc", &["a", "", "b", "c"]),
            ("\x0ba\x0cb\x1cc\x1dd\x1ee\u{85}f\u{2028}g\u{2029}", &["", "a", "b", "c", "d", "e", "f", "g"]),
            ("é\x1fü â€¨", &["é\x1fü â€¨"]),
        ] {
            assert_eq!(lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn characters() {
        for (c, space, letter, punctuation) in [
            (' ', true, false, false),
            ('\x1f', true, false, false),
            ('\u{85}', true, false, false),
            ('\u{200b}', false, false, false),
            ('a', false, true, false),
            ('ª', false, true, false),
            ('Ⅷ', false, false, false),
            ('ً', false, false, false),
            ('$', false, false, false),
            ('_', false, false, true),
            ('。', false, false, true),
        ] {
            assert_eq!((is_space(c), is_letter(c), is_punctuation(c)), (space, letter, punctuation), "{c:?}");
        }
        assert_eq!((strip(" \x1c a\u{a0}"), length("aé€𝄞")), ("a", 4));
        assert_eq!(split(" a\u{2003}b \n").collect::<Vec<_>>(), ["a", "b"]);
    }
}
