//! Vectors of one width: their file, and which of them are nearest to a question. All have length 1, so the dot
//! product is the cosine. Knows neither texts nor encoders.
//!
//! The file: 64 bytes of header, then the numbers, all little-endian: `NXVECTOR`, version (u32), width (u32), count
//! (u64), zero (u64), BLAKE3 of what follows (32 bytes); then count × width f32.

use crate::{
    artifact::Card,
    scored::{Best, Scored},
};
use memmap2::Mmap;
use narthex_base::{Digest, Error, Result};
use rayon::prelude::*;
use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    path::Path,
};

const MAGIC: &[u8; 8] = b"NXVECTOR";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Numbers in a vector at most.
pub(crate) const WIDTH_MAX: usize = 65_536;

/// Vectors that one thread scans in a row: enough to be worth a task, few enough for all threads to have some.
const SCAN_CHUNK: u32 = 4096;

/// Sums that run side by side: a compiler makes two registers of AVX of them, and may not change the order of one sum.
const LANES: usize = 16;

// The file is little-endian and read as it stands.
const _: () = assert!(cfg!(target_endian = "little"), "vectors are read on little-endian machines");

/// The dot product of two vectors of one width. The order of additions depends on the width alone: with AVX2 it is the
/// same sum to the last bit, since products are not fused with additions.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was asked for what the function needs.
        return unsafe { dot_avx2(a, b) };
    }
    dot_lanes(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_lanes(a, b)
}

#[inline(always)]
fn dot_lanes(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Scales a vector to length 1.
///
/// # Errors
/// If it is not of this width, is zero, or has numbers that are none.
pub(crate) fn normalize(vector: &mut [f32], width: usize) -> Result<()> {
    if vector.len() != width {
        let len = vector.len();
        return Err(Error::input(format!("the encoder gave a vector of {len} numbers, but said {width}")));
    }
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if !square.is_finite() || square <= 0.0 {
        return Err(Error::input("the encoder gave a vector that is zero, or has numbers that are none"));
    }
    let scale = 1.0 / square.sqrt();
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
    Ok(())
}

/// Vectors in memory, one behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub numbers: &'a [f32],
    pub width: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn count(self) -> u32 {
        (self.numbers.len() / self.width.max(1)) as u32
    }

    pub(crate) fn get(self, id: u32) -> &'a [f32] {
        let start = id as usize * self.width;
        &self.numbers[start..start + self.width]
    }

    /// The nearest of these stretches, the nearest first: each is compared.
    pub(crate) fn nearest(self, question: &[f32], limit: usize, among: &[Range<u32>]) -> Vec<Scored> {
        let chunks = among.iter().flat_map(|range| {
            range.clone().step_by(SCAN_CHUNK as usize).map(|start| start..range.end.min(start + SCAN_CHUNK))
        });
        let scan = |chunk: Range<u32>| {
            let mut best = Best::new(limit);
            chunk.for_each(|id| best.push(Scored { score: dot(question, self.get(id)), id }));
            best
        };
        let join = |mut all: Best, some: Best| {
            some.into_sorted().into_iter().for_each(|scored| all.push(scored));
            all
        };
        let chunks: Vec<_> = chunks.collect();
        let best = match chunks.len() {
            0..=1 => chunks.into_iter().map(scan).fold(Best::new(limit), join),
            _ => chunks.into_par_iter().map(scan).reduce(|| Best::new(limit), join),
        };
        best.into_sorted()
    }
}

/// Writes the file. What comes back is the digest of the numbers.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(path: &Path, rows: Rows) -> Result<Digest> {
    let fail = |error| Error::io("cannot write", path, error);
    let body: &[u8] = bytemuck::cast_slice(rows.numbers);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(rows.width as u32).to_le_bytes());
    header.extend_from_slice(&u64::from(rows.count()).to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    let digest = hash(body);
    header.extend_from_slice(digest.as_bytes());
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    file.write_all(&header).and_then(|()| file.write_all(body)).map_err(fail)?;
    let file = file.into_inner().map_err(|error| fail(error.into_error()))?;
    file.sync_all().map_err(fail)?;
    Ok(digest.into())
}

/// BLAKE3 of many bytes, by all threads.
fn hash(bytes: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update_rayon(bytes).finalize()
}

/// A file of vectors, mapped into memory.
pub(crate) struct Vectors {
    map: Mmap,
    width: usize,
}

