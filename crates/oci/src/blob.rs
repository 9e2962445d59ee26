//! Bytes that a registry stores under their digest: in memory, a file as it is, or files packed as a tar that is
//! written anew each time it is read, so that nothing lies on the disk twice. Knows no registry.

use crate::reference::Sha256Digest;
use narthex_base::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes read at once.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// The unit of a tar.
const TAR_BLOCK: u64 = 512;

/// Bytes with their size and digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// SHA-256 of the bytes.
    pub digest: Sha256Digest,
    /// How many there are.
    pub bytes: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Arc<[u8]>),
    File(PathBuf),
    Tar(Arc<[Member]>),
}

/// A file in a tar.
#[derive(Clone, Debug)]
struct Member {
    header: Vec<u8>,
    file: PathBuf,
    bytes: u64,
}

impl Blob {
    /// Of bytes at hand.
    pub fn of_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        Self { digest: Sha256Digest::of_bytes(&bytes), bytes: bytes.len() as u64, source: Source::Memory(bytes.into()) }
    }

    /// Of a file, which must not change as long as the blob is used.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        Self::hashed(Source::File(path.into()), path)
    }

    /// Of a tar with these files: a path in it and the file for each, in this order, readable by all, owned by root,
    /// made at the beginning of 1970, so that the same files make the same bytes.
    ///
    /// # Errors
    /// If a file cannot be read, or a path is too long for a tar (255 bytes).
    pub fn of_tar(files: &[(String, PathBuf)]) -> Result<Self> {
        Self::of_tar_with(files, 0o644)
    }

    /// The same with these permissions.
    pub(crate) fn of_tar_with(files: &[(String, PathBuf)], mode: u32) -> Result<Self> {
        let mut members = Vec::new();
        for (path, file) in files {
            let meta = fs::metadata(file).map_err(|error| Error::io("cannot read", file, error))?;
            let mut header = tar::Header::new_ustar();
            header
                .set_path(path)
                .map_err(|error| Error::input(format!("`{path}` is no path that fits a tar")).cause(error))?;
            header.set_size(meta.len());
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            members.push(Member { header: header.as_bytes().to_vec(), file: file.clone(), bytes: meta.len() });
        }
        let first = files.first().map_or(Path::new("."), |(_, file)| file);
        Self::hashed(Source::Tar(members.into()), first)
    }

    fn hashed(source: Source, place: &Path) -> Result<Self> {
        let fail = |error| Error::io("cannot read", place, error);
        let mut reader = source.open().map_err(fail)?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match reader.read(&mut block).map_err(fail)? {
                0 => break,
                count => {
                    hasher.update(&block[..count]);
                    bytes += count as u64;
                }
            }
        }
        Ok(Self { digest: Sha256Digest::of_hash(&hasher.finalize()), bytes, source })
    }

    /// The bytes from this one on.
    ///
    /// # Errors
    /// If a file cannot be read, or there are fewer.
    pub fn open(&self, from: u64) -> Result<Box<dyn Read + Send>> {
        let fail =
            |error: io::Error| Error::input(format!("what {} was made of cannot be read", self.digest)).cause(error);
        if let Source::File(path) = &self.source {
            let mut file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
            file.seek(SeekFrom::Start(from)).map_err(|error| Error::io("cannot read", path, error))?;
            return Ok(Box::new(file));
        }
        let mut reader = self.source.open().map_err(fail)?;
        let skipped = io::copy(&mut reader.by_ref().take(from), &mut io::sink()).map_err(fail)?;
        if skipped < from {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(reader)
    }

    /// Writes the bytes, checked on the way: what changed since it was hashed is an error.
    ///
    /// # Errors
    /// If something cannot be read or written, or a file has changed.
    pub fn write(&self, to: &mut impl Write, place: &Path) -> Result<()> {
        let fail = |error| Error::io("cannot write", place, error);
        let (mut reader, mut hasher) = (self.open(0)?, Sha256::new());
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = reader.read(&mut block).map_err(|error| Error::input("cannot read a file").cause(error))?;
            if count == 0 {
                break;
            }
            hasher.update(&block[..count]);
            to.write_all(&block[..count]).map_err(fail)?;
        }
        if Sha256Digest::of_hash(&hasher.finalize()) != self.digest {
            return Err(Error::input("a file was changed while it was read").at(place.display(), None));
        }
        Ok(())
    }
}

impl Source {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(Cursor::new(bytes.clone())),
            Self::File(path) => Box::new(File::open(path)?),
            Self::Tar(members) => Box::new(TarReader { members: members.clone(), next: 0, now: None, ended: false }),
        })
    }
}

/// A tar as it is read: header, file and padding in turn, and two empty blocks at the end.
struct TarReader {
    members: Arc<[Member]>,
    next: usize,
    now: Option<Box<dyn Read + Send>>,
    ended: bool,
}

impl Read for TarReader {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(now) = &mut self.now {
                let count = now.read(block)?;
                if count > 0 || block.is_empty() {
                    return Ok(count);
                }
                self.now = None;
            }
            if self.ended {
                return Ok(0);
            }
            self.now = Some(match self.members.get(self.next) {
                Some(member) => {
                    let file = Exactly { file: File::open(&member.file)?, left: member.bytes };
                    let padding = member.bytes.next_multiple_of(TAR_BLOCK) - member.bytes;
                    let header = Cursor::new(member.header.clone());
                    Box::new(header.chain(file).chain(io::repeat(0).take(padding)))
                }
                None => {
                    self.ended = true;
                    Box::new(io::repeat(0).take(2 * TAR_BLOCK))
                }
            });
            self.next += 1;
        }
    }
}

/// As many bytes of a file as its header says: a file that became shorter would shift all that follows.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(block.len());
        let count = self.file.read(&mut block[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was packed"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Whether a file has this digest.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn matches(path: &Path, digest: &Sha256Digest) -> Result<bool> {
    Ok(Blob::of_file(path)?.digest == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_is_one_that_others_read_and_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<(String, PathBuf)> = [("a", 0_usize), ("b/c", 512), ("d", 1000)]
            .map(|(path, bytes)| {
                let file = folder.path().join(path.replace('/', "-"));
                fs::write(&file, vec![b'x'; bytes]).unwrap();
                (format!("models/{path}"), file)
            })
            .into();
        let blob = Blob::of_tar(&files).unwrap();
        let mut bytes = vec![];
        blob.write(&mut bytes, folder.path()).unwrap();
        assert_eq!(bytes.len() as u64, blob.bytes);
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<(String, u64, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.size(), entry.header().mtime().unwrap())
            })
            .collect();
        assert_eq!(found, [("models/a".into(), 0, 0), ("models/b/c".into(), 512, 0), ("models/d".into(), 1000, 0)]);
        assert_eq!(Blob::of_tar(&files).unwrap().digest, blob.digest);
        // From any byte on.
        for from in [0, 1, 511, 512, 700, blob.bytes] {
            let mut rest = vec![];
            blob.open(from).unwrap().read_to_end(&mut rest).unwrap();
            assert_eq!(rest, bytes[from as usize..]);
        }
        assert!(blob.open(blob.bytes + 1).is_err());
        fs::write(&files[2].1, "short").unwrap();
        assert!(blob.write(&mut vec![], folder.path()).is_err());
        fs::write(&files[2].1, vec![b'y'; 1000]).unwrap();
        assert!(blob.write(&mut vec![], folder.path()).unwrap_err().to_string().contains("changed"));
    }
}
