//! `kind = "shell"`: one command, whose arguments a model fills in, run within limits and behind walls. There is no
//! shell: each argument reaches the program as it is. See `template`, `process` and `sandbox`.

mod process;
mod sandbox;
mod template;

use crate::{
    bounds::{RESULT_BYTES_MAX, cut, text_of},
    described::{Described, Outcome, refused, within},
};
use narthex_agent::{Effect, Tool, ToolFailure, ToolResult};
use narthex_base::Error;
use process::{Kept, Limits, Program, Ran, run};
use sandbox::{PATH, Sandbox, Walls, find};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    env,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use sandbox::SandboxKind;
pub use template::{Argument, ArgumentKind};

/// Milliseconds that a setting may allow.
const WALL_MS_MAX: u64 = 3_600_000;
/// Folders that a setting may name.
const FOLDERS_MAX: usize = 64;
/// Bytes of complaints in a result.
const COMPLAINT_BYTES_MAX: usize = 4_000;

/// `[tools.NAME]` with `kind = "shell"`: a command whose arguments a model fills in. It sees the system's programs and
/// the folders that are named here, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellTool {
    /// What it does, for the model.
    pub description: String,
    /// The program and its arguments, with `{name}` where a value belongs. No shell reads it. A value that begins with
    /// `-` is refused but behind `--` or within an argument that begins with other text, such as `--path={path}`.
    #[schemars(length(min = 1), extend("x-hint" = "[\"git\", \"log\", \"-n\", \"{count}\", \"--\", \"{path}\"]"))]
    pub command: Vec<String>,
    /// The values, by name.
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
    /// The argument that goes to the command's standard input.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Where the command starts. It may be read, and written if it lies in one of `writable`.
    pub folder: PathBuf,
    /// Files and folders that may be read, besides `folder` and the system's programs.
    #[serde(default)]
    pub readable: Vec<PathBuf>,
    /// Folders that may be read and written.
    #[serde(default)]
    pub writable: Vec<PathBuf>,
    /// Names of environment variables that are passed on; all others are not there.
    #[serde(default)]
    pub environment: Vec<String>,
    /// The network is there, with everything that this machine reaches.
    #[serde(default)]
    pub network: bool,
    /// The walls around the command.
    #[serde(default)]
    pub sandbox: SandboxKind,
    /// What a call does to the world: `reads`, `writes` or `reaches`.
    #[serde(default)]
    pub effect: Effect,
    /// How much a call may take.
    #[serde(default)]
    pub limits: ShellLimits,
}

/// How much a call of a command may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShellLimits {
    /// Milliseconds until it is killed, with all that it started.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub wall_ms: u64,
    /// Seconds of processor time, for each process.
    #[schemars(range(min = 1, max = 86_400))]
    pub cpu_s: u64,
    /// Bytes of address space, for each process.
    #[schemars(range(min = 16_777_216))]
    pub memory_bytes: u64,
    /// Processes at once, inside a sandbox; the kernel does not count those of root.
    #[schemars(range(min = 4, max = 65_536))]
    pub processes: u64,
    /// Bytes of a file that it writes.
    pub file_bytes: u64,
    /// Bytes of text that a result has at most.
    #[schemars(range(min = 100, max = 1_048_576))]
    pub result_bytes_max: usize,
}

impl Default for ShellLimits {
    fn default() -> Self {
        Self {
            wall_ms: 30_000,
            cpu_s: 30,
            memory_bytes: 4 << 30,
            processes: 64,
            file_bytes: 256 << 20,
            result_bytes_max: 20_000,
        }
    }
}

struct Shell {
    template: template::Template,
    program: PathBuf,
    sandbox: Sandbox,
    walls: Walls,
    environment: Vec<(String, String)>,
    limits: Limits,
}

/// The tool that runs a command.
///
/// # Errors If the command is not one that a model may fill in, a folder, a program or a variable is not there, a
/// number is out of bounds, or no sandbox works here.
pub fn shell(name: &str, settings: &ShellTool) -> Result<Vec<Arc<dyn Tool>>, Error> {
    let shell =
        Shell::new(name, settings).map_err(|error| error.context(format!("the tool `{name}` cannot be made")))?;
    let description = format!("{} Runs `{}`.", settings.description.trim_end(), shell.template.shown());
    let (schema, shell) = (shell.template.schema(), Arc::new(shell));
    let tool = Described::tool(name, description, schema, settings.effect, move |call| {
        let shell = shell.clone();
        Box::pin(async move { shell.call(&call.arguments).await })
    })?;
    Ok(vec![tool])
}

