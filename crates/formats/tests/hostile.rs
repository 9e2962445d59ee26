//! Thousands of damaged files: every truncation, flipped bytes, numbers that lie. Nothing may panic, reserve much
//! memory, or fail without saying where. Which damage is done follows from a counter, so a failure comes back.

mod made;

use made::{Gguf, checkpoint, dict, golden, tensor};
use narthex_base::{Error, random::Stream};
use narthex_formats::{
    gguf::{About, File, Stored, from_hugging_face, to_hugging_face},
    pickle::{read_state_dict, to_safetensors},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The largest file here has 40 KB; a lying header must not reserve for what it announces.
const RESERVED_BYTES_MAX: usize = 4 << 20;

/// The system's allocator, which keeps the largest request.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// A folder with one file that is damaged again and again.
struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    refused: usize,
    accepted: usize,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join(name), _folder: folder, refused: 0, accepted: 0 }
    }

    /// Reads a damaged file. An error must name the file and say something.
    fn read<T>(&mut self, bytes: &[u8], read: impl Fn(&Path) -> Result<T, Error>) {
        fs::write(&self.path, bytes).unwrap();
        match read(&self.path) {
            Ok(_) => self.accepted += 1,
            Err(error) => {
                self.refused += 1;
                let place = error.place().unwrap_or_default();
                let folder = self.path.parent().unwrap().to_string_lossy().into_owned();
                assert!(place.starts_with(&folder) || error.what().contains(&folder), "no file is named: {error}");
                assert!(!error.what().is_empty() && error.exit_code() == 1, "{error}");
            }
        }
    }

    /// Every beginning of the file; all must be refused.
    fn truncate<T>(&mut self, whole: &[u8], read: impl Fn(&Path) -> Result<T, Error> + Copy) {
        for len in 0..whole.len() {
            let accepted = self.accepted;
            self.read(&whole[..len], read);
            assert_eq!(self.accepted, accepted, "{len} of {} bytes were accepted", whole.len());
        }
    }

    /// Every byte changed in several ways.
    fn flip<T>(&mut self, whole: &[u8], read: impl Fn(&Path) -> Result<T, Error> + Copy) {
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[at] ^= mask;
                self.read(&damaged, read);
            }
        }
    }

    /// So many files, each with a few places where numbers have become others, or pieces were cut out or doubled.
    fn mutate<T>(&mut self, whole: &[u8], within: usize, count: u64, read: impl Fn(&Path) -> Result<T, Error> + Copy) {
        const NUMBERS: [u64; 8] = [0, 1, u64::MAX, i64::MAX as u64, u32::MAX as u64, 1 << 32, 1 << 24, 0x7f7f_7f7f];
        let stream = Stream::new(1, "hostile files");
        for case in 0..count {
            let draw = stream.at(case);
            let mut damaged = whole.to_vec();
            for change in 0..1 + draw.below(0, 3) {
                let draw = draw.at(change);
                let at = draw.below(1, within.min(damaged.len()) as u64) as usize;
                match draw.below(2, 4) {
                    0 => damaged[at] = draw.bits(3) as u8,
                    1 => {
                        let number = NUMBERS[draw.below(3, NUMBERS.len() as u64) as usize].to_le_bytes();
                        let width = [1, 2, 4, 8][draw.below(4, 4) as usize].min(damaged.len() - at);
                        damaged[at..at + width].copy_from_slice(&number[..width]);
                    }
                    2 => {
                        let end = (at + 1 + draw.below(3, 16) as usize).min(damaged.len());
                        damaged.drain(at..end);
                    }
                    _ => {
                        let end = (at + 1 + draw.below(3, 16) as usize).min(damaged.len());
                        let piece = damaged[at..end].to_vec();
                        damaged.splice(at..at, piece);
                    }
                }
            }
            self.read(&damaged, read);
        }
    }

    fn finish(self, least: usize) {
        assert!(self.refused + self.accepted >= least && self.refused > 0, "{} + {}", self.refused, self.accepted);
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= RESERVED_BYTES_MAX, "{largest} bytes were reserved at once");
    }
}

