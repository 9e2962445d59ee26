//! Finding files by path, glob and folder; opening them decompressed; reading lines with a limit.
//! Knows names and bytes, no rows.

use crate::spec::{Compression, Format};
use flate2::bufread::GzDecoder;
use globset::GlobBuilder;
use narthex_base::{Error, Result};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The first byte of a member of a gzip file.
const GZIP_MAGIC: u8 = 0x1f;
/// The widest window of Zstandard (`zstd --long=31`).
const ZSTD_WINDOW_LOG: u32 = 31;
/// Folders within folders that are searched.
const FOLDER_DEPTH: usize = 32;
/// Buffer between a decompressor and the reader of rows.
const BUFFER_BYTES: usize = 1 << 18;

/// The files that patterns stand for: a file, a folder (all files in it and below that `belongs` takes, hidden ones
/// and licences left out), or a glob (`*`, `?`, `[…]`, `{…}`, `**`). Relative patterns start at `base`. Sorted by
/// path, each file once. `kinds` names what belongs, for messages.
///
/// # Errors
/// If a pattern matches nothing or is not a glob, or a folder can't be read.
pub fn expand_to(
    base: &Path,
    patterns: &[String],
    belongs: impl Fn(&Path) -> bool,
    kinds: &str,
) -> Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let path = base.join(pattern);
        let found = if path.is_dir() {
            walk(&path)?.into_iter().filter(|file| belongs(file) && !is_paper(file)).collect()
        } else if path.exists() {
            vec![path.clone()]
        } else {
            matching(base, pattern)?
        };
        if found.is_empty() && path.is_dir() {
            return Err(
                Error::input(format!("the folder `{pattern}` holds no file of a known format")).help(kinds.to_string())
            );
        }
        if found.is_empty() {
            return Err(Error::input(format!("no file matches `{pattern}`"))
                .cause(format!("searched from {}", base.display()))
                .help("check the path; relative paths start at the folder of narthex.toml"));
        }
        files.extend(found);
    }
    Ok(files.into_iter().collect())
}

/// As [`expand_to`], of files of rows.
///
/// # Errors
/// As [`expand_to`].
pub fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let kinds = "known are .txt, .jsonl, .csv, .tsv and .parquet; name other files one by one, with `format`";
    expand_to(base, patterns, |file| Format::of_path(file).is_some(), kinds)
}

/// Whether a file of a folder says under which terms the others are, so that it is no data.
fn is_paper(path: &Path) -> bool {
    let name = path.file_stem().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
    ["LICENSE", "LICENCE", "COPYING", "NOTICE"].contains(&name.as_str())
}

/// The files that a glob matches: the folders before its first wildcard are walked.
fn matching(base: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let components: Vec<Component> = Path::new(pattern).components().collect();
    let is_wild = |component: &Component| component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    let Some(first) = components.iter().position(is_wild) else { return Ok(vec![]) };
    let root = base.join(components[..first].iter().collect::<PathBuf>());
    let rest: PathBuf = components[first..].iter().collect();
    let glob = GlobBuilder::new(&rest.to_string_lossy()).literal_separator(true).build().map_err(|error| {
        Error::input(format!("`{pattern}` is not a glob"))
            .cause(error.kind())
            .help("escape `[` and `{` in names: `[[]`, `[{]`")
    })?;
    if !root.is_dir() {
        return Ok(vec![]);
    }
    let matcher = glob.compile_matcher();
    let mut files = walk(&root)?;
    files.retain(|file| file.strip_prefix(&root).is_ok_and(|relative| matcher.is_match(relative)));
    Ok(files)
}

/// All files in a folder and below, without hidden files and folders.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let unreadable = |error| Error::io("cannot read the folder", &folder, error);
        if depth > FOLDER_DEPTH {
            return Err(Error::input(format!("folders are nested more than {FOLDER_DEPTH} deep"))
                .at(folder.display(), None)
                .help("a link may lead back to its own folder; name the files with a glob instead"));
        }
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            match path.is_dir() {
                true => folders.push((path, depth + 1)),
                false => files.push(path),
            }
        }
    }
    Ok(files)
}

/// A file's size on disk.
pub(crate) fn size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?;
    match metadata.is_dir() {
        true => Err(Error::input(format!("{} is a folder, not a file", path.display()))),
        false => Ok(metadata.len()),
    }
}

/// Opens a file for reading its decompressed bytes; what is read from disk is added to `done`.
pub(crate) fn open(path: &Path, done: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    let counted = BufReader::with_capacity(BUFFER_BYTES, Counted { file, done: done.clone() });
    Ok(match Compression::of_path(path) {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, Gzip::new(counted))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(counted);
            let mut decoder = decoder.map_err(|error| Error::io("cannot decompress", path, error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|error| Error::io("cannot decompress", path, error))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    })
}

