//! What happened to the responses kept, a line of JSON each, so that they are there again after a restart. A line that a
//! crash cut short is as if it had never been. Knows no response's meaning.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes beyond those of its beginning after which a journal is worth writing anew.
const GROWTH_BYTES: u64 = 16 << 20;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// A response was kept.
    Add {
        /// Its id.
        id: String,
        /// Itself, without its output.
        response: Value,
        /// What was given.
        input: Vec<Value>,
        /// What was answered.
        output: Vec<Value>,
        /// The response that it goes on from.
        before: Option<String>,
    },
    /// A response was deleted; others may go on from it.
    Delete {
        /// Its id.
        id: String,
    },
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Its bytes when it was written anew.
    begun_bytes: u64,
}

/// The lines of a journal, oldest first, up to one that was cut short; none if there is no file.
///
/// # Errors
/// If it cannot be read, or a line before the last is none.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        text => text.map_err(|error| at(path, &error))?,
    };
    // What stands behind the last end of a line was cut short.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |(index, line): (usize, &[u8])| {
        let wrong =
            |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), index + 1));
        serde_json::from_slice(line).map_err(wrong)
    };
    lines.enumerate().map(parse).collect()
}

impl Journal {
    /// Writes a journal of these lines in the place of the one that is there.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn begin(path: &Path, lines: &[Line]) -> io::Result<Self> {
        let temporary = path.with_added_extension("tmp");
        let mut text = vec![];
        for line in lines {
            append(&mut text, line)?;
        }
        let mut file = File::create(&temporary).map_err(|error| at(&temporary, &error))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| at(&temporary, &error))?;
        fs::rename(&temporary, path).map_err(|error| at(path, &error))?;
        let file = OpenOptions::new().append(true).open(path).map_err(|error| at(path, &error))?;
        let bytes = text.len() as u64;
        Ok(Self { path: path.into(), file, bytes, begun_bytes: bytes })
    }

    /// Adds a line; it is on disk when this returns.
    ///
    /// # Errors
    /// If the disk does not take it. What it took of the line is taken back.
    pub fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = vec![];
        append(&mut text, line)?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            return Err(at(&self.path, &error));
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Whether much of it is about what is no longer kept, perhaps.
    pub fn has_grown(&self) -> bool {
        self.bytes > 2 * self.begun_bytes + GROWTH_BYTES
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn append(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(())
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
