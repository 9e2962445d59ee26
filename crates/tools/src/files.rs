//! `kind = "files"`: the files of one folder, listed, read and searched, and with `write = true` written and edited.
//! Each operation is a tool of its own, so that a policy can tell them apart. That nothing leads out of the folder is
//! `beneath`'s business.

mod beneath;
mod reading;
mod writing;

use crate::{
    bounds::RESULT_BYTES_MAX,
    described::{Described, Outcome, within},
};
use beneath::Beneath;
use narthex_agent::{Effect, Tool, ToolFailure};
use narthex_base::Error;
use reading::Reading;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// The largest file that a setting may let through, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// `[tools.NAME]` with `kind = "files"`: the files of one folder, as the tools `NAME.list`, `NAME.read`, `NAME.search`,
/// and with `write = true` `NAME.write` and `NAME.edit`. Nothing outside of the folder can be named, and symbolic links
/// are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesTool {
    /// The folder.
    pub folder: PathBuf,
    /// Files may be written, too.
    #[serde(default)]
    pub write: bool,
    /// Names that begin with a dot, such as `.env` and `.git`, are there as well: what stands in them may be a secret,
    /// or be run by other programs.
    #[serde(default)]
    pub hidden: bool,
    /// Globs of what is not there for these tools, below the folder: `private/**`, `**/*.pem`. A rule of the policy
    /// about `/path` does not hold a search or a list of the folder above; this does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Bytes of a file that is read, searched or written.
    #[serde(default = "file_bytes_max")]
    #[schemars(range(min = 1, max = 67_108_864))]
    pub file_bytes_max: u64,
    /// Bytes of text that a result has at most.
    #[serde(default = "result_bytes_max")]
    #[schemars(range(min = 100, max = 1_048_576))]
    pub result_bytes_max: usize,
    /// What stands in the folder, in front of our descriptions.
    #[serde(default)]
    pub description: String,
}

fn file_bytes_max() -> u64 {
    4 << 20
}

fn result_bytes_max() -> usize {
    20_000
}

/// What a tool of this kind does with its arguments.
type Act = fn(&Reading, &Map<String, Value>) -> Outcome;

/// The tools for one folder.
///
/// # Errors
/// If the folder is not there, the system cannot keep paths below it, or a number is out of bounds.
pub fn files(name: &str, settings: &FilesTool) -> Result<Vec<Arc<dyn Tool>>, Error> {
    let reading = Arc::new(Reading {
        result_bytes_max: within(name, "result_bytes_max", settings.result_bytes_max, 100..=RESULT_BYTES_MAX)?,
        file_bytes_max: within(name, "file_bytes_max", settings.file_bytes_max, 1..=FILE_BYTES_MAX)?,
        beneath: Beneath::open(&settings.folder, settings.hidden, &settings.exclude)
            .map_err(|error| error.context(format!("the tool `{name}` cannot be made")))?,
        writes: Mutex::new(()),
    });
    let readers: [(&str, &str, Value, Act); 3] = [
        ("list", "Lists files and folders.", reading::list_schema(), reading::list),
        ("read", "Reads a text file, or some of its lines.", reading::read_schema(), reading::read),
        ("search", "Finds lines that a regular expression matches.", reading::search_schema(), reading::search),
    ];
    let writers: [(&str, &str, Value, Act); 2] = [
        (
            "write",
            "Writes a whole text file: a new one, or in place of what was there.",
            writing::write_schema(),
            writing::write,
        ),
        (
            "edit",
            "Replaces one passage of a text file; it must be there exactly once.",
            writing::edit_schema(),
            writing::edit,
        ),
    ];
    let readers = readers.into_iter().map(|tool| (tool, Effect::Reads));
    let writers = writers.into_iter().filter(|_| settings.write).map(|tool| (tool, Effect::Writes));
    let tools = readers.chain(writers).map(|((operation, what, schema, act), effect)| {
        let description = format!("{what} {}", settings.description).trim_end().to_string();
        let reading = reading.clone();
        Described::tool(&format!("{name}.{operation}"), description, schema, effect, move |call| {
            let reading = reading.clone();
            Box::pin(async move {
                let work = tokio::task::spawn_blocking(move || act(&reading, &call.arguments));
                work.await.unwrap_or_else(|error| Err(ToolFailure { message: error.to_string(), harmless: false }))
            })
        })
    });
    tools.collect()
}

#[cfg(test)]
mod tests;
