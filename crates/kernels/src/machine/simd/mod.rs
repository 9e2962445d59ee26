//! Sixteen single-precision lanes on every machine. What differs between instruction sets is how
//! many registers hold them, never what is computed: each lane operation is exactly rounded and
//! sums fold the lanes in one fixed order, so that a kernel written once over [`Lanes`] gives the
//! same bytes on AVX-512, AVX2, NEON and in portable code.

use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) mod activation;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dots;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// Instruction sets, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust. Slow where the target has no fused multiply-add.
    Portable = 1,
    /// 128-bit Advanced SIMD of 64-bit ARM.
    Neon = 2,
    /// AVX2 and FMA.
    Avx2 = 3,
    /// AVX-512 F, BW, DQ and VL.
    Avx512 = 4,
    /// AVX-512 with BF16 dot products.
    Avx512Bf16 = 5,
    /// The same, with products in bf16 on AMX's matrix tiles, ten times as fast. They add in an order of their own, so
    /// that in bf16 the bytes are others than those of all other sets; in f32 they are the same.
    Amx = 6,
}

impl Isa {
    /// All of them.
    pub const ALL: [Isa; 6] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Amx => "amx",
        }
    }

    /// The instruction set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            // AVX-512 code here may also use what every such machine has besides.
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match self {
                Isa::Portable => true,
                Isa::Neon => false,
                Isa::Avx2 => avx2,
                Isa::Avx512 => avx512,
                Isa::Avx512Bf16 => avx512 && has!("avx512bf16"),
                #[cfg(target_os = "linux")]
                Isa::Amx => avx512 && has!("avx512bf16") && amx::is_available(),
                #[cfg(not(target_os = "linux"))]
                Isa::Amx => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            matches!(self, Isa::Portable | Isa::Neon)
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            matches!(self, Isa::Portable)
        }
    }

    /// The best of this machine.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// The set whose bytes are also this one's in single precision, where instructions for bf16 are of no use.
    pub fn in_single_precision(self) -> Self {
        match self {
            Isa::Avx512Bf16 | Isa::Amx => Isa::Avx512,
            other => other,
        }
    }

    /// Those of this machine, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }
}

/// The instruction set in use; 0 before the first look.
static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The instruction set that kernels use: the best of this machine, unless [`force_isa`] chose another.
pub fn isa() -> Isa {
    let mut number = CURRENT.load(Ordering::Relaxed);
    if number == 0 {
        let best = Isa::best() as u8;
        number =
            CURRENT.compare_exchange(0, best, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|now| now, |_| best);
    }
    Isa::ALL.into_iter().find(|isa| *isa as u8 == number).unwrap_or(Isa::Portable)
}

/// Why an instruction set cannot be forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForceIsaError {
    /// This machine does not have it; it has these.
    Missing(Vec<Isa>),
    /// Kernels have run with this one already, and a kernel in flight may not change its set.
    InUse(Isa),
}

/// Makes kernels use this instruction set, in the whole process. Only before the first kernel runs.
///
/// # Errors
/// If this machine does not have it, or another is in use.
pub fn force_isa(isa: Isa) -> Result<(), ForceIsaError> {
    if !isa.is_available() {
        return Err(ForceIsaError::Missing(Isa::available()));
    }
    // The crate's own tests switch, and take care that no kernel runs meanwhile.
    if cfg!(test) {
        CURRENT.store(isa as u8, Ordering::Relaxed);
        return Ok(());
    }
    match CURRENT.compare_exchange(0, isa as u8, Ordering::Relaxed, Ordering::Relaxed) {
        Err(now) if now != isa as u8 => Err(ForceIsaError::InUse(self::isa())),
        _ => Ok(()),
    }
}

/// Sixteen lanes of f32.
///
/// # Safety
/// Every method may only be called where the instruction set of the implementation is available. Methods that take
/// pointers need them valid for the lanes that they say they touch; no alignment is needed.
pub(crate) trait Lanes: Copy {
    /// Rows of a register tile in a matrix product.
    const TILE_ROWS: usize;

