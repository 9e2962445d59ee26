//! Training by several processes: who starts them on this machine, watches them and says what became of them, and how
//! each of them joins the others. Knows no training.

use super::seat::{Engine, How, MEETING_PLACE, RANK, RANKS, Started};
use clap::Args;
use narthex_base::{Error, Observer, Result};
use narthex_run::Project;
use narthex_shelf::root_of;
use narthex_train::{Communicator, Mesh, Ranks, Seat, World, mpi, sockets, tcp};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{available_parallelism, sleep},
    time::{Duration, Instant},
};

/// A library of MPI that is not where libraries are.
const MPI_LIBRARY: &str = "NARTHEX_MPI_LIBRARY";

/// Time for all ranks of one machine, and of several, to have started.
const MEETING: Duration = Duration::from_secs(120);
const MEETING_OF_HOSTS: Duration = Duration::from_secs(600);

/// How often is looked whether a rank has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the others get to end by themselves once one has failed.
const GRACE: Duration = Duration::from_secs(15);

/// Lines of a rank's log that are shown when it fails.
const LAST_LINES: usize = 5;

/// How many processes train.
#[derive(Args)]
#[command(next_help_heading = "Several processes")]
pub struct RanksFlags {
    /// Train with so many processes on this machine, each with its share of the processors. Micro-batches go to them in
    /// turn, so `gradient_accumulation` should be a multiple; the bytes are those of one process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub ranks: Option<u32>,
    /// Start all processes again from the last checkpoint when one is killed, at most so many times
    #[arg(long, value_name = "N", default_value_t = 0, requires = "ranks")]
    pub restarts: u32,
    /// Seconds that a process may let the others wait before it is named and the run ends
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub rank_timeout: u64,
    /// What moves the bytes between processes that mpirun, srun or another launcher has started
    #[arg(long, value_enum, default_value_t, conflicts_with = "ranks")]
    pub engine: Engine,
}

impl RanksFlags {
    /// How many processes are to be started.
    pub fn to_start(&self) -> Option<u32> {
        to_start(self.ranks)
    }
}

/// How many processes are to be started; none if this one is enough, or is one of them.
pub fn to_start(ranks: Option<u32>) -> Option<u32> {
    ranks.filter(|ranks| *ranks > 1 && std::env::var_os(RANK).is_none())
}

/// Where the ranks of a project write what they say.
pub fn logs_of(project: &Path) -> PathBuf {
    root_of(project).join(".narthex/ranks")
}

/// Starts this command as several processes, waits for them, and gives the exit code.
pub fn launch(logs: &Path, ranks: u32, restarts: u32) -> Result<u8> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, interrupted.clone())
            .map_err(|error| Error::internal("cannot listen for signals").cause(error))?;
    }
    std::fs::create_dir_all(logs).map_err(|error| Error::io("cannot write", logs, error))?;
    let threads = (available_parallelism().map_or(1, usize::from) / ranks as usize).max(1);
    let words = if threads == 1 { "one thread".into() } else { format!("{threads} threads") };
    noteln!("{ranks} processes of {words} each; all but the first write to {}", logs.display());
    let mut left = restarts;
    loop {
        let running = Running::start(ranks, threads, logs)?;
        let Some((rank, status)) = running.wait(&interrupted)? else { return Ok(0) };
        let killed = status.signal();
        if killed.is_some() && left > 0 && !interrupted.load(Ordering::Relaxed) {
            left -= 1;
            noteln!("warning: rank {rank} was killed; starting all again, {left} more times at most");
            continue;
        }
        // Rank 0 has said for itself what is wrong.
        if let (0, Some(code)) = (rank, status.code()) {
            return Ok(code.clamp(1, 255) as u8);
        }
        let how = match (killed, status.code()) {
            (Some(signal), _) => format!("rank {rank} was ended by signal {signal}"),
            (None, code) => format!("rank {rank} ended with exit code {}", code.unwrap_or(1)),
        };
        let log = log_of(logs, rank);
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let error = Error::input(how).at(log.display(), None);
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        return Err(last
            .iter()
            .fold(error, |error, line| error.cause(line))
            .help("run the same command again: training goes on from its checkpoint; `--restarts` does so by itself"));
    }
}

fn log_of(logs: &Path, rank: usize) -> PathBuf {
    logs.join(format!("rank-{rank}.log"))
}

/// The processes of one attempt. They end with it.
struct Running {
    ranks: Vec<Child>,
    /// The folder with their sockets.
    meeting_place: tempfile::TempDir,
}