#[test]
fn gguf() {
    let mut bench = Bench::new("x.gguf");
    let small = Gguf::small().bytes();
    bench.truncate(&small, File::open);
    bench.flip(&small, File::open);
    bench.mutate(&small, small.len(), 2000, File::open);
    bench.finish(4000);
}

#[test]
fn models_in_gguf() {
    let mut bench = Bench::new("x.gguf");
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama", "llama3", "gemma2", "gpt2"] {
        let whole = fs::read(golden("gguf").join(format!("{name}.gguf"))).unwrap();
        let data = File::open(&golden("gguf").join(format!("{name}.gguf"))).unwrap();
        let header_len = data.tensors().values().map(|tensor| tensor.bytes.start).min().unwrap();
        bench.mutate(&whole, header_len, 200, |path| to_hugging_face(path, folder.path()));
        // What says most stands first: counts and the architecture's constants.
        bench.mutate(&whole, 1500, 100, |path| to_hugging_face(path, folder.path()));
    }
    bench.finish(1200);
}

#[test]
fn checkpoints() {
    let tensors = [("a", tensor("0", 6, 0, &[2, 3], &[3, 1])), ("b", tensor("0", 6, 1, &[2, 2], &[1, 2]))];
    let small = checkpoint(&dict(&tensors));
    let out = tempfile::tempdir().unwrap();
    let mut bench = Bench::new("x.pt");
    let convert = |path: &Path| to_safetensors(path, out.path());
    bench.truncate(&small, read_state_dict);
    bench.flip(&small, convert);
    bench.mutate(&small, small.len(), 2000, convert);
    for name in ["module.pt", "legacy.bin"] {
        let whole = fs::read(golden("pickle").join(name)).unwrap();
        bench.mutate(&whole, whole.len(), 700, convert);
        if name == "legacy.bin" {
            bench.truncate(&whole, read_state_dict);
        }
    }
    bench.finish(5000);
}

/// The `safetensors` crate reads these, here and for models; it must hold for what is taken from elsewhere.
#[test]
fn safetensors() {
    let folder = tempfile::tempdir().unwrap();
    to_hugging_face(&golden("gguf/qwen2.gguf"), folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let made = folder.path().join("made.gguf");
    let write = || from_hugging_face(folder.path(), &made, Stored::F16, &About::default());
    let refused = |header: &str, len: Option<u64>, data: usize, expected: &str| {
        let len = len.unwrap_or(header.len() as u64).to_le_bytes();
        fs::write(&path, [&len, header.as_bytes(), &vec![0; data]].concat()).unwrap();
        let error = write().unwrap_err();
        assert!(error.place().unwrap().ends_with("model.safetensors"), "{error}");
        assert!(error.what().contains("not a whole safetensors file"), "{header}: {error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    };
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
    };
    refused(&one("[1]", "[0, 4]"), Some(u64::MAX), 4, "");
    refused(&one("[1]", "[0, 4]"), Some(1 << 40), 4, "");
    refused(&one("[1]", "[0, 4]"), Some(10_000), 4, "");
    refused(&one("[2]", "[0, 4]"), None, 4, "");
    refused(&one("[1]", "[0, 8]"), None, 8, "");
    refused(&one("[1]", "[4, 8]"), None, 8, "");
    refused(&one("[1]", "[4, 0]"), None, 4, "");
    refused(&one("[1]", "[0, 18446744073709551615]"), None, 4, "");
    refused(&one("[4294967296, 4294967296]", "[0, 4]"), None, 4, "");
    refused(&one("[9223372036854775808, 2]", "[0, 4]"), None, 4, "");
    refused(&one("[-1]", "[0, 4]"), None, 4, "");
    refused(&one("[1]", "[0, 4]"), None, 5, "");
    refused(&one("[1]", "[0, 4]").replace("F32", "X32"), None, 4, "");
    refused("{", None, 4, "");
    refused(&"[".repeat(100_000), None, 4, "");
    let two = |second: &str| format!(r#"{{"a": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, {second}}}"#);
    refused(&two(r#""b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#), None, 4, "");
    refused(&two(r#""b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}"#), None, 6, "");
    refused(&two(r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#), None, 8, "");
}
