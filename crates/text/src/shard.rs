//! Token shards: documents as token ids in one memory-mapped file, all that training reads.
//! Knows ids, document ends and the loss mask, but neither text nor vocabulary.
//!
//! The file, little-endian throughout:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `NRTXTOKS` |
//! | 4 | version, 1 |
//! | 4 | bytes a token, 2 or 4 |
//! | 4 | flags: 1 has a mask; 2 holds pairs: documents 2i and 2i + 1 are a chosen and a rejected answer to one prompt |
//! | 4 | vocabulary size |
//! | 8 × 3 | tokens, documents, bytes of source text |
//! | 16 | zero |
//! | tokens × 2 or 4 | token ids |
//! | documents × 8 | where each document ends, in tokens |
//! | tokens × 1 | 1 where the token is trained, else 0; only with a mask |

use memmap2::Mmap;
use narthex_base::{Error, Result};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"NRTXTOKS";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 64;
const FLAG_MASK: u32 = 1;
const FLAG_PAIRS: u32 = 2;
/// Vocabularies up to this size need two bytes a token.
const TWO_BYTE_VOCABULARY: usize = 1 << 16;

struct Header {
    width: u32,
    has_mask: bool,
    has_pairs: bool,
    vocab_size: u32,
    tokens: u64,
    documents: u64,
    text_bytes: u64,
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.has_mask, FLAG_MASK) | flag(self.has_pairs, FLAG_PAIRS);
        for (i, field) in [VERSION, self.width, flags, self.vocab_size].into_iter().enumerate() {
            bytes[8 + 4 * i..12 + 4 * i].copy_from_slice(&field.to_le_bytes());
        }
        for (i, field) in [self.tokens, self.documents, self.text_bytes].into_iter().enumerate() {
            bytes[24 + 8 * i..32 + 8 * i].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The header, or what is wrong with it.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES as usize {
            return Err(format!("it has {} bytes, less than the header's {HEADER_BYTES}", bytes.len()));
        }
        if &bytes[..8] != MAGIC {
            return Err("it does not begin like a token shard".into());
        }
        let word = |i: usize| u32::from_le_bytes(bytes[8 + 4 * i..12 + 4 * i].try_into().expect("4 bytes"));
        let long = |i: usize| le_u64(&bytes[24 + 8 * i..32 + 8 * i]);
        let (version, width, flags) = (word(0), word(1), word(2));
        if version != VERSION {
            return Err(format!("its version is {version}; this program reads version {VERSION}"));
        }
        if width != 2 && width != 4 {
            return Err(format!("its header claims {width} bytes a token, which must be 2 or 4"));
        }
        if flags & !(FLAG_MASK | FLAG_PAIRS) != 0 {
            return Err(format!("its header has unknown flags {flags:#x}"));
        }
        let (has_mask, has_pairs) = (flags & FLAG_MASK != 0, flags & FLAG_PAIRS != 0);
        let (vocab_size, tokens, documents) = (word(3), long(0), long(1));
        if has_pairs && (!has_mask || documents % 2 != 0) {
            return Err("its header claims pairs, but not a mask and an even number of documents".into());
        }
        Ok(Self { width, has_mask, has_pairs, vocab_size, tokens, documents, text_bytes: long(2) })
    }

    /// The file's length by this header; `None` if it exceeds 64 bits.
    fn file_bytes(&self) -> Option<u64> {
        let tokens = self.tokens.checked_mul(self.width.into())?;
        let mask = if self.has_mask { self.tokens } else { 0 };
        HEADER_BYTES.checked_add(tokens)?.checked_add(self.documents.checked_mul(8)?)?.checked_add(mask)
    }
}

fn le_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// Writes a shard document by document, holding none of them. The file appears under its name
/// once [`finish`](Self::finish) has it on disk; dropping the writer leaves nothing behind.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    tokens: Part,
    ends: Part,
    mask: Option<Part>,
    has_pairs: bool,
    vocab_size: u32,
    width: u32,
    token_count: u64,
    documents: u64,
    text_bytes: u64,
}

