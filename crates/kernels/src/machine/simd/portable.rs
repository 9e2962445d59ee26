//! Sixteen lanes in plain Rust: what the others are tested against.

use super::{LANES, Lanes};

/// Sixteen lanes in an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Portable(pub(crate) [f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Portable(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

/// Rounds to bf16, ties to even; denormals become 0, as the hardware does it.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = flush(x).to_bits();
    if x.is_nan() {
        return (bits >> 16) | 0x40;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

/// Denormals become 0 of their sign.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[inline(always)]
fn low(pair: f32) -> f32 {
    flush(f32::from_bits(pair.to_bits() << 16))
}

#[inline(always)]
fn high(pair: f32) -> f32 {
    flush(f32::from_bits(pair.to_bits() & 0xffff_0000))
}

// Safe code throughout but for the pointers; the trait's methods are unsafe for the sake of the other implementations.
impl Lanes for Portable {
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable values.
        Portable(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises 16 writable places.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        self.zip(n, |x, n| x * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; LANES]) {
        let copy = *rows;
        for (i, row) in rows.iter_mut().enumerate() {
            row.0 = std::array::from_fn(|j| copy[j].0[i]);
        }
    }
    #[inline(always)]
    unsafe fn pairs_within(first: Self, second: Self) -> Self {
        let value = |i: usize| if i < LANES { first.0[i] } else { second.0[i - LANES] };
        Portable(std::array::from_fn(|i| f32::from_bits(bf16_bits(value(2 * i)) | bf16_bits(value(2 * i + 1)) << 16)))
    }
    #[inline(always)]
    unsafe fn pairs_across(even: Self, odd: Self) -> Self {
        even.zip(odd, |even, odd| f32::from_bits(bf16_bits(even) | bf16_bits(odd) << 16))
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| {
            let sum = flush(high(a.0[i]).mul_add(high(b.0[i]), flush(self.0[i])));
            flush(low(a.0[i]).mul_add(low(b.0[i]), sum))
        }))
    }
}
