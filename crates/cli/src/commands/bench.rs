//! `narthex bench`: what its parts have in common, and the kernels alone.

use super::{
    bench_machine::{BenchMachine, precision_name, prepare},
    bench_train::{self, BenchTrain},
    print_json,
};
use crate::style::table;
use clap::{Args, Subcommand};
use narthex_base::Result;
use narthex_kernels::{Precision, bench, isa, probe, processor};

/// The arguments of `narthex bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What is measured.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Time whole training steps of a known shape on random tokens
    Train(BenchTrain),
    /// Time every operator alone beside the machine's measured peaks
    Kernels(BenchKernels),
}

/// The arguments of `narthex bench kernels`.
#[derive(Args)]
pub struct BenchKernels {
    /// Only the operators whose line has all these words, whatever their case
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    pub only: String,
    /// Calls of each operator, after one to warm up
    #[arg(long, default_value_t = 10)]
    pub repetitions: usize,
    #[command(flatten)]
    pub machine: BenchMachine,
}

pub fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Train(args) => bench_train::train(args),
        BenchCommand::Kernels(args) => kernels(args),
    }
}

/// What the machine can do at most.
struct Limits {
    /// Operations a second.
    f32: f64,
    bf16: f64,
    int8: f64,
    /// Bytes a second.
    memory: f64,
}

impl Limits {
    /// The best of some tries: other tenants only slow down.
    fn measured() -> Self {
        const TRIES: usize = 5;
        let best = |measure: &dyn Fn() -> f64| (0..TRIES).map(|_| measure()).fold(0.0, f64::max);
        Self {
            f32: best(&|| probe::flop_per_second_now(Precision::F32)),
            bf16: best(&|| probe::flop_per_second_now(Precision::Bf16)),
            int8: best(&probe::int8_operations_per_second_now),
            memory: probe::read_bytes_per_second(),
        }
    }

    /// How near an operator comes to the limit that binds it, and which that is.
    fn share(&self, timing: &bench::Timing) -> (f64, &'static str) {
        let arithmetic = timing.flop / timing.peak_flop_per_second;
        let memory = timing.bytes / self.memory;
        let (bound, by) = if arithmetic > memory { (arithmetic, "arithmetic") } else { (memory, "memory") };
        (bound / timing.seconds, by)
    }
}

fn kernels(args: &BenchKernels) -> Result<()> {
    prepare(&args.machine)?;
    let limits = Limits::measured();
    let timings = bench::operators(args.repetitions, &args.only);
    if args.machine.output.json {
        let list: Vec<serde_json::Value> = timings
            .iter()
            .map(|timing| {
                let (share, bound_by) = limits.share(timing);
                serde_json::json!({
                    "operator": timing.operator,
                    "shape": timing.shape,
                    "precision": timing.precision,
                    "seconds": timing.seconds,
                    "gflop_per_second": timing.flop / timing.seconds / 1e9,
                    "gb_per_second": timing.bytes / timing.seconds / 1e9,
                    "peak_gflop_per_second": timing.peak_flop_per_second / 1e9,
                    "share_of_limit": share,
                    "bound_by": bound_by,
                })
            })
            .collect();
        print_json(&serde_json::json!({
            "processor": processor::family(),
            "isa": isa().name(),
            "threads": rayon::current_num_threads(),
            "f32_gflop_per_second": limits.f32 / 1e9,
            "bf16_gflop_per_second": limits.bf16 / 1e9,
            "int8_gop_per_second": limits.int8 / 1e9,
            "read_gb_per_second": limits.memory / 1e9,
            "operators": list,
        }));
        return Ok(());
    }
    outln!("{}, {} on {} threads", processor::family(), isa().name(), rayon::current_num_threads());
    outln!(
        "limits: {:.0} GFLOP/s in f32, {:.0} in bf16, {:.0} GOP/s in int8, reading memory at {:.1} GB/s",
        limits.f32 / 1e9,
        limits.bf16 / 1e9,
        limits.int8 / 1e9,
        limits.memory / 1e9
    );
    outln!(
        "the peak is that of multiply-adds in registers, measured beside each operator; what is in cache may be read"
    );
    outln!("faster than memory\n");
    let header = ["operator", "shape", "precision", "ms", "GFLOP/s", "peak", "GB/s", "of limit", "bound by"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for timing in &timings {
        let (share, bound_by) = limits.share(timing);
        rows.push(vec![
            timing.operator.into(),
            timing.shape.clone(),
            precision_name(timing.precision).into(),
            format!("{:.3}", 1e3 * timing.seconds),
            format!("{:.0}", timing.flop / timing.seconds / 1e9),
            format!("{:.0}", timing.peak_flop_per_second / 1e9),
            format!("{:.1}", timing.bytes / timing.seconds / 1e9),
            format!("{:.0} %", 100.0 * share),
            bound_by.into(),
        ]);
    }
    out!("{}", table(&rows));
    Ok(())
}
