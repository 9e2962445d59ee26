//! `narthex agent`: agents of a project, run in the terminal or offered to others, and their runs.

mod eval;
mod house;
mod look;
pub(super) mod project;
pub(super) mod serve;
pub mod tables;
mod tables_asked;
mod telemetry;
mod work;

use self::{
    project::{Project, Ready, TENANT, error_of},
    work::{Telling, arguments_of, follow, person, said},
};
use crate::flags::JsonFlag;
use clap::{Args, Subcommand};
use narthex_agent::{Agents, Answer, Ask, Edit, RunView};
use narthex_base::{Error, Message, Result, Role, chat::MessageContent};
use serde_json::Map;
use std::{io::Read, path::PathBuf};

/// The arguments of `narthex agent`.
#[derive(Args)]
pub struct Agent {
    #[command(subcommand)]
    command: AgentCommand,
}

/// What is done with agents.
#[derive(Subcommand)]
enum AgentCommand {
    /// Ask an agent, and approve in the terminal what it may not do by itself
    #[command(after_help = "\
Examples:
  narthex agent run librarian \"How do I serve two models?\"
  narthex agent run librarian --thread THREAD \"And with TLS?\"
  git diff | narthex agent run reviewer -")]
    Run(RunArguments),
    /// Offer the agents over HTTP: OpenAI's API, the Agent Protocol, MCP, A2A, and a page at /
    #[command(after_help = "\
Example:
  narthex agent serve --port 8010 --api-key \"$KEY\"")]
    Serve(serve::ServeArguments),
    /// List the agents of a project and their newest runs
    Ls {
        /// Runs of this agent only
        agent: Option<String>,
        #[command(flatten)]
        project: ProjectFlag,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// Show a run step by step: what was asked, answered, judged, called and given
    Show {
        /// The run
        run: String,
        /// Print it as spans of OpenTelemetry, with the runs below it: an OTLP request as JSON
        #[arg(long, conflicts_with = "json")]
        otlp: bool,
        /// Print with the spans what people, models and tools said
        #[arg(long, requires = "otlp")]
        with_content: bool,
        #[command(flatten)]
        project: ProjectFlag,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// Let agents do the tasks of a file, and look whether they do what is expected
    #[command(after_help = "\
Examples:
  narthex agent eval tasks.toml
  narthex agent eval tasks.toml --record answers
  narthex agent eval tasks.toml --replay answers --junit report.xml")]
    Eval(eval::EvalArguments),
    /// Go on with a run that a crash or Ctrl-C stopped: nothing that had an effect is done again
    Resume {
        /// The run
        run: String,
        #[command(flatten)]
        project: ProjectFlag,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// Copy a run up to one of its steps, and go on from there
    #[command(after_help = "\
Example:
  narthex agent fork RUN --at 4
  narthex agent fork RUN --at 4 --message 0 --edit \"Ask the other table.\"")]
    Fork {
        /// The run
        run: String,
        /// The last step that is taken over, as `narthex agent show` numbers them
        #[arg(long, value_name = "N")]
        at: u64,
        /// The message that is changed, counted from 0
        #[arg(long, value_name = "N", requires = "edit")]
        message: Option<usize>,
        /// What it says instead
        #[arg(long, value_name = "TEXT", requires = "message")]
        edit: Option<String>,
        #[command(flatten)]
        project: ProjectFlag,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// Answer what a run waits for; it goes on
    #[command(after_help = "\
Examples:
  narthex agent approve RUN
  narthex agent approve RUN --edit '{\"path\": \"notes/other.md\"}'
  narthex agent approve RUN --refuse \"Not on a Friday.\"")]
    Approve {
        /// The run
        run: String,
        /// What it waits for; its only question by default
        interrupt: Option<String>,
        /// Let the call be made with these arguments instead
        #[arg(long, value_name = "JSON", conflicts_with_all = ["refuse", "say"])]
        edit: Option<String>,
        /// Let the call not be made, and tell the model why
        #[arg(long, value_name = "WHY", conflicts_with = "say")]
        refuse: Option<String>,
        /// Answer a question that is not about a call: a text, or JSON
        #[arg(long, value_name = "TEXT")]
        say: Option<String>,
        #[command(flatten)]
        project: ProjectFlag,
        #[command(flatten)]
        output: JsonFlag,
    },
    /// Stop a run for good
    Cancel {
        /// The run
        run: String,
        #[command(flatten)]
        project: ProjectFlag,
    },
}

/// Which project.
#[derive(Args)]
struct ProjectFlag {
    /// The project: a folder with a narthex.toml
    #[arg(long, default_value = ".")]
    project: PathBuf,
}

/// The arguments of `narthex agent run`.
#[derive(Args)]
struct RunArguments {
    /// The agent: `[agents.NAME]` of the project
    agent: String,
    /// What to ask it; `-` reads standard input
    prompt: String,
    /// Go on with this conversation; `narthex agent show RUN --json` names it
    #[arg(long)]
    thread: Option<String>,
    /// Start nothing twice: the same key gives the same run
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    project: ProjectFlag,
    #[command(flatten)]
    output: JsonFlag,
}

