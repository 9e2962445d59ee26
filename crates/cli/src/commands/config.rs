//! `narthex config`

use super::{open_options, print_json};
use crate::{
    arguments::{Config, ConfigCommand},
    style::table,
};
use narthex_base::{Plan, Result};
use narthex_run::Project;

pub fn run(args: &Config) -> Result<()> {
    match &args.command {
        ConfigCommand::Schema => print_json(&Plan::schema()),
        ConfigCommand::Show { project, settings, json } => {
            let values = Project::plan(project, &open_options(project, settings)?)?.values();
            if *json {
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
