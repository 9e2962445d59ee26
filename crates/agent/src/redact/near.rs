//! What stands beside a candidate: a number within a longer word or number is another thing.

/// The character before a byte.
pub(super) fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// The character at a byte.
pub(super) fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// Whether nothing on the left makes a longer word or number of what begins here.
pub(super) fn begins(text: &str, at: usize) -> bool {
    match before(text, at) {
        None => true,
        Some('.' | ',') => !before(text, at - 1).is_some_and(|c| c.is_ascii_digit()),
        Some(c) => !c.is_alphanumeric() && c != '_',
    }
}

/// Whether nothing on the right makes a longer word or number of what ends here.
pub(super) fn ends(text: &str, at: usize) -> bool {
    match after(text, at) {
        None => true,
        Some('.' | ',') => !after(text, at + 1).is_some_and(|c| c.is_ascii_digit()),
        Some(c) => !c.is_alphanumeric() && c != '_',
    }
}

/// Whether a character stands between the groups of a long number.
pub(super) fn is_separator(c: char) -> bool {
    // The no-break spaces and the no-break hyphen come with what is copied from documents.
    matches!(c, ' ' | '-' | '\u{a0}' | '\u{202f}' | '\u{2011}')
}
