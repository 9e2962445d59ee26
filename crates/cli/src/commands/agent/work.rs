//! A run in the terminal: what it does is told as it happens, and what it waits for is asked. Knows events and people;
//! no models and no tools.

use super::project::{TENANT, error_of};
use crate::output::plain;
use futures::StreamExt;
use narthex_agent::{Agents, Answer, Delta, Interrupt, RunEvent, RunEventKind, RunStatus};
use narthex_base::{Error, Result, Role};
use serde_json::{Map, Value};
use std::io::{BufRead, IsTerminal};

/// Characters of arguments and results that are shown; `narthex agent show` has all of them.
const SHOWN_CHARS: usize = 240;

/// What is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// What happens on stderr, the answer on stdout.
    People,
    /// Every event as a line of JSON on stdout.
    Events,
}

/// Follows a run until it ends, and asks what it waits for, where somebody can be asked.
///
/// # Errors
/// If it ends otherwise than with its answer, or waits and nobody can be asked.
pub(super) async fn follow(agents: &dyn Agents, run: &str, after: u64, telling: Telling) -> Result<()> {
    let mut after = after;
    loop {
        let mut events = agents.follow(TENANT, run, after);
        let mut ended = None;
        while let Some(event) = events.next().await {
            let event = event.map_err(error_of)?;
            after = after.max(event.number);
            tell(&event, telling);
            if let RunEventKind::Ended { status, reason, .. } = &event.kind {
                ended = Some((*status, reason.clone()));
            }
        }
        drop(events);
        let view = agents.run(TENANT, run).await.map_err(error_of)?;
        let (status, reason) = ended.unwrap_or((view.status, view.reason.clone()));
        match status {
            RunStatus::Done => {
                if telling == Telling::People {
                    answer(&view.output, view.messages.last().map(|message| message.text().into_owned()));
                }
                return Ok(());
            }
            RunStatus::Waiting => {
                let waits = view.interrupts;
                for interrupt in &waits {
                    let said = ask(run, interrupt, telling)?;
                    agents.answer(TENANT, run, &interrupt.id, said).await.map_err(error_of)?;
                }
                if waits.is_empty() {
                    return Err(Error::internal(format!("the run {run} waits for nothing")));
                }
            }
            RunStatus::Running => {
                return Err(Error::input(format!("another process works on the run {run}"))
                    .help(format!("narthex agent show {run}")));
            }
            status => {
                let word = serde_json::to_value(status).ok().and_then(|word| word.as_str().map(String::from));
                let what = format!("the run {run} ended: {}", word.unwrap_or_default());
                return Err(Error::input(what)
                    .cause(reason.unwrap_or_else(|| "nobody says why".into()))
                    .help(format!("narthex agent show {run}")));
            }
        }
    }
}

/// The final answer, on stdout.
fn answer(output: &Option<Value>, text: Option<String>) {
    match output {
        Some(output) => outln!("{}", serde_json::to_string_pretty(output).expect("JSON is written")),
        None => {
            let text = text.unwrap_or_default();
            match std::io::stdout().is_terminal() {
                true => outln!("{}", plain(text.trim_end())),
                false => outln!("{}", text.trim_end()),
            }
        }
    }
}

fn tell(event: &RunEvent, telling: Telling) {
    if telling == Telling::Events {
        outln!("{}", serde_json::to_string(event).expect("our own types serialize"));
        return;
    }
    match &event.kind {
        RunEventKind::ToolStarted { tool, arguments, .. } => {
            noteln!("  {} {}", plain(tool), short(&arguments.to_string()));
        }
        RunEventKind::ToolProgress { done, of, word, .. } => {
            let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
            noteln!("    {done}{of} {}", short(word.as_deref().unwrap_or_default()));
        }
        RunEventKind::Message { message } if message.role == Role::Tool => noteln!("    {}", short(&message.text())),
        RunEventKind::Said { delta: Delta::Thought(_) | Delta::Text(_) }
        | RunEventKind::Working
        | RunEventKind::Message { .. }
        | RunEventKind::Waiting { .. }
        | RunEventKind::Ended { .. } => {}
    }
}

/// One line, cut.
fn short(text: &str) -> String {
    let line = plain(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Asks a person at the terminal.
fn ask(run: &str, interrupt: &Interrupt, telling: Telling) -> Result<Answer> {
    if telling == Telling::Events || !std::io::stdin().is_terminal() {
        let what = format!("the run {run} waits: {}", interrupt.question);
        let call = interrupt.call.as_ref().map(|(tool, arguments)| format!("{tool} {arguments}")).unwrap_or_default();
        let help = format!("narthex agent approve {run}, or with --edit JSON, --refuse WHY or --say TEXT");
        return Err(Error::input(what).cause(call).help(help));
    }
    noteln!("\n{}", plain(&interrupt.question));
    let by = person();
    let Some((tool, arguments)) = &interrupt.call else {
        note!("> ");
        return Ok(Answer::Say { value: said(&line()?) });
    };
    let arguments = serde_json::to_string_pretty(arguments).expect("JSON is written");
    noteln!("  {} {}", plain(tool), plain(&arguments));
    loop {
        note!("[y]es, [n]o, or other arguments as JSON: ");
        let line = line()?;
        match line.trim() {
            "y" | "yes" => return Ok(Answer::Approve { by }),
            "n" | "no" => return Ok(Answer::Refuse { by, why: "the person said no".into() }),
            other => match arguments_of(other) {
                Ok(arguments) => return Ok(Answer::Edit { by, arguments }),
                Err(error) => noteln!("{error}"),
            },
        }
    }
}

/// Who decides: the name of the account.
pub(super) fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "somebody at the terminal".into())
}

/// An answer as it is typed: JSON if it is that, else text.
pub(super) fn said(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.trim().into()))
}

/// Arguments of a call as they are typed.
///
/// # Errors
/// If they are no JSON object.
pub(super) fn arguments_of(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| {
        Error::usage("the arguments are no JSON object").cause(error).help("write them as `{\"path\": \"notes.md\"}`")
    })
}

fn line() -> Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let read = read.map_err(|error| Error::input("cannot read what you type").cause(error))?;
    if read == 0 { Err(Error::input("nobody answered").help("the run waits: narthex agent ls")) } else { Ok(line) }
}