/// A file under a temporary name, removed when dropped.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Part {
    fn create(path: &Path, suffix: &str) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| Error::io("cannot create", &path, error))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("cannot write", &self.path, error))
    }

    /// Appends another part, from its start.
    fn append(&mut self, other: &mut Part) -> Result<()> {
        let copied = other.file.flush().and_then(|()| {
            let file = other.file.get_mut();
            file.seek(SeekFrom::Start(0))?;
            io::copy(&mut BufReader::new(file), &mut self.file)
        });
        copied.map(drop).map_err(|error| Error::io("cannot write", &self.path, error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `finish` the name is gone already; on a failure there is nothing better to do.
        _ = std::fs::remove_file(&self.path);
    }
}

impl ShardWriter {
    /// Begins a shard for ids below `vocab_size`; `with_mask` if every document has a loss mask.
    ///
    /// # Errors
    /// If the files can't be created, or the vocabulary exceeds 32 bits.
    pub fn create(path: &Path, vocab_size: usize, with_mask: bool) -> Result<Self> {
        let width = if vocab_size <= TWO_BYTE_VOCABULARY { 2 } else { 4 };
        let vocab_size = u32::try_from(vocab_size)
            .map_err(|_| Error::input(format!("a vocabulary of {vocab_size} tokens exceeds 32 bits")))?;
        let mut tokens = Part::create(path, ".partial")?;
        tokens.write(&[0; HEADER_BYTES as usize])?;
        let ends = Part::create(path, ".ends.partial")?;
        let mask = with_mask.then(|| Part::create(path, ".mask.partial")).transpose()?;
        let (path, has_pairs) = (path.to_path_buf(), false);
        Ok(Self { path, tokens, ends, mask, has_pairs, vocab_size, width, token_count: 0, documents: 0, text_bytes: 0 })
    }

    /// Begins a shard of pairs: documents are pushed two by two, the chosen answer first, each with its prompt and with
    /// a mask that is set where the answer is.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_pairs(path: &Path, vocab_size: usize) -> Result<Self> {
        Ok(Self { has_pairs: true, ..Self::create(path, vocab_size, true)? })
    }

    /// Adds a document: its ids, its mask (as many as ids) if the shard has one, and the bytes of
    /// text the ids stand for.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, the mask does not fit, or the disk is full.
    pub fn push(&mut self, ids: &[u32], mask: Option<&[bool]>, text_bytes: u64) -> Result<()> {
        if let Some(id) = ids.iter().find(|id| **id >= self.vocab_size) {
            return Err(Error::input(format!("token id {id} is outside the vocabulary of {}", self.vocab_size)));
        }
        match (&mut self.mask, mask) {
            (None, None) => {}
            (Some(part), Some(mask)) if mask.len() == ids.len() => {
                part.write(&mask.iter().map(|trained| u8::from(*trained)).collect::<Vec<u8>>())?;
            }
            _ => return Err(Error::internal("a document's loss mask does not fit the shard")),
        }
        let width = self.width as usize;
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes().into_iter().take(width)).collect();
        self.tokens.write(&bytes)?;
        self.token_count += ids.len() as u64;
        self.documents += 1;
        self.text_bytes += text_bytes;
        self.ends.write(&self.token_count.to_le_bytes())
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u64 {
        self.token_count
    }

    /// Completes the file, brings it to disk and gives it its name.
    ///
    /// # Errors
    /// If the disk is full, the file can't be renamed, or the last of the pairs lacks its second answer.
    pub fn finish(mut self) -> Result<()> {
        if self.has_pairs && !self.documents.is_multiple_of(2) {
            return Err(Error::internal("a shard of pairs ends in half a pair"));
        }
        self.tokens.append(&mut self.ends)?;
        if let Some(mask) = &mut self.mask {
            self.tokens.append(mask)?;
        }
        let header = Header {
            width: self.width,
            has_mask: self.mask.is_some(),
            has_pairs: self.has_pairs,
            vocab_size: self.vocab_size,
            tokens: self.token_count,
            documents: self.documents,
            text_bytes: self.text_bytes,
        };
        let file = &mut self.tokens.file;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| {
            file.write_all(&header.to_bytes())?;
            file.flush()?;
            file.get_ref().sync_all()
        });
        written.map_err(|error| Error::io("cannot write", &self.path, error))?;
        std::fs::rename(&self.tokens.path, &self.path).map_err(|error| Error::io("cannot write", &self.path, error))
    }
}

/// An open shard. Positions count tokens over the whole shard, from 0.
#[derive(Debug)]
pub struct TokenShard {
    map: Mmap,
    header: Header,
    len: usize,
    documents: usize,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens in {} documents", self.tokens, self.documents)
    }
}

