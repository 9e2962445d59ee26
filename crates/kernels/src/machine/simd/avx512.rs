//! Sixteen lanes in one AVX-512 register.

use super::{LANES, Lanes};
use std::arch::x86_64::*;

/// AVX-512 without bf16 instructions: pairs are widened and multiplied in f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) __m512);

/// AVX-512 with bf16 dot products.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(__m512);

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// Transposes 16 x 16 words: in 2 x 2, 4 x 4, 8 x 8 and 16 x 16 steps.
///
/// # Safety
/// The machine must have AVX-512 F.
#[inline(always)]
unsafe fn transpose(r: &mut [__m512i; LANES]) {
    // SAFETY: register operations only.
    unsafe {
        let mut t = [_mm512_setzero_si512(); LANES];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        for i in 0..4 {
            t[i] = _mm512_shuffle_i32x4::<0x88>(r[i], r[i + 4]);
            t[i + 4] = _mm512_shuffle_i32x4::<0xdd>(r[i], r[i + 4]);
            t[i + 8] = _mm512_shuffle_i32x4::<0x88>(r[i + 8], r[i + 12]);
            t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(r[i + 8], r[i + 12]);
        }
        for i in 0..4 {
            r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
            r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
            r[i + 4] = _mm512_shuffle_i32x4::<0x88>(t[i + 4], t[i + 12]);
            r[i + 12] = _mm512_shuffle_i32x4::<0xdd>(t[i + 4], t[i + 12]);
        }
    }
}

/// Rounds each f32 to bf16 in the low half of its lane: ties to even, denormals to 0, NaN stays NaN.
#[inline(always)]
unsafe fn to_bf16_bits(x: __m512) -> __m512i {
    // SAFETY: register operations only.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let lowest = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), lowest);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
        let denormal = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x), _mm512_set1_ps(f32::MIN_POSITIVE));
        let sign = _mm512_and_si512(bits, _mm512_set1_epi32(i32::MIN));
        _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, denormal, sign))
    }
}

/// Denormals to 0 of their sign.
#[inline(always)]
unsafe fn flush(x: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe {
        let denormal = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x), _mm512_set1_ps(f32::MIN_POSITIVE));
        _mm512_mask_and_ps(x, denormal, x, _mm512_set1_ps(-0.0))
    }
}

/// The bf16 in the high half of each lane, as f32.
#[inline(always)]
unsafe fn high_half(x: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe { _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000u32 as i32))) }
}

/// The bf16 in the low half of each lane, as f32.
#[inline(always)]
unsafe fn low_half(x: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(x))) }
}

macro_rules! lanes {
    ($name:ident, { $($bf16:item)* }) => {
        // SAFETY of every method: register operations, or accesses to the lanes that the caller promises.
        impl Lanes for $name {
            // 28 sums, two columns and one broadcast value fill 31 of 32 registers.
            const TILE_ROWS: usize = 14;

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                unsafe { $name(_mm512_set1_ps(x)) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $name(_mm512_loadu_ps(from)) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { _mm512_storeu_ps(to, self.0) }
            }
            #[inline(always)]
            unsafe fn load_partial(from: *const f32, count: usize) -> Self {
                unsafe { $name(_mm512_maskz_loadu_ps(mask(count), from)) }
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut f32, count: usize) {
                unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
            }
            #[inline(always)]
            unsafe fn load_i8(from: *const i8) -> Self {
                unsafe { $name(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
            }
            #[inline(always)]
            unsafe fn prefetch(from: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                unsafe { $name(_mm512_add_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                unsafe { $name(_mm512_sub_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                unsafe { $name(_mm512_mul_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn div(self, other: Self) -> Self {
                unsafe { $name(_mm512_div_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn fma(self, factor: Self, addend: Self) -> Self {
                unsafe { $name(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                unsafe { $name(_mm512_max_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                unsafe { $name(_mm512_min_ps(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn sqrt(self) -> Self {
                unsafe { $name(_mm512_sqrt_ps(self.0)) }
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                unsafe { $name(_mm512_roundscale_ps::<0x08>(self.0)) }
            }
            #[inline(always)]
            unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
                unsafe { $name(_mm512_scalef_ps(self.0, n.0)) }
            }
            #[inline(always)]
            unsafe fn sum(self) -> f32 {
                unsafe {
                    let upper = _mm512_extractf32x8_ps::<1>(self.0);
                    super::avx2::sum8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper))
                }
            }
            #[inline(always)]
            unsafe fn largest(self) -> f32 {
                unsafe { _mm512_reduce_max_ps(self.0) }
            }
            #[inline(always)]
            unsafe fn transpose(rows: &mut [Self; LANES]) {
                // Both are sixteen registers; copied one by one, as `map` is not inlined into a kernel.
                unsafe {
                    let mut words = [_mm512_setzero_si512(); LANES];
                    for i in 0..LANES {
                        words[i] = _mm512_castps_si512(rows[i].0);
                    }
                    transpose(&mut words);
                    for i in 0..LANES {
                        rows[i] = $name(_mm512_castsi512_ps(words[i]));
                    }
                }
            }
            $($bf16)*
        }
    };
}

lanes!(Avx512, {
    #[inline(always)]
    unsafe fn pairs_within(first: Self, second: Self) -> Self {
        unsafe {
            let low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(to_bf16_bits(first.0)));
            let high = _mm512_cvtepi32_epi16(to_bf16_bits(second.0));
            Avx512(_mm512_castsi512_ps(_mm512_inserti64x4::<1>(low, high)))
        }
    }
    #[inline(always)]
    unsafe fn pairs_across(even: Self, odd: Self) -> Self {
        unsafe {
            let odd = _mm512_slli_epi32::<16>(to_bf16_bits(odd.0));
            Avx512(_mm512_castsi512_ps(_mm512_or_si512(to_bf16_bits(even.0), odd)))
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self {
        unsafe {
            // Packing leaves no denormals in the pairs; only sums can become some.
            let sum = flush(_mm512_fmadd_ps(high_half(a.0), high_half(b.0), flush(self.0)));
            Avx512(flush(_mm512_fmadd_ps(low_half(a.0), low_half(b.0), sum)))
        }
    }
});

lanes!(Avx512Bf16, {
    #[inline(always)]
    unsafe fn pairs_within(first: Self, second: Self) -> Self {
        unsafe {
            let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second.0, first.0));
            Avx512Bf16(_mm512_castsi512_ps(pairs))
        }
    }
    #[inline(always)]
    unsafe fn pairs_across(even: Self, odd: Self) -> Self {
        unsafe {
            // The conversion leaves `even` in the lower and `odd` in the upper half: interleave them.
            let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(odd.0, even.0));
            let order = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                17, 1, 16, 0,
            );
            Avx512Bf16(_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, pairs)))
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self {
        unsafe {
            let a = std::mem::transmute::<__m512, __m512bh>(a.0);
            let b = std::mem::transmute::<__m512, __m512bh>(b.0);
            Avx512Bf16(_mm512_dpbf16_ps(self.0, a, b))
        }
    }
});
