//! `narthex run` and the verbs that run one step.

use super::{
    open_options,
    openness::explain,
    plan_options, program, project_flag,
    ranks::{RanksFlags, join, launch, logs_of, started, take_part},
    serve,
};
use crate::{
    flags::{EventsFlag, Settings},
    render::Renderer,
    signals,
    style::{Style, figure, seconds, table},
};
use clap::Args;
use narthex_base::{
    ArtifactKind, ErrorKind, Event, Observer, Result, Unit,
    config::{Kind, Learning},
};
use narthex_kernels::alloc::release;
use narthex_run::{LineageEvents, Project, Row, RowState, RunOptions, RunReport};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// The arguments of `narthex run`.
#[derive(Args)]
pub struct Run {
    /// The project: a folder with a narthex.toml
    #[arg(default_value = ".")]
    pub project: PathBuf,
    /// The project, as other verbs are told it
    #[arg(long = "project", value_name = "PROJECT", conflicts_with = "project", hide = true)]
    pub project_flag: Option<PathBuf>,
    /// Only this step and what it needs
    #[arg(long, value_name = "STEP")]
    pub to: Option<String>,
    /// Run this step even if its result is known
    #[arg(long, value_name = "STEP")]
    pub force: Vec<String>,
    #[command(flatten)]
    pub step_flags: StepFlags,
    /// Serve the last model afterwards
    #[arg(long, conflicts_with = "dry_run")]
    pub serve: bool,
    /// The port to serve on; 0 takes any free one
    #[arg(long, default_value_t = 8000, requires = "serve")]
    pub port: u16,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub output: EventsFlag,
    #[command(flatten)]
    pub ranks: RanksFlags,
}

/// The arguments of the verbs that run one step.
#[derive(Args)]
pub struct Step {
    /// The step's name; the last of its kind by default
    pub step: Option<String>,
    /// The project: a folder with a narthex.toml
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Run it even if its result is known
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub step_flags: StepFlags,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub output: EventsFlag,
}

/// How steps are run.
#[derive(Args)]
pub struct StepFlags {
    /// Say what would run, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Say by which rule of the policy each component may be used, or not
    #[arg(long)]
    pub explain: bool,
    /// Send OpenLineage events to this address, or add them to this file as JSON lines
    #[arg(long, value_name = "URL|FILE", env = "OPENLINEAGE_URL", hide_env_values = true)]
    pub openlineage: Option<String>,
}

pub fn run(args: &Run, style: Style) -> Result<()> {
    let folder = args.project_flag.as_ref().unwrap_or(&args.project);
    if let Some(ranks) = args.ranks.to_start().filter(|_| !args.step_flags.dry_run) {
        return match launch(&logs_of(folder), ranks, args.ranks.restarts)? {
            0 => Ok(()),
            code => std::process::exit(code.into()),
        };
    }
    let started = started(args.ranks.engine)?;
    let project = Project::open(folder, &open_options(plan_options(folder, &args.settings)?))?;
    let project = join(project, started, args.ranks.rank_timeout)?;
    if take_part(&project)? {
        return Ok(());
    }
    let options = RunOptions { to: args.to.clone(), force: args.force.clone(), dry_run: args.step_flags.dry_run };
    if args.step_flags.explain {
        explain_steps(&project, args.to.as_deref())?;
    }
    let report = go(&project, &options, style, args.output.json, args.step_flags.openlineage.as_deref())?;
    finish(folder, &report, args.output.json, args.step_flags.dry_run);
    if args.serve {
        return match report.model() {
            Some(row) => serve::serve_reference(folder, &row.step, args.port),
            None => Err(narthex_base::Error::input("there is no model to serve in this project")
                .help("add a step of kind `train`")),
        };
    }
    Ok(())
}

pub fn run_kind(kind: &Kind, args: &Step, style: Style) -> Result<()> {
    let project = Project::open(&args.project, &open_options(plan_options(&args.project, &args.settings)?))?;
    let step = project.step_of_kind(kind, args.step.as_deref())?.name.clone();
    let force = if args.force { vec![step.clone()] } else { vec![] };
    if args.step_flags.explain {
        explain_steps(&project, Some(&step))?;
    }
    let options = RunOptions { to: Some(step), force, dry_run: args.step_flags.dry_run };
    let report = go(&project, &options, style, args.output.json, args.step_flags.openlineage.as_deref())?;
    finish(&args.project, &report, args.output.json, args.step_flags.dry_run);
    Ok(())
}

/// What the policy says of each step, before it runs.
fn explain_steps(project: &Project, to: Option<&str>) -> Result<()> {
    let steps = match to {
        Some(goal) => project.plan.steps_to(goal)?,
        None => project.plan.steps.iter().collect(),
    };
    for (step, findings) in project.judge_steps(&steps)? {
        noteln!("{step}:");
        explain(&findings);
    }
    Ok(())
}

pub(super) fn go(
    project: &Project,
    options: &RunOptions,
    style: Style,
    json: bool,
    openlineage: Option<&str>,
) -> Result<RunReport> {
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, json);
    watched(project, options, openlineage, &|event| renderer.event(event), &interrupt)
}

