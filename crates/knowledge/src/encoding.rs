//! Bytes of a text file to text: UTF-8, with a byte order mark or without, and UTF-16 with one. Knows no formats.

use narthex_base::{Error, Result};

/// The text in these bytes.
///
/// # Errors
/// If they are neither UTF-8 nor UTF-16 with a byte order mark, or hold a zero character, which no text has.
pub(crate) fn decode(bytes: &[u8]) -> Result<String> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                Error::input(format!("line {line} is not UTF-8"))
                    .cause(error)
                    .help("convert it: `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`, with the encoding that it has")
            })?;
            text.to_string()
        }
    };
    match text.find('\0') {
        Some(at) => {
            let line = 1 + text[..at].matches('\n').count();
            Err(Error::input(format!("line {line} holds a zero character: this is no text")))
        }
        None => Ok(text),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err(Error::input("the file begins like UTF-16 and is not").help("save it as UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for (bytes, expected) in [
            (&b"a\xc3\xa9"[..], Ok("aé")),
            (b"\xef\xbb\xbfa", Ok("a")),
            (b"\xff\xfea\0\xe9\0", Ok("aé")),
            (b"\xfe\xff\0a\0\xe9", Ok("aé")),
            (b"", Ok("")),
            (b"\xff\xfea", Err("UTF-16")),
            (b"\xff\xfe\0\xd8", Err("UTF-16")),
            (b"a\n\xe9", Err("line 2 is not UTF-8")),
            (b"a\nb\nc\0", Err("line 3 holds a zero")),
        ] {
            match (decode(bytes), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(expected)) => assert!(error.what().contains(expected), "{error}"),
                (found, _) => panic!("{bytes:?}: {found:?}"),
            }
        }
    }
}
