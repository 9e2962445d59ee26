//! The digests by which the Hub knows its files: SHA-256 for large ones, git's own for the rest.

use narthex_base::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{fmt, fs::File, io::Read, path::Path};

/// Bytes read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checksum {
    /// SHA-256 of the bytes, in hexadecimal: what Git LFS names files by.
    Sha256(String),
    /// SHA-1 of git's header and the bytes, in hexadecimal: what git names files by. It guards against accidents, not
    /// against somebody who makes two files with one digest on purpose.
    Git(String),
}

impl Checksum {
    /// A digest by its length: 64 hexadecimal digits are SHA-256, 40 are git's. Quotes and the mark of weak tags are
    /// ignored.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let digits = tag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match digits.len() {
            64 if is_hex => Some(Self::Sha256(digits)),
            40 if is_hex => Some(Self::Git(digits)),
            _ => None,
        }
    }

    /// The digest's hexadecimal digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// Whether a file has this digest.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn matches(&self, path: &Path) -> Result<bool> {
        let fail = |error| Error::io("cannot read", path, error);
        let mut file = File::open(path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        let mut block = vec![0; BLOCK_BYTES];
        let mut feed = |update: &mut dyn FnMut(&[u8])| -> Result<()> {
            loop {
                match file.read(&mut block).map_err(fail)? {
                    0 => return Ok(()),
                    count => update(&block[..count]),
                }
            }
        };
        let found = match self {
            Self::Sha256(_) => {
                let mut hasher = Sha256::new();
                feed(&mut |bytes| hasher.update(bytes))?;
                hex(&hasher.finalize())
            }
            Self::Git(_) => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {bytes}\0"));
                feed(&mut |bytes| hasher.update(bytes))?;
                hex(&hasher.finalize())
            }
        };
        Ok(found == self.digits())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:…` or `git-sha1:…`
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "sha256:{digits}"),
            Self::Git(digits) => write!(f, "git-sha1:{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "hello\n").unwrap();
        for (tag, expected) in [
            // `git hash-object` and `sha256sum` of "hello\n".
            ("\"ce013625030ba8dba906f756967f9e9ca394464a\"", Some(true)),
            ("W/\"5891B5B522D5DF086D0FF0B110FBD9D21BB4FC7163AF34D08286A2E846F6BE03\"", Some(true)),
            ("ce013625030ba8dba906f756967f9e9ca394464b", Some(false)),
            ("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04", Some(false)),
            ("\"5f1-603a\"", None),
            ("zz013625030ba8dba906f756967f9e9ca394464a", None),
        ] {
            assert_eq!(Checksum::from_tag(tag).map(|sum| sum.matches(&path).unwrap()), expected, "{tag}");
        }
    }
}