impl Running {
    fn start(ranks: u32, threads: usize, logs: &Path) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("narthex-").tempdir();
        let place = place.map_err(|error| Error::io("cannot write into", std::env::temp_dir(), error))?;
        let program =
            std::env::current_exe().map_err(|error| Error::internal("cannot find this program").cause(error))?;
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let mut running = Self { ranks: vec![], meeting_place: place };
        for rank in 0..ranks {
            let mut command = Command::new(&program);
            command
                .args(&arguments)
                .env(RANK, rank.to_string())
                .env(RANKS, ranks.to_string())
                .env(MEETING_PLACE, running.meeting_place.path())
                .env("RAYON_NUM_THREADS", threads.to_string());
            if rank > 0 {
                let path = log_of(logs, rank as usize);
                let log = File::create(&path).map_err(|error| Error::io("cannot write", &path, error))?;
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            }
            let child = command.spawn().map_err(|error| Error::input("cannot start a process").cause(error))?;
            running.ranks.push(child);
        }
        Ok(running)
    }

    /// Waits for all of them. Gives the one that failed first, if one did; a killed one counts before those that end
    /// because it has gone.
    fn wait(mut self, interrupted: &AtomicBool) -> Result<Option<(usize, ExitStatus)>> {
        let mut ended: Vec<Option<ExitStatus>> = vec![None; self.ranks.len()];
        let mut failed: Vec<(usize, ExitStatus)> = vec![];
        let (mut deadline, mut passed_on) = (None, false);
        while ended.iter().any(Option::is_none) {
            for (rank, child) in self.ranks.iter_mut().enumerate() {
                if ended[rank].is_some() {
                    continue;
                }
                let status =
                    child.try_wait().map_err(|error| Error::internal("cannot wait for a process").cause(error))?;
                if let Some(status) = status {
                    ended[rank] = Some(status);
                    if !status.success() {
                        failed.push((rank, status));
                        deadline.get_or_insert_with(|| Instant::now() + GRACE);
                    }
                }
            }
            if interrupted.load(Ordering::Relaxed) && !passed_on {
                // A terminal has told them already; who was told alone passes it on.
                passed_on = true;
                let running = self.ranks.iter().zip(&ended).filter(|(_, ended)| ended.is_none());
                running.for_each(|(child, _)| terminate(child));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.ranks.iter_mut().for_each(|child| _ = child.kill());
                deadline = None;
            }
            sleep(LOOK_EVERY);
        }
        failed.sort_by_key(|(rank, status)| (status.signal().is_none(), *rank));
        Ok(failed.into_iter().next())
    }
}

/// Asks a process to stop at the next safe point.
fn terminate(child: &Child) {
    if let Some(process) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // One that has just ended need not be told.
        _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.ranks {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// The rank that this process is, if it is one of several. Takes its share of the processors.
pub fn started(engine: Engine) -> Result<Option<Started>> {
    let Some(started) = Started::find(engine)? else { return Ok(None) };
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        rayon::ThreadPoolBuilder::new()
            .num_threads(started.threads())
            .build_global()
            .map_err(|error| Error::internal("cannot start threads").cause(error))?;
    }
    Ok(Some(started))
}

/// Meets the other ranks, which must run the same: `identity` says what.
pub fn meet(started: Started, timeout: u64, identity: &[(&str, String)]) -> Result<Ranks<Mesh>> {
    let Started { rank, size, how, .. } = started;
    let meeting = if matches!(how, How::Folder(_)) { MEETING } else { MEETING_OF_HOSTS };
    let seat = Seat { rank, size, meeting, patience: Duration::from_secs(timeout) };
    let mesh = match &how {
        How::Folder(folder) => sockets(folder, seat)?,
        How::Tcp(place) => tcp(place, seat)?,
        How::Mpi(family) => mpi(*family, std::env::var(MPI_LIBRARY).ok().as_deref(), seat)?,
    };
    let engine = mesh.engine();
    let world = Ranks::meet(mesh, identity)?;
    if !matches!(how, How::Folder(_)) {
        // Who started these cannot say where they are.
        let own = format!("{}\t{}", rustix::system::uname().nodename().to_string_lossy(), rayon::current_num_threads());
        let found = world.all(own.into_bytes())?;
        if rank == 0 {
            let hosts = found.iter().enumerate().map(|(rank, words)| {
                let words = String::from_utf8_lossy(words);
                let (host, threads) = words.split_once('\t').unwrap_or((&words, "?"));
                format!("{rank} on {host} ({threads} {})", if threads == "1" { "thread" } else { "threads" })
            });
            noteln!("{size} ranks over {engine}: {}", hosts.collect::<Vec<_>>().join(", "));
        }
    }
    Ok(world)
}

/// The project as this process runs it: together with others, if it was started as one of several.
pub fn join(project: Project, started: Option<Started>, timeout: u64) -> Result<Project> {
    let Some(started) = started else { return Ok(project) };
    let world = meet(started, timeout, &project.identity())?;
    Ok(project.among(Arc::new(world)))
}

/// Takes part in what rank 0 trains, if this process is another rank.
pub fn take_part(project: &Project) -> Result<bool> {
    let rank = project.rank();
    if rank == 0 {
        return Ok(false);
    }
    let interrupt = crate::signals::interrupt_flag()?;
    let emit = |_| {};
    let taken = project.take_part(Observer::new(&emit, &interrupt));
    taken.map_err(|error| error.context(format!("rank {rank}")))?;
    Ok(true)
}
