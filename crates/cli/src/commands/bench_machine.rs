//! The machine as a benchmark uses it: threads, instruction set, and how results are told.

use super::choose_isa;
use crate::flags::JsonFlag;
use clap::Args;
use narthex_base::{Error, Result};
use narthex_kernels::Precision;

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

/// Threads and instruction set, before anything is computed.
pub fn prepare(machine: &BenchMachine) -> Result<()> {
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

/// As flags have it.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}