/// Runs a plan: events go to `tell`, a raised `interrupt` asks it to stop, and a server for OpenLineage, if there is
/// one, is told too.
pub fn watched(
    project: &Project,
    options: &RunOptions,
    openlineage: Option<&str>,
    tell: &(dyn Fn(Event) + Sync),
    interrupt: &AtomicBool,
) -> Result<RunReport> {
    let lineage = openlineage.filter(|_| !options.dry_run).map(|to| (LineageEvents::new(project), to));
    let post = |to: &str, event: &Value| {
        if let Err(error) = send(to, event) {
            tell(Event::Warning { step: String::new(), message: format!("no OpenLineage event: {error}") });
        }
    };
    let emit = |event| {
        // What a step kept for itself is of no use to the next.
        if matches!(event, Event::StepFinished { .. }) {
            release();
        }
        if let Some((events, to)) = &lineage
            && let Some(event) = events.event(&event)
        {
            post(to, &event);
        }
        tell(event)
    };
    let outcome = project.run(options, Observer::new(&emit, interrupt));
    if let (Err(error), Some((events, to))) = (&outcome, &lineage) {
        events.failed(error.what(), error.kind() == ErrorKind::Interrupted).iter().for_each(|event| post(to, event));
    }
    outcome
}

/// Seconds that a server for OpenLineage events may take: a run waits for it.
const OPENLINEAGE_TIMEOUT_S: u64 = 5;

/// Sends an event to an address, or adds it to a file as a line.
fn send(to: &str, event: &Value) -> std::result::Result<(), String> {
    if to.starts_with("http://") || to.starts_with("https://") {
        let address =
            if to.contains("/api/") { to.to_string() } else { format!("{}/api/v1/lineage", to.trim_end_matches('/')) };
        let timeout = std::time::Duration::from_secs(OPENLINEAGE_TIMEOUT_S);
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(timeout)).build().into();
        return agent.post(&address).send_json(event).map(|_| ()).map_err(|error| format!("{address}: {error}"));
    }
    let file = std::fs::OpenOptions::new().create(true).append(true).open(to);
    let written = file.and_then(|mut file| writeln!(file, "{event}"));
    written.map_err(|error| format!("{to}: {error}"))
}

/// What a run did, as `--json` says it.
pub fn reported(report: &RunReport) -> Value {
    json!({"type": "report", "rows": report.rows, "seconds": report.seconds})
}

/// The table, and the next commands to type.
fn finish(project: &Path, report: &RunReport, json: bool, dry_run: bool) {
    if json {
        outln!("{}", reported(report));
        return;
    }
    if dry_run {
        let rows = report.rows.iter().map(|row| {
            let state = if row.state == RowState::Planned { "would run" } else { "unchanged" };
            let needs = row.needs.map_or(String::new(), |needs| {
                format!("{}, {}", crate::style::bytes(needs.memory_bytes), seconds(needs.seconds))
            });
            vec![row.step.clone(), row.kind.into(), state.into(), needs, row.reason.clone().unwrap_or_default()]
        });
        out!("{}", table(&head(&["step", "kind", "", "needs at least", "why"]).chain(rows).collect::<Vec<_>>()));
        return;
    }
    let rows = report.rows.iter().map(|row| {
        let time = if row.state == RowState::Unchanged { "unchanged".into() } else { seconds(row.seconds) };
        let digest = row.digest.map(|digest| digest.short()).unwrap_or_default();
        vec![row.step.clone(), time, digest, row.license.clone().unwrap_or_else(|| "undeclared".into()), number(row)]
    });
    let rows: Vec<_> = head(&["step", "time", "artifact", "licence", "result"]).chain(rows).collect();
    noteln!();
    out!("{}", table(&rows));
    noteln!("\n{} steps in {}", report.rows.len(), seconds(report.seconds));
    next_commands(project, report);
}

fn head(names: &[&str]) -> impl Iterator<Item = Vec<String>> {
    std::iter::once(names.iter().map(|name| name.to_string()).collect())
}

/// The number that matters, in words.
fn number(row: &Row) -> String {
    let Some((figure_of_row, value)) = row.figure else { return String::new() };
    let before = row.figures.get(&figure_of_row.of_baseline());
    let before = before.map(|before| format!(" (before: {})", figure(*before))).unwrap_or_default();
    let words = figure_of_row.name.replace('_', " ");
    match figure_of_row.unit {
        Unit::Bytes => crate::style::bytes(value as u64),
        Unit::Share => format!("{:.1} % {words}{before}", 100.0 * value),
        Unit::NatsPerByte => format!("{value:.4} nats/byte{before}"),
        Unit::NatsPerPair => format!("{value:.4} nats/pair{before}"),
        Unit::NatsPerToken | Unit::NatsPerText | Unit::Count => format!("{} {words}{before}", figure(value)),
    }
}

fn next_commands(project: &Path, report: &RunReport) {
    let (program, flag) = (program(), project_flag(project));
    let mut commands = Vec::new();
    if let Some(Row { step, yields: ArtifactKind::Predictor, .. }) = report.model() {
        commands.push(format!("{program} classify {step}{flag} \"…\""));
        commands.push(format!("{program} serve {step}{flag}"));
    } else if let Some(Row { step, .. }) = report.model() {
        let converses = |row: &Row| {
            let learning = Kind::named(row.kind).and_then(|kind| kind.learning);
            row.yields == ArtifactKind::Model && learning == Some(Learning::Supervised)
        };
        commands.push(match report.rows.iter().any(converses) {
            true => format!("{program} chat {step}{flag}"),
            false => format!("{program} generate {step}{flag} --prompt \"…\""),
        });
        commands.push(format!("{program} serve {step}{flag}"));
    }
    if let Some(row) = report.rows.last() {
        commands.push(format!("{program} trace {}{flag}", row.step));
    }
    if !commands.is_empty() {
        noteln!("next:");
    }
    commands.iter().for_each(|command| noteln!("  {command}"));
}
