//! `narthex agent eval`: tasks of a file done by agents of a project, and what came of them printed. Reads files, makes
//! models that record or replay, and prints; what a task is and when it has passed is known to `narthex_agent::eval`.

use super::project::{Parts, Project};
use crate::{commands::print_json, flags::JsonFlag};
use clap::Args;
use narthex_agent::{
    Kit, Model, Recorder, Replayed,
    eval::{EvalFile, Report, TaskReport, carry_out},
};
use narthex_base::{Error, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes of a file of tasks.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The arguments of `narthex agent eval`.
#[derive(Args)]
pub(super) struct EvalArguments {
    /// The tasks: a TOML file, or a `.jsonl` file with a task in each line
    file: PathBuf,
    /// The agent of tasks that name none
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Write down what the models answer, in place of what the folder held
    #[arg(long, value_name = "FOLDER", conflicts_with = "replay")]
    record: Option<PathBuf>,
    /// Ask no model: answer with what was written down
    #[arg(long, value_name = "FOLDER")]
    replay: Option<PathBuf>,
    /// Write what came of it as JUnit's XML too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    project: super::ProjectFlag,
    #[command(flatten)]
    output: JsonFlag,
}

/// `narthex agent eval`
pub(super) async fn eval(arguments: EvalArguments) -> Result<()> {
    let mut file = read(&arguments.file)?;
    file.agent = arguments.agent.clone().or(file.agent);
    file.check().map_err(|error| error.at(arguments.file.display(), None))?;
    let project = Project::read(&arguments.project.project)?;
    let names: BTreeSet<&str> = file.tasks.iter().map(|task| file.agent_of(task)).collect::<Result<_>>()?;
    let names: Vec<&str> = names.into_iter().collect();
    let is_scripted = |model: &str| file.tasks.iter().all(|task| file.models_of(task).contains_key(model));
    let left_out = |model: &str| arguments.replay.is_some() || is_scripted(model);
    // Servers of tools end with the parts.
    let Parts { agents, mut kit, servers: _servers } = project.parts(&names, &left_out).await?;
    let models: BTreeSet<&str> = agents.iter().flat_map(|(_, agent)| agent.models()).collect();
    let asked: Vec<&str> = models.into_iter().filter(|model| !is_scripted(model)).collect();
    if let Some(folder) = &arguments.record {
        record(folder, &asked, &mut kit)?;
    }
    if let Some(folder) = &arguments.replay {
        for name in &asked {
            let model: Arc<dyn Model> = Arc::new(Replayed::open(*name, &folder.join(file_of(name)))?);
            kit.models.insert(name.to_string(), model);
        }
    }
    let still_time = arguments.replay.is_some() || asked.is_empty();
    let stores = tempfile::Builder::new().prefix("narthex-eval-").tempdir();
    let stores = stores.map_err(|error| Error::input("no folder can be made for the tasks").cause(error))?;
    let json = arguments.output.json;
    let tell = |task: &TaskReport| {
        if !json {
            outln!("{}", line(task))
        }
    };
    let report = carry_out(&file, &agents, &kit, stores.path(), still_time, tell).await?;
    if let Some(path) = &arguments.junit {
        let name = arguments.file.file_name().unwrap_or_default().to_string_lossy();
        std::fs::write(path, report.junit(&name)).map_err(|error| Error::io("cannot write", path, error))?;
    }
    over(&report, json)
}

fn over(report: &Report, json: bool) -> Result<()> {
    let all = report.passed + report.failed;
    if json {
        print_json(report);
    } else {
        let Report { passed, tokens_in, tokens_out, .. } = report;
        outln!("{passed} of {all} passed; {tokens_in} + {tokens_out} tokens");
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(Error::input(format!("{failed} of {all} tasks did not do what is expected"))),
    }
}

fn line(task: &TaskReport) -> String {
    let word = if task.passed { "passed" } else { "failed" };
    let time = if task.time > 1 || task.seed.is_some() { format!(" ({})", task.time) } else { String::new() };
    let reason = task.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{word}  {}{time}{reason}", task.id)
}

/// The tasks of a file.
fn read(path: &Path) -> Result<EvalFile> {
    let unreadable = |error| Error::io("cannot read", path, error);
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        let what = format!("the tasks have {bytes} bytes, and {FILE_BYTES_MAX} are the limit");
        return Err(Error::input(what).at(path.display(), None));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    if path.extension().is_some_and(|ending| ending == "jsonl" || ending == "ndjson") {
        return EvalFile::from_lines(&text).map_err(|error| error.at(path.display(), None));
    }
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        Error::input("the tasks cannot be read").at(path.display(), line).cause(error.message())
    })
}

/// Puts a recorder in front of each model that is asked.
fn record(folder: &Path, models: &[&str], kit: &mut Kit) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io("cannot make", folder, error))?;
    for name in models {
        let path = folder.join(file_of(name));
        // Answers of an earlier recording would be given first.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("cannot write the recording anew", &path, error));
            }
            _ => {}
        }
        if let Some(model) = kit.models.get(*name).cloned() {
            kit.models.insert(name.to_string(), Arc::new(Recorder::new(model, &path)?));
        }
    }
    Ok(())
}

/// The file with a model's answers: its name, with `%` and hexadecimal digits for what a file's name may not hold.
fn file_of(model: &str) -> String {
    let mut name = String::new();
    for byte in model.bytes() {
        match byte {
            b'.' if name.is_empty() => name.push_str("%2e"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' => name.push(char::from(byte)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name + ".jsonl"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_file_of_its_own() {
        for (model, file) in [
            ("small", "small.jsonl"),
            ("org/model@1.0", "org%2fmodel@1.0.jsonl"),
            ("../x", "%2e.%2fx.jsonl"),
            ("a%2fb", "a%252fb.jsonl"),
        ] {
            assert_eq!(file_of(model), file);
        }
    }
}