impl TokenShard {
    /// Opens a shard: checks the header, the file's length and the documents' ends. The ids
    /// themselves are not read; the artifact's digest vouches for them.
    ///
    /// # Errors
    /// If the file can't be mapped, or is not a whole and consistent shard.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("cannot open the token shard", path, error))?;
        // SAFETY: the map is read-only and private to this value. A shard is written under
        // another name and renamed once complete, and artifacts are never changed in place, so
        // the file does not shrink or change while it is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io("cannot map the token shard", path, error))?;
        Self::validate(map).map_err(|cause| {
            Error::input("the token shard is damaged")
                .at(path.display(), None)
                .cause(cause)
                .help("remove the file and run the step that makes it again (`narthex run --force STEP`)")
        })
    }

    fn validate(map: Mmap) -> Result<Self, String> {
        let header = Header::from_bytes(&map)?;
        let expected = header.file_bytes().ok_or("its header claims more than 64 bits can count")?;
        if map.len() as u64 != expected {
            return Err(format!("it has {} bytes, but its header claims {expected}", map.len()));
        }
        let too_long = |_| "it is longer than this machine can address";
        let (len, documents) = (header.tokens.try_into(), header.documents.try_into());
        let shard = Self { map, header, len: len.map_err(too_long)?, documents: documents.map_err(too_long)? };
        let mut last = 0;
        for i in 0..shard.documents {
            let end = shard.end(i);
            if end < last || end > shard.len {
                return Err(format!("document {i} ends at token {end}, outside {last}..={}", shard.len));
            }
            last = end;
        }
        match last == shard.len {
            true => Ok(shard),
            false => Err(format!("its documents end at token {last} of {}", shard.len)),
        }
    }

    /// How many tokens the shard holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many documents the shard holds.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Bytes of the text these tokens stand for.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// All ids lie below this.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// The id at a position.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn get(&self, position: usize) -> u32 {
        assert!(position < self.len, "token {position} of {}", self.len);
        let width = self.header.width as usize;
        decode(&self.map[HEADER_BYTES as usize + position * width..][..width])
    }

    /// Replaces the content of `out` with the ids in a range of positions.
    ///
    /// # Panics
    /// If the range does not lie within the shard.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<u32>) {
        assert!(range.start <= range.end && range.end <= self.len, "tokens {range:?} of {}", self.len);
        let width = self.header.width as usize;
        let bytes = &self.map[HEADER_BYTES as usize + range.start * width..][..range.len() * width];
        out.clear();
        out.extend(bytes.chunks_exact(width).map(decode));
    }

    /// The document that holds a position.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn document_of(&self, position: usize) -> usize {
        assert!(position < self.len, "token {position} of {}", self.len);
        let (mut low, mut high) = (0, self.documents);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end(middle) <= position { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The positions of a document.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn document_range(&self, document: usize) -> Range<usize> {
        assert!(document < self.documents, "document {document} of {}", self.documents);
        let start = if document == 0 { 0 } else { self.end(document - 1) };
        start..self.end(document)
    }

    /// Whether the token at a position is trained; true throughout in a shard without a mask.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn mask(&self, position: usize) -> bool {
        assert!(position < self.len, "token {position} of {}", self.len);
        !self.has_mask() || self.map[self.map.len() - self.len + position] != 0
    }

    /// Whether the shard says which tokens are trained.
    pub fn has_mask(&self) -> bool {
        self.header.has_mask
    }

    /// Whether documents 2i and 2i + 1 are a chosen and a rejected answer to one prompt.
    pub fn has_pairs(&self) -> bool {
        self.header.has_pairs
    }

    fn end(&self, document: usize) -> usize {
        let ends = HEADER_BYTES as usize + self.len * self.header.width as usize;
        le_u64(&self.map[ends + 8 * document..][..8]) as usize
    }
}

