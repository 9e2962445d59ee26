//! `narthex reproduce` and `narthex verify`: whether a model is what its papers say.

use super::{base_options, open_options, print_json, program, project_flag};
use crate::{
    flags::{JsonFlag, ThreadsFlag},
    render::Renderer,
    signals,
    style::{Style, seconds, table},
};
use clap::Args;
use narthex_base::{Error, Event, Observer, Result};
use narthex_run::{ReproduceOptions, Verified};
use serde_json::Value;
use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// The arguments of `narthex reproduce`.
#[derive(Args)]
pub struct Reproduce {
    /// A name or digest in the ledger, an exported folder, as `./DIR`, or its narthex.json
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project, where the sources lie
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Threads that compute; all processors by default. The bytes are the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Work in this folder and keep it; a temporary one by default
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Follow the recipe even where narthex.toml says something else by now
    #[arg(long)]
    pub ignore_project_file: bool,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// The arguments of `narthex verify`.
#[derive(Args)]
pub struct Verify {
    /// A name or digest of a model or bundle in the ledger
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The project whose ledger has the checkpoints
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Intervals between checkpoints to compute again
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Which intervals; a number that whoever trained could not know. The clock's by default
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub threads: ThreadsFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// Threads for everything that follows.
pub fn set_threads(threads: Option<u32>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads as usize)
        .build_global()
        .map_err(|error| Error::internal("the threads are running already").cause(error))
}

pub fn reproduce(args: &Reproduce, style: Style) -> Result<()> {
    set_threads(args.threads)?;
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, false);
    // Each step is asked for by itself; those before it are known by then.
    let emit = |event| {
        if !matches!(event, Event::StepUnchanged { .. }) {
            renderer.event(event);
        }
    };
    let options = ReproduceOptions { work: args.work.clone(), ignore_project_file: args.ignore_project_file };
    let observer = Observer::new(&emit, &interrupt);
    let made =
        narthex_run::reproduce(&args.project, &args.reference, &options, &open_options(base_options(&[])), observer)?;
    drop(renderer);
    if args.output.json {
        print_json(&made);
        return Ok(());
    }
    let mut rows = vec![["step", "kind", "artifact", "time", ""].map(String::from).to_vec()];
    rows.extend(made.iter().map(|step| {
        vec![step.step.clone(), step.kind.clone(), step.digest.short(), seconds(step.seconds), "the same".into()]
    }));
    out!("{}", table(&rows));
    match made.last() {
        Some(last) => noteln!("\n{} is reproduced: {}", args.reference, last.digest),
        None => noteln!("\n{} is raw material: its files are what was recorded", args.reference),
    }
    Ok(())
}

/// A seed that whoever trained could not know.
pub fn seed_of_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// What was checked, as `--json` says it.
pub fn verified(found: &Verified, seed: u64) -> Result<Value> {
    let mut value = serde_json::to_value(found).map_err(|error| Error::internal("no JSON").cause(error))?;
    value["seed"] = seed.into();
    Ok(value)
}

pub fn verify(args: &Verify, style: Style) -> Result<()> {
    set_threads(args.threads.threads)?;
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, false);
    let emit = |event| renderer.event(event);
    let seed = args.seed.unwrap_or_else(seed_of_clock);
    let observer = Observer::new(&emit, &interrupt);
    let found = narthex_run::verify(&args.project, &args.reference, args.samples as usize, seed, observer)?;
    drop(renderer);
    if args.output.json {
        print_json(&verified(&found, seed)?);
        return Ok(());
    }
    let mut rows = vec![["step", "from", "to", "time", ""].map(String::from).to_vec()];
    rows.extend(found.checked.iter().map(|interval| {
        let (from, until) = (interval.from.to_string(), interval.until.to_string());
        vec![interval.step.clone(), from, until, seconds(interval.seconds), "as recorded".into()]
    }));
    out!("{}", table(&rows));
    outln!(
        "\n{} of {} intervals, chosen with seed {seed}, in {}",
        found.checked.len(),
        found.intervals,
        seconds(found.seconds)
    );
    if found.training_seconds > 0.0 {
        let share = 100.0 * found.seconds / found.training_seconds;
        outln!("training took {}: this is {share:.1} % of it", seconds(found.training_seconds));
    }
    outln!(
        "one forged interval would have been found with probability {:.3}, a tenth of them with {:.3}",
        found.finds_one,
        found.finds_tenth
    );
    noteln!("\nnext: {} reproduce {}{}", program(), args.reference, project_flag(&args.project));
    Ok(())
}
