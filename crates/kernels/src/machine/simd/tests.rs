//! Every instruction set against the portable lanes, bit for bit.

use super::dots::{BYTES, Dots, USE_DOTS, for_each_dots};
use super::*;

/// One step of each operation on values of all magnitudes; the answers as bits.
#[inline(always)]
unsafe fn everything_generic<V: Lanes>(values: &[f32; 64], out: &mut Vec<u32>) {
    // SAFETY: the array has 64 values; all accesses stay inside.
    unsafe {
        let v: [V; 4] = std::array::from_fn(|i| V::load(values.as_ptr().add(16 * i)));
        let mut push = |lanes: V| {
            let mut answer = [0f32; LANES];
            lanes.store(answer.as_mut_ptr());
            out.extend(answer.map(f32::to_bits));
        };
        push(v[0].add(v[1]));
        push(v[0].sub(v[1]));
        push(v[0].mul(v[1]));
        push(v[0].div(v[1]));
        push(v[0].fma(v[1], v[2]));
        push(v[0].max(v[1]));
        push(v[0].min(v[1]));
        push(v[0].mul(v[0]).sqrt());
        push(v[0].round());
        push(v[0].exp());
        push(v[0].sigmoid());
        push(V::pairs_within(v[0], v[1]));
        push(V::pairs_across(v[0], v[1]));
        push(v[3].dot_pairs(V::pairs_across(v[0], v[1]), V::pairs_within(v[1], v[2])));
        push(V::splat(v[0].sum()));
        push(V::splat(v[0].largest()));
        for count in 0..=LANES {
            push(V::load_partial(values.as_ptr(), count));
            let mut part = [7f32; LANES];
            v[0].store_partial(part.as_mut_ptr(), count);
            push(V::load(part.as_ptr()));
        }
        let mut rows: [V; LANES] = std::array::from_fn(|i| V::load(values.as_ptr().add(3 * i)));
        V::transpose(&mut rows);
        rows.into_iter().for_each(push);
    }
}

for_each_isa! { unsafe fn everything(values: &[f32; 64], out: &mut Vec<u32>) = everything_generic }

#[test]
fn every_set_computes_the_same_bits() {
    let stream = narthex_base::random::Stream::new(1, "lanes");
    let exponents = [-140, -120, -30, -3, 0, 1, 2, 6, 30, 60];
    let rounds = if cfg!(miri) { 2 } else { 500 };
    for round in 0..rounds {
        let exponent = 2f32.powi(exponents[round as usize % exponents.len()]);
        let mut values: [f32; 64] = std::array::from_fn(|i| stream.at(round).normal(i as u64) * exponent);
        values[round as usize % 64] = 0.0;
        let answers = |isa| {
            let _guard = crate::testing::with_isa(isa);
            let mut out = Vec::new();
            // SAFETY: the function needs nothing but its arguments.
            unsafe { everything(&values, &mut out) };
            out
        };
        let expected = answers(Isa::Portable);
        for isa in Isa::available() {
            assert_eq!(answers(isa), expected, "{} in round {round}", isa.name());
        }
    }
}

/// Each operation on integers; the answers as bits.
#[inline(always)]
unsafe fn integers_generic<D: Dots>(bytes: &[u8; BYTES], x: [i8; 4], out: &mut Vec<u32>) {
    // SAFETY: the array has 64 bytes; all accesses stay inside.
    unsafe {
        let raw = D::load(bytes.as_ptr());
        let [low, high] = D::nibbles(raw);
        for vector in [raw, low, high, D::add_bytes(raw, high), D::spread(bytes.as_ptr())] {
            let mut stored = [0u8; BYTES];
            D::store(vector, stored.as_mut_ptr());
            out.extend(stored.map(u32::from));
        }
        let word = i32::from_le_bytes(x.map(|x| x as u8));
        let offset = D::WIDE_OFFSET * x.map(i32::from).iter().sum::<i32>();
        // Codes of 0..=30, as int4 has them with its zeros taken off.
        let narrow = D::dot::<false>(D::sums(0), D::add_bytes(low, high), word);
        let wide = D::dot::<true>(D::sums(-offset), raw, word);
        // Finite: the highest bit of the exponents is taken off.
        let halves: [u16; LANES] = std::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1] & 0xbf]));
        let lanes = [
            D::to_f32(D::sums(word)),
            D::to_f32(narrow),
            D::to_f32(wide),
            D::to_f32(D::add(D::add(narrow, wide), D::sums(i32::MIN))),
            D::load_f16(halves.as_ptr()),
            D::load_u8(bytes.as_ptr()),
        ];
        for lanes in lanes {
            let mut answer = [0f32; LANES];
            lanes.store(answer.as_mut_ptr());
            out.extend(answer.map(f32::to_bits));
        }
        let codes: [f32; LANES] = std::array::from_fn(|i| f32::from((bytes[i] as i8).max(-127)));
        out.extend(D::narrow(D::Lanes::load(codes.as_ptr())).map(|word| word as u32));
    }
}

for_each_dots! { unsafe fn integers(bytes: &[u8; BYTES], x: [i8; 4], out: &mut Vec<u32>) = integers_generic }

#[test]
fn every_set_sums_the_same_integers() {
    let stream = narthex_base::random::Stream::new(1, "dots");
    let rounds = if cfg!(miri) { 4 } else { 200 };
    for round in 0..rounds {
        // Every other round has only what is largest: sums on the way may not be cut short.
        let number = |i: usize, ends: [u8; 2]| {
            let bits = stream.at(round).bits(i as u64) as u8;
            if round % 2 == 0 { bits } else { ends[usize::from(bits % 2)] }
        };
        let bytes = std::array::from_fn(|i| number(i, [0, 255]));
        let x = std::array::from_fn(|i| (number(BYTES + i, [127, 129]) as i8).max(-127));
        let answers = |isa, dots| {
            let _guard = crate::testing::with_isa(isa);
            USE_DOTS.store(dots, Ordering::Relaxed);
            let mut out = Vec::new();
            // SAFETY: the function needs nothing but its arguments.
            unsafe { integers(&bytes, x, &mut out) };
            USE_DOTS.store(true, Ordering::Relaxed);
            out
        };
        let expected = answers(Isa::Portable, true);
        for isa in Isa::available() {
            for dots in [true, false] {
                assert_eq!(answers(isa, dots), expected, "{} with dot products {dots} in round {round}", isa.name());
            }
        }
    }
}

#[test]
fn exponentials_are_accurate() {
    for i in (-8700..=8800).step_by(if cfg!(miri) { 500 } else { 1 }) {
        let x = i as f32 / 100.0;
        // SAFETY: portable lanes need no instruction set.
        let found = unsafe { Portable::splat(x).exp() }.0[0];
        let expected = f64::from(x).exp();
        assert!((f64::from(found) / expected - 1.0).abs() < 2.5e-7, "e^{x} = {found}, not {expected}");
    }
}

#[test]
fn names_are_read_back() {
    for isa in Isa::ALL {
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("sse9"), None);
    assert!(Isa::available().contains(&Isa::best()));
}
