//! Places at which a test can kill a process: what a run promises of them cannot be tested otherwise. Nothing happens
//! unless the environment asks for it.

use std::{fs::OpenOptions, sync::OnceLock};

/// `RANK:PLACE:STEP:FILE`: the process of that rank is killed once it is there, unless the file is there already; it is
/// made first, so that it happens once.
const VARIABLE: &str = "NARTHEX_FAULT";

struct Fault {
    rank: usize,
    place: String,
    step: u64,
    file: String,
}

/// Kills the process if it is to be killed here. `step` counts steps taken.
pub(crate) fn point(place: &str, rank: usize, step: u64) {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let fault = FAULT.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let mut parts = value.splitn(4, ':');
        let mut next = || parts.next().map(str::to_string);
        Some(Fault { rank: next()?.parse().ok()?, place: next()?, step: next()?.parse().ok()?, file: next()? })
    });
    let Some(fault) = fault.as_ref().filter(|fault| fault.place == place) else { return };
    if (fault.rank, fault.step) == (rank, step)
        && OpenOptions::new().write(true).create_new(true).open(&fault.file).is_ok()
    {
        _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
