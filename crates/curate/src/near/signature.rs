//! A text's signature: for each of bands × rows hashes, the least value among its runs of words.

use super::random::Twister;
use crate::{
    simplify::{Simplify, simplify},
    tokens,
};
use narthex_base::config::{NearDuplicates, RunHash};
use sha1::{Digest, Sha1};
use xxhash_rust::{xxh32::xxh32, xxh64::xxh64};

/// The Mersenne prime that hashes are taken modulo of.
const MODULUS: u64 = (1 << 61) - 1;

/// The least hashes of a text, band by band.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(pub Vec<u64>);

/// Signs texts.
#[derive(Clone, Debug)]
pub struct Signer {
    how: NearDuplicates,
    factors: Vec<u64>,
    summands: Vec<u64>,
    simplify: Simplify,
}

impl Signer {
    /// Draws the hashes' parameters from the seed.
    pub fn new(how: NearDuplicates) -> Self {
        let hashes = (how.bands * how.rows) as usize;
        let mut twister = Twister::new(how.seed);
        let factors = (0..hashes).map(|_| twister.between(1, MODULUS)).collect();
        let summands = (0..hashes).map(|_| twister.between(0, MODULUS)).collect();
        Self { how, factors, summands, simplify: Simplify::default() }
    }

    /// The factors and summands of the hashes.
    pub fn parameters(&self) -> (&[u64], &[u64]) {
        (&self.factors, &self.summands)
    }

    /// Bands of a signature.
    pub fn bands(&self) -> usize {
        self.how.bands as usize
    }

    /// The hashes of the text's runs of words, simplified, in their order; none of a text that is longer than
    /// [`MAX_TEXT_BYTES`](tokens::MAX_TEXT_BYTES).
    pub fn runs(&self, text: &str) -> Vec<u64> {
        let text = simplify(text, &self.simplify);
        if text.len() > tokens::MAX_TEXT_BYTES {
            return Vec::new();
        }
        let words = tokens::words(&text);
        let n = self.how.ngram as usize;
        let mut run = Vec::new();
        let hash = |run: &[u8]| match self.how.hash {
            RunHash::Xxhash64 => xxh64(run, 0),
            RunHash::Xxhash32 => xxh32(run, 0).into(),
            RunHash::Sha1_64 => u64::from_le_bytes(Sha1::digest(run)[..8].try_into().expect("8 bytes")),
            RunHash::Sha1_32 => u32::from_le_bytes(Sha1::digest(run)[..4].try_into().expect("4 bytes")).into(),
        };
        let one = |words: &[&str]| {
            run.clear();
            for (at, word) in words.iter().enumerate() {
                if at > 0 {
                    run.push(b' ');
                }
                run.extend_from_slice(word.as_bytes());
            }
            hash(&run)
        };
        words.windows(n).map(one).collect()
    }

    /// The signature of a text; none of one with fewer words than a run has, which is nobody's copy.
    pub fn sign(&self, text: &str) -> Option<Signature> {
        self.of_runs(&self.runs(text))
    }

    /// The signature of runs.
    pub fn of_runs(&self, runs: &[u64]) -> Option<Signature> {
        if runs.is_empty() {
            return None;
        }
        let short = matches!(self.how.hash, RunHash::Xxhash32 | RunHash::Sha1_32);
        let mask = if short { u64::from(u32::MAX) } else { u64::MAX };
        let mut least = vec![u64::MAX; self.factors.len()];
        for run in runs {
            for ((least, factor), summand) in least.iter_mut().zip(&self.factors).zip(&self.summands) {
                // The product wraps at 2^64 first, as numpy's does.
                let value = run.wrapping_mul(*factor).wrapping_add(*summand);
                let sum = (value & MODULUS) + (value >> 61);
                let value = if sum >= MODULUS { sum - MODULUS } else { sum } & mask;
                *least = (*least).min(value);
            }
        }
        Some(Signature(least))
    }

    /// A key for each band: equal bands have equal ones. Two different bands have the same with probability 2^-64.
    pub fn keys(&self, signature: &Signature) -> Vec<u64> {
        let mut bytes = Vec::with_capacity(self.how.rows as usize * 8);
        let key = |band: &[u64]| {
            bytes.clear();
            bytes.extend(band.iter().flat_map(|value| value.to_le_bytes()));
            xxh64(&bytes, 0)
        };
        signature.0.chunks(self.how.rows as usize).map(key).collect()
    }
}
