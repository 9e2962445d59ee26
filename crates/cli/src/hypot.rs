//! The length of a vector of two numbers, for what this program is linked from: `hypot` and `hypotf` of glibc were given
//! a new version in 2.35, and without these two the program would ask for that version only because of them. Nothing
//! that Narthex computes calls either; crates for complex numbers and for SQL's functions name them.
//!
//! The linker takes these before it looks into libm. Results are those of IEEE 754-2019, section 9.2.1: infinite if
//! either is, whatever the other; of f32 rounded once from the sum in double precision, as glibc's own is since 2.35.

/// The length of (`x`, `y`) in single precision.
#[unsafe(no_mangle)]
extern "C" fn hypotf(x: f32, y: f32) -> f32 {
    if x.is_infinite() || y.is_infinite() {
        return f32::INFINITY;
    }
    let (x, y) = (f64::from(x), f64::from(y));
    (x * x + y * y).sqrt() as f32
}

/// The length of (`x`, `y`) in double precision, within one unit in the last place.
#[unsafe(no_mangle)]
extern "C" fn hypot(x: f64, y: f64) -> f64 {
    libm::hypot(x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!((hypotf(3.0, -4.0), hypot(3.0, -4.0)), (5.0, 5.0));
        assert_eq!((hypotf(f32::MAX, 0.0), hypot(f64::MAX, 0.0)), (f32::MAX, f64::MAX));
        assert_eq!((hypotf(1e30, 1e30), hypot(1e300, 1e300)), (1.414_213_5e30, 1.414_213_562_373_095_2e300));
        assert_eq!(
            (hypotf(f32::NAN, f32::INFINITY), hypot(f64::NEG_INFINITY, f64::NAN)),
            (f32::INFINITY, f64::INFINITY)
        );
        assert!(hypotf(f32::NAN, 1.0).is_nan() && hypot(1.0, f64::NAN).is_nan());
        assert_eq!((hypotf(1e-45, 0.0), hypot(0.0, 5e-324)), (1e-45, 5e-324));
    }
}
