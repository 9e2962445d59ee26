//! `narthex config`

use super::{plan_options, print_json};
use crate::{
    flags::{JsonFlag, Settings},
    style::table,
};
use clap::{Args, Subcommand};
use narthex_base::{Plan, Result};
use narthex_shelf::read_plan;
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

pub fn run(args: &Config) -> Result<()> {
    match &args.command {
        ConfigCommand::Schema => {
            #[cfg_attr(not(feature = "agents"), expect(unused_mut, reason = "agents add their tables"))]
            let mut schema = Plan::schema();
            #[cfg(feature = "agents")]
            super::agent::tables::add_to(&mut schema);
            print_json(&schema);
        }
        ConfigCommand::Show { project, settings, output } => {
            let values = read_plan(project, &plan_options(project, settings)?)?.values();
            if output.json {
                let entry = |(path, value, origin): (String, serde_json::Value, narthex_base::plan::Origin)| serde_json::json!({ "key": path, "value": value, "origin": origin.to_string() });
                print_json(&values.into_iter().map(entry).collect::<Vec<_>>());
            } else {
                let rows =
                    values.into_iter().map(|(path, value, origin)| vec![path, value.to_string(), origin.to_string()]);
                out!("{}", table(&rows.collect::<Vec<_>>()));
            }
        }
    }
    Ok(())
}
