//! The verbs that run one step of a project: one for each kind of step that has such a verb, read off the list of
//! kinds.

use super::{data_inspect::Inspect, data_show::Show, run::Step};
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand, error::ErrorKind};
use narthex_base::config::{self, Kind, Verb};

/// `narthex train`, and so for each kind.
pub struct StepVerb {
    /// The kind of the step that is run.
    pub kind: &'static Kind,
    /// What is to be done.
    pub task: Task,
}

/// What is to be done.
pub enum Task {
    /// A step is run.
    Run(Box<Step>),
    /// Data is shown.
    Show(Show),
    /// What became of data is shown.
    Inspect(Inspect),
}

/// The kind of step whose verb can show things too, and how that is asked for.
const SHOWS: &str = "data";
const SHOW: &str = "show";
const INSPECT: &str = "inspect";

fn kinds() -> impl Iterator<Item = &'static Kind> {
    config::Step::KINDS.into_iter().filter(|kind| kind.verb == Verb::RunsStep)
}

fn about(kind: &Kind) -> String {
    let article = if kind.name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("Run {article} {} step and what it needs", kind.name)
}

fn with_show(verb: Command) -> Command {
    let about =
        "Show rows of a source or a step as they were understood, or documents in tokens with what is learnt of them";
    let show = Show::augment_args(Command::new(SHOW)).about(about);
    let about =
        "Show what a step kept and dropped, by reason, with examples; or try other settings on a part of its rows";
    let inspect = Inspect::augment_args(Command::new(INSPECT)).about(about);
    verb.args_conflicts_with_subcommands(true).subcommand(show).subcommand(inspect)
}

impl FromArgMatches for StepVerb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let found = matches.subcommand().and_then(|(name, inner)| Some((Kind::named(name)?, inner)));
        let (kind, inner) = found.ok_or_else(|| Error::new(ErrorKind::MissingSubcommand))?;
        let task = match inner.subcommand() {
            Some((SHOW, inner)) => Task::Show(Show::from_arg_matches(inner)?),
            Some((INSPECT, inner)) => Task::Inspect(Inspect::from_arg_matches(inner)?),
            _ => Task::Run(Box::new(Step::from_arg_matches(inner)?)),
        };
        Ok(Self { kind, task })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for StepVerb {
    fn augment_subcommands(command: Command) -> Command {
        kinds().fold(command, |command, kind| {
            let verb = Step::augment_args(Command::new(kind.name)).about(about(kind));
            command.subcommand(if kind.name == SHOWS { with_show(verb) } else { verb })
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        kinds().any(|kind| kind.name == name)
    }
}
