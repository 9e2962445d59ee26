//! Sums of products of small integers, four to a lane, on every machine. The sums are integers and so exact:
//! instruction sets differ in speed only.

#[cfg(target_arch = "aarch64")]
use super::Neon;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{LANES, Lanes, Portable};
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Bytes in a vector of weights: four for each lane.
pub(crate) const BYTES: usize = 4 * LANES;

/// Sixteen integer sums, and vectors of 64 bytes to be added to them.
///
/// # Safety
/// As with [`Lanes`]: the instruction set must be there, and what pointers point to.
pub(crate) trait Dots: Copy {
    /// The floating-point lanes of the same machine.
    type Lanes: Lanes;
    /// Sixteen sums as i32, one a lane.
    type Sums: Copy;
    /// 64 small integers, four a lane.
    type Bytes: Copy;
    /// Rows of a register tile.
    const TILE_ROWS: usize;
    /// What a stored byte of a wide dot product counts more than the weight: 128, or 0 where bytes are signed here.
    const WIDE_OFFSET: i32;

    /// The same value in all lanes.
    unsafe fn sums(x: i32) -> Self::Sums;
    /// Lane by lane.
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// The nearest f32.
    unsafe fn to_f32(sums: Self::Sums) -> Self::Lanes;
    /// Reads 64 bytes.
    unsafe fn load(from: *const u8) -> Self::Bytes;
    /// Writes 64 bytes.
    unsafe fn store(bytes: Self::Bytes, to: *mut u8);
    /// The low halves of the bytes, and the high ones.
    unsafe fn nibbles(bytes: Self::Bytes) -> [Self::Bytes; 2];
    /// Byte by byte, modulo 256.
    unsafe fn add_bytes(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Reads 16 bytes, each for the four of its lane.
    unsafe fn spread(from: *const u8) -> Self::Bytes;
    /// Adds to each lane the products of its four bytes of `weights`, and the four signed bytes of `x`, which are not
    /// -128. `WIDE`: weights are of 0..=255, less 128 - `WIDE_OFFSET`; else of 0..=63.
    unsafe fn dot<const WIDE: bool>(sums: Self::Sums, weights: Self::Bytes, x: i32) -> Self::Sums;

    /// Of 64 bits, each for a byte: 16 where it is set.
    #[inline(always)]
    unsafe fn fifth(bits: *const u8) -> Self::Bytes {
        // SAFETY: the caller promises 8 bytes; the array has 64.
        unsafe {
            let bytes: [u8; BYTES] = std::array::from_fn(|i| (*bits.add(i / 8) >> (i % 8) & 1) << 4);
            Self::load(bytes.as_ptr())
        }
    }
    /// Of 32 bytes, twice two bits for each byte of two vectors: 16 and 32 where they are set. Byte i of vector v has
    /// bits 4 v + 2 (i / 32) and the next of byte i % 32.
    #[inline(always)]
    unsafe fn fifth_and_sixth(bits: *const u8) -> [Self::Bytes; 2] {
        // SAFETY: the caller promises 32 bytes; each array has 64.
        unsafe {
            [0, 1].map(|v| {
                let bytes: [u8; BYTES] =
                    std::array::from_fn(|i| (*bits.add(i % 32) >> (4 * v + 2 * (i / 32)) & 3) << 4);
                Self::load(bytes.as_ptr())
            })
        }
    }

    /// Reads 16 finite f16.
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::Lanes {
        // SAFETY: the caller promises 16 values.
        unsafe {
            let values: [f32; LANES] = std::array::from_fn(|i| half_to_f32(*from.add(i)));
            Self::Lanes::load(values.as_ptr())
        }
    }
    /// Reads 16 bytes as numbers.
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::Lanes {
        // SAFETY: the caller promises 16 values.
        unsafe {
            let values: [f32; LANES] = std::array::from_fn(|i| f32::from(*from.add(i)));
            Self::Lanes::load(values.as_ptr())
        }
    }
    /// Integral values in -127..=127 as bytes, four to a word. Of NaN something comes.
    #[inline(always)]
    unsafe fn narrow(x: Self::Lanes) -> [i32; 4] {
        let mut values = [0f32; LANES];
        // SAFETY: the array has 16 places.
        unsafe { x.store(values.as_mut_ptr()) };
        let byte = |i: usize| values[i] as i32 as u8;
        std::array::from_fn(|i| i32::from_le_bytes(std::array::from_fn(|j| byte(4 * i + j))))
    }
}

/// A finite f16: its exponent is biased by 15, an f32's by 127.
#[inline(always)]
fn half_to_f32(bits: u16) -> f32 {
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(size.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// Dot products in plain Rust, for every machine.
#[derive(Clone, Copy)]
pub(crate) struct PortableDots;

// Safe code but for the pointers.
impl Dots for PortableDots {
    type Lanes = Portable;
    type Sums = [i32; LANES];
    type Bytes = [u8; BYTES];
    const TILE_ROWS: usize = 2;
    const WIDE_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::Sums {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn to_f32(sums: Self::Sums) -> Portable {
        Portable(sums.map(|x| x as f32))
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Bytes {
        // SAFETY: the caller promises 64 bytes.
        unsafe { from.cast::<[u8; BYTES]>().read() }
    }
    #[inline(always)]
    unsafe fn store(bytes: Self::Bytes, to: *mut u8) {
        // SAFETY: the caller promises 64 bytes.
        unsafe { to.cast::<[u8; BYTES]>().write(bytes) }
    }
    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes) -> [Self::Bytes; 2] {
        [bytes.map(|x| x & 15), bytes.map(|x| x >> 4)]
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Bytes {
        // SAFETY: the caller promises 16 bytes.
        std::array::from_fn(|i| unsafe { *from.add(i / 4) })
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: Self::Sums, weights: Self::Bytes, x: i32) -> Self::Sums {
        let x = x.to_le_bytes().map(|x| i32::from(x as i8));
        std::array::from_fn(|i| {
            let product = |j: usize| i32::from(weights[4 * i + j]) * x[j];
            sums[i] + (product(0) + product(1) + product(2) + product(3))
        })
    }
}

/// AVX-512: with dot products of bytes (VNNI), or without.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Dots<const VNNI: bool>;

// SAFETY of every method: register operations, or accesses to what the caller promises.
#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Dots for Avx512Dots<VNNI> {
    type Lanes = Avx512;
    type Sums = __m512i;
    type Bytes = __m512i;
    // 16 sums and what they are made of; the 16 that groups add up to are touched once a group.
    const TILE_ROWS: usize = if VNNI { 8 } else { 4 };
    const WIDE_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::Sums {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_f32(sums: Self::Sums) -> Avx512 {
        unsafe { Avx512(_mm512_cvtepi32_ps(sums)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Bytes {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(bytes: Self::Bytes, to: *mut u8) {
        unsafe { _mm512_storeu_si512(to.cast(), bytes) }
    }
    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes) -> [Self::Bytes; 2] {
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low)]
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Bytes {
        unsafe {
            let words = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            _mm512_mullo_epi32(words, _mm512_set1_epi32(0x0101_0101))
        }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: Self::Sums, weights: Self::Bytes, x: i32) -> Self::Sums {
        unsafe {
            let x = _mm512_set1_epi32(x);
            if VNNI {
                return _mm512_dpbusd_epi32(sums, weights, x);
            }
            if !WIDE {
                // Two products of at most 63 x 127 fit 16 bits.
                let pairs = _mm512_maddubs_epi16(weights, x);
                return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
            }
            // Two products of bytes do not: even and odd bytes are widened.
            let even = _mm512_madd_epi16(
                _mm512_and_si512(weights, _mm512_set1_epi16(255)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(weights), _mm512_srai_epi16::<8>(x));
            _mm512_add_epi32(sums, _mm512_add_epi32(even, odd))
        }
    }
    #[inline(always)]
    unsafe fn fifth(bits: *const u8) -> Self::Bytes {
        unsafe { _mm512_maskz_mov_epi8(bits.cast::<u64>().read_unaligned(), _mm512_set1_epi8(16)) }
    }
    #[inline(always)]
    unsafe fn fifth_and_sixth(bits: *const u8) -> [Self::Bytes; 2] {
        unsafe {
            let bits = _mm256_loadu_si256(bits.cast());
            // Each vector's two bits moved to 4 and 5: bits of the neighbouring byte that come along are masked off.
            let both = |low: __m256i, high: __m256i| {
                let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                _mm512_and_si512(both, _mm512_set1_epi8(48))
            };
            [both(_mm256_slli_epi16::<4>(bits), _mm256_slli_epi16::<2>(bits)), both(bits, _mm256_srli_epi16::<2>(bits))]
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Avx512 {
        unsafe { Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Avx512 {
        unsafe { Avx512(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)]
    unsafe fn narrow(x: Avx512) -> [i32; 4] {
        unsafe { std::mem::transmute(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.0))) }
    }
}

/// AVX2: with dot products of bytes (AVX-VNNI), or without.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2Dots<const VNNI: bool>;

// SAFETY of every method: register operations, or accesses to what the caller promises.
#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Dots for Avx2Dots<VNNI> {
    type Lanes = Avx2;
    type Sums = [__m256i; 2];
    type Bytes = [__m256i; 2];
    const TILE_ROWS: usize = 2;
    const WIDE_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::Sums {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn to_f32(sums: Self::Sums) -> Avx2 {
        unsafe { Avx2(_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Bytes {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn store(bytes: Self::Bytes, to: *mut u8) {
        unsafe {
            _mm256_storeu_si256(to.cast(), bytes[0]);
            _mm256_storeu_si256(to.add(32).cast(), bytes[1]);
        }
    }
    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes) -> [Self::Bytes; 2] {
        unsafe {
            let low = _mm256_set1_epi8(15);
            [
                bytes.map(|bytes| _mm256_and_si256(bytes, low)),
                bytes.map(|bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        unsafe { [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Bytes {
        unsafe {
            let eight = |from: *const u8| {
                let words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                _mm256_mullo_epi32(words, _mm256_set1_epi32(0x0101_0101))
            };
            [eight(from), eight(from.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: Self::Sums, weights: Self::Bytes, x: i32) -> Self::Sums {
        unsafe {
            let x = _mm256_set1_epi32(x);
            let one = |sums: __m256i, weights: __m256i| {
                if VNNI {
                    return _mm256_dpbusd_avx_epi32(sums, weights, x);
                }
                // As with AVX-512.
                if !WIDE {
                    let pairs = _mm256_maddubs_epi16(weights, x);
                    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
                let even = _mm256_madd_epi16(
                    _mm256_and_si256(weights, _mm256_set1_epi16(255)),
                    _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
                );
                let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(weights), _mm256_srai_epi16::<8>(x));
                _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
            };
            [one(sums[0], weights[0]), one(sums[1], weights[1])]
        }
    }
    #[inline(always)]
    unsafe fn fifth(bits: *const u8) -> Self::Bytes {
        unsafe {
            let places = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
            let eight = |at: usize| {
                // Each byte of bits eight times.
                let four = _mm256_set1_epi32(bits.add(at).cast::<i32>().read_unaligned());
                let which = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
                let spread = _mm256_and_si256(_mm256_shuffle_epi8(four, which), places);
                _mm256_and_si256(_mm256_cmpeq_epi8(spread, places), _mm256_set1_epi8(16))
            };
            [eight(0), eight(4)]
        }
    }
    #[inline(always)]
    unsafe fn fifth_and_sixth(bits: *const u8) -> [Self::Bytes; 2] {
        unsafe {
            let bits = _mm256_loadu_si256(bits.cast());
            let part = |x: __m256i| _mm256_and_si256(x, _mm256_set1_epi8(48));
            [
                [part(_mm256_slli_epi16::<4>(bits)), part(_mm256_slli_epi16::<2>(bits))],
                [part(bits), part(_mm256_srli_epi16::<2>(bits))],
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Avx2 {
        unsafe {
            let eight = |from: *const u16| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                let size = _mm256_slli_epi32::<13>(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)));
                let bias = _mm256_castsi256_ps(_mm256_set1_epi32((127 + 112) << 23));
                let size = _mm256_mul_ps(_mm256_castsi256_ps(size), bias);
                let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)));
                _mm256_or_ps(size, _mm256_castsi256_ps(sign))
            };
            Avx2(eight(from), eight(from.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Avx2 {
        unsafe {
            let eight = |from: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())));
            Avx2(eight(from), eight(from.add(8)))
        }
    }
}

/// Advanced SIMD: with dot products of bytes (`sdot`), or without.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct NeonDots<const SDOT: bool>;

// SAFETY of every method: register operations, or accesses to what the caller promises.
#[cfg(target_arch = "aarch64")]
impl<const SDOT: bool> Dots for NeonDots<SDOT> {
    type Lanes = Neon;
    type Sums = [int32x4_t; 4];
    type Bytes = [uint8x16_t; 4];
    const TILE_ROWS: usize = 2;
    // Products of two signed bytes are what there is.
    const WIDE_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::Sums {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        unsafe { std::array::from_fn(|i| vaddq_s32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn to_f32(sums: Self::Sums) -> Neon {
        unsafe { Neon(sums.map(|sums| vcvtq_f32_s32(sums))) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Bytes {
        unsafe { std::array::from_fn(|i| vld1q_u8(from.add(16 * i))) }
    }
    #[inline(always)]
    unsafe fn store(bytes: Self::Bytes, to: *mut u8) {
        unsafe {
            for (i, bytes) in bytes.into_iter().enumerate() {
                vst1q_u8(to.add(16 * i), bytes);
            }
        }
    }
    #[inline(always)]
    unsafe fn nibbles(bytes: Self::Bytes) -> [Self::Bytes; 2] {
        unsafe { [bytes.map(|x| vandq_u8(x, vdupq_n_u8(15))), bytes.map(|x| vshrq_n_u8::<4>(x))] }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        unsafe { std::array::from_fn(|i| vaddq_u8(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Bytes {
        unsafe {
            let bytes: [u8; BYTES] = std::array::from_fn(|i| *from.add(i / 4));
            Self::load(bytes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: Self::Sums, weights: Self::Bytes, x: i32) -> Self::Sums {
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            let [a, b, c, d] = sums;
            [
                dot_of_four::<SDOT, WIDE>(a, weights[0], x),
                dot_of_four::<SDOT, WIDE>(b, weights[1], x),
                dot_of_four::<SDOT, WIDE>(c, weights[2], x),
                dot_of_four::<SDOT, WIDE>(d, weights[3], x),
            ]
        }
    }
}

/// [`Dots::dot`] of four lanes. A function that is always inlined, never a closure: a closure that is not inlined is
/// compiled without `sdot`, and its assembly refused.
///
/// # Safety
/// With `SDOT` the machine has it, and so does the function that this is inlined in.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn dot_of_four<const SDOT: bool, const WIDE: bool>(
    sums: int32x4_t,
    weights: uint8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: register operations, of instructions that are there.
    unsafe {
        // A byte less 128, as a signed one.
        let weights = if WIDE { veorq_u8(weights, vdupq_n_u8(128)) } else { weights };
        let weights = vreinterpretq_s8_u8(weights);
        if SDOT {
            let mut sums = sums;
            // The intrinsic, `vdotq_s32`, is not stable.
            std::arch::asm!(
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sums, in(vreg) weights, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            return sums;
        }
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(weights, x));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

/// Whether dot products of bytes are used where the machine has them.
#[cfg(test)]
pub(crate) static USE_DOTS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);

#[cfg(test)]
fn allowed() -> bool {
    USE_DOTS.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(not(test))]
#[inline(always)]
fn allowed() -> bool {
    true
}

/// Whether the machine has dot products of bytes in 512 bits.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vnni512() -> bool {
    allowed() && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// Whether the machine has them in 256 bits, without AVX-512.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vnni256() -> bool {
    allowed() && std::arch::is_x86_feature_detected!("avxvnni")
}

/// Whether the machine has `sdot`.
#[cfg(target_arch = "aarch64")]
pub(crate) fn sdot() -> bool {
    allowed() && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// As [`for_each_isa`](super::for_each_isa), for functions over [`Dots`].
macro_rules! for_each_dots {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $generic:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            use $crate::machine::simd::{Isa, dots};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            unsafe fn avx512_vnni($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::Avx512Dots<true>>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            unsafe fn avx512($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::Avx512Dots<false>>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avxvnni,avx2,fma")]
            unsafe fn avx2_vnni($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::Avx2Dots<true>>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::Avx2Dots<false>>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "dotprod")]
            unsafe fn neon_sdot($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::NeonDots<true>>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            unsafe fn neon($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<dots::NeonDots<false>>($($arg),*) }
            }
            // SAFETY: `isa` only names what this machine has, as do the looks for dot products; the caller's promises
            // are passed on.
            unsafe {
                match $crate::machine::simd::isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 if dots::vnni512() => avx512_vnni($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 if dots::vnni256() => avx2_vnni($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon if dots::sdot() => neon_sdot($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => neon($($arg),*),
                    _ => $generic::<dots::PortableDots>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use for_each_dots;
