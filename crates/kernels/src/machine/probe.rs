//! What this machine can do at most: the peaks that kernels are held against, with the instruction
//! set in use and the threads at hand.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::machine::simd::amx;
use crate::machine::{
    parallel::{self, Shared},
    simd::{
        Isa, LANES, Lanes,
        dots::{BYTES, Dots, for_each_dots},
        for_each_isa, isa,
    },
};
use narthex_base::config::Precision;
use std::{sync::OnceLock, time::Instant};

/// Independent sums in flight: more than the latency times the number of multiply-add units of any CPU so far.
const CHAINS: usize = 24;

/// Rounds of one measurement: about 10 ms.
const ROUNDS: usize = 1 << 20;

/// Times that reading memory is measured; the best counts.
const TRIES: usize = 8;

/// Multiply-adds in registers with nothing else: floating-point operations per second of all threads together, measured
/// now, in about 10 ms. The speed of shared machines drifts, so measure it beside what is held against it.
pub fn flop_per_second_now(precision: Precision) -> f64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if precision == Precision::Bf16 && isa() == Isa::Amx {
        return tile_flop_per_second_now();
    }
    // Without a fused multiply-add in the machine one takes a hundred times as long.
    let rounds = if isa() == Isa::Portable { ROUNDS / 256 } else { ROUNDS };
    let threads = parallel::threads();
    let per_word = if precision == Precision::Bf16 { 2.0 } else { 1.0 };
    let flop = 2.0 * per_word * (threads * LANES * CHAINS * rounds) as f64;
    let start = Instant::now();
    parallel::for_each(threads, |_| {
        // SAFETY: works on registers only.
        let sum = unsafe {
            match precision {
                Precision::F32 => spin_f32(rounds),
                Precision::Bf16 => spin_bf16(rounds),
            }
        };
        std::hint::black_box(sum);
    });
    flop / start.elapsed().as_secs_f64()
}

/// The same on matrix tiles.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tile_flop_per_second_now() -> f64 {
    const TILE_ROUNDS: usize = 1 << 18;
    let threads = parallel::threads();
    let flop = (threads * TILE_ROUNDS * 4 * 2 * amx::SIDE * amx::SIDE * 2 * amx::SIDE) as f64;
    let start = Instant::now();
    // SAFETY: the set in use has tiles.
    parallel::for_each(threads, |_| unsafe { amx::spin(TILE_ROUNDS) });
    flop / start.elapsed().as_secs_f64()
}

/// Sums of products of bytes in registers with nothing else: operations per second of all threads together, measured
/// now. (On matrix tiles the same holds as for bf16, with twice as many; products here do not use those for bytes.)
pub fn int8_operations_per_second_now() -> f64 {
    let rounds = if isa() == Isa::Portable { ROUNDS / 256 } else { ROUNDS };
    let threads = parallel::threads();
    let operations = 2.0 * (threads * 4 * LANES * CHAINS * rounds) as f64;
    let start = Instant::now();
    // SAFETY: works on registers only.
    parallel::for_each(threads, |_| {
        std::hint::black_box(unsafe { spin_int8(rounds) });
    });
    operations / start.elapsed().as_secs_f64()
}

/// Reading memory far larger than the caches: bytes per second of all threads together.
pub fn read_bytes_per_second() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(|| {
        const VALUES: usize = 64 << 20;
        const BLOCK: usize = 1 << 18;
        let values = vec![1f32; VALUES];
        let shared = Shared::new(&values);
        let seconds = best_of(|| {
            parallel::for_blocks(VALUES, BLOCK, |block| {
                // SAFETY: the block is inside.
                std::hint::black_box(unsafe { read(shared.at(block.start), block.len()) });
            })
        });
        (4 * VALUES) as f64 / seconds
    })
}

fn best_of(mut work: impl FnMut()) -> f64 {
    let times = (0..TRIES).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

#[inline(always)]
unsafe fn spin<V: Lanes, const PAIRS: bool>(rounds: usize) -> f32 {
    // SAFETY: registers only; the caller has the instruction set.
    unsafe {
        let mut sums = [V::splat(0.5); CHAINS];
        let (a, b) = match PAIRS {
            false => (V::splat(0.999), V::splat(0.001)),
            // Pairs of 1 and of 2^-15.
            true => (V::splat(f32::from_bits(0x3f80_3f80)), V::splat(f32::from_bits(0x3800_3800))),
        };
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = if PAIRS { sum.dot_pairs(a, b) } else { sum.fma(a, b) };
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + sum.sum())
    }
}
#[inline(always)]
unsafe fn spin_f32_generic<V: Lanes>(rounds: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { spin::<V, false>(rounds) }
}
#[inline(always)]
unsafe fn spin_bf16_generic<V: Lanes>(rounds: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { spin::<V, true>(rounds) }
}
for_each_isa! { unsafe fn spin_f32(rounds: usize) -> f32 = spin_f32_generic }
for_each_isa! { unsafe fn spin_bf16(rounds: usize) -> f32 = spin_bf16_generic }

#[inline(always)]
unsafe fn spin_int8_generic<D: Dots>(rounds: usize) -> f32 {
    // SAFETY: registers and an array of 64 bytes; the caller has the instruction set.
    unsafe {
        let weights = D::load([1u8; BYTES].as_ptr());
        let mut sums = [D::sums(0); CHAINS];
        for round in 0..rounds {
            for sum in &mut sums {
                *sum = D::dot::<true>(*sum, weights, round as i32 & 0x0101_0101);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + D::to_f32(sum).sum())
    }
}
for_each_dots! { unsafe fn spin_int8(rounds: usize) -> f32 = spin_int8_generic }

/// The sum of `len` values, a multiple of 64.
#[inline(always)]
unsafe fn read_generic<V: Lanes>(from: *const f32, len: usize) -> f32 {
    // SAFETY: the caller promises the values.
    unsafe {
        let mut sums = [V::splat(0.0); 4];
        for i in (0..len).step_by(4 * LANES) {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(from.add(i + j * LANES)));
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + sum.sum())
    }
}
for_each_isa! { unsafe fn read(from: *const f32, len: usize) -> f32 = read_generic }
