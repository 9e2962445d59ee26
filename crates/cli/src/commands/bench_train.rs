//! `narthex bench train`: training as a step does it, on random tokens.

use super::{
    bench_machine::{BenchMachine, precision_name, prepare},
    print_json,
};
use crate::{output, style::table};
use clap::Args;
use narthex_base::{Error, Result};
use narthex_kernels::Precision;
use narthex_train::{BenchShape, TrainBench, TrainTiming};
use std::io::BufRead;

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

/// `narthex bench train`
pub fn train(args: &BenchTrain) -> Result<()> {
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
