//! The verbs that run one step of a project: one for each kind of step that has such a verb, read off the list of kinds.

use super::run::Step;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand, error::ErrorKind};
use narthex_base::config::{self, Kind, Verb};

/// `narthex train`, and so for each kind.
pub struct StepVerb {
    /// The kind of the step that is run.
    pub kind: &'static Kind,
    /// Which step, and how.
    pub step: Step,
}

fn kinds() -> impl Iterator<Item = &'static Kind> {
    config::Step::KINDS.into_iter().filter(|kind| kind.verb == Verb::RunsStep)
}

fn about(kind: &Kind) -> String {
    let article = if kind.name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("Run {article} {} step and what it needs", kind.name)
}

impl FromArgMatches for StepVerb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let found = matches.subcommand().and_then(|(name, inner)| Some((Kind::named(name)?, inner)));
        let (kind, inner) = found.ok_or_else(|| Error::new(ErrorKind::MissingSubcommand))?;
        Ok(Self { kind, step: Step::from_arg_matches(inner)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for StepVerb {
    fn augment_subcommands(command: Command) -> Command {
        kinds().fold(command, |command, kind| {
            command.subcommand(Step::augment_args(Command::new(kind.name)).about(about(kind)))
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        kinds().any(|kind| kind.name == name)
    }
}