/// `narthex agent`
pub fn run(agent: Agent) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| Error::internal("cannot start a runtime").cause(error))?;
    let done = runtime.block_on(carry_out(agent.command));
    // Tools that do not end with their calls must not hold us up.
    runtime.shutdown_background();
    done
}

async fn carry_out(command: AgentCommand) -> Result<()> {
    match command {
        AgentCommand::Run(arguments) => ask(arguments).await,
        AgentCommand::Serve(arguments) => serve::serve(arguments).await,
        AgentCommand::Ls { agent, project, output } => {
            look::list(&Project::read(&project.project)?, agent.as_deref(), output.json).await
        }
        AgentCommand::Show { run, otlp, with_content, project, output } => {
            let project = Project::read(&project.project)?;
            if otlp {
                return look::show_spans(&project, &run, with_content).await;
            }
            look::show(&project, &run, output.json).await
        }
        AgentCommand::Eval(arguments) => eval::eval(arguments).await,
        AgentCommand::Resume { run, project, output } => resume(&run, &project, &output).await,
        AgentCommand::Fork { run, at, message, edit, project, output } => {
            let edit = message.zip(edit).map(|(message, text)| Edit { message, content: MessageContent::Text(text) });
            let project = Project::read(&project.project)?;
            let view = project.run(&run).await?;
            let ready = project.ready(&[&view.agent]).await?;
            let run = ready.runner.fork(TENANT, &run, at, edit).await.map_err(error_of)?;
            noteln!("run {run}");
            finish(&ready, &run, 0, &output).await
        }
        AgentCommand::Approve { run, interrupt, edit, refuse, say, project, output } => {
            let project = Project::read(&project.project)?;
            let view = project.run(&run).await?;
            let interrupt = interrupt_of(&view, interrupt)?;
            let by = person();
            let answer = match (edit, refuse, say) {
                (Some(edit), ..) => Answer::Edit { by, arguments: arguments_of(&edit)? },
                (_, Some(why), _) => Answer::Refuse { by, why },
                (.., Some(text)) => Answer::Say { value: said(&text) },
                _ => Answer::Approve { by },
            };
            let ready = project.ready(&[&view.agent]).await?;
            ready.runner.answer(TENANT, &run, &interrupt, answer).await.map_err(error_of)?;
            finish(&ready, &run, view.last_event, &output).await
        }
        AgentCommand::Cancel { run, project } => {
            let project = Project::read(&project.project)?;
            let view = project.run(&run).await?;
            let ready = project.ready(&[&view.agent]).await?;
            ready.runner.cancel(TENANT, &run).await.map_err(error_of)?;
            noteln!("the run {run} is cancelled");
            Ok(())
        }
    }
}

fn telling(output: &JsonFlag) -> Telling {
    if output.json { Telling::Events } else { Telling::People }
}

async fn ask(arguments: RunArguments) -> Result<()> {
    let RunArguments { agent, prompt, thread, key, project, output } = arguments;
    let project = Project::read(&project.project)?;
    project.agent(&agent)?;
    let prompt = match prompt.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| Error::input("standard input cannot be read").cause(error))?;
            text
        }
        _ => prompt,
    };
    let ready = project.ready(&[&agent]).await?;
    let messages = vec![Message::new(Role::User, prompt)];
    let ask = Ask { agent, tenant: TENANT.into(), messages, thread, key, metadata: Map::new() };
    let run = ready.runner.start(ask).await.map_err(error_of)?;
    noteln!("run {run}");
    finish(&ready, &run, 0, &output).await
}

/// Follows a run until it ends or waits, and gives it back before this process ends.
async fn finish(ready: &Ready, run: &str, after: u64, output: &JsonFlag) -> Result<()> {
    let outcome = follow(&*ready.runner, run, after, telling(output)).await;
    ready.runner.settle().await;
    outcome
}

async fn resume(run: &str, project: &ProjectFlag, output: &JsonFlag) -> Result<()> {
    let project = Project::read(&project.project)?;
    let view = project.run(run).await?;
    let ready = project.ready(&[&view.agent]).await?;
    ready.runner.resume_all().await.map_err(|error| Error::input("runs cannot be taken up").cause(error))?;
    finish(&ready, run, view.last_event, output).await
}

/// What a run waits for: the one that is named, or its only one.
fn interrupt_of(view: &RunView, named: Option<String>) -> Result<String> {
    let ids: Vec<&str> = view.interrupts.iter().map(|interrupt| interrupt.id.as_str()).collect();
    match (named, ids.as_slice()) {
        (_, []) => Err(Error::input(format!("the run {} waits for nothing", view.id))
            .help(format!("narthex agent show {}", view.id))),
        (Some(named), ids) if ids.contains(&named.as_str()) => Ok(named),
        (Some(named), ids) => {
            Err(Error::input(format!("the run {} does not wait for `{named}`", view.id)).help(ids.join(", ")))
        }
        (None, [only]) => Ok(only.to_string()),
        (None, ids) => Err(Error::usage(format!("the run {} waits for several answers", view.id))
            .help(format!("name one: {}", ids.join(", ")))),
    }
}
