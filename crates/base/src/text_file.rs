//! The bytes of text files as people have them: with a byte order mark, or not there at all but for the pointer that
//! Git LFS left. Knows no formats but JSON.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;

/// How the pointers of Git LFS begin (Git LFS specification, "The Pointer").
const POINTER: &str = "version https://git-lfs.github.com/spec/";

/// What the bytes of a file of JSON say.
///
/// # Errors
/// As [`text_of`], or if it is not JSON of this form: file and line are named.
pub fn json_of<T: DeserializeOwned>(bytes: Vec<u8>, path: &Path) -> Result<T> {
    let text = text_of(bytes, path)?;
    serde_json::from_str(&text).map_err(|error| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let what = if error.is_data() { "has the wrong form" } else { "is not valid JSON" };
        Error::input(format!("{name} {what}")).at(path.display(), error.line()).cause(error)
    })
}

/// The text in the bytes of a file, without a byte order mark. The path is for errors alone.
///
/// # Errors
/// If it is no UTF-8, or is a pointer of Git LFS instead of the file.
pub fn text_of(mut bytes: Vec<u8>, path: &Path) -> Result<String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::input("the file is not UTF-8").at(path.display(), None).cause(error.utf8_error()))?;
    if text.starts_with(POINTER) {
        return Err(Error::input("this is a pointer of Git LFS, not the file itself")
            .at(path.display(), None)
            .help("fetch it with `git lfs pull`, or download it from where the repository is"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn marks_pointers_and_broken_json() {
        let read = |bytes: &[u8]| json_of::<Value>(bytes.to_vec(), Path::new("m/config.json"));
        assert_eq!(read(b"\xef\xbb\xbf{\"a\": 1}").unwrap()["a"], 1);
        for (bytes, what, place) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"[..],
                "pointer of Git LFS",
                "config.json",
            ),
            (b"{\n\"a\": }", "config.json is not valid JSON", "config.json:2"),
            (b"\xff", "not UTF-8", "config.json"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.what().contains(what) && error.place().unwrap().ends_with(place), "{error}");
        }
    }
}