impl Shell {
    fn new(name: &str, settings: &ShellTool) -> Result<Self, Error> {
        let template = template::Template::new(&settings.command, &settings.arguments, settings.stdin.as_deref())?;
        let ShellLimits { wall_ms, cpu_s, memory_bytes, processes, file_bytes, result_bytes_max } = settings.limits;
        let limits = Limits {
            wall_ms: within(name, "wall_ms", wall_ms, 1..=WALL_MS_MAX)?,
            cpu_s: within(name, "cpu_s", cpu_s, 1..=86_400)?,
            memory_bytes: within(name, "memory_bytes", memory_bytes, 16 << 20..=u64::MAX)?,
            file_bytes,
            output_bytes: within(name, "result_bytes_max", result_bytes_max, 100..=RESULT_BYTES_MAX)?,
        };
        let all = |paths: &[PathBuf]| {
            let paths = paths.iter().take(FOLDERS_MAX + 1).map(|path| real(path));
            paths.collect::<Result<Vec<_>, _>>()
        };
        let walls = Walls {
            folder: real(&settings.folder)?,
            readable: all(&settings.readable)?,
            writable: all(&settings.writable)?,
            network: settings.network,
            processes: within(name, "processes", processes, 4..=65_536)?,
        };
        if walls.readable.len() > FOLDERS_MAX || walls.writable.len() > FOLDERS_MAX {
            return Err(Error::input(format!("more than {FOLDERS_MAX} folders")).help("name a folder above them"));
        }
        let program = find(template.program(), PATH).ok_or_else(|| {
            Error::input(format!("there is no program `{}`", template.program()))
                .help(format!("install it, or write its whole path; looked in {PATH}"))
        })?;
        let environment = environment(&settings.environment)?;
        let sandbox = Sandbox::probe(settings.sandbox, &walls, PATH)?;
        Ok(Self { template, program, sandbox, walls, environment, limits })
    }

    async fn call(&self, arguments: &Map<String, Value>) -> Outcome {
        let (filled, stdin) = self.template.fill(arguments).map_err(refused)?;
        let mut command = vec![self.program.display().to_string()];
        command.extend(filled);
        let argv = self.sandbox.argv(&self.walls, &command).map_err(refused)?;
        let folder = if self.sandbox == Sandbox::None { self.walls.folder.clone() } else { "/".into() };
        let program = Program { argv, environment: self.environment.clone(), folder, stdin };
        let ran = run(&program, self.limits).await;
        let ran =
            ran.map_err(|error| ToolFailure { message: format!("the command failed: {error}"), harmless: false })?;
        Ok(self.told(ran))
    }

    fn told(&self, ran: Ran) -> ToolResult {
        let wall_ms = self.limits.wall_ms;
        let how = match ran.status {
            Some(status) if status.success() => None,
            Some(status) => Some(match (status.code(), status.signal()) {
                (Some(code), _) => format!("the command ended with status {code}"),
                (_, Some(signal)) => format!("the command was killed by signal {signal}: it may have come to a limit"),
                _ => "the command failed".into(),
            }),
            None => Some(format!("the command was stopped after {wall_ms} ms: ask for less")),
        };
        let mut parts: Vec<String> = how.iter().cloned().collect();
        parts.extend(said(ran.stdout, self.limits.output_bytes));
        let complaint = said(ran.stderr, self.limits.output_bytes.min(COMPLAINT_BYTES_MAX));
        parts.extend(complaint.map(|text| format!("[errors]\n{text}")));
        let text = if parts.is_empty() { "the command succeeded, and wrote nothing".into() } else { parts.join("\n") };
        ToolResult { is_error: how.is_some(), ..ToolResult::text(text) }
    }
}

fn said(kept: Kept, bytes_max: usize) -> Option<String> {
    let mut text = cut(text_of(kept.bytes), bytes_max, "");
    if kept.more > 0 {
        text += &format!("\n[cut: {} bytes more; ask for less]", kept.more);
    }
    Some(text.trim_end().to_string()).filter(|text| !text.is_empty())
}

fn real(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|error| Error::io("cannot open", path, error))
}

/// The variables that are passed on, and those that programs need.
fn environment(names: &[String]) -> Result<Vec<(String, String)>, Error> {
    let mut all = BTreeMap::from(
        [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")]
            .map(|(name, value)| (name.to_string(), value.to_string())),
    );
    for name in names {
        let value = env::var(name).map_err(|_| {
            Error::input(format!("the environment variable `{name}` is not set, or is no text"))
                .help(format!("set it (`export {name}=…`), or take it out of `environment`"))
        })?;
        all.insert(name.clone(), value);
    }
    Ok(all.into_iter().collect())
}

#[cfg(test)]
mod tests;