fn decode(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => unreachable!("a token has 2 or 4 bytes, checked when opened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: [&[u32]; 4] = [&[1, 2, 3], &[], &[255], &[7, 8]];

    fn write(path: &Path, vocab_size: usize, with_mask: bool) {
        let mut writer = ShardWriter::create(path, vocab_size, with_mask).unwrap();
        for ids in DOCUMENTS {
            let mask: Vec<bool> = ids.iter().map(|id| id % 2 == 0).collect();
            writer.push(ids, with_mask.then_some(&mask[..]), 10).unwrap();
        }
        assert_eq!(writer.tokens(), 6);
        writer.finish().unwrap();
    }

    #[test]
    fn read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        for (vocab_size, with_mask, bytes) in [
            (300, false, 64 + 12 + 32),
            (300, true, 64 + 12 + 32 + 6),
            (1 << 16, false, 108),
            (70_000, true, 64 + 24 + 32 + 6),
        ] {
            write(&path, vocab_size, with_mask);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
            let shard = TokenShard::open(&path).unwrap();
            assert_eq!((shard.len(), shard.documents(), shard.text_bytes()), (6, 4, 40));
            assert_eq!((shard.vocab_size(), shard.has_mask(), shard.is_empty()), (vocab_size, with_mask, false));
            let all = DOCUMENTS.concat();
            let mut ids = vec![9];
            for start in 0..=6 {
                for end in start..=6 {
                    shard.read(start..end, &mut ids);
                    assert_eq!(ids, all[start..end]);
                }
            }
            for (i, id) in all.iter().enumerate() {
                assert_eq!((shard.get(i), shard.mask(i)), (*id, !with_mask || id % 2 == 0));
                assert!(shard.document_range(shard.document_of(i)).contains(&i));
            }
            assert_eq!((0..6).map(|i| shard.document_of(i)).collect::<Vec<_>>(), [0, 0, 0, 2, 3, 3]);
            assert_eq!((0..4).map(|i| shard.document_range(i)).collect::<Vec<_>>(), [0..3, 3..3, 3..4, 4..6]);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are gone");
    }

    #[test]
    fn empty_and_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        drop(ShardWriter::create(&path, 10, true).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        ShardWriter::create(&path, 10, true).unwrap().finish().unwrap();
        assert!(TokenShard::open(&path).unwrap().is_empty());
    }

    #[test]
    fn pairs_come_two_by_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        for documents in 0..4 {
            let mut writer = ShardWriter::create_pairs(&path, 10).unwrap();
            (0..documents).for_each(|_| writer.push(&[1, 2], Some(&[false, true]), 1).unwrap());
            let finished = writer.finish();
            assert_eq!(finished.is_ok(), documents % 2 == 0, "{documents}");
            if finished.is_ok() {
                let shard = TokenShard::open(&path).unwrap();
                assert!(shard.has_pairs() && shard.has_mask() && shard.documents() == documents);
            }
        }
    }

    #[test]
    fn wrong_documents_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::create(&folder.path().join("a.tokens"), 10, false).unwrap();
        assert!(writer.push(&[10], None, 1).unwrap_err().what().contains("outside the vocabulary"));
        assert!(writer.push(&[1], Some(&[true]), 1).is_err());
        let mut writer = ShardWriter::create(&folder.path().join("b.tokens"), 10, true).unwrap();
        assert!(writer.push(&[1], None, 1).is_err());
        assert!(writer.push(&[1], Some(&[]), 1).is_err());
        assert!(ShardWriter::create(&folder.path().join("no/c.tokens"), 10, true).is_err());
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        write(&path, 300, true);
        let good = std::fs::read(&path).unwrap();
        let set = |at: usize, value: u64, width: usize| {
            let mut bytes = good.clone();
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            bytes
        };
        let first_end = 64 + 12;
        for (bytes, expected) in [
            (good[..good.len() - 1].to_vec(), "has 113 bytes"),
            ([&good[..], &[0]].concat(), "has 115 bytes"),
            (good[..63].to_vec(), "less than the header"),
            (vec![], "less than the header"),
            (set(0, 0, 1), "does not begin like"),
            (set(8, 2, 4), "its version is 2"),
            (set(12, 3, 4), "3 bytes a token"),
            (set(16, 4, 4), "unknown flags"),
            (set(16, 2, 4), "claims pairs"),
            (set(24, u64::MAX, 8), "64 bits"),
            (set(24, 7, 8), "its header claims 117"),
            (set(32, u64::MAX / 8, 8), "64 bits"),
            (set(first_end, 7, 8), "document 0 ends at token 7"),
            (set(first_end + 8, 2, 8), "document 1 ends at token 2"),
            (set(first_end + 24, 5, 8), "its documents end at token 5 of 6"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = TokenShard::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("a.tokens"), "{expected}: {error}");
        }
        assert!(TokenShard::open(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
