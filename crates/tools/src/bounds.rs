//! How much a tool may say: results that fit a model's context, and say what is missing. Knows no tool.

/// The largest result that a setting may ask for, in bytes of text.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// The beginning of a text, at most `bytes_max` bytes of it, and behind it what is missing and what to do about it.
pub fn cut(mut text: String, bytes_max: usize, advice: &str) -> String {
    if text.len() > bytes_max {
        let whole = text.len();
        let kept = text.floor_char_boundary(bytes_max);
        text.truncate(kept);
        text += &format!("\n[cut: {} bytes more{}{advice}]", whole - kept, if advice.is_empty() { "" } else { "; " });
    }
    text
}

/// Bytes as a text of which nobody can say that it was something else: what is no UTF-8 becomes `�`.
pub fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, bytes_max, advice, expected) in [
            ("abc", 3, "ask for less", "abc"),
            ("abcd", 3, "ask for less", "abc\n[cut: 1 bytes more; ask for less]"),
            ("aéé", 2, "", "a\n[cut: 4 bytes more]"),
            ("é", 0, "", "\n[cut: 2 bytes more]"),
        ] {
            assert_eq!(cut(text.into(), bytes_max, advice), expected);
        }
        assert_eq!(text_of(b"a\xffb".to_vec()), "a\u{fffd}b");
    }
}
