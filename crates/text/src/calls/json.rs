//! Follows one JSON value character by character (RFC 8259), without building it. Knows nothing of calls.

use super::input::{Broken, Read};

/// Deeper values are refused, as serde_json's reader refuses them.
const DEEPEST: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must begin here.
    Value,
    /// A value may begin here, or the list ends.
    ValueOrEnd,
    /// A key must begin here.
    Key,
    /// A key may begin here, or the object ends.
    KeyOrEnd,
    /// The colon behind a key.
    Colon,
    /// Behind a value: a comma or an end.
    After,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    /// This many hexadecimal digits are still to come.
    Hex {
        left: u8,
        key: bool,
    },
    /// What is still to come of `true`, `false` or `null`.
    Word(&'static str),
    Number(Number),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

/// Follows one value.
pub(crate) struct Scanner {
    /// `{` or `[` of each container that is open.
    open: Vec<char>,
    state: State,
}

impl Scanner {
    /// Before a value.
    pub(crate) fn new() -> Self {
        Self { open: vec![], state: State::Value }
    }

    /// The value is complete, and nothing can belong to it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Done
    }

    /// The value is complete if it ends here.
    pub(crate) fn is_complete(&self) -> bool {
        use Number::{Exponent, Fraction, Whole, Zero};
        self.is_closed()
            || self.open.is_empty() && matches!(self.state, State::Number(Whole | Zero | Fraction | Exponent))
    }

    /// Takes a character. False if the value ended before it.
    pub(crate) fn push(&mut self, char: char) -> Read<bool> {
        let space = matches!(char, ' ' | '\t' | '\n' | '\r');
        self.state = match (self.state, char) {
            (State::Done, _) => return Ok(false),
            (State::Text { key }, '"') => {
                if key {
                    State::Colon
                } else {
                    self.ended()
                }
            }
            (State::Text { key }, '\\') => State::Escape { key },
            (State::Text { .. }, '\0'..='\x1f') => return Err(Broken),
            (state @ State::Text { .. }, _) => state,
            (State::Escape { key }, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => State::Text { key },
            (State::Escape { key }, 'u') => State::Hex { left: 4, key },
            (State::Hex { left: 1, key }, '0'..='9' | 'a'..='f' | 'A'..='F') => State::Text { key },
            (State::Hex { left, key }, '0'..='9' | 'a'..='f' | 'A'..='F') => State::Hex { left: left - 1, key },
            (State::Word(rest), _) if rest.starts_with(char) => match &rest[1..] {
                "" => self.ended(),
                rest => State::Word(rest),
            },
            (State::Number(number), _) => match step(number, char) {
                Some(number) => State::Number(number),
                None if !matches!(number, Number::Minus | Number::Point | Number::E | Number::ESign) => {
                    if self.open.is_empty() {
                        self.state = State::Done;
                        return Ok(false);
                    }
                    self.state = State::After;
                    return self.push(char);
                }
                None => return Err(Broken),
            },
            // The white space around a value isn't part of it.
            (state, _) if space && !self.open.is_empty() => state,
            (State::Value | State::ValueOrEnd, '{' | '[') => {
                if self.open.len() == DEEPEST {
                    return Err(Broken);
                }
                self.open.push(char);
                if char == '{' { State::KeyOrEnd } else { State::ValueOrEnd }
            }
            (State::Value | State::ValueOrEnd, '"') => State::Text { key: false },
            (State::Value | State::ValueOrEnd, 't') => State::Word("rue"),
            (State::Value | State::ValueOrEnd, 'f') => State::Word("alse"),
            (State::Value | State::ValueOrEnd, 'n') => State::Word("ull"),
            (State::Value | State::ValueOrEnd, '-') => State::Number(Number::Minus),
            (State::Value | State::ValueOrEnd, '0') => State::Number(Number::Zero),
            (State::Value | State::ValueOrEnd, '1'..='9') => State::Number(Number::Whole),
            (State::ValueOrEnd, ']') | (State::KeyOrEnd, '}') => {
                self.open.pop();
                self.ended()
            }
            (State::Key | State::KeyOrEnd, '"') => State::Text { key: true },
            (State::Colon, ':') => State::Value,
            (State::After, ',') => {
                if self.open.last() == Some(&'{') {
                    State::Key
                } else {
                    State::Value
                }
            }
            (State::After, '}') if self.open.last() == Some(&'{') => {
                self.open.pop();
                self.ended()
            }
            (State::After, ']') if self.open.last() == Some(&'[') => {
                self.open.pop();
                self.ended()
            }
            _ => return Err(Broken),
        };
        Ok(true)
    }

    fn ended(&self) -> State {
        if self.open.is_empty() { State::Done } else { State::After }
    }
}

fn step(number: Number, char: char) -> Option<Number> {
    use Number::{E, ESign, Exponent, Fraction, Minus, Point, Whole, Zero};
    Some(match (number, char) {
        (Minus, '0') => Zero,
        (Minus, '1'..='9') | (Whole, '0'..='9') => Whole,
        (Zero | Whole, '.') => Point,
        (Point | Fraction, '0'..='9') => Fraction,
        (Zero | Whole | Fraction, 'e' | 'E') => E,
        (E, '+' | '-') => ESign,
        (E | ESign | Exponent, '0'..='9') => Exponent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many characters belong to the value; `None` if it is broken or has no end.
    fn follow(text: &str) -> Option<usize> {
        let mut scanner = Scanner::new();
        for (place, char) in text.chars().enumerate() {
            if scanner.is_closed() || !scanner.push(char).ok()? {
                return Some(place);
            }
        }
        scanner.is_complete().then(|| text.chars().count())
    }

    #[test]
    fn finds_the_end_of_a_value() {
        for (text, length) in [
            ("{}x", 2),
            (r#"{"a": [1, -2.5e+3, {"b": null}], "c": "}]\"\\"} tail"#, 47),
            ("[true,false , null]", 19),
            ("12,", 2),
            ("0.5", 3),
            ("-1E5]", 4),
            (r#""\u00e9\n""#, 10),
            ("null", 4),
            ("[[ ]\n]", 6),
        ] {
            assert_eq!(follow(text), Some(length), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_json() {
        for text in [
            "",
            "{",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "01]x[",
            "1.",
            "-",
            "[1}",
            "{]",
            "tru",
            "trux",
            "'a'",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            "[1 2]",
            "[\"a\" \"b\"]",
            "NaN",
            " 1",
            "[1.]",
            "[-]",
        ] {
            // A number may end before something else: the rest is the caller's.
            let whole = follow(text) == Some(text.chars().count());
            assert!(!whole, "{text}");
        }
        assert_eq!(follow(&"[".repeat(121)), None);
    }

    #[test]
    fn agrees_with_serde_json() {
        let pieces = ["{", "}", "[", "]", ",", ":", "\"a\"", "1", "-0.5e1", "null", " ", "\"\\n\""];
        let mut state = 1u64;
        let mut valid = 0;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..=(state >> 60) as usize % 7 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text += pieces[(state >> 33) as usize % pieces.len()];
            }
            let whole = follow(&text) == Some(text.chars().count());
            let right = serde_json::from_str::<serde_json::Value>(&text).is_ok() && text.trim() == text;
            assert_eq!(whole, right, "{text}");
            valid += usize::from(right);
        }
        assert!(valid > 1000, "{valid}");
    }
}
