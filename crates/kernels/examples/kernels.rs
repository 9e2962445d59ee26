//! Times every operator against the machine's peaks: `cargo run --release -p narthex-kernels --example kernels`

use narthex_kernels::{Precision, bench, isa, probe};

#[global_allocator]
static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;

fn main() {
    let peaks = [Precision::F32, Precision::Bf16].map(probe::peak_flop_per_second);
    let memory = probe::read_bytes_per_second();
    println!(
        "{}: f32 {:.0} and bf16 {:.0} GFLOP/s, {:.1} GB/s",
        isa().name(),
        peaks[0] / 1e9,
        peaks[1] / 1e9,
        memory / 1e9
    );
    for t in bench::operators(10) {
        let peak = peaks[usize::from(t.precision == Precision::Bf16)];
        let share = (t.flop / peak / t.seconds).max(0.0);
        println!(
            "{:26} {:32} {:?}: {:8.3} ms, {:6.0} GFLOP/s ({:3.0} % of peak), {:6.1} GB/s",
            t.operator,
            t.shape,
            t.precision,
            1e3 * t.seconds,
            t.flop / t.seconds / 1e9,
            100.0 * share,
            t.bytes / t.seconds / 1e9
        );
    }
}
