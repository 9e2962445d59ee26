//! The bands of all signatures, on disk: one file for each band, of (key, number of the document) in 12 bytes.
//! Documents with the same key in one band are a pair. Whatever their number, no more than a named memory is used: a
//! band that is larger is read several times, each time for another range of keys.

use super::Clusters;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Bytes of a record: the key, then the document.
const RECORD: usize = 12;
const BUFFER: usize = 64 << 10;

/// What can go wrong with the files.
#[derive(Debug)]
pub struct BandsError {
    /// Which file.
    pub path: PathBuf,
    /// How.
    pub error: io::Error,
}

/// The files of the bands while they are written; they are removed at the end.
#[derive(Debug)]
pub struct Bands {
    files: Vec<(PathBuf, BufWriter<File>)>,
    documents: u32,
    records: u64,
}

impl Bands {
    /// Creates the files in a folder.
    ///
    /// # Errors
    /// If one can't be created.
    pub fn create(folder: &Path, bands: usize) -> Result<Self, BandsError> {
        let mut files = Vec::with_capacity(bands);
        for band in 0..bands {
            let path = folder.join(format!("band-{band:03}.spool"));
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let file = file.map_err(|error| BandsError { path: path.clone(), error })?;
            files.push((path, BufWriter::with_capacity(BUFFER, file)));
        }
        Ok(Self { files, documents: 0, records: 0 })
    }

    /// Takes the next document with a key for each band, or none if it is nobody's copy. False if there are too many
    /// documents to be numbered.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn push(&mut self, keys: Option<&[u64]>) -> Result<bool, BandsError> {
        let Some(next) = self.documents.checked_add(1) else { return Ok(false) };
        if let Some(keys) = keys {
            for ((path, file), key) in self.files.iter_mut().zip(keys) {
                let mut record = [0; RECORD];
                record[..8].copy_from_slice(&key.to_le_bytes());
                record[8..].copy_from_slice(&self.documents.to_le_bytes());
                file.write_all(&record).map_err(|error| BandsError { path: path.clone(), error })?;
            }
            self.records += 1;
        }
        self.documents = next;
        Ok(true)
    }

    /// Which documents belong together, with so many bytes for sorting. `look` is called now and then with the part
    /// that is done, and may stop it.
    ///
    /// # Errors
    /// If a file can't be read, or whatever `look` says.
    pub fn clusters<E: From<BandsError>>(
        mut self,
        memory_bytes: usize,
        mut look: impl FnMut(f64) -> Result<(), E>,
    ) -> Result<Clusters, E> {
        let mut clusters = Clusters::new(self.documents);
        let bands = self.files.len();
        // What is read is held with the place to sort it into.
        let passes = (self.records as usize * 16).div_ceil(memory_bytes.max(1 << 20)).max(1) as u64;
        for (band, (path, file)) in self.files.iter_mut().enumerate() {
            let fail = |error| BandsError { path: path.clone(), error };
            file.flush().map_err(fail)?;
            for pass in 0..passes {
                look((band as f64 + pass as f64 / passes as f64) / bands as f64)?;
                let of_pass = |key: u64| ((u128::from(key) * u128::from(passes)) >> 64) as u64 == pass;
                let mut pairs = records(file.get_mut(), of_pass).map_err(fail)?;
                // Equal keys with the first document in front; the order within the sort decides nothing.
                pairs.sort_unstable();
                for pair in pairs.windows(2) {
                    if pair[0].0 == pair[1].0 {
                        clusters.join(pair[0].1, pair[1].1);
                    }
                }
            }
        }
        Ok(clusters)
    }
}

impl Drop for Bands {
    fn drop(&mut self) {
        for (path, _) in &self.files {
            // There is nothing better to do if it stays.
            _ = std::fs::remove_file(path);
        }
    }
}

fn records(file: &mut File, wanted: impl Fn(u64) -> bool) -> io::Result<Vec<(u64, u32)>> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut record, mut found) = ([0; RECORD], Vec::new());
    loop {
        match reader.read_exact(&mut record) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(found),
            Err(error) => return Err(error),
        }
        let (key, document) = record.split_at(8);
        let key = u64::from_le_bytes(key.try_into().expect("8 bytes"));
        if wanted(key) {
            found.push((key, u32::from_le_bytes(document.try_into().expect("4 bytes"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_whatever_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut last = None;
        for memory in [1, 64 << 20] {
            let mut bands = Bands::create(folder.path(), 2).expect("files");
            for document in 0..200_000u64 {
                let keys = [document % 70_000, document].map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                assert!(bands.push((document != 5).then_some(&keys)).expect("written"));
            }
            let clusters = bands.clusters(memory, |_| Ok::<(), BandsError>(())).expect("read");
            assert_eq!((clusters.first(5), clusters.first(70_007), clusters.first(199_999)), (5, 7, 59_999));
            let all: Vec<u32> = (0..200_000).map(|document| clusters.first(document)).collect();
            assert!(last.replace(all.clone()).is_none_or(|last| last == all));
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "the files are gone");
    }
}
