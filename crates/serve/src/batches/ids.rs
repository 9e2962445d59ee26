//! Names of files and batches: how they are made and what they look like. Knows no folder.

use narthex_http::new_id;

/// Hexadecimal digits of a name.
const DIGITS: usize = 32;

/// A new name of a file: `file-` and 32 hexadecimal digits.
pub(crate) fn new_file_id() -> String {
    new_id("file")
}

/// A new name of a batch: `batch_` and 32 hexadecimal digits.
pub(crate) fn new_batch_id() -> String {
    new_id("batch").replacen('-', "_", 1)
}

/// A new name of an answer in a batch.
pub(crate) fn new_answer_id() -> String {
    new_id("batch_req").replacen('-', "_", 1)
}

/// Whether a text has the shape of a file's name. Nothing else may become part of a path.
pub(crate) fn is_file_id(text: &str) -> bool {
    is_id(text, "file-")
}

/// Whether a text has the shape of a batch's name. Nothing else may become part of a path.
pub(crate) fn is_batch_id(text: &str) -> bool {
    is_id(text, "batch_")
}

fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_like_ours_are_names() {
        let (file, batch) = (new_file_id(), new_batch_id());
        assert!(is_file_id(&file) && is_batch_id(&batch), "{file} {batch}");
        assert!(!is_file_id(&batch) && !is_batch_id(&file));
        let answer = new_answer_id();
        assert!(answer.starts_with("batch_req_") && !is_batch_id(&answer), "{answer}");
        let digits = "0123456789abcdef0123456789abcdef";
        for wrong in [
            "",
            "file-",
            "..",
            "file-..",
            "file-../../etc/passwd",
            &format!("file-{}", &digits[1..]),
            &format!("file-{digits}0"),
            &format!("file-{}", digits.to_uppercase()),
            &format!("file-{}/..", &digits[3..]),
            &format!("file-{}.json", &digits[5..]),
            &format!("file-{}é", &digits[2..]),
            &format!(" file-{digits}"),
            &format!("file-{digits}\n"),
            &format!("file-file-{digits}"),
            &"file-0".repeat(10_000),
        ] {
            assert!(!is_file_id(wrong), "{wrong:?}");
            assert!(!is_batch_id(&wrong.replace("file-", "batch_")), "{wrong:?}");
        }
    }
}
