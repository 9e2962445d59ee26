//! Values that a run keeps from step to step: in memory, or in a file of its own, which is gone with the process. The
//! file is read and written past the system's cache where the file system can do that, ahead of and behind the work
//! (ZeRO-Infinity: Rajbhandari et al., 2021). Knows neither parameters nor steps.

use crate::gradients::{flat_tensor, flat_values};
use burn::tensor::Tensor;
use narthex_base::{Error, Result};
use narthex_model::cpu;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
};

/// Where values may begin in the file, in bytes: where a parameter may be cut.
const BORDER: usize = 1 << 16;

/// What reading past the cache asks of addresses and lengths, in bytes.
const ALIGNMENT: usize = 4096;

/// Values that are worked on at once, where they may be cut.
const PIECE: usize = 1 << 20;

/// Pieces that are read ahead, and as many that are written behind.
const AHEAD: usize = 2;

/// Files made by this process.
static SCRATCHES: AtomicU64 = AtomicU64::new(0);

/// Values that are kept.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are three for each parameter, of whatever size that is")]
pub(crate) enum Stored {
    /// In memory.
    Memory(Tensor<1>),
    /// In the file.
    Disk(Span),
}

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where it begins, in bytes.
    at: u64,
    /// Values in it.
    len: usize,
}

impl Stored {
    /// The values; `scratch` is where those on the disk are.
    pub(crate) fn values(&self, scratch: Option<&Scratch>) -> Result<Vec<f32>> {
        match (self, scratch) {
            (Self::Memory(tensor), _) => Ok(flat_values(tensor)),
            (Self::Disk(span), Some(scratch)) => scratch.read(*span, 0..span.len),
            (Self::Disk(_), None) => Err(Error::internal("values are on a disk that is not there")),
        }
    }

    /// The same as a tensor.
    pub(crate) fn tensor(&self, scratch: Option<&Scratch>) -> Result<Tensor<1>> {
        match self {
            Self::Memory(tensor) => Ok(tensor.clone()),
            Self::Disk(_) => Ok(flat_tensor(self.values(scratch)?, &cpu())),
        }
    }

    /// Puts in these, of which there are as many.
    pub(crate) fn set_values(&mut self, values: Vec<f32>, scratch: Option<&Scratch>) -> Result<()> {
        match (self, scratch) {
            (Self::Memory(tensor), _) => *tensor = flat_tensor(values, &tensor.device()),
            (Self::Disk(span), Some(scratch)) => scratch.write(*span, 0, &values)?,
            (Self::Disk(_), None) => return Err(Error::internal("values are on a disk that is not there")),
        }
        Ok(())
    }

