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

/// Sets up this thread's tiles: 0 to 3 hold sums, 4 and 5 rows of A, 6 and 7 words of B. Ends with [`release`].
///
/// # Safety
/// The machine has tiles.
pub(crate) unsafe fn configure() {
    let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    config.rows[..8].fill(SIDE as u8);
    config.row_bytes[..8].fill(4 * SIDE as u16);
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

/// A block of 32 sums a row in memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Place {
    /// The first sum.
    pub(crate) first: *mut f32,
    /// Bytes from row to row.
    row_bytes: usize,
}

impl Place {
    /// Rows that lie `stride` values apart.
    pub(crate) fn new(first: *mut f32, stride: usize) -> Self {
        Self { first, row_bytes: 4 * stride }
    }

    /// Sums that begin at 0: there is nothing to read.
    pub(crate) fn zeros() -> Self {
        Self { first: std::ptr::null_mut(), row_bytes: 0 }
    }
}

/// A product of tiles.
#[repr(C)]
pub(crate) struct Run {
    /// What the sums begin at.
    pub(crate) from: Place,
    /// Where they go, of up to 32 rows: those up to the next 16 are written too.
    pub(crate) to: Place,
    /// Tiles of 16 rows of A by 16 words, one behind the other over the depth.
    pub(crate) a: *const f32,
    /// The 16 rows below them.
    pub(crate) low: *const f32,
    /// A panel of B, 32 columns a word.
    pub(crate) b: *const f32,
    /// Depth in steps of 16 words, not 0.
    pub(crate) steps: usize,
    /// What to fetch from memory meanwhile,
    pub(crate) next: *const f32,
    /// and how many lines of it a step.
    pub(crate) lines: usize,
}

/// Runs a product of up to 16 rows of A, or of 32.
///
/// # Safety
/// Tiles are set up in this thread; A, B and the sums are there.
pub(crate) unsafe fn multiply(run: &Run, rows: usize) {
    // SAFETY: the caller's promises; what is fetched ahead may be anything.
    unsafe {
        if rows <= SIDE {
            asm!(
                "mov {at}, [{run}]",
                "test {at}, {at}",
                "jz 2f",
                "mov {by}, [{run} + 8]",
                "tileloadd tmm0, [{at} + {by} * 1]",
                "tileloadd tmm1, [{at} + {by} * 1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "3:",
                "tileloadd tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {line} * 2]",
                "tileloadd tmm7, [{b} + {line} * 2 + 64]",
                "mov {by}, {lines}",
                "test {by}, {by}",
                "jz 5f",
                "4:",
                "prefetcht1 [{next}]",
                "add {next}, 64",
                "dec {by}",
                "jnz 4b",
                "5:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 1024",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "mov {at}, [{run} + 16]",
                "mov {by}, [{run} + 24]",
                "tilestored [{at} + {by} * 1], tmm0",
                "tilestored [{at} + {by} * 1 + 64], tmm1",
                run = in(reg) run,
                at = out(reg) _,
                by = out(reg) _,
                line = in(reg) 4 * SIDE,
                a = inout(reg) run.a => _,
                b = inout(reg) run.b => _,
                steps = inout(reg) run.steps => _,
                next = inout(reg) run.next => _,
                lines = in(reg) run.lines,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        } else {
            asm!(
                "mov {at}, [{run}]",
                "test {at}, {at}",
                "jz 2f",
                "mov {by}, [{run} + 8]",
                "tileloadd tmm0, [{at} + {by} * 1]",
                "tileloadd tmm1, [{at} + {by} * 1 + 64]",
                "shl {by}, 4",
                "add {at}, {by}",
                "shr {by}, 4",
                "tileloadd tmm2, [{at} + {by} * 1]",
                "tileloadd tmm3, [{at} + {by} * 1 + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {line} * 2]",
                "tileloadd tmm7, [{b} + {line} * 2 + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{low} + {line} * 1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "mov {by}, {lines}",
                "test {by}, {by}",
                "jz 5f",
                "4:",
                "prefetcht1 [{next}]",
                "add {next}, 64",
                "dec {by}",
                "jnz 4b",
                "5:",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 1024",
                "add {low}, 1024",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "mov {at}, [{run} + 16]",
                "mov {by}, [{run} + 24]",
                "tilestored [{at} + {by} * 1], tmm0",
                "tilestored [{at} + {by} * 1 + 64], tmm1",
                "shl {by}, 4",
                "add {at}, {by}",
                "shr {by}, 4",
                "tilestored [{at} + {by} * 1], tmm2",
                "tilestored [{at} + {by} * 1 + 64], tmm3",
                run = in(reg) run,
                at = out(reg) _,
                by = out(reg) _,
                line = in(reg) 4 * SIDE,
                a = inout(reg) run.a => _,
                low = inout(reg) run.low => _,
                b = inout(reg) run.b => _,
                steps = inout(reg) run.steps => _,
                next = inout(reg) run.next => _,
                lines = in(reg) run.lines,
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
        configure();
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
