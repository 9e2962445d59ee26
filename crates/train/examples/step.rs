use narthex_model::Precision;
use narthex_train::{BenchShape, TrainBench};
#[global_allocator]
static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let shape = if a[1].contains("100") { BenchShape::Llama100m } else { BenchShape::Llama10m };
    let p = if a[2] == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let t = TrainBench::new(shape, p, a.len() > 4, &narthex_model::cpu()).run(a[3].parse().unwrap(), true);
    println!(
        "{} {:?} {:.0} tok/s step {:.1} ms mfu {:.1}% peak {:.0} rss {:.0} MB faults {:.0} loss {:.5}",
        t.shape,
        t.precision,
        t.tokens_per_second,
        t.step_ms,
        100. * t.mfu,
        t.peak_gflop_per_second,
        t.peak_rss_mb,
        t.page_faults_per_step,
        t.loss
    );
    for o in t.operators {
        println!("  {:28} {:8.2} ms {:5.1}% {:7.1} GF/s", o.operator, o.ms, 100. * o.share, o.gflop_per_second);
    }
}
