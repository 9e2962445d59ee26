//! A cursor over foreign bytes, every step of it checked, and the files it stands on. Knows no format.

use memmap2::Mmap;
use narthex_base::{Error, Result};
use std::{fs::File, path::Path};

/// Maps a regular file into memory, read-only.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let fail = |error| Error::io("cannot read", path, error);
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::input("this is not a regular file").at(path.display(), None));
    }
    let file = File::open(path).map_err(fail)?;
    // SAFETY: the map is read-only and owned by the caller; a file that another process truncates meanwhile can end the
    // process with SIGBUS, but cannot be written through or read out of bounds.
    unsafe { Mmap::map(&file) }.map_err(fail)
}

/// Reads little-endian values one after the other.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// The place of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes; `what` says what they are.
    pub fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        if len > self.left() as u64 {
            return Err(Error::input(format!("the file ends within {what}"))
                .cause(format!("byte {}: {len} bytes are announced, {} are left", self.at, self.left()))
                .help("the file is cut off or damaged: fetch or copy it again"));
        }
        let start = self.at;
        self.at += len as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// Goes back by bytes that were taken.
    pub fn back(&mut self, len: usize) {
        self.at = self.at.saturating_sub(len);
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("as many bytes as asked for"))
    }

    pub fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub fn u16(&mut self, what: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
}

/// An error about a number that is beyond its limit.
pub(crate) fn beyond(what: &str, found: impl std::fmt::Display, limit: u64, at: usize) -> Error {
    Error::input(format!("{what} is {found}, more than {limit}"))
        .cause(format!("byte {at}"))
        .help("the file is damaged, or made to do harm")
}

/// A foreign name as it is shown in a message: one line, and not endless.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = name.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
