//! Every instruction set against the portable lanes, bit for bit.

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
