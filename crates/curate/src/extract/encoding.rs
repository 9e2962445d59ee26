//! Bytes to text: which encoding a page has. Knows of HTML only how it names an encoding in its first bytes.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::borrow::Cow;

/// How far the declaration of an encoding is looked for. The standard asks for 1,024 bytes, but pages put it later.
const PRESCAN: usize = 8192;
/// How much of a page the guess reads.
const GUESS: usize = 1 << 16;

/// The page as text, and the name of its encoding in the WHATWG's list. In this order: a byte order mark; UTF-8 where
/// all bytes are, whatever the page says of itself; the label of the HTTP header; the page's own label; a guess from
/// the bytes. What cannot be decoded becomes U+FFFD.
pub(super) fn decode<'a>(bytes: &'a [u8], charset: Option<&str>) -> (Cow<'a, str>, &'static str) {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return (encoding.decode_without_bom_handling(&bytes[length..]).0, encoding.name());
    }
    let label = charset.and_then(|label| Encoding::for_label(label.trim().as_bytes())).or_else(|| declared(bytes));
    // Seven-bit encodings look like ASCII, so like UTF-8.
    let escapes = label.is_some_and(|label| !label.is_ascii_compatible());
    if !escapes && let Ok(text) = std::str::from_utf8(bytes) {
        return (Cow::Borrowed(text), UTF_8.name());
    }
    let encoding = label.unwrap_or_else(|| {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(&bytes[..bytes.len().min(GUESS)], true);
        detector.guess(None, Utf8Detection::Allow)
    });
    (encoding.decode_without_bom_handling(bytes).0, encoding.name())
}

/// What follows the first `charset` or `encoding` and an equals sign inside a `<meta` or `<?xml` near the beginning.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(PRESCAN)].to_ascii_lowercase();
    let mut at = 0;
    while let Some(found) = head[at..].iter().position(|byte| *byte == b'<') {
        at += found + 1;
        let word: &[u8] = if head[at..].starts_with(b"meta") {
            b"charset"
        } else if head[at..].starts_with(b"?xml") {
            b"encoding"
        } else {
            continue;
        };
        let tag = &head[at..];
        let tag = &tag[..tag.iter().position(|byte| *byte == b'>').unwrap_or(tag.len())];
        let Some(begin) = tag.windows(word.len()).position(|window| window == word) else { continue };
        let value = tag[begin + word.len()..].trim_ascii_start();
        let Some(value) = value.strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
        let end = value.iter().position(|byte| b"\"'; \t\r\n/>?".contains(byte)).unwrap_or(value.len());
        if let Some(encoding) = Encoding::for_label(&value[..end]) {
            // A page whose label could be read as ASCII is not in UTF-16.
            return Some(if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_found() {
        let cases: [(&[u8], Option<&str>, &str, &str); 8] = [
            (b"\xef\xbb\xbfcaf\xc3\xa9", Some("latin1"), "café", "UTF-8"),
            (b"\xff\xfeh\0i\0", None, "hi", "UTF-16LE"),
            (b"caf\xe9", Some("iso-8859-1"), "café", "windows-1252"),
            (b"<meta charset=\"koi8-r\">\xc4\xc1", None, "<meta charset=\"koi8-r\">да", "KOI8-R"),
            (b"<?xml encoding='latin2'?>\xb3", None, "<?xml encoding='latin2'?>ł", "ISO-8859-2"),
            (
                b"<meta http-equiv=x content='text/html; charset=Shift_JIS'>\x82\xa0",
                None,
                "<meta http-equiv=x content='text/html; charset=Shift_JIS'>あ",
                "Shift_JIS",
            ),
            // The label is wrong: the bytes are UTF-8.
            (b"<meta charset=latin1>caf\xc3\xa9", Some("latin1"), "<meta charset=latin1>café", "UTF-8"),
            (b"no label, an odd one", Some("no-such"), "no label, an odd one", "UTF-8"),
        ];
        for (bytes, charset, text, name) in cases {
            let (decoded, encoding) = decode(bytes, charset);
            assert_eq!((decoded.as_ref(), encoding), (text, name));
        }
    }

    #[test]
    fn without_a_label_the_bytes_are_asked() {
        let russian =
            encoding_rs::WINDOWS_1251.encode("Маяк в конце пирса построили, чтобы рыбаки нашли дорогу домой.").0;
        let (text, name) = decode(&russian, None);
        assert_eq!(name, "windows-1251");
        assert!(text.starts_with("Маяк"));
    }
}
