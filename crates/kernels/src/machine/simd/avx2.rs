//! Sixteen lanes in two AVX2 registers.

use super::{LANES, Lanes};
use std::arch::x86_64::*;

/// The lower and the upper eight lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(super) __m256, pub(super) __m256);

/// Eight lanes added: the upper half to the lower, three times.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
pub(super) unsafe fn sum8(x: __m256) -> f32 {
    // SAFETY: register operations only.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// Transposes 8 x 8 words.
#[inline(always)]
unsafe fn transpose8(r: &mut [__m256; 8]) {
    // SAFETY: register operations only.
    unsafe {
        let mut t = *r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            r[4 * i] = _mm256_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm256_shuffle_ps::<0xee>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm256_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm256_shuffle_ps::<0xee>(t[4 * i + 1], t[4 * i + 3]);
        }
        t = *r;
        for i in 0..4 {
            r[i] = _mm256_permute2f128_ps::<0x20>(t[i], t[i + 4]);
            r[i + 4] = _mm256_permute2f128_ps::<0x31>(t[i], t[i + 4]);
        }
    }
}

/// Rounds each f32 to bf16 in the low half of its lane: ties to even, denormals to 0, NaN stays NaN.
#[inline(always)]
unsafe fn to_bf16_bits(x: __m256) -> __m256i {
    // SAFETY: register operations only.
    unsafe {
        let bits = _mm256_castps_si256(flush(x));
        let lowest = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), lowest);
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
    }
}

/// Denormals to 0 of their sign.
#[inline(always)]
unsafe fn flush(x: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        let sign = _mm256_set1_ps(-0.0);
        let normal = _mm256_cmp_ps::<_CMP_NLT_UQ>(_mm256_andnot_ps(sign, x), _mm256_set1_ps(f32::MIN_POSITIVE));
        _mm256_and_ps(x, _mm256_or_ps(normal, sign))
    }
}

#[inline(always)]
unsafe fn scale(x: __m256, n: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

/// The bf16 in the high half of each lane, as f32.
#[inline(always)]
unsafe fn high_half(x: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe { _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000u32 as i32))) }
}

/// The bf16 in the low half of each lane, as f32.
#[inline(always)]
unsafe fn low_half(x: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x))) }
}

#[inline(always)]
unsafe fn dot(sum: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        // Packing leaves no denormals in the pairs; only sums can become some.
        let sum = flush(_mm256_fmadd_ps(high_half(a), high_half(b), flush(sum)));
        flush(_mm256_fmadd_ps(low_half(a), low_half(b), sum))
    }
}

// SAFETY of every method: register operations, or accesses to the lanes that the caller promises.
impl Lanes for Avx2 {
    // 12 sums of 8 lanes, two columns and one broadcast value fill 15 of 16 registers: one vector of 16 lanes is two.
    const TILE_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        unsafe { Avx2(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { Avx2(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe { Avx2(_mm256_round_ps::<0x08>(self.0), _mm256_round_ps::<0x08>(self.1)) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe { Avx2(scale(self.0, n.0), scale(self.1, n.1)) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { sum8(_mm256_add_ps(self.0, self.1)) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut lanes = [0f32; LANES];
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; LANES]) {
        unsafe {
            // Loops rather than closures, which need not be inlined into a kernel.
            let mut quarters = [[_mm256_setzero_ps(); 8]; 4];
            for i in 0..8 {
                quarters[0][i] = rows[i].0;
                quarters[1][i] = rows[i].1;
                quarters[2][i] = rows[i + 8].0;
                quarters[3][i] = rows[i + 8].1;
            }
            for quarter in &mut quarters {
                transpose8(quarter);
            }
            for i in 0..8 {
                rows[i] = Avx2(quarters[0][i], quarters[2][i]);
                rows[i + 8] = Avx2(quarters[1][i], quarters[3][i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn pairs_within(first: Self, second: Self) -> Self {
        unsafe {
            // Packing works on halves of registers, so their quarters come out as 0, 2, 1, 3: put them in order.
            let low = _mm256_packus_epi32(to_bf16_bits(first.0), to_bf16_bits(first.1));
            let high = _mm256_packus_epi32(to_bf16_bits(second.0), to_bf16_bits(second.1));
            Avx2(
                _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(low)),
                _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(high)),
            )
        }
    }
    #[inline(always)]
    unsafe fn pairs_across(even: Self, odd: Self) -> Self {
        unsafe {
            let odds = [_mm256_slli_epi32::<16>(to_bf16_bits(odd.0)), _mm256_slli_epi32::<16>(to_bf16_bits(odd.1))];
            Avx2(
                _mm256_castsi256_ps(_mm256_or_si256(to_bf16_bits(even.0), odds[0])),
                _mm256_castsi256_ps(_mm256_or_si256(to_bf16_bits(even.1), odds[1])),
            )
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self {
        unsafe { Avx2(dot(self.0, a.0, b.0), dot(self.1, a.1, b.1)) }
    }
}
