//! `narthex bench train` and `narthex bench kernels`

use super::{choose_isa, print_json};
use crate::{
    arguments::{BenchCommand, BenchKernels, BenchMachine, BenchTrain},
    output,
    style::table,
};
use narthex_base::{Error, Result};
use narthex_kernels::{Precision, bench, isa, probe};
use narthex_train::{BenchShape, TrainBench, TrainTiming};
use std::io::BufRead;

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
    if args.machine.json {
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
    if args.machine.json {
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