/// What to say when reading fails halfway.
pub(crate) fn read_error(path: &Path, error: io::Error) -> Error {
    let tool = match Compression::of_path(path) {
        Compression::None => return Error::io("cannot read", path, error),
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    Error::input("the compressed file is cut off or damaged")
        .at(path.display(), None)
        .cause(error)
        .help(format!("fetch the file again; `{tool} -t {}` tests it", path.display()))
}

/// The members of a gzip file one after the other. What follows the last is passed over, as gzip does it: tapes and
/// block devices fill up with zeros. A file of no bytes has no members.
struct Gzip<R: BufRead>(Option<Member<R>>);

enum Member<R: BufRead> {
    /// Before a member, or what follows the last.
    Before {
        input: R,
        first: bool,
    },
    Within(Box<GzDecoder<R>>),
}

impl<R: BufRead> Gzip<R> {
    fn new(input: R) -> Self {
        Self(Some(Member::Before { input, first: true }))
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.take() {
                None => return Ok(0),
                Some(Member::Before { mut input, first }) => {
                    let next = input.fill_buf()?;
                    if next.is_empty() || (!first && next[0] != GZIP_MAGIC) {
                        return Ok(0);
                    }
                    self.0 = Some(Member::Within(Box::new(GzDecoder::new(input))));
                }
                Some(Member::Within(mut member)) => {
                    let count = member.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        self.0 = Some(Member::Within(member));
                        return Ok(count);
                    }
                    self.0 = Some(Member::Before { input: member.into_inner(), first: false });
                }
            }
        }
    }
}

struct Counted {
    file: File,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.done.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// How a line ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The buffer holds it.
    Whole,
    /// It exceeds the limit and was skipped.
    TooLong,
    /// There is none.
    End,
}

/// Reads the next line into `buffer`, without its end (LF or CRLF). A longer line than
/// `limit_bytes` is skipped without being held.
pub(crate) fn read_line(reader: &mut dyn BufRead, buffer: &mut Vec<u8>, limit_bytes: usize) -> io::Result<Line> {
    buffer.clear();
    let mut length = 0;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() && length == 0 {
            return Ok(Line::End);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        if buffer.len() + taken <= limit_bytes {
            buffer.extend_from_slice(&available[..taken]);
        }
        let (used, finished) = (end.map_or(taken, |end| end + 1), end.is_some() || available.is_empty());
        length += used;
        reader.consume(used);
        if finished {
            break;
        }
    }
    if length > limit_bytes + 1 {
        return Ok(Line::TooLong);
    }
    if buffer.last() == Some(&b'\r') {
        buffer.pop();
    }
    Ok(Line::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_limit() {
        let read = |text: &[u8], limit| {
            // A small buffer, so that lines cross its end.
            let mut reader = BufReader::with_capacity(3, text);
            let (mut buffer, mut lines) = (vec![], vec![]);
            loop {
                match read_line(&mut reader, &mut buffer, limit).unwrap() {
                    Line::Whole => lines.push(String::from_utf8(buffer.clone()).unwrap()),
                    Line::TooLong => lines.push("TOO LONG".into()),
                    Line::End => return lines,
                }
            }
        };
        assert_eq!(read(b"", 9), [""; 0]);
        assert_eq!(read(b"a\n\r\nbc\r\nlast", 9), ["a", "", "bc", "last"]);
        assert_eq!(read(b"12345\n123456\n1\n", 5), ["12345", "TOO LONG", "1"]);
        assert_eq!(read(b"123456789012345", 5), ["TOO LONG"]);
        assert_eq!(read(b"\n\n", 5), ["", ""]);
    }

    #[test]
    fn patterns() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", "sub/c.txt.gz", "sub/deep/d.jsonl", "sub/e.pdf", ".hidden.txt", "odd[1].txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let names = |patterns: &[&str]| -> Result<Vec<String>> {
            let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
            let files = expand(folder.path(), &patterns)?;
            Ok(files.iter().map(|f| f.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_string()).collect())
        };
        for (patterns, expected) in [
            (&["b.txt", "a.txt", "b.txt"][..], &["a.txt", "b.txt"][..]),
            (&["*.txt"], &["a.txt", "b.txt", "odd[1].txt"]),
            (&["sub"], &["sub/c.txt.gz", "sub/deep/d.jsonl"]),
            (&["sub/*"], &["sub/c.txt.gz", "sub/e.pdf"]),
            (&["**/*.{jsonl,pdf}"], &["sub/deep/d.jsonl", "sub/e.pdf"]),
            (&["odd[1].txt"], &["odd[1].txt"]),
            (&["*.txt", "a.*"], &["a.txt", "b.txt", "odd[1].txt"]),
            (&["sub/../a.txt"], &["sub/../a.txt"]),
        ] {
            assert_eq!(names(patterns).unwrap(), expected, "{patterns:?}");
        }
        let absolute = folder.path().join("*.txt").to_str().unwrap().to_string();
        assert_eq!(expand(Path::new("/"), &[absolute]).unwrap().len(), 3);
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        for (pattern, expected) in [
            ("none.txt", "no file matches `none.txt`"),
            ("*.csv", "no file matches `*.csv`"),
            ("none/*.txt", "no file matches"),
            ("empty", "holds no file of a known format"),
            ("[", "is not a glob"),
        ] {
            let error = names(&["a.txt", pattern]).unwrap_err();
            assert!(error.what().contains(expected), "{pattern}: {error}");
        }
    }
}
