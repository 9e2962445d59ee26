//! Activation functions on lanes, value by value, and their slopes. Knows pointers; no tensors.

use super::{
    Lanes, for_each_isa,
    rows::{for_vectors, load, store},
};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, with Φ the normal distribution function. Hugging Face's `gelu`.
    Gelu,
    /// `x / 2 (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`. Hugging Face's `gelu_new` and `gelu_pytorch_tanh`.
    GeluTanh,
    /// `x / (1 + e^-x)`, also called swish.
    Silu,
}

/// From here on the functions are 0 or x in f32; the limit keeps squares and cubes finite.
const FAR: f32 = 20.0;

/// sqrt(2 / π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// The coefficient of the cube in the approximation by tanh.
const CUBE: f32 = 0.044715;

/// For a = |x|, at most `FAR`: (`Φ(-a)`, `e^(-a²/2)`), the first within 1e-6 of itself for a below 5 and within 5e-6
/// beyond, where rounding of the square shows.
///
/// `Φ(-a) = e^(-a²/2) t P(t)` with `t = 1 / (1 + 0.35 a)`: a minimax polynomial of degree 8 for a in 0..=14, made by
/// Remez' algorithm, within 3.2e-8 of the function, relatively. A form for `erf` alone would leave only absolute
/// accuracy where `1 + erf` cancels.
#[inline(always)]
unsafe fn normal_tail<V: Lanes>(a: V) -> (V, V) {
    // SAFETY: lane operations only; the caller has the instruction set.
    unsafe {
        let bell = a.mul(a).mul(V::splat(-0.5)).exp();
        let t = V::splat(1.0).div(a.fma(V::splat(0.35), V::splat(1.0)));
        let p = V::splat(-0.029_145_733);
        let p = p.fma(t, V::splat(0.143_970_78));
        let p = p.fma(t, V::splat(-0.255_712_48));
        let p = p.fma(t, V::splat(0.159_172_27));
        let p = p.fma(t, V::splat(-0.023_108_642));
        let p = p.fma(t, V::splat(0.105_507_55));
        let p = p.fma(t, V::splat(0.119_832_97));
        let p = p.fma(t, V::splat(0.139_861_86));
        let p = p.fma(t, V::splat(0.139_621_4));
        (p.mul(t).mul(bell), bell)
    }
}

/// (sigmoid(x), 1 - sigmoid(x)), neither by subtraction.
#[inline(always)]
unsafe fn sigmoids<V: Lanes>(x: V) -> (V, V) {
    // SAFETY: as above.
    unsafe {
        let e = V::splat(0.0).sub(x).exp();
        let s = V::splat(1.0).div(e.add(V::splat(1.0)));
        (s, e.mul(s))
    }
}

/// The argument of the sigmoid that equals `(1 + tanh) / 2`, for |x| up to `FAR`.
#[inline(always)]
unsafe fn inner<V: Lanes>(x: V) -> V {
    // SAFETY: as above.
    unsafe {
        let factor = x.mul(x).fma(V::splat(2.0 * SQRT_2_OVER_PI * CUBE), V::splat(2.0 * SQRT_2_OVER_PI));
        x.mul(factor)
    }
}

/// # Safety
/// `len` values behind each pointer.
#[inline(always)]
unsafe fn values_forward_generic<V: Lanes>(function: Activation, x: *const f32, y: *mut f32, len: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let (zero, far, near) = (V::splat(0.0), V::splat(FAR), V::splat(-FAR));
        for_vectors!(len, |i, count| {
            let x: V = load(x.add(i), count);
            let result = match function {
                Activation::Gelu => {
                    // For x >= 0, x (1 - Φ(-x)); else -|x| Φ(-|x|).
                    let a = x.max(zero.sub(x)).min(far);
                    let (tail, _) = normal_tail(a);
                    x.max(zero).sub(a.mul(tail))
                }
                Activation::GeluTanh => x.max(near).mul(sigmoids(inner(x.max(near).min(far))).0),
                Activation::Silu => x.max(V::splat(-88.0)).mul(sigmoids(x).0),
            };
            store(result, y.add(i), count);
        });
    }
}
/// The same in place, for `width` values of each of `rows` rows that lie `stride` apart.
///
/// # Safety
/// All of those are there.
#[inline(always)]
unsafe fn rows_in_place_generic<V: Lanes>(function: Activation, x: *mut f32, rows: usize, width: usize, stride: usize) {
    for row in 0..rows {
        let x = x.wrapping_add(row * stride);
        // SAFETY: the caller's promise.
        unsafe { values_forward_generic::<V>(function, x, x, width) }
    }
}
for_each_isa! {
    /// See [`rows_in_place_generic`].
    pub(crate) unsafe fn rows_in_place(function: Activation, x: *mut f32, rows: usize, width: usize, stride: usize) = rows_in_place_generic
}
for_each_isa! {
    /// See [`values_forward_generic`].
    pub(crate) unsafe fn values_forward(function: Activation, x: *const f32, y: *mut f32, len: usize) = values_forward_generic
}

/// # Safety
/// As above; `dx` may be `x`.
#[inline(always)]
unsafe fn values_backward_generic<V: Lanes>(
    function: Activation,
    x: *const f32,
    gradient: *const f32,
    dx: *mut f32,
    len: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (zero, one, far, near) = (V::splat(0.0), V::splat(1.0), V::splat(FAR), V::splat(-FAR));
        for_vectors!(len, |i, count| {
            let (x, g): (V, V) = (load(x.add(i), count), load(gradient.add(i), count));
            let slope = match function {
                Activation::Gelu => {
                    // Φ(x) + x φ(x), with Φ(x) = 1 - Φ(-x) where x is positive.
                    let a = x.max(zero.sub(x)).min(far);
                    let (tail, bell) = normal_tail(a);
                    let positive = x.mul(V::splat(f32::MAX)).max(zero).min(one);
                    let below = positive.fma(one.sub(tail.add(tail)), tail);
                    // 1 / sqrt(2 π)
                    x.max(near).min(far).mul(bell).fma(V::splat(0.398_942_3), below)
                }
                Activation::GeluTanh => {
                    let x = x.max(near).min(far);
                    let (s, rest) = sigmoids(inner(x));
                    // Of the argument: 2 sqrt(2 / π) (1 + 3 c x²).
                    let slope = x.mul(x).fma(V::splat(6.0 * SQRT_2_OVER_PI * CUBE), V::splat(2.0 * SQRT_2_OVER_PI));
                    s.mul(rest).mul(x.mul(slope)).add(s)
                }
                Activation::Silu => {
                    let (s, rest) = sigmoids(x);
                    s.mul(rest).mul(x.max(V::splat(-88.0)).min(V::splat(88.0))).add(s)
                }
            };
            store(g.mul(slope), dx.add(i), count);
        });
    }
}
for_each_isa! {
    /// See [`values_backward_generic`].
    pub(crate) unsafe fn values_backward(function: Activation, x: *const f32, gradient: *const f32, dx: *mut f32, len: usize) = values_backward_generic
}
