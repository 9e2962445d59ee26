//! Documents that wait on disk until all have been seen. Knows strings with a measure in bytes.

use crate::output::Pending;
use narthex_base::{Error, Result};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// Documents on disk: (bytes, length, string) each.
pub(crate) struct Spool {
    pending: Pending,
    file: BufWriter<File>,
    pub documents: u64,
    pub total_bytes: u64,
}

impl Spool {
    pub fn create(pending: Pending) -> Result<Self> {
        let file = BufWriter::new(pending.create()?);
        Ok(Self { pending, file, documents: 0, total_bytes: 0 })
    }

    /// Adds a document with its measure in bytes.
    pub fn push(&mut self, text: &str, bytes: u64) -> Result<()> {
        self.documents += 1;
        self.total_bytes += bytes;
        let length = text.len() as u64;
        let mut write = |bytes: &[u8]| self.file.write_all(bytes);
        let written = write(&bytes.to_le_bytes())
            .and_then(|()| write(&length.to_le_bytes()))
            .and_then(|()| write(text.as_bytes()));
        written.map_err(|error| self.pending.failed("cannot write", error))
    }

    /// Back to the first document.
    pub fn rewind(self) -> Result<SpoolReader> {
        let Spool { pending, file, .. } = self;
        let file = file.into_inner().map_err(|error| pending.failed("cannot write", error.into_error()))?;
        let mut reader = SpoolReader { file: BufReader::new(file), pending };
        reader.file.seek(SeekFrom::Start(0)).map_err(|error| reader.pending.failed("cannot read", error))?;
        Ok(reader)
    }
}

/// Reads a spool.
pub(crate) struct SpoolReader {
    file: BufReader<File>,
    pending: Pending,
}

impl SpoolReader {
    /// The next document and its measure; an error behind the last.
    pub fn next(&mut self) -> Result<(String, u64)> {
        let mut read = || {
            let (mut bytes, mut length) = ([0; 8], [0; 8]);
            self.file.read_exact(&mut bytes)?;
            self.file.read_exact(&mut length)?;
            let mut text = vec![0; u64::from_le_bytes(length) as usize];
            self.file.read_exact(&mut text)?;
            Ok((text, u64::from_le_bytes(bytes)))
        };
        let (text, bytes) = read().map_err(|error| self.pending.failed("cannot read", error))?;
        let text = String::from_utf8(text).map_err(|error| Error::internal("the spool is not UTF-8").cause(error))?;
        Ok((text, bytes))
    }
}
