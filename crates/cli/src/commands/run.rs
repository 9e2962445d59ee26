//! `narthex run` and the verbs that run one step.

use super::{open_options, program, project_flag, serve};
use crate::{
    arguments::{Run, Step},
    render::Renderer,
    signals,
    style::{Style, figure, seconds, table},
};
use narthex_base::{Event, Observer, Result};
use narthex_kernels::alloc::release;
use narthex_run::{Project, Row, RowState, RunOptions, RunReport};
use std::path::Path;

pub fn run(args: &Run, style: Style) -> Result<()> {
    let project = Project::open(&args.project, &open_options(&args.project, &args.settings)?)?;
    let options = RunOptions { to: args.to.clone(), force: args.force.clone(), dry_run: args.dry_run };
    let report = go(&project, &options, style, args.json)?;
    finish(&args.project, &report, args.json, args.dry_run);
    if args.serve {
        let model = ["bundle", "tune", "train"].iter().find_map(|kind| report.last(kind)).map(|row| row.step.clone());
        return match model {
            Some(model) => serve::serve_reference(&args.project, &model),
            None => Err(narthex_base::Error::input("there is no model to serve in this project")
                .help("add a step of kind `train`")),
        };
    }
    Ok(())
}

pub fn run_kind(kind: &str, args: &Step, style: Style) -> Result<()> {
    let project = Project::open(&args.project, &open_options(&args.project, &args.settings)?)?;
    let step = project.step_of_kind(kind, args.step.as_deref())?.name.clone();
    let force = if args.force { vec![step.clone()] } else { vec![] };
    let report = go(&project, &RunOptions { to: Some(step), force, dry_run: args.dry_run }, style, args.json)?;
    finish(&args.project, &report, args.json, args.dry_run);
    Ok(())
}

fn go(project: &Project, options: &RunOptions, style: Style, json: bool) -> Result<RunReport> {
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, json);
    let emit = |event| {
        // What a step kept for itself is of no use to the next.
        if matches!(event, Event::StepFinished { .. }) {
            release();
        }
        renderer.event(event)
    };
    project.run(options, Observer::new(&emit, &interrupt))
}

/// The table, and the next commands to type.
fn finish(project: &Path, report: &RunReport, json: bool, dry_run: bool) {
    if json {
        println!("{}", serde_json::json!({ "type": "report", "rows": report.rows, "seconds": report.seconds }));
        return;
    }
    if dry_run {
        let rows = report.rows.iter().map(|row| {
            let state = if row.state == RowState::Planned { "would run" } else { "unchanged" };
            vec![row.step.clone(), row.kind.into(), state.into(), row.reason.clone().unwrap_or_default()]
        });
        print!("{}", table(&head(&["step", "kind", "", "why"]).chain(rows).collect::<Vec<_>>()));
        return;
    }
    let rows = report.rows.iter().map(|row| {
        let time = if row.state == RowState::Unchanged { "unchanged".into() } else { seconds(row.seconds) };
        let digest = row.digest.map(|digest| digest.short()).unwrap_or_default();
        vec![row.step.clone(), time, digest, row.license.clone().unwrap_or_else(|| "undeclared".into()), number(row)]
    });
    let rows: Vec<_> = head(&["step", "time", "artifact", "licence", "result"]).chain(rows).collect();
    eprintln!();
    print!("{}", table(&rows));
    eprintln!("\n{} steps in {}", report.rows.len(), seconds(report.seconds));
    next_commands(project, report);
}

fn head(names: &[&str]) -> impl Iterator<Item = Vec<String>> {
    std::iter::once(names.iter().map(|name| name.to_string()).collect())
}

/// The number that matters, in words.
fn number(row: &Row) -> String {
    let Some((name, value)) = &row.figure else { return String::new() };
    let before = row.figures.get(&format!("baseline_{name}"));
    let before = before.map(|before| format!(" (before: {})", figure(*before))).unwrap_or_default();
    match name.as_str() {
        "bytes" => crate::style::bytes(*value as u64),
        "exact_match" | "choice_accuracy" => format!("{:.1} % {}{before}", 100.0 * value, name.replace('_', " ")),
        "validation_nats_per_byte" | "nats_per_byte" => format!("{value:.4} nats/byte{before}"),
        name => format!("{} {}{before}", figure(*value), name.replace('_', " ")),
    }
}

fn next_commands(project: &Path, report: &RunReport) {
    let (program, flag) = (program(), project_flag(project));
    let mut commands = Vec::new();
    match (report.last("tune"), report.last("train")) {
        (Some(tuned), _) => {
            commands.push(format!("{program} chat {}{flag}", tuned.step));
            commands.push(format!("{program} serve {}{flag}", tuned.step));
        }
        (None, Some(trained)) => {
            commands.push(format!("{program} generate {}{flag} --prompt \"…\"", trained.step));
            commands.push(format!("{program} serve {}{flag}", trained.step));
        }
        (None, None) => {}
    }
    if let Some(row) = report.rows.last() {
        commands.push(format!("{program} trace {}{flag}", row.step));
    }
    if !commands.is_empty() {
        eprintln!("next:");
    }
    commands.iter().for_each(|command| eprintln!("  {command}"));
}
