//! Sixteen lanes in four NEON registers, which every 64-bit ARM machine has.

use super::{LANES, Lanes, Portable};
use std::arch::aarch64::*;

/// Four times four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Neon(pub(super) [float32x4_t; 4]);

impl Neon {
    #[inline(always)]
    unsafe fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Neon(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    /// By way of memory, for what is rare or has no instruction.
    #[inline(always)]
    unsafe fn portable(self) -> Portable {
        let mut lanes = [0f32; LANES];
        // SAFETY: the array has 16 places.
        unsafe { self.store(lanes.as_mut_ptr()) };
        Portable(lanes)
    }

    #[inline(always)]
    unsafe fn from_portable(lanes: Portable) -> Self {
        // SAFETY: the array has 16 values.
        unsafe { Self::load(lanes.0.as_ptr()) }
    }
}

// SAFETY of every method: register operations, or accesses to the lanes that the caller promises.
impl Lanes for Neon {
    // 24 sums of 4 lanes, eight for two columns of 16: one broadcast value is a lane of a register.
    const TILE_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Neon([vdupq_n_f32(x); 4]) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Neon(std::array::from_fn(|i| vld1q_f32(from.add(4 * i)))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            for (i, lanes) in self.0.into_iter().enumerate() {
                vst1q_f32(to.add(4 * i), lanes);
            }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vaddq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vsubq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vmulq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vdivq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        unsafe { Neon(std::array::from_fn(|i| vfmaq_f32(addend.0[i], self.0[i], factor.0[i]))) }
    }
    // Compared and chosen rather than `vmaxq`, which treats NaN otherwise than the other sets.
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { self.zip(other, |a, b| vbslq_f32(vcltq_f32(a, b), a, b)) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { Neon(self.0.map(|x| vsqrtq_f32(x))) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe { Neon(self.0.map(|x| vrndnq_f32(x))) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe {
            self.zip(n, |x, n| {
                let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            })
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let [a, b, c, d] = self.0;
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { self.portable().largest() }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; LANES]) {
        unsafe {
            let mut lanes = rows.map(|row| row.portable());
            Portable::transpose(&mut lanes);
            *rows = lanes.map(|row| Self::from_portable(row));
        }
    }
    #[inline(always)]
    unsafe fn pairs_within(first: Self, second: Self) -> Self {
        unsafe { Self::from_portable(Portable::pairs_within(first.portable(), second.portable())) }
    }
    #[inline(always)]
    unsafe fn pairs_across(even: Self, odd: Self) -> Self {
        unsafe { Self::from_portable(Portable::pairs_across(even.portable(), odd.portable())) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self {
        unsafe {
            let flush = |x: float32x4_t| {
                let denormal = vcltq_f32(vabsq_f32(x), vdupq_n_f32(f32::MIN_POSITIVE));
                let sign = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x8000_0000));
                vbslq_f32(denormal, vreinterpretq_f32_u32(sign), x)
            };
            let high =
                |x: float32x4_t| vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff_0000)));
            let low = |x: float32x4_t| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(x)));
            Neon(std::array::from_fn(|i| {
                let sum = flush(vfmaq_f32(flush(self.0[i]), high(a.0[i]), high(b.0[i])));
                flush(vfmaq_f32(sum, low(a.0[i]), low(b.0[i])))
            }))
        }
    }
}
