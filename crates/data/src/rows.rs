//! Rows of text, JSONL and CSV files, one file at a time and streaming. A broken row is a value,
//! not an error; an error is a file that can't be read on. Knows columns by name, no batches.

use crate::{
    bad_rows::BadRow,
    files::{Line, read_error, read_line},
    spec::{Format, SourceSpec, TextRows},
};
use narthex_base::{Error, Result, error::nearest};
use serde_json::{Map, Value};
use std::{
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A longer line is a broken row; a longer CSV record fails the file.
pub(crate) const LINE_LIMIT_BYTES: usize = 64 << 20;
/// A longer document fails the file (or, made of paragraphs, is a broken row).
pub(crate) const DOCUMENT_LIMIT_BYTES: usize = 1 << 30;
/// The allowance of a record that turned out too long.
const OVERDRAWN: u64 = u64::MAX;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Boolean,
    Integer,
    /// Whole numbers of which some have no double of their own (beyond 2^53): with fractions among them, they are text.
    Wide,
    Number,
    /// Strings as they are, all else as JSON text.
    Json,
}

/// A column of the table, and where the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    /// The column's name in the file.
    pub from: String,
    pub kind: Kind,
    /// It was mapped by the user: a row or header without it is broken.
    pub mapped: bool,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Boolean(bool),
    Integer(i64),
    Number(f64),
}

/// The next thing in a file.
pub(crate) enum Row {
    Cells(Vec<Cell>),
    Bad(usize, BadRow),
}

/// The rows of one file.
pub(crate) struct FileRows {
    path: PathBuf,
    reader: Reader,
    /// The last line read, from 1.
    line: usize,
}

enum Reader {
    /// The whole file is one row; `None` after it.
    Whole(Option<Box<dyn BufRead + Send>>),
    Paragraphs(Box<dyn BufRead + Send>, Vec<u8>),
    Lines(Box<dyn BufRead + Send>, Vec<u8>),
    Jsonl(Box<dyn BufRead + Send>, Vec<u8>),
    Csv(Box<Separated>),
}

struct Separated {
    reader: csv::Reader<Metered>,
    allowance: Arc<AtomicU64>,
    header: Vec<String>,
    record: csv::ByteRecord,
}

impl FileRows {
    /// Begins a file. Reads the header of CSV.
    pub(crate) fn new(path: &Path, spec: &SourceSpec, input: Box<dyn BufRead + Send>) -> Result<Self> {
        let reader = match (spec.format, spec.rows) {
            (Format::Text, TextRows::File) => Reader::Whole(Some(input)),
            (Format::Text, TextRows::Paragraph) => Reader::Paragraphs(input, vec![]),
            (Format::Text, TextRows::Line) => Reader::Lines(input, vec![]),
            (Format::Jsonl, _) => Reader::Jsonl(input, vec![]),
            (Format::Csv, _) => Reader::Csv(Box::new(Separated::new(path, b',', spec.quotes.unwrap_or(true), input)?)),
            (Format::Tsv, _) => {
                Reader::Csv(Box::new(Separated::new(path, b'\t', spec.quotes.unwrap_or(false), input)?))
            }
            (Format::Parquet, _) => return Err(Error::internal("Parquet has no rows of text")),
        };
        Ok(Self { path: path.to_path_buf(), reader, line: 0 })
    }

    /// The header of CSV.
    pub(crate) fn header(&self) -> &[String] {
        match &self.reader {
            Reader::Csv(separated) => &separated.header,
            _ => &[],
        }
    }

    /// The line of the last row read, from 1: its last one in text and JSONL, its first one in tables.
    pub(crate) fn line(&self) -> usize {
        match &self.reader {
            Reader::Csv(separated) => separated.record.position().map_or(0, |position| position.line() as usize),
            Reader::Whole(_) => 1,
            _ => self.line,
        }
    }

    /// The next JSON object, for finding out which columns there are.
    pub(crate) fn next_object(&mut self) -> Result<Option<Map<String, Value>>> {
        loop {
            match self.next_json()? {
                None => return Ok(None),
                Some(Ok(object)) => return Ok(Some(object)),
                Some(Err(_)) => {}
            }
        }
    }

    /// The next row, its cells in the order of `columns`.
    pub(crate) fn next(&mut self, columns: &[Column]) -> Result<Option<Row>> {
        let text = match &mut self.reader {
            Reader::Jsonl(..) => {
                let Some(object) = self.next_json()? else { return Ok(None) };
                let cells = object.and_then(|object| json_cells(object, columns));
                return Ok(Some(cells.map_or_else(|bad| Row::Bad(self.line, bad), Row::Cells)));
            }
            Reader::Csv(separated) => return separated.next(&self.path, columns),
            Reader::Whole(input) => {
                let Some(input) = input.take() else { return Ok(None) };
                whole_text(&self.path, input)?
            }
            Reader::Paragraphs(..) => self.next_paragraph()?,
            Reader::Lines(..) => self.next_line()?,
        };
        Ok(text.map(|(line, text)| match text {
            Ok(text) => Row::Cells(columns.iter().map(|_| Cell::Text(text.clone())).collect()),
            Err(bad) => Row::Bad(line, bad),
        }))
    }

