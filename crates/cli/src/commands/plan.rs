//! `narthex plan`

use super::{open_options, plan_options, print_json};
use crate::{
    flags::{JsonFlag, Settings},
    style::table,
};
use clap::{Args, Subcommand};
use narthex_base::Result;
use narthex_run::{MemoryPlan, Project};
use std::path::PathBuf;

/// The arguments of `narthex plan`.
#[derive(Args)]
pub struct PlanArguments {
    #[command(subcommand)]
    pub command: PlanCommand,
}

/// What is planned.
#[derive(Subcommand)]
pub enum PlanCommand {
    /// What training takes in each process, for each way to spread it over processes and the disk
    Memory {
        /// The step that trains
        step: String,
        /// Processes on this machine
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        ranks: u32,
        /// The project: a folder with a narthex.toml
        #[arg(long, default_value = ".")]
        project: PathBuf,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        output: JsonFlag,
    },
}

pub fn run(args: &PlanArguments) -> Result<()> {
    let PlanCommand::Memory { step, ranks, project, settings, output } = &args.command;
    let project = Project::open(project, &open_options(plan_options(project, settings)?))?;
    let plan = project.memory_plan(step, *ranks as usize)?;
    if output.json {
        print_json(&plan);
    } else {
        print(&plan);
    }
    Ok(())
}

fn print(plan: &MemoryPlan) {
    let MemoryPlan { step, ranks, parameters, trained_parameters, limit_bytes, settings } = plan;
    let processes = if *ranks == 1 { "one process".to_string() } else { format!("each of {ranks} processes") };
    outln!(
        "{step}: {} million parameters, {} million of them trained; megabytes in {processes}\n",
        millions(*parameters),
        millions(*trained_parameters)
    );
    let heads = [
        "",
        "schedule",
        "weights",
        "gradients",
        "moments",
        "activations",
        "messages",
        "all",
        "disk",
        "sent a step",
        "",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for need in settings {
        let megabytes = |bytes: u64| (bytes / 1_000_000).to_string();
        rows.push(vec![
            if need.is_chosen { "*" } else { "" }.into(),
            need.lines(),
            megabytes(need.weights_bytes),
            megabytes(need.gradients_bytes),
            megabytes(need.moments_bytes),
            megabytes(need.activations_bytes),
            megabytes(need.messages_bytes),
            megabytes(need.total_bytes),
            megabytes(need.disk_bytes),
            megabytes(need.sent_bytes_per_step),
            if need.fits == Some(false) { "does not fit" } else { "" }.into(),
        ]);
    }
    out!("{}", table(&rows));
    let memory = limit_bytes.map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    match (plan.advised(), memory) {
        (Some(need), Some(memory)) => outln!("\nfastest that fits into {memory}: {}", need.lines()),
        (None, Some(memory)) => {
            outln!("\nnothing fits into {memory}: make the model or `batch_size` smaller, or take more machines");
        }
        (_, None) => {}
    }
}

fn millions(count: u64) -> String {
    format!("{:.1}", count as f64 / 1e6)
}
