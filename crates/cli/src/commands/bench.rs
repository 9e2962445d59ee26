//! `narthex bench`: what its parts have in common, and the kernels alone.

use super::{
    bench_machine::{BenchMachine, precision_name, prepare},
    bench_train::{self, BenchTrain},
    print_json,
};
use crate::style::table;
use clap::{Args, Subcommand};
use narthex_base::Result;
use narthex_kernels::{bench, isa, probe};

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

fn kernels(args: &BenchKernels) -> Result<()> {
    prepare(&args.machine)?;
    let memory = probe::read_bytes_per_second();
    let timings = bench::operators(args.repetitions, &args.only);
    if args.machine.output.json {
        let list: Vec<serde_json::Value> = timings
            .iter()
            .map(|timing| {
                serde_json::json!({
                    "operator": timing.operator,
                    "shape": timing.shape,
                    "precision": timing.precision,
                    "seconds": timing.seconds,
                    "gflop_per_second": timing.flop / timing.seconds / 1e9,
                    "gb_per_second": timing.bytes / timing.seconds / 1e9,
                    "peak_gflop_per_second": timing.peak_flop_per_second / 1e9,
                })
            })
            .collect();
        print_json(&serde_json::json!({
            "isa": isa().name(),
            "threads": rayon::current_num_threads(),
            "read_gb_per_second": memory / 1e9,
            "operators": list,
        }));
        return Ok(());
    }
    outln!("{} on {} threads, reading memory at {:.1} GB/s", isa().name(), rayon::current_num_threads(), memory / 1e9);
    outln!("the peak is that of multiply-adds in registers, measured beside each operator\n");
    let header = ["operator", "shape", "precision", "ms", "GFLOP/s", "peak", "of peak", "GB/s"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for timing in &timings {
        let (speed, peak) = (timing.flop / timing.seconds, timing.peak_flop_per_second);
        rows.push(vec![
            timing.operator.into(),
            timing.shape.clone(),
            precision_name(timing.precision).into(),
            format!("{:.3}", 1e3 * timing.seconds),
            format!("{:.0}", speed / 1e9),
            format!("{:.0}", peak / 1e9),
            format!("{:.0} %", 100.0 * speed / peak),
            format!("{:.1}", timing.bytes / timing.seconds / 1e9),
        ]);
    }
    out!("{}", table(&rows));
    Ok(())
}
