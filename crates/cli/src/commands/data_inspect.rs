//! `narthex data inspect`

use super::{print_json, program, project_flag, shelf};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    signals,
    style::{Style, table},
};
use clap::Args;
use narthex_base::{Observer, Result};
use narthex_run::{
    Project,
    inspect::{Inspection, Shown, Trial, inspect, try_out},
};

/// The arguments of `narthex data inspect`.
#[derive(Args)]
pub struct Inspect {
    /// A `data` step or artifact
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Only what was dropped for this reason
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Documents to show of each reason
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub samples: u64,
    /// Judge the step's rows as narthex.toml says now, and keep nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How many rows to judge, from the first on
    #[arg(long, default_value_t = 10_000, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,
    /// Set a value of narthex.toml for this trial, such as steps.clean.filter.c4.min_sentences=3
    #[arg(long, value_name = "KEY=VALUE", requires = "dry_run")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// Characters of a sample on a terminal.
const SHOWN_CHARS: usize = 160;

pub fn run(args: &Inspect, style: Style) -> Result<()> {
    let project = &args.ledger.project;
    let shown = Shown { reason: args.reason.as_deref(), samples: args.samples };
    let found = if args.dry_run {
        let interrupt = signals::interrupt_flag()?;
        let project = Project::open(project, &super::open_options(super::base_options(&args.set)))?;
        let trial = Trial { step: &args.reference, rows: args.sample };
        try_out(&project, trial, shown, Observer::new(&|_| {}, &interrupt))?
    } else {
        inspect(&shelf(project).ledger()?.resolve(&args.reference)?, shown)?
    };
    if args.output.json {
        print_json(&found);
        return Ok(());
    }
    show(&found, style);
    if args.dry_run {
        noteln!("next: {} data {}{}", program(), args.reference, project_flag(project));
    } else {
        noteln!("next: {} data inspect {} --dry-run{}", program(), args.reference, project_flag(project));
    }
    Ok(())
}

fn show(found: &Inspection, style: Style) {
    let share = |count: u64| format!("{:.2} %", 100.0 * count as f64 / found.rows.max(1) as f64);
    let mut rows = vec![["what", "documents", "share"].map(String::from).to_vec()];
    rows.push(vec!["rows".into(), found.rows.to_string(), String::new()]);
    rows.push(vec!["kept".into(), found.kept.to_string(), share(found.kept)]);
    for reason in &found.reasons {
        rows.push(vec![reason.reason.clone(), reason.count.to_string(), share(reason.count)]);
    }
    outln!("{}", table(&rows).trim_end());
    for reason in found.reasons.iter().filter(|reason| !reason.samples.is_empty()) {
        let rule = if reason.rule == reason.reason { String::new() } else { format!(" ({})", reason.rule) };
        outln!("\n{}{}", style.bold(&reason.reason), rule);
        for sample in &reason.samples {
            let measured = sample.value.map(|value| format!(", {}", rounded(value))).unwrap_or_default();
            let of = sample.of_row.map(|row| format!(", as row {row}")).unwrap_or_default();
            let text: String = sample.text.chars().take(SHOWN_CHARS).collect();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            outln!("  row {}{measured}{of}: {text}", sample.row);
        }
    }
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.4}") }
}
