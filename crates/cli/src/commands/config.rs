//! `narthex config`

use super::{plan_options, print_json};
use crate::{
    flags::{JsonFlag, Settings},
    style::table,
};
use clap::{Args, Subcommand};
use narthex_base::{Plan, Result, plan::Origin};
use narthex_shelf::read_plan;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The arguments of `narthex config`.
#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What is shown of a configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Every value of a project with its origin
    Show {
        /// The project: a folder with a narthex.toml
        #[arg(default_value = ".")]
        project: PathBuf,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// The JSON schema of narthex.toml
    Schema,
}

/// The JSON schema of a project file.
pub fn schema() -> Value {
    #[cfg_attr(not(feature = "agents"), expect(unused_mut, reason = "agents add their tables"))]
    let mut schema = Plan::schema();
    #[cfg(feature = "agents")]
    super::agent::tables::add_to(&mut schema);
    schema
}

/// Every value of a plan with its origin.
pub fn values(plan: &Plan) -> Vec<Value> {
    let entry = |(key, value, origin): (String, Value, Origin)| json!({"key": key, "value": value, "origin": origin.to_string()});
    plan.values().into_iter().map(entry).collect()
}

pub fn run(args: &Config) -> Result<()> {
    match &args.command {
        ConfigCommand::Schema => {
            print_json(&schema());
        }
        ConfigCommand::Show { project, settings, output } => {
            let plan = read_plan(project, &plan_options(project, settings)?)?;
            if output.json {
                print_json(&values(&plan));
            } else {
                let values = plan.values();
                let rows =
                    values.into_iter().map(|(path, value, origin)| vec![path, value.to_string(), origin.to_string()]);
                out!("{}", table(&rows.collect::<Vec<_>>()));
            }
        }
    }
    Ok(())
}
