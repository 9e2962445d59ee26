//! UUIDs of version 8 (<https://www.rfc-editor.org/rfc/rfc9562>): new ones, and one for each name of ours, so that a
//! client which wants UUIDs gets the same one each time without anything being kept.

use narthex_base::Digest;
use narthex_http::entropy;

/// The UUID of a name; `kind` keeps names of different things apart.
pub(crate) fn uuid_of(kind: &str, name: &str) -> String {
    written(&Digest::of(format!("{kind}\0{name}").as_bytes()).to_string())
}

/// One that differs each time.
pub(crate) fn new_uuid() -> String {
    written(&format!("{:016x}{:016x}", entropy(), entropy()))
}

/// Whether a text has the form of a UUID, of whatever version.
pub(crate) fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| group.len() == length)
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// From 32 or more hexadecimal digits; those of version and variant are replaced.
fn written(digits: &str) -> String {
    let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..32]);
    format!("{a}-{b}-8{c}-a{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_form_and_names_their_own() {
        let of = uuid_of("run", "a");
        for uuid in [of.clone(), new_uuid()] {
            assert!(is_uuid(&uuid) && uuid.as_bytes()[14] == b'8' && uuid.as_bytes()[19] == b'a', "{uuid}");
        }
        assert_eq!(of, uuid_of("run", "a"));
        for (kind, name) in [("run", "b"), ("thread", "a")] {
            assert_ne!(of, uuid_of(kind, name));
        }
        for other in ["", "a", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdeg"] {
            assert!(!is_uuid(other), "{other}");
        }
    }
}
