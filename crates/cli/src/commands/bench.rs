//! `narthex bench train` and `narthex bench kernels`

use super::{choose_isa, print_json};
use crate::{flags::JsonFlag, output, style::table};
use clap::{Args, Subcommand};
use narthex_base::{Error, Result};
use narthex_kernels::{Precision, bench, isa, probe};
use narthex_train::{BenchShape, TrainBench, TrainTiming};
use std::io::BufRead;

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

/// The machine as a benchmark uses it.
#[derive(Args)]
pub struct BenchMachine {
    /// Threads; all processors by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The instruction set: portable, neon, avx2, avx512, avx512-bf16 or amx; the best by default
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// The arguments of `narthex bench train`.
#[derive(Args)]
pub struct BenchTrain {
    /// llama-10m (8 x 256 tokens a step) or llama-100m (4 x 512)
    #[arg(long, default_value = "llama-10m")]
    pub shape: String,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    pub precision: String,
    /// Steps to time, after three to warm up
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Keep only what enters each block and compute the rest again
    #[arg(long)]
    pub activation_checkpointing: bool,
    /// cpu, or cuda, rocm, vulkan, metal or wgpu in a binary built with that feature
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub device: String,
    /// Say `ready`, then time the steps and print one line of JSON for each line on stdin: so that a
    /// script can take turns between programs
    #[arg(long)]
    pub repeat: bool,
    #[command(flatten)]
    pub machine: BenchMachine,
}

/// The arguments of `narthex bench kernels`.
#[derive(Args)]
pub struct BenchKernels {
    /// Calls of each operator, after one to warm up
    #[arg(long, default_value_t = 10)]
    pub repetitions: usize,
    #[command(flatten)]
    pub machine: BenchMachine,
}

pub fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Train(args) => train(args),
        BenchCommand::Kernels(args) => kernels(args),
    }
}

/// Threads and instruction set, before anything is computed.
fn prepare(machine: &BenchMachine) -> Result<()> {
    if let Some(threads) = machine.threads {
        if threads == 0 {
            return Err(Error::usage("`--threads 0` leaves nobody to work").help("use 1 or more"));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Error::internal("the threads are running already").cause(error))?;
    }
    machine.isa.as_deref().map_or(Ok(()), choose_isa)
}

fn train(args: &BenchTrain) -> Result<()> {
    prepare(&args.machine)?;
    let shape = [BenchShape::Llama10m, BenchShape::Llama100m].into_iter().find(|shape| shape.name() == args.shape);
    let shape = shape.ok_or_else(|| {
        Error::usage(format!("there is no shape `{}`", args.shape)).help("one of: llama-10m, llama-100m")
    })?;
    let precision = match args.precision.as_str() {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => return Err(Error::usage(format!("there is no precision `{other}`")).help("one of: f32, bf16")),
    };
    let device = narthex_model::device(&args.device, precision)?;
    let mut bench = TrainBench::new(shape, precision, args.activation_checkpointing, &device);
    if args.repeat {
        outln!("ready");
        for line in std::io::stdin().lock().lines() {
            if output::is_lost() {
                break;
            }
            line.map_err(|error| Error::io("cannot read", "stdin", error))?;
            let timing = bench.run(args.steps, false);
            outln!("{}", serde_json::to_string(&timing).expect("our own types serialize"));
        }
        return Ok(());
    }
    let timing = bench.run(args.steps, true);
    if args.machine.output.json {
        print_json(&timing);
    } else {
        print_timing(&timing);
    }
    Ok(())
}

fn print_timing(timing: &TrainTiming) {
    outln!(
        "{}, {}, {} on {} threads: {:.0} tokens/s, {:.1} ms a step (median of {})",
        timing.shape,
        precision_name(timing.precision),
        timing.isa,
        timing.threads,
        timing.tokens_per_second,
        timing.step_ms,
        timing.steps
    );
    outln!(
        "model FLOP utilisation {:.1} % of {:.0} GFLOP/s, {:.0} MB resident at most, {:.0} page faults a step, loss {:.4}\n",
        100.0 * timing.mfu,
        timing.peak_gflop_per_second,
        timing.peak_rss_mb,
        timing.page_faults_per_step,
        timing.loss
    );
    let mut rows = vec![["operator", "ms a step", "share", "GFLOP/s"].map(String::from).to_vec()];
    for operator in &timing.operators {
        let speed = operator.gflop_per_second;
        rows.push(vec![
            operator.operator.clone(),
            format!("{:.2}", operator.ms),
            format!("{:.1} %", 100.0 * operator.share),
            if speed >= 0.5 { format!("{speed:.0}") } else { String::new() },
        ]);
    }
    out!("{}", table(&rows));
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

fn kernels(args: &BenchKernels) -> Result<()> {
    prepare(&args.machine)?;
    let memory = probe::read_bytes_per_second();
    let timings = bench::operators(args.repetitions);
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
