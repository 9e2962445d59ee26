//! The matrix tiles of Intel's AMX: whether this machine has them for bf16, and sums of products on them. Knows packed
//! words; no matrices.
//!
//! A word is a pair of bf16. For each block of 16 words, the products of the low halves and those of the high halves
//! make a chain of fused multiply-adds each, from 0; then both are added to each other, and that to the sum. Denormals
//! count as 0. (Found by trying out, as the reference describes the order only: Intel SDM, `TDPBF16PS`.)

use std::{arch::asm, sync::LazyLock};

/// Rows of a tile, and words of its rows.
pub(crate) const SIDE: usize = 16;

/// Columns of B in a block of sums: those of a packed panel.
pub(crate) const COLUMNS: usize = 2 * SIDE;

/// Rows of A in a block of sums.
pub(crate) const ROWS: usize = 2 * SIDE;

/// Sums of a block, row by row.
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[f32; COLUMNS]; ROWS]);

/// Words ahead of those in hand that a block of few rows fetches from memory.
const WORDS_AHEAD: usize = 2 * SIDE;

/// What `LDTILECFG` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Whether this machine has tiles for bf16, and the system lets this process use them.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_tiles() && permitted());
    *AVAILABLE
}

/// By the processor's account, and the system's of the registers that it saves.
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 1 << 24;
    const TILES_BF16: u32 = 1 << 22;
    /// Configuration and data of tiles.
    const SAVED: u32 = 3 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let wanted = TILES | TILES_BF16;
    let (saved, _high): (u32, u32);
    // SAFETY: with OSXSAVE the instruction is there; it reads a register.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") saved, out("edx") _high, options(nomem, nostack)) };
    __cpuid_count(7, 0).edx & wanted == wanted && saved & SAVED == SAVED
}

/// Linux gives the registers only to processes that ask.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Sets up this thread's tiles for rows of A of this many words, up to 16. Ends with [`release`].
///
/// # Safety
/// The machine has tiles.
pub(crate) unsafe fn configure(words: usize) {
    debug_assert!((1..=SIDE).contains(&words));
    let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let whole = (4 * SIDE) as u16;
    // 0 to 3 hold sums, 4 and 5 rows of A, 6 and 7 words of B.
    config.rows[..8].copy_from_slice(&[16, 16, 16, 16, 16, 16, words as u8, words as u8]);
    config.row_bytes[..8].copy_from_slice(&[
        whole,
        whole,
        whole,
        whole,
        4 * words as u16,
        4 * words as u16,
        whole,
        whole,
    ]);
    // SAFETY: the caller's promise; the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
}

/// Gives the tiles back, so that switching threads need not save them.
///
/// # Safety
/// The machine has tiles.
pub(crate) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// A block of sums in memory, of 32 columns and up to 32 rows.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// The first sum.
    pub(crate) to: *mut f32,
    /// Values from row to row.
    pub(crate) stride: usize,
    /// Rows: those up to the next 16 are written too.
    pub(crate) rows: usize,
    /// Whether the sums start at 0, and not at what is there.
    pub(crate) fresh: bool,
}

/// Adds to a block of sums the products of as many rows of A, `a_row` words apart, and a panel of B of 32 words a row,
/// over `blocks` times as many words as were set up. Rows of A that do not count must be readable up to the next 16.
///
/// # Safety
/// Tiles are set up in this thread; A, B and the sums are there; `blocks` is not 0.
pub(crate) unsafe fn multiply(sums: Block, a: *const f32, a_row: usize, b: *const f32, blocks: usize) {
    let Block { to, stride, rows, fresh } = sums;
    // SAFETY: the caller's promises; what is fetched ahead may be anything.
    unsafe {
        if rows <= SIDE {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "test {fresh:e}, {fresh:e}",
                "jnz 2f",
                "tileloadd tmm0, [{to} + {stride} * 1]",
                "tileloadd tmm1, [{to} + {stride} * 1 + 64]",
                "2:",
                "tileloadd tmm4, [{a} + {a_row} * 1]",
                "tileloadd tmm6, [{b} + {line} * 1]",
                "tileloadd tmm7, [{b} + {line} * 1 + 64]",
                "mov {ahead:e}, 2048",
                "3:",
                "prefetcht0 [{next} + {ahead} - 64]",
                "prefetcht0 [{next} + {ahead} - 128]",
                "sub {ahead:e}, 128",
                "jnz 3b",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, 2048",
                "add {next}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{to} + {stride} * 1], tmm0",
                "tilestored [{to} + {stride} * 1 + 64], tmm1",
                to = in(reg) to,
                stride = in(reg) 4 * stride,
                fresh = in(reg) u32::from(fresh),
                line = in(reg) 4 * COLUMNS,
                a = inout(reg) a => _,
                a_row = in(reg) 4 * a_row,
                b = inout(reg) b => _,
                next = inout(reg) b.wrapping_add(WORDS_AHEAD * COLUMNS) => _,
                ahead = out(reg) _,
                blocks = inout(reg) blocks => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {fresh:e}, {fresh:e}",
                "jnz 2f",
                "tileloadd tmm0, [{to} + {stride} * 1]",
                "tileloadd tmm1, [{to} + {stride} * 1 + 64]",
                "tileloadd tmm2, [{to_low} + {stride} * 1]",
                "tileloadd tmm3, [{to_low} + {stride} * 1 + 64]",
                "2:",
                "tileloadd tmm4, [{a} + {a_row} * 1]",
                "tileloadd tmm6, [{b} + {line} * 1]",
                "tileloadd tmm7, [{b} + {line} * 1 + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{low} + {a_row} * 1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 64",
                "add {low}, 64",
                "add {b}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{to} + {stride} * 1], tmm0",
                "tilestored [{to} + {stride} * 1 + 64], tmm1",
                "tilestored [{to_low} + {stride} * 1], tmm2",
                "tilestored [{to_low} + {stride} * 1 + 64], tmm3",
                to = in(reg) to,
                to_low = in(reg) to.wrapping_add(SIDE * stride),
                stride = in(reg) 4 * stride,
                fresh = in(reg) u32::from(fresh),
                line = in(reg) 4 * COLUMNS,
                a = inout(reg) a => _,
                low = inout(reg) a.wrapping_add(SIDE * a_row) => _,
                a_row = in(reg) 4 * a_row,
                b = inout(reg) b => _,
                blocks = inout(reg) blocks => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

/// Multiplies what tiles hold again and again, `rounds` times 4 x 16 x 16 sums of 16 words: the most that this thread
/// can do.
///
/// # Safety
/// The machine has tiles.
pub(crate) unsafe fn spin(rounds: usize) {
    // SAFETY: the caller's promise; tiles are zeros after they are set up.
    unsafe {
        configure(SIDE);
        asm!(
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem)
        );
        release();
    }
}
