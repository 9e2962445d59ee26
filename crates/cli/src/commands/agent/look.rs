//! Runs as they are kept, shown: their list, and one step by step. Knows events; nothing runs here.

use super::project::{Project, TENANT, error_of};
use crate::{commands::print_json, output::plain, style::table};
use narthex_agent::{
    Agents, Checked, Decision, Event, Kit, Page, RunFilter, RunStatus, RunView, Runner, Stamped, Surroundings, Verdict,
};
use narthex_base::{Result, Role};
use serde_json::json;

/// Runs that are listed unless the caller says.
const LISTED: usize = 50;

/// Characters of a text in a step.
const SHOWN_CHARS: usize = 400;

/// A runner that only looks: it has no agents and takes up no run.
async fn onlooker(project: &Project) -> Result<Runner> {
    Runner::new(vec![], Kit::default(), project.store().await?, Surroundings::default())
}

/// The agents of a project, and its newest runs.
pub(super) async fn list(project: &Project, agent: Option<&str>, json: bool) -> Result<()> {
    let filter = RunFilter { agent: agent.map(String::from), ..RunFilter::default() };
    let page = Page { after: None, size: LISTED };
    let runs = onlooker(project).await?.runs(TENANT, filter, page).await.map_err(error_of)?;
    if json {
        let agents: Vec<_> = project.agents.iter().map(|(name, agent)| json!({"name": name, "agent": agent})).collect();
        print_json(&json!({"agents": agents, "runs": runs}));
        return Ok(());
    }
    for (name, agent) in &project.agents {
        let tools = agent.tools.join(", ");
        outln!("{name}: {} ({}{}{tools})", agent.description, agent.model, if tools.is_empty() { "" } else { "; " });
    }
    if !runs.is_empty() {
        outln!();
        let row = |run: &RunView| {
            let asked = run.messages.iter().find(|message| message.role == Role::User);
            let asked = asked.map(|message| short(&message.text(), 60)).unwrap_or_default();
            vec![run.id.clone(), run.agent.clone(), word(run.status), asked]
        };
        out!("{}", table(&runs.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(())
}

/// The spans of a run and of those below it, as OTLP's JSON.
pub(super) async fn show_spans(project: &Project, run: &str, with_content: bool) -> Result<()> {
    let spans = onlooker(project).await?.spans(TENANT, run, with_content).await;
    print_json(&spans.map_err(error_of)?);
    Ok(())
}

/// How a run stands, in a word.
fn word(status: RunStatus) -> String {
    json!(status).as_str().unwrap_or_default().to_string()
}

/// A run step by step.
pub(super) async fn show(project: &Project, run: &str, json: bool) -> Result<()> {
    let runner = onlooker(project).await?;
    let view = runner.run(TENANT, run).await.map_err(error_of)?;
    let steps = runner.show(TENANT, run).await.map_err(error_of)?;
    if json {
        print_json(&json!({"run": view, "steps": steps}));
        return Ok(());
    }
    outln!("{} of {}: {}", view.id, view.agent, word(view.status));
    if let Some(reason) = &view.reason {
        outln!("  {}", plain(reason));
    }
    let begun = steps.first().map_or(0, |step| step.at_ms);
    for (index, step) in steps.iter().enumerate() {
        let seconds = step.at_ms.saturating_sub(begun) as f64 / 1000.0;
        outln!("{:>4} {seconds:>8.2} s  {}", index + 1, plain(&told(step)));
    }
    for interrupt in &view.interrupts {
        outln!("waits: {}", plain(&interrupt.question));
        if let Some((tool, arguments)) = &interrupt.call {
            outln!("  {} {}", plain(tool), plain(&arguments.to_string()));
        }
        outln!("  narthex agent approve {} {}", view.id, interrupt.id);
    }
    Ok(())
}

/// A step in a line.
fn told(step: &Stamped) -> String {
    let cut = |text: &str| short(text, SHOWN_CHARS);
    match &step.event {
        Event::Created(created) => {
            let said = created.messages.last().map(|message| cut(&message.text())).unwrap_or_default();
            format!("asked: {said}")
        }
        Event::Asked { model, purpose } => format!("asks {model} ({})", json!(purpose).to_string().replace('"', "")),
        Event::Answered { answer, calls, output } => {
            let mut text = format!("{} + {} tokens", answer.tokens_in, answer.tokens_out);
            let said = answer.message.text();
            if !said.is_empty() {
                text += &format!(": {}", cut(&said));
            }
            for call in calls {
                let verdict = match &call.verdict {
                    Verdict::Allow => "allowed".into(),
                    Verdict::Ask => "to be approved".into(),
                    Verdict::Deny { why } => format!("denied: {why}"),
                    Verdict::Wrong { why } => format!("wrong: {why}"),
                };
                text += &format!("\n{:20}{} {} ({verdict})", "", call.tool, cut(&json!(call.arguments).to_string()));
            }
            if let Some(Checked::Wrong(why)) = output {
                text += &format!("\n{:20}not in the form that is wanted: {why}", "");
            }
            text
        }
        Event::NotAnswered { failure, wait_ms } => format!("no answer: {}; again in {wait_ms} ms", failure.message),
        Event::Decided { call, decision, .. } => match decision {
            Decision::Approve { by } => format!("{by} approved {call}"),
            Decision::Edit { by, call } => {
                format!("{by} changed {} to {}", call.id, cut(&json!(call.arguments).to_string()))
            }
            Decision::Refuse { by, why } => format!("{by} refused {call}: {why}"),
            Decision::Given { text } => format!("the result of {call} was given: {}", cut(text)),
        },
        Event::Lapsed { call } => format!("nobody decided about {call} in time"),
        Event::Rejudged { call } => format!("{} is another tool by now: judged anew", call.tool),
        Event::Started { call } => format!("calls {call}"),
        Event::Delegated { call, child } => format!("{call} is the run {child}"),
        Event::ChildWaits { call, interrupts } => format!("{call} waits for {} answers", interrupts.len()),
        Event::Done { call, result } => {
            let words = if result.is_error { "failed" } else { "gave" };
            format!("{call} {words}: {}", cut(&json!(result.content).to_string()))
        }
        Event::Resumed => "taken up again".into(),
        Event::TimeUp => "its time is up".into(),
        Event::Cancelled => "cancelled".into(),
        Event::Forked { from, at, .. } => format!("a copy of {from} up to step {at}"),
    }
}

/// One line, cut.
fn short(text: &str, chars: usize) -> String {
    let line = plain(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
