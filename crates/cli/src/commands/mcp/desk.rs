//! What all that is offered over MCP shares: the project, the models that are held ready, the work under way, and where
//! changes are told. Knows no tool and no protocol.

use super::held::Held;
use crate::commands::{base_options, shelf};
use narthex_base::{Error, Result, plan::GUESTS};
use narthex_mcp::Changes;
use narthex_shelf::{PlanOptions, Purpose, Reference, Shelf};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Calls that compute at once; further ones are refused.
const WORKS_MAX: usize = 32;

/// The table of steps, and those that hold something else beside those of guests.
const STEPS: &str = "steps";
const OTHER_TABLES: [&str; 3] = ["project", "sources", "policy"];

/// What all that is offered shares.
pub struct Desk {
    project: PathBuf,
    /// What models are opened for: whoever starts a program on standard input and output uses them himself; behind a
    /// port they answer others.
    pub purpose: Purpose,
    /// Models that were asked last.
    pub models: Held,
    /// Where changes are told.
    pub changes: Changes,
    works: Arc<Works>,
}

/// The work under way: how each is asked to stop.
#[derive(Default)]
struct Works {
    stops: Mutex<Vec<Arc<AtomicBool>>>,
    ended: Condvar,
}

/// A work under way, until it is dropped.
pub struct Work {
    stop: Arc<AtomicBool>,
    works: Arc<Works>,
}

impl Desk {
    /// Over a project.
    pub fn new(project: PathBuf, purpose: Purpose) -> Self {
        Self { project, purpose, models: Held::default(), changes: Changes::default(), works: Arc::default() }
    }

    /// What the project holds.
    pub fn shelf(&self) -> Shelf {
        shelf(&self.project)
    }

    /// The project's folder as a command line has it.
    pub fn folder(&self) -> &Path {
        &self.project
    }

    /// Begins a work that can be asked to stop.
    ///
    /// # Errors
    /// If too much is under way.
    pub fn begin(&self) -> Result<Work> {
        let mut stops = self.works.stops.lock().unwrap_or_else(PoisonError::into_inner);
        if stops.len() >= WORKS_MAX {
            return Err(Error::input(format!("{WORKS_MAX} calls are under way")).help("wait until one has ended"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        stops.push(stop.clone());
        Ok(Work { stop, works: self.works.clone() })
    }

    /// Asks all work to stop at its next safe point, and waits until it has, but not longer than this. Says whether it
    /// has.
    pub fn stop(&self, wait: Duration) -> bool {
        let begun = Instant::now();
        let mut stops = self.works.stops.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            stops.iter().for_each(|stop| stop.store(true, Ordering::Relaxed));
            let left = wait.saturating_sub(begun.elapsed());
            if stops.is_empty() || left.is_zero() {
                return stops.is_empty();
            }
            stops = self.works.ended.wait_timeout(stops, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Work {
    /// Raised once the work should stop.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut stops = self.works.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.retain(|stop| !Arc::ptr_eq(stop, &self.stop));
        self.works.ended.notify_all();
    }
}

/// A reference, if it is to something of the project's ledger: whoever asks gets at no other place of this machine.
///
/// # Errors
/// If it names a folder or a file.
pub fn named(reference: &str) -> Result<&str> {
    match Reference::of(reference) {
        Reference::Name(name) => Ok(name),
        Reference::Place(_) => Err(Error::input(format!(
            "`{reference}` is a place on disk, and only what is in the project's ledger is given"
        ))
        .help("name an artifact: `list_artifacts` has them; a folder is taken in with `narthex import`")),
    }
}

/// How the project is opened with these values set. Only steps' values can be: where sources lie and what the policy says
/// stands in the project's file, which whoever asks may not be able to write.
///
/// # Errors
/// If a key is of something else, or the project file is wrong.
pub fn with_set(desk: &Desk, set: &[String]) -> Result<PlanOptions> {
    if !set.is_empty() {
        let plan = desk.shelf().plan()?;
        let names: Vec<&str> =
            plan.steps.iter().flat_map(|step| [step.name.as_str(), step.step.kind().name]).chain([STEPS]).collect();
        set.iter().try_for_each(|assignment| of_a_step(assignment, &names))?;
    }
    Ok(base_options(set))
}

/// Refuses an assignment whose key does not begin with one of these names, or begins with another table.
fn of_a_step(assignment: &str, names: &[&str]) -> Result<()> {
    let key = assignment.split('=').next().unwrap_or_default().trim();
    let first = key.split('.').next().unwrap_or_default();
    let is_table = OTHER_TABLES.contains(&first) || GUESTS.contains(&first);
    match names.contains(&first) && !is_table {
        true => Ok(()),
        false => Err(Error::input(format!("`{key}` is no value of a step, and only those can be set here"))
            .help("write `step.key=value`; all else stands in narthex.toml")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_and_places_are_not() {
        for (reference, is_given) in [
            ("base", true),
            ("base@28d5", true),
            ("28d5", true),
            ("./base", false),
            ("../base", false),
            ("/etc/passwd", false),
            ("~/model", false),
            ("a/b", false),
            ("model.gguf", false),
        ] {
            assert_eq!(named(reference).is_ok(), is_given, "{reference}");
        }
    }

    #[test]
    fn only_values_of_steps_are_set() {
        let names = ["base", "train", "policy", STEPS];
        for (assignment, is_set) in [
            ("base.lr=3e-4", true),
            ("train.lr=3e-4", true),
            ("steps.base.schedule.lr = 3e-4", true),
            ("sources.lines.path=/etc/passwd", false),
            ("policy.rules=[]", false),
            ("project.seed=2", false),
            ("agents.a.model=x", false),
            ("other.lr=1", false),
            ("=1", false),
            ("", false),
        ] {
            assert_eq!(of_a_step(assignment, &names).is_ok(), is_set, "{assignment}");
        }
    }

    #[test]
    fn all_work_is_asked_to_stop_and_waited_for() {
        let desk = Desk::new(PathBuf::from("."), Purpose::Own);
        assert!(desk.stop(Duration::ZERO));
        let work = desk.begin().unwrap();
        let stop = work.stop();
        assert!(!desk.stop(Duration::ZERO));
        assert!(stop.load(Ordering::Relaxed));
        let ends = std::thread::spawn(move || drop(work));
        assert!(desk.stop(Duration::from_secs(60)));
        ends.join().unwrap();
        let all: Vec<Work> = (0..WORKS_MAX).map(|_| desk.begin().unwrap()).collect();
        assert!(desk.begin().is_err());
        drop(all);
        assert!(desk.begin().is_ok());
    }
}
