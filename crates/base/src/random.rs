//! Counter-based random numbers: (seed, domain, counter) -> value, with no hidden state, so that
//! a resumed or re-ordered computation sees the same numbers.
//!
//! The mixer is the finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
//! number generators", OOPSLA 2014) applied twice to a Weyl sequence whose start is the key.

/// A stream of random values addressed by counter.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of `domain` (what the numbers are for) under `seed`.
    pub fn new(seed: u64, domain: &str) -> Self {
        let hash = blake3::hash(domain.as_bytes());
        let word = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes"));
        Self { key: mix(mix(seed.wrapping_add(GOLDEN)) ^ word) }
    }

    /// A sub-stream, for instance one per step or per row.
    #[inline]
    pub fn at(self, index: u64) -> Self {
        Self { key: mix(self.key ^ mix(index.wrapping_mul(GOLDEN).wrapping_add(1))) }
    }

    /// 64 uniform bits.
    #[inline]
    pub fn bits(self, counter: u64) -> u64 {
        mix(mix(self.key.wrapping_add(counter.wrapping_mul(GOLDEN))))
    }

    /// Uniform in [0, 1), 24 bits.
    #[inline]
    pub fn uniform(self, counter: u64) -> f32 {
        (self.bits(counter) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline]
    pub fn uniform_f64(self, counter: u64) -> f64 {
        (self.bits(counter) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..bound` (Lemire's multiply-shift; the bias is below bound / 2^64).
    #[inline]
    pub fn below(self, counter: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(counter)) * u128::from(bound)) >> 64) as u64
    }

    /// Standard normal (Box-Muller on two draws).
    #[inline]
    pub fn normal(self, counter: u64) -> f32 {
        let u = 1.0 - self.uniform_f64(2 * counter);
        let v = self.uniform_f64(2 * counter + 1);
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}

/// A permutation of `0..n` addressed by position: a Feistel network over the next power of four,
/// walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    stream: Stream,
    len: u64,
    half_bits: u32,
}

impl Permutation {
    /// A permutation of `0..len`.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn new(stream: Stream, len: u64) -> Self {
        assert!(len > 0, "a permutation needs at least one element");
        let bits = (u64::BITS - (len - 1).leading_zeros()).max(2);
        Self { stream, len, half_bits: bits.div_ceil(2) }
    }

    /// Where `position` goes.
    pub fn get(&self, position: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let mut value = position;
        loop {
            let (mut left, mut right) = (value >> self.half_bits, value & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (self.stream.at(round).bits(right) & mask));
            }
            value = left << self.half_bits | right;
            if value < self.len {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let stream = Stream::new(1, "test");
        let n = 100_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| stream.uniform(i).into()) - 0.5).abs() < 0.005);
        assert!((mean(&|i| f64::from(stream.uniform(i)).powi(2)) - 1.0 / 3.0).abs() < 0.005);
        assert!(mean(&|i| stream.normal(i).into()).abs() < 0.01);
        assert!((mean(&|i| f64::from(stream.normal(i)).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|i| f64::from(stream.normal(i)).powi(4)) - 3.0).abs() < 0.15);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let a = Stream::new(7, "a");
        assert_eq!(a.bits(3), Stream::new(7, "a").bits(3));
        for other in [Stream::new(8, "a"), Stream::new(7, "b"), a.at(0), a.at(1)] {
            let equal_bits = (0..64).map(|i| (a.bits(i) ^ other.bits(i)).count_zeros()).sum::<u32>();
            assert!((1800..2300).contains(&equal_bits), "{equal_bits} of 4096 bits agree");
        }
    }

    #[test]
    fn permutation_visits_each_once() {
        for len in [1, 2, 3, 17, 64, 1000] {
            let permutation = Permutation::new(Stream::new(5, "order"), len);
            let mut seen: Vec<u64> = (0..len).map(|i| permutation.get(i)).collect();
            if len == 1000 {
                assert_ne!(seen, (0..len).collect::<Vec<_>>());
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }
    }
}
