//! Which family of processors this machine has, told by what it can do: a virtual machine may hide its numbers.

use super::simd::Isa;

/// The family, in words.
pub fn family() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return x86();
    #[cfg(target_arch = "aarch64")]
    return if super::simd::dots::sdot() { "64-bit Arm with dot products" } else { "64-bit Arm" };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "a processor without a table here";
}

/// By vendor and instructions; the first row that fits.
#[cfg(target_arch = "x86_64")]
fn x86() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// EDX of leaf 7: tiles for bf16, beside those for int8.
    const TILES_BF16: u32 = 1 << 22;
    /// EAX of its subleaf 1: tiles for f16.
    const TILES_F16: u32 = 1 << 21;
    let first = __cpuid(0);
    let vendor = [first.ebx, first.edx, first.ecx].map(u32::to_le_bytes);
    let (tiles, tiles_f16) = match first.eax >= 7 {
        true => (__cpuid_count(7, 0).edx & TILES_BF16 != 0, __cpuid_count(7, 1).eax & TILES_F16 != 0),
        false => (false, false),
    };
    let family = {
        let signature = __cpuid(1).eax;
        (signature >> 8 & 15) + (signature >> 20 & 255)
    };
    match vendor.as_flattened() {
        b"GenuineIntel" => match () {
            () if tiles && tiles_f16 => "Intel Granite Rapids or later",
            () if tiles => "Intel Sapphire or Emerald Rapids",
            () if has!("avx512bf16") => "Intel Cooper Lake",
            () if has!("avx512vbmi2") => "Intel Ice Lake",
            () if has!("avx512vnni") => "Intel Cascade Lake",
            () if has!("avx512f") => "Intel Skylake with AVX-512",
            () if has!("avxvnni") => "Intel Alder Lake or later",
            () if Isa::Avx2.is_available() => "Intel with AVX2",
            () => "Intel without AVX2",
        },
        b"AuthenticAMD" => match family {
            0x1a.. => "AMD Zen 5 or later",
            0x19 if has!("avx512bf16") => "AMD Zen 4",
            0x19 => "AMD Zen 3",
            0x17 => "AMD Zen, Zen+ or Zen 2",
            _ => "AMD before Zen",
        },
        _ => "x86 of another vendor",
    }
}
