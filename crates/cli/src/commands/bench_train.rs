//! `narthex bench train`: training as a step does it, on random tokens.

use super::{
    bench_machine::{BenchMachine, precision_name, prepare},
    print_json,
    ranks::{launch, meet, started, to_start},
    seat::{Engine, Started},
};
use crate::{output, style::table};
use clap::Args;
use narthex_base::{Error, Result};
use narthex_kernels::Precision;
use narthex_train::{Alone, BenchSetting, BenchShape, TrainBench, TrainRun, TrainTiming, World};
use std::io::BufRead;

/// How long a process may let the others wait before it is named.
const PATIENCE_SECONDS: u64 = 1800;

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
    /// Micro-batches of a step; they go to the processes in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub micro_batches: u32,
    /// Train with so many processes on this machine; more may be started by mpirun or srun instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub ranks: Option<u32>,
    /// What each process has alone: none, optimizer, gradients or parameters
    #[arg(long, value_name = "NAME", default_value = "none")]
    pub shard: String,
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

impl BenchTrain {
    fn setting(&self) -> Result<BenchSetting> {
        let shape = [BenchShape::Llama10m, BenchShape::Llama100m].into_iter().find(|shape| shape.name() == self.shape);
        let shape = shape.ok_or_else(|| {
            Error::usage(format!("there is no shape `{}`", self.shape)).help("one of: llama-10m, llama-100m")
        })?;
        let precision = match self.precision.as_str() {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            other => return Err(Error::usage(format!("there is no precision `{other}`")).help("one of: f32, bf16")),
        };
        let shard = serde_json::from_value(self.shard.clone().into()).map_err(|_| {
            Error::usage(format!("`--shard {}` says nothing", self.shard))
                .help("one of: none, optimizer, gradients, parameters")
        })?;
        Ok(BenchSetting {
            shape,
            precision,
            activation_checkpointing: self.activation_checkpointing,
            shard,
            micro_batches: self.micro_batches as usize,
        })
    }
}

/// `narthex bench train`
pub fn train(args: &BenchTrain) -> Result<()> {
    let setting = args.setting()?;
    if let Some(ranks) = to_start(args.ranks) {
        let logs = tempfile::tempdir().map_err(|error| Error::io("cannot write into", std::env::temp_dir(), error))?;
        let code = launch(logs.path(), ranks, 0)?;
        drop(logs);
        return if code == 0 { Ok(()) } else { std::process::exit(code.into()) };
    }
    prepare(&args.machine)?;
    let started = if args.machine.threads.is_some() { Started::find(Engine::Auto)? } else { started(Engine::Auto)? };
    let identity = [("version", env!("CARGO_PKG_VERSION").into()), ("setting", format!("{setting:?}"))];
    let world: Box<dyn World> = match started {
        Some(started) => Box::new(meet(started, PATIENCE_SECONDS, &identity)?),
        None => Box::new(Alone),
    };
    let device = narthex_model::device(&args.device, setting.precision)?;
    let bench = TrainBench::new(setting, &device, &*world);
    steps(args, bench.start()?, &*world).inspect_err(|error| world.abort(&error.to_string()))
}

/// The steps that are asked for, of which rank 0 tells.
fn steps(args: &BenchTrain, mut run: TrainRun, world: &dyn World) -> Result<()> {
    if !args.repeat {
        let timing = run.time(args.steps, true)?;
        match world.rank() {
            0 if args.machine.output.json => print_json(&timing),
            0 => print_timing(&timing),
            _ => {}
        }
        return Ok(());
    }
    if world.rank() == 0 {
        outln!("ready");
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let line = if world.rank() == 0 { lines.next().transpose() } else { Ok(None) };
        let line = line.map_err(|error| Error::io("cannot read", "stdin", error))?;
        let goes_on = line.is_some() && !output::is_lost();
        if world.tell(vec![u8::from(goes_on)])? != [1] {
            return Ok(());
        }
        let timing = run.time(args.steps, false)?;
        if world.rank() == 0 {
            outln!("{}", serde_json::to_string(&timing).expect("our own types serialize"));
        }
    }
}

fn print_timing(timing: &TrainTiming) {
    let processes = match timing.ranks {
        1 => String::new(),
        ranks => format!("{ranks} processes of "),
    };
    outln!(
        "{}, {}, {} on {processes}{}: {:.0} tokens/s, {:.1} ms a step (median of {})",
        timing.shape,
        precision_name(timing.precision),
        timing.isa,
        if timing.threads == 1 { "1 thread".into() } else { format!("{} threads", timing.threads) },
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
    if timing.ranks > 1 {
        outln!(
            "each sends {:.1} MB a step and waits for others {:.0} % of the time\n",
            timing.sent_mb_per_step,
            100.0 * timing.waiting
        );
    }
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