    /// Reads a line into the reader's buffer and counts it.
    fn advance(&mut self) -> Result<Line> {
        let (Reader::Paragraphs(input, buffer) | Reader::Lines(input, buffer) | Reader::Jsonl(input, buffer)) =
            &mut self.reader
        else {
            return Err(Error::internal("the format has no lines"));
        };
        let line = read_line(input, buffer, LINE_LIMIT_BYTES).map_err(|error| read_error(&self.path, error))?;
        if line != Line::End {
            self.line += 1;
        }
        if self.line == 1 && buffer.starts_with(BYTE_ORDER_MARK) {
            buffer.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(line)
    }

    fn buffer(&self) -> &[u8] {
        match &self.reader {
            Reader::Paragraphs(_, buffer) | Reader::Lines(_, buffer) | Reader::Jsonl(_, buffer) => buffer,
            Reader::Whole(_) | Reader::Csv(_) => &[],
        }
    }

    fn next_line(&mut self) -> Result<Option<(usize, Result<String, BadRow>)>> {
        Ok(match self.advance()? {
            Line::End => None,
            Line::TooLong => Some((self.line, Err(too_long()))),
            Line::Whole => Some((self.line, utf8(self.buffer()))),
        })
    }

    fn next_paragraph(&mut self) -> Result<Option<(usize, Result<String, BadRow>)>> {
        let (mut text, mut bad) = (String::new(), None);
        let mut begun = false;
        loop {
            let line = match self.advance()? {
                Line::End => break,
                Line::TooLong => Err(too_long()),
                Line::Whole if self.buffer().iter().all(u8::is_ascii_whitespace) => {
                    if begun {
                        break;
                    }
                    continue;
                }
                Line::Whole => utf8(self.buffer()),
            };
            match line {
                Ok(line) if text.len() + line.len() < DOCUMENT_LIMIT_BYTES => {
                    if begun {
                        text.push('\n');
                    }
                    text.push_str(&line);
                }
                Ok(_) => {
                    _ = bad.get_or_insert((self.line, BadRow::new("paragraph too long", "the paragraph exceeds 1 GiB")))
                }
                Err(broken) => _ = bad.get_or_insert((self.line, broken)),
            }
            begun = true;
        }
        Ok(match (bad, begun) {
            (Some((line, bad)), _) => Some((line, Err(bad))),
            (None, true) => Some((self.line, Ok(text))),
            (None, false) => None,
        })
    }

    fn next_json(&mut self) -> Result<Option<Result<Map<String, Value>, BadRow>>> {
        loop {
            return Ok(match self.advance()? {
                Line::End => None,
                Line::TooLong => Some(Err(too_long())),
                Line::Whole if self.buffer().iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole => Some(json_object(self.buffer())),
            });
        }
    }
}

fn too_long() -> BadRow {
    BadRow::new("line too long", format!("the line exceeds {} MiB", LINE_LIMIT_BYTES >> 20))
}

fn utf8(bytes: &[u8]) -> Result<String, BadRow> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_string()),
        Err(error) => {
            Err(BadRow::new("invalid UTF-8", format!("not UTF-8 at byte {} of the line", error.valid_up_to() + 1)))
        }
    }
}

/// A whole file as one text. Where it is not UTF-8, the line is told.
fn whole_text(path: &Path, input: Box<dyn BufRead + Send>) -> Result<Option<(usize, Result<String, BadRow>)>> {
    let mut bytes = Vec::new();
    let limit = DOCUMENT_LIMIT_BYTES as u64;
    input.take(limit + 1).read_to_end(&mut bytes).map_err(|error| read_error(path, error))?;
    if bytes.len() > DOCUMENT_LIMIT_BYTES {
        return Err(Error::input("the file is too long for one document")
            .at(path.display(), None)
            .cause(format!("a document may have {} MiB", DOCUMENT_LIMIT_BYTES >> 20))
            .help("set `rows = \"paragraph\"` or `rows = \"line\"` for this source, or cut the file"));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => (1, Ok(text)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            (line, Err(BadRow::new("invalid UTF-8", "the file is not UTF-8 from here on")))
        }
    }))
}

fn json_object(line: &[u8]) -> Result<Map<String, Value>, BadRow> {
    if let Err(bad) = std::str::from_utf8(line) {
        return Err(BadRow::new("invalid UTF-8", format!("not UTF-8 at byte {} of the line", bad.valid_up_to() + 1)));
    }
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(BadRow::new("not an object", format!("a JSON object is expected, not {}", json_type(&other)))),
        Err(error) => Err(BadRow::new("invalid JSON", format!("invalid JSON: {error}"))),
    }
}

pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn json_cells(mut object: Map<String, Value>, columns: &[Column]) -> Result<Vec<Cell>, BadRow> {
    let mut cells = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let missing = column.mapped && !object.contains_key(&column.from);
        if missing {
            return Err(BadRow::new("missing column", format!("it has no `{}`", column.from)));
        }
        // Two columns may come from one key; only the last use may take the value away.
        let again = columns[i + 1..].iter().any(|later| later.from == column.from);
        let value = match object.get_mut(&column.from) {
            None => Value::Null,
            Some(value) if again => value.clone(),
            Some(value) => value.take(),
        };
        cells.push(match (column.kind, value) {
            (_, Value::Null) => Cell::Null,
            (Kind::Text | Kind::Json, Value::String(text)) => Cell::Text(text),
            (Kind::Json, other) => Cell::Text(other.to_string()),
            (Kind::Boolean, Value::Bool(truth)) => Cell::Boolean(truth),
            (Kind::Integer | Kind::Wide, Value::Number(number)) => number.as_i64().map_or(Cell::Null, Cell::Integer),
            (Kind::Number, Value::Number(number)) => number.as_f64().map_or(Cell::Null, Cell::Number),
            (_, other) => {
                let why = format!("`{}` is {}, not a string", column.from, json_type(&other));
                return Err(BadRow::new("not a string", why));
            }
        });
    }
    Ok(cells)
}

/// Hands out no more than an allowance that is renewed with every record, so that an unclosed
/// quote does not swallow a file of any size.
struct Metered {
    input: Box<dyn BufRead + Send>,
    allowance: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let left = self.allowance.load(Ordering::Relaxed).checked_sub(count as u64);
        self.allowance.store(left.unwrap_or(OVERDRAWN), Ordering::Relaxed);
        left.map(|_| count).ok_or_else(|| io::Error::other("the record is too long"))
    }
}

impl Separated {
    fn new(path: &Path, delimiter: u8, quotes: bool, input: Box<dyn BufRead + Send>) -> Result<Self> {
        let allowance = Arc::new(AtomicU64::new(0));
        let metered = Metered { input, allowance: allowance.clone() };
        let mut builder = csv::ReaderBuilder::new();
        let builder = builder.delimiter(delimiter).quoting(quotes).has_headers(false).flexible(true);
        let reader = builder.from_reader(metered);
        let mut separated = Self { reader, allowance, header: vec![], record: csv::ByteRecord::new() };
        if separated.read(path)? {
            let wrong = |what: String| {
                Error::input(what).at(path.display(), 1).help("the first line must name the columns, each once")
            };
            for (i, field) in separated.record.iter().enumerate() {
                let name = std::str::from_utf8(field).map_err(|_| wrong("the header is not UTF-8".into()))?;
                let mut name = name.trim_start_matches('\u{feff}').trim().to_string();
                if name.is_empty() {
                    // pandas' index, or a separator at the end of lines.
                    name = format!("column_{}", i + 1);
                }
                if separated.header.contains(&name) {
                    return Err(wrong(format!("the column `{name}` appears twice")));
                }
                separated.header.push(name);
            }
        }
        Ok(separated)
    }

    /// Reads a record; false at the end.
    fn read(&mut self, path: &Path) -> Result<bool> {
        self.allowance.store(LINE_LIMIT_BYTES as u64, Ordering::Relaxed);
        let start = self.reader.position().line();
        self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(_) if self.allowance.load(Ordering::Relaxed) == OVERDRAWN => {
                Error::input(format!("a record is longer than {} MiB", LINE_LIMIT_BYTES >> 20))
                    .at(path.display(), start as usize)
                    .help("look for a quote (\") that is not closed near this line")
            }
            csv::ErrorKind::Io(error) => read_error(path, error),
            other => Error::input("cannot read the table").at(path.display(), None).cause(format!("{other:?}")),
        })
    }

    fn next(&mut self, path: &Path, columns: &[Column]) -> Result<Option<Row>> {
        if let Some(column) = columns.iter().find(|column| column.mapped && !self.header.contains(&column.from)) {
            return Err(no_such_column(path, &column.from, &self.header));
        }
        if !self.read(path)? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, |position| position.line() as usize);
        let (found, expected) = (self.record.len(), self.header.len());
        if found != expected {
            let why = format!("it has {found} fields, but the header has {expected}");
            return Ok(Some(Row::Bad(line, BadRow::new("wrong number of fields", why))));
        }
        let mut cells = Vec::with_capacity(columns.len());
        for column in columns {
            let Some(at) = self.header.iter().position(|name| *name == column.from) else {
                cells.push(Cell::Null);
                continue;
            };
            match std::str::from_utf8(&self.record[at]) {
                Ok(text) => cells.push(Cell::Text(text.to_string())),
                Err(_) => {
                    let bad = BadRow::new("invalid UTF-8", format!("`{}` is not UTF-8", column.from));
                    return Ok(Some(Row::Bad(line, bad)));
                }
            }
        }
        Ok(Some(Row::Cells(cells)))
    }
}

/// A mapped column that the file does not have.
pub(crate) fn no_such_column(path: &Path, name: &str, known: &[String]) -> Error {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let error = Error::input(format!("there is no column `{name}`"))
        .at(path.display(), 1)
        .cause(format!("the columns are: {}", known.join(", ")));
    match nearest(name, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help("correct `columns` of this source"),
    }
}