    /// Puts in others, of which there are as many.
    pub(crate) fn set(&mut self, values: Tensor<1>, scratch: Option<&Scratch>) -> Result<()> {
        match (self, scratch) {
            (Self::Memory(tensor), _) => *tensor = values,
            (Self::Disk(span), Some(scratch)) => scratch.write(*span, 0, &flat_values(&values))?,
            (Self::Disk(_), None) => return Err(Error::internal("values are on a disk that is not there")),
        }
        Ok(())
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    file: File,
    end: u64,
}

/// A piece of work over values in the file: parts of spans, all of one range.
pub(crate) struct Job {
    pub(crate) spans: Vec<Span>,
    pub(crate) range: Range<usize>,
}

impl Job {
    /// The jobs for spans of `len` values, which may be cut or not.
    pub(crate) fn over(spans: &[Span], len: usize, whole: bool) -> Vec<Self> {
        let piece = if whole { len.max(1) } else { PIECE };
        let job = |start: usize| Self { spans: spans.to_vec(), range: start..len.min(start + piece) };
        (0..len).step_by(piece).map(job).collect()
    }
}

/// Bytes at an address that the file can be read to.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Scratch {
    /// An empty one, on the disk of a folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        // Processes of several hosts may see the folder, and have the same number.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("offload-{}-{}-{number}", std::process::id(), now.as_nanos()));
        let open = |flags: OFlags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).custom_flags(flags.bits() as i32).open(&path)
        };
        let fail = |error: io::Error| Error::io("cannot write", &path, error);
        // Not all file systems can be read past the cache.
        let file = open(OFlags::DIRECT).or_else(|_| open(OFlags::empty())).map_err(fail)?;
        // It is nobody's but this process's, and goes with it.
        std::fs::remove_file(&path).map_err(fail)?;
        Ok(Self { path, file, end: 0 })
    }

    /// Room for values, which are 0 until others are written.
    pub(crate) fn room(&mut self, len: usize) -> Result<Span> {
        let (at, bytes) = (self.end, (4 * len).next_multiple_of(BORDER) as u64);
        if bytes > 0 {
            fallocate(&self.file, FallocateFlags::empty(), at, bytes)
                .or_else(|error| match error {
                    rustix::io::Errno::OPNOTSUPP => self.file.set_len(at + bytes),
                    error => Err(error.into()),
                })
                .map_err(|error| {
                    Error::io("cannot make room in", &self.path, error).help(
                        "`offload = \"disk\"` keeps the optimizer's state in the project's folder: free some space",
                    )
                })?;
        }
        self.end += bytes;
        Ok(Span { at, len })
    }

    fn bytes_of(span: Span, range: &Range<usize>) -> (u64, usize) {
        (span.at + 4 * range.start as u64, (4 * range.len()).next_multiple_of(ALIGNMENT))
    }

    /// The values of a range that begins at a border.
    pub(crate) fn read(&self, span: Span, range: Range<usize>) -> Result<Vec<f32>> {
        let (at, bytes) = Self::bytes_of(span, &range);
        let mut buffer = Aligned::new(bytes);
        let read = self.file.read_exact_at(buffer.get(), at);
        read.map_err(|error| Error::io("cannot read", &self.path, error))?;
        let values = buffer.get()[..4 * range.len()].chunks_exact(4);
        Ok(values.map(|bytes| f32::from_le_bytes(std::array::from_fn(|i| bytes[i]))).collect())
    }

    /// Writes values from a border on.
    pub(crate) fn write(&self, span: Span, start: usize, values: &[f32]) -> Result<()> {
        let (at, bytes) = Self::bytes_of(span, &(start..start + values.len()));
        let mut buffer = Aligned::new(bytes);
        let to = buffer.get().chunks_exact_mut(4);
        to.zip(values).for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
        let written = self.file.write_all_at(buffer.get(), at);
        written.map_err(|error| Error::io("cannot write", &self.path, error))
    }

    /// Does all jobs in their order: reads what each is over, lets `work` change it, and writes it back. Reading is
    /// ahead of the work and writing behind it.
    pub(crate) fn stream(
        &self,
        jobs: &[Job],
        mut work: impl FnMut(usize, Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let (read, coming) = sync_channel(AHEAD);
            scope.spawn(move || {
                for job in jobs {
                    let values = job.spans.iter().map(|span| self.read(*span, job.range.clone())).collect();
                    if read.send(values).is_err() {
                        return;
                    }
                }
            });
            let (done, going) = sync_channel::<(usize, Vec<Vec<f32>>)>(AHEAD);
            let writer = scope.spawn(move || {
                going.into_iter().try_for_each(|(number, values)| {
                    let Job { spans, range } = &jobs[number];
                    spans.iter().zip(&values).try_for_each(|(span, values)| self.write(*span, range.start, values))
                })
            });
            let worked = (0..jobs.len()).try_for_each(|number| {
                let values: Result<Vec<Vec<f32>>> =
                    coming.recv().unwrap_or_else(|_| Err(Error::internal("nothing more is read")));
                let values = work(number, values?)?;
                // If it cannot be written, the writer says why.
                _ = done.send((number, values));
                Ok(())
            });
            drop(done);
            let written = writer.join().unwrap_or_else(|_| Err(Error::internal("writing panicked")));
            written.and(worked)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_jobs_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::new(folder.path()).unwrap();
        let (small, large) = (scratch.room(5).unwrap(), scratch.room(PIECE + 7).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
        scratch.write(small, 0, &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(scratch.read(large, PIECE..PIECE + 7).unwrap(), [0.0; 7]);
        let mut jobs = Job::over(&[small], 5, true);
        jobs.extend(Job::over(&[large], PIECE + 7, false));
        assert_eq!(jobs.iter().map(|job| job.range.clone()).collect::<Vec<_>>(), [0..5, 0..PIECE, PIECE..PIECE + 7]);
        let add = |number: usize, mut values: Vec<Vec<f32>>| {
            values[0].iter_mut().for_each(|value| *value += 1.0 + number as f32);
            Ok(values)
        };
        scratch.stream(&jobs, add).unwrap();
        assert_eq!(scratch.read(small, 0..5).unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0]);
        let large = scratch.read(large, 0..PIECE + 7).unwrap();
        assert!(large[..PIECE].iter().all(|value| *value == 2.0) && large[PIECE..].iter().all(|value| *value == 3.0));
        let failing = |_: usize, _: Vec<Vec<f32>>| Err(Error::input("no more"));
        assert!(scratch.stream(&jobs, failing).unwrap_err().to_string().contains("no more"));
    }
}