    /// The same value in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// Reads 16 values.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes 16 values.
    unsafe fn store(self, to: *mut f32);
    /// Reads `count` values, at most 16; the other lanes are 0.
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut values = [0f32; LANES];
        // SAFETY: the caller promises `count` readable values, and `count` <= 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
            Self::load(values.as_ptr())
        }
    }
    /// Writes the first `count` lanes, at most 16.
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        let mut values = [0f32; LANES];
        // SAFETY: the caller promises `count` writable places, and `count` <= 16.
        unsafe {
            self.store(values.as_mut_ptr());
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
        }
    }
    /// Reads 16 integers.
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        let mut values = [0f32; LANES];
        // SAFETY: the caller promises 16 readable values.
        unsafe {
            for (i, value) in values.iter_mut().enumerate() {
                *value = f32::from(*from.add(i));
            }
            Self::load(values.as_ptr())
        }
    }
    /// Says that the value will be read soon. A hint: nothing is touched, so the address may be anything.
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}
    /// The sum of each pair of lanes.
    unsafe fn add(self, other: Self) -> Self;
    /// The difference of each pair of lanes.
    unsafe fn sub(self, other: Self) -> Self;
    /// The product of each pair of lanes.
    unsafe fn mul(self, other: Self) -> Self;
    /// The quotient of each pair of lanes.
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// The larger of each pair of lanes.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller of each pair of lanes.
    unsafe fn min(self, other: Self) -> Self;
    /// The square root of each lane.
    unsafe fn sqrt(self) -> Self;
    /// The nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n`, for integral n in -126..=127.
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self;
    /// All lanes added: the upper half to the lower, four times.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// Turns 16 rows into 16 columns.
    unsafe fn transpose(rows: &mut [Self; LANES]);

    /// Values k..k+16 and k+16..k+32 of a row, rounded to bf16: lane i holds values 2i (low half) and 2i + 1.
    unsafe fn pairs_within(first: Self, second: Self) -> Self;
    /// Two rows rounded to bf16: lane i holds lane i of `even` (low half) and of `odd`.
    unsafe fn pairs_across(even: Self, odd: Self) -> Self;
    /// Products of bf16 pairs onto f32: first that of the high halves, then that of the low ones, each rounded once;
    /// denormals count as 0. This is what `vdpbf16ps` does.
    unsafe fn dot_pairs(self, a: Self, b: Self) -> Self;

    /// e^x to within 2 units in the last place for x in -87.3..=88; clamped outside. 0 is never reached: mask instead.
    /// The polynomial is Cephes' `expf` (S. Moshier).
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: lane operations only; the caller has the instruction set.
        unsafe {
            let x = self.max(Self::splat(-87.3)).min(Self::splat(88.0));
            let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            // The natural logarithm of 2 in two parts, so that n of them lose nothing.
            let r = n.fma(Self::splat(-0.693_359_4), x);
            let r = n.fma(Self::splat(2.121_944_4e-4), r);
            let p = Self::splat(1.987_569_1e-4);
            let p = p.fma(r, Self::splat(1.398_199_9e-3));
            let p = p.fma(r, Self::splat(8.333_452e-3));
            let p = p.fma(r, Self::splat(4.166_579_6e-2));
            let p = p.fma(r, Self::splat(1.666_666_5e-1));
            let p = p.fma(r, Self::splat(0.5));
            let p = p.fma(r.mul(r), r).add(Self::splat(1.0));
            p.scale_by_power_of_two(n)
        }
    }

    /// 1 / (1 + e^-x)
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let one = Self::splat(1.0);
            one.div(Self::splat(0.0).sub(self).exp().add(one))
        }
    }
}

/// Makes a function over [`Lanes`] callable: one copy for each instruction set, chosen by [`isa`] at each call. The
/// generic function must be `#[inline(always)]`, so that it is compiled with the instructions of the copy.
macro_rules! for_each_isa {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $generic:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            use $crate::machine::simd::Isa;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512_bf16($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<$crate::machine::simd::Avx512Bf16>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<$crate::machine::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<$crate::machine::simd::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn neon($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promises are passed on.
                unsafe { $generic::<$crate::machine::simd::Neon>($($arg),*) }
            }
            // SAFETY: `isa` only names what this machine has; the caller's promises are passed on.
            unsafe {
                match $crate::machine::simd::isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512Bf16 | Isa::Amx => avx512_bf16($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => neon($($arg),*),
                    _ => $generic::<$crate::machine::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use for_each_isa;