impl Vectors {
    /// Opens the file, and reads all of it once to check its digest.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |error| Error::io("cannot read", path, error);
        let broken = |why: &str| {
            Error::input(format!("the file of vectors {why}")).at(path.display(), None).help("make the knowledge anew")
        };
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(broken("is no regular file"));
        }
        let file = File::open(path).map_err(fail)?;
        // SAFETY: the map is read-only and owned by `Vectors`; a file that another process truncates meanwhile can end
        // the process with SIGBUS, but cannot be written through or read out of bounds.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        if map.len() < HEADER_BYTES || &map[..8] != MAGIC {
            return Err(broken("is none"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("4 bytes"));
        if u32_at(8) != VERSION {
            return Err(broken("was written by another version"));
        }
        let width = u32_at(12) as usize;
        let count = u64::from_le_bytes(map[16..24].try_into().expect("8 bytes"));
        let bytes = (1..=WIDTH_MAX).contains(&width).then(|| count.checked_mul(4 * width as u64)).flatten();
        if bytes != Some((map.len() - HEADER_BYTES) as u64) || count > u64::from(u32::MAX) {
            return Err(broken("is cut short"));
        }
        if hash(&map[HEADER_BYTES..]).as_bytes()[..] != map[32..HEADER_BYTES] {
            return Err(broken("is damaged: its digest does not match"));
        }
        Ok(Self { map, width })
    }

    /// Opens the file that a card tells of: of this many vectors of this width, with this digest.
    ///
    /// # Errors
    /// As [`Vectors::open`], or if it is another one.
    pub(crate) fn of_card(path: &Path, card: &Card) -> Result<Self> {
        let vectors = Self::open(path)?;
        let width = card.encoder.as_ref().map(|encoder| encoder.width);
        let same = width == Some(vectors.width) && vectors.rows().count() == card.passages;
        match same && card.vectors_digest == Some(vectors.digest()) {
            true => Ok(vectors),
            false => Err(Error::input("the file of vectors is not the one of this knowledge")
                .at(path.display(), None)
                .help("make the knowledge anew")),
        }
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        // Maps begin at a page, the header has 64 bytes, and the length was checked: the cast cannot fail.
        Rows { numbers: bytemuck::cast_slice(&self.map[HEADER_BYTES..]), width: self.width }
    }

    /// What the header says of the content.
    pub(crate) fn digest(&self) -> Digest {
        let bytes: [u8; 32] = self.map[32..HEADER_BYTES].try_into().expect("32 bytes");
        blake3::Hash::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::random::Stream;

    fn random(count: u32, width: usize) -> Vec<f32> {
        let stream = Stream::new(3, "vectors");
        let mut numbers: Vec<f32> = (0..count as u64 * width as u64).map(|at| stream.normal(at)).collect();
        numbers.chunks_mut(width).for_each(|vector| normalize(vector, width).unwrap());
        numbers
    }

    #[test]
    fn dot_products_of_all_widths() {
        for width in [1, 2, 15, 16, 17, 31, 32, 384, 385] {
            let numbers = random(2, width);
            let (a, b) = numbers.split_at(width);
            let exact: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(a, b)) - exact).abs() < 1e-6, "{width}");
            assert!((dot(a, a) - 1.0).abs() < 1e-5, "{width}");
            assert_eq!(dot(a, b).to_bits(), dot_lanes(a, b).to_bits(), "{width}");
        }
    }

    #[test]
    fn the_nearest_are_those_of_a_full_sort() {
        let numbers = random(10_000, 8);
        let rows = Rows { numbers: &numbers, width: 8 };
        let question = rows.get(77);
        for (limit, among) in
            [(10, &[(0, 10_000)][..]), (3, &[(5, 9), (70, 80)]), (0, &[(0, 9)]), (5, &[]), (20, &[(9_000, 9_005)])]
        {
            let among: Vec<Range<u32>> = among.iter().map(|(start, end)| *start..*end).collect();
            let mut expected: Vec<Scored> =
                among.iter().cloned().flatten().map(|id| Scored { score: dot(question, rows.get(id)), id }).collect();
            expected.sort_by(|a, b| b.cmp(a));
            expected.truncate(limit);
            assert_eq!(rows.nearest(question, limit, &among), expected, "{limit} among {among:?}");
        }
    }

    #[test]
    fn what_encoders_may_not_give() {
        for (mut vector, expected) in [
            (vec![1.0, 2.0, 3.0], "3 numbers, but said 2"),
            (vec![0.0, 0.0], "zero"),
            (vec![f32::NAN, 1.0], "none"),
            (vec![f32::INFINITY, 1.0], "none"),
        ] {
            let error = normalize(&mut vector, 2).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
        }
        // Squares beyond what f32 holds.
        let mut large = vec![1e30, 1e30];
        normalize(&mut large, 2).unwrap();
        assert!((large[0] - 0.5_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn files_are_read_back_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.f32");
        let numbers = random(5, 3);
        write(&path, Rows { numbers: &numbers, width: 3 }).unwrap();
        let read = Vectors::open(&path).unwrap();
        assert_eq!((read.rows().numbers, read.rows().count()), (&numbers[..], 5));
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(read.digest(), Digest::of(&sound[HEADER_BYTES..]));
        for (change, expected) in [
            ((|bytes| bytes.truncate(30)) as fn(&mut Vec<u8>), "is none"),
            (|bytes| bytes[0] = b'X', "is none"),
            (|bytes| bytes[8] = 9, "another version"),
            (|bytes| bytes[12] = 0, "cut short"),
            (|bytes| bytes[20] = 1, "cut short"),
            (|bytes| bytes[23] = 255, "cut short"),
            (|bytes| bytes.truncate(100), "cut short"),
            (|bytes| bytes[70] ^= 1, "digest does not match"),
        ] {
            let mut bytes = sound.clone();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let error = Vectors::open(&path).err().unwrap();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
