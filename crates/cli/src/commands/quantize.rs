//! `narthex quantize`

use super::{
    base_options, open_options, program, project_flag,
    run::{go, reported},
};
use crate::style::{Style, bytes};
use clap::{Args, ValueEnum};
use narthex_base::{
    Figure, Result,
    config::{IntegerKind, QuantizeStep},
};
use narthex_run::{QuantizeOptions, RunOptions, quantizing};
use std::path::PathBuf;

/// The arguments of `narthex quantize`.
#[derive(Args)]
pub struct Quantize {
    /// A model in the ledger, or a model folder, as `./DIR`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// What weights become: 8 bits, or 4 bits in groups
    #[arg(long, value_name = "KIND")]
    pub to: QuantizeKind,
    /// Weights that share a scale, with int4
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = group)]
    pub group: usize,
    /// Text like that which the model will meet: a file of plain text, or what a tokenize step made. It shows where errors
    /// count most, and its last quarter (or the validation part) what they cost
    #[arg(long, value_name = "TEXT")]
    pub calibrate: Option<String>,
    /// What the artifact is called [default: REF-KIND]
    #[arg(long)]
    pub name: Option<String>,
    /// The project whose ledger holds the model and takes the artifact
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Make it even if it is there
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What weights become.
#[derive(Clone, Copy, ValueEnum)]
pub enum QuantizeKind {
    Int8,
    Int4,
}

fn group(text: &str) -> Result<usize, String> {
    let known = QuantizeStep::GROUPS;
    text.parse().ok().filter(|size| known.contains(size)).ok_or_else(|| format!("there are groups of {known:?} only"))
}

pub fn run(args: &Quantize, style: Style) -> Result<()> {
    let to = match args.to {
        QuantizeKind::Int8 => IntegerKind::Int8,
        QuantizeKind::Int4 => IntegerKind::Int4,
    };
    let options = QuantizeOptions { to, group: args.group, calibrate: args.calibrate.clone(), name: args.name.clone() };
    let (project, name) = quantizing(&args.project, &args.reference, &options, &open_options(base_options(&[])))?;
    let force = if args.force { vec![name.clone()] } else { vec![] };
    let run = RunOptions { to: Some(name.clone()), force, dry_run: false };
    let report = go(&project, &run, style, args.json, None)?;
    if args.json {
        outln!("{}", reported(&report));
        return Ok(());
    }
    outln!("{name}");
    let Some(row) = report.rows.last() else { return Ok(()) };
    let figure = |name: &str| row.figures.get(name).copied().unwrap_or_default();
    noteln!(
        "{} matrices, {} -> {}, weights off by {:.2} % of their size",
        figure("matrices"),
        bytes(figure("baseline_bytes") as u64),
        bytes(figure("bytes") as u64),
        100.0 * figure("relative_weight_error")
    );
    let loss = Figure::NATS_PER_BYTE;
    match row.figures.contains_key(loss.name) {
        true => {
            let (before, after) = (figure(&loss.of_baseline()), figure(loss.name));
            noteln!(
                "{before:.4} -> {after:.4} nats per byte ({:+.2} %), the same likeliest token {:.1} % of the time",
                100.0 * (after / before - 1.0),
                100.0 * figure("same_likeliest_token")
            );
        }
        false => noteln!("give some text with `--calibrate FILE` to round better and to see what it costs"),
    }
    let (program, flag) = (program(), project_flag(&args.project));
    noteln!("next:\n  {program} serve {name}{flag}\n  {program} trace {name}{flag}");
    Ok(())
}
