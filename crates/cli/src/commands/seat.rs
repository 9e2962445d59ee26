//! Which of several ranks this process is, as whoever started it says in the environment: `narthex run --ranks`, an MPI
//! launcher, SLURM, or a launcher that sets what torchrun sets. Starts nothing.

use narthex_base::{Error, Result};
use narthex_train::MpiFamily;
use std::{path::PathBuf, thread::available_parallelism};

/// What a rank is told by `narthex run --ranks`.
pub const RANK: &str = "NARTHEX_RANK";
pub const RANKS: &str = "NARTHEX_RANKS";
pub const MEETING_PLACE: &str = "NARTHEX_RANKS_AT";

/// Where ranks over TCP meet unless MASTER_PORT says so: torchrun's port, or one for each job of SLURM.
const PORT: u16 = 29_400;
const SLURM_PORTS: u64 = 20_000;

/// What moves the bytes between ranks of several hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// MPI where an MPI launcher has started the ranks, TCP where another has
    #[default]
    Auto,
    /// Sockets of our own: nothing to install
    Tcp,
    /// The MPI library that belongs to the launcher
    Mpi,
}

/// A rank that somebody has started.
#[derive(Debug, PartialEq, Eq)]
pub struct Started {
    pub rank: usize,
    pub size: usize,
    /// Ranks on this host, where the launcher says so.
    pub local_size: Option<usize>,
    pub how: How,
}

/// How the ranks find each other.
#[derive(Debug, PartialEq, Eq)]
pub enum How {
    /// In a folder of this machine.
    Folder(PathBuf),
    /// At an address of rank 0's host.
    Tcp(String),
    /// Through an MPI library.
    Mpi(MpiFamily),
}

/// What a launcher sets: the number of a rank, how many there are, how many on this host.
struct Names {
    rank: &'static [&'static str],
    size: &'static str,
    local_size: &'static [&'static str],
}

const OPEN_MPI: Names = Names {
    rank: &["OMPI_COMM_WORLD_RANK"],
    size: "OMPI_COMM_WORLD_SIZE",
    local_size: &["OMPI_COMM_WORLD_LOCAL_SIZE"],
};
const MPICH: Names =
    Names { rank: &["PMI_RANK"], size: "PMI_SIZE", local_size: &["MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"] };
const TORCH: Names =
    Names { rank: &["RANK", "JOB_COMPLETION_INDEX"], size: "WORLD_SIZE", local_size: &["LOCAL_WORLD_SIZE"] };
const SLURM: Names =
    Names { rank: &["SLURM_PROCID"], size: "SLURM_STEP_NUM_TASKS", local_size: &["SLURM_NTASKS_PER_NODE"] };

impl Started {
    /// The rank that the environment speaks of; none if it speaks of one process alone.
    ///
    /// # Errors
    /// If what it says is not enough, or no number.
    pub fn find(engine: Engine) -> Result<Option<Self>> {
        Self::of(engine, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(engine: Engine, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let wrong = |value: &str| Error::usage(format!("{name} is `{value}`, which is no number"));
            variable(name).map(|value| value.parse().map_err(|_| wrong(&value))).transpose()
        };
        if let Some(folder) = variable(MEETING_PLACE) {
            let needed = |name: &str| {
                let missing = || Error::usage(format!("{name} is not set")).help("`narthex run --ranks N` sets it");
                number(name)?.ok_or_else(missing)
            };
            let (rank, size) = (needed(RANK)?, needed(RANKS)?);
            return Ok(Some(Self { rank, size, local_size: Some(size), how: How::Folder(folder.into()) }));
        }
        let place = |host: String, port: u16| match variable("MASTER_PORT") {
            Some(port) => format!("{host}:{port}"),
            None => format!("{host}:{port}"),
        };
        let master = variable("MASTER_ADDR").map(|host| place(host, PORT));
        for (names, family) in
            [(OPEN_MPI, Some(MpiFamily::OpenMpi)), (TORCH, None), (MPICH, Some(MpiFamily::Mpich)), (SLURM, None)]
        {
            let Some(size) = number(names.size)?.filter(|size| *size > 1) else { continue };
            let found = names.rank.iter().find_map(|name| number(name).transpose()).transpose()?;
            let Some(rank) = found else {
                return Err(Error::usage(format!("{} is {size}, and {} is not set", names.size, names.rank[0]))
                    .help("the launcher sets both"));
            };
            if rank >= size {
                return Err(Error::usage(format!("{} is {rank} of {size}: ranks are counted from 0", names.rank[0])));
            }
            let local_size = names.local_size.iter().find_map(|name| number(name).ok().flatten());
            let of_slurm = || {
                let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"))?;
                let job = number("SLURM_JOB_ID").ok().flatten().unwrap_or_default() as u64;
                Some(place(first_host(&nodes), (SLURM_PORTS + job % SLURM_PORTS) as u16))
            };
            let how = match (engine, family) {
                (Engine::Auto | Engine::Mpi, Some(family)) => How::Mpi(family),
                (Engine::Mpi, None) => {
                    return Err(Error::usage("these ranks were not started by an MPI launcher")
                        .help("start them with `mpirun -np N narthex run …`, or leave out `--engine mpi`"));
                }
                (Engine::Auto | Engine::Tcp, _) => How::Tcp(master.clone().or_else(of_slurm).ok_or_else(|| {
                    Error::usage("MASTER_ADDR is not set, so the ranks do not know where to meet")
                        .help("set MASTER_ADDR to the host of rank 0, and MASTER_PORT to a port that is free there")
                })?),
            };
            return Ok(Some(Self { rank, size, local_size, how }));
        }
        match engine {
            Engine::Auto => Ok(None),
            Engine::Tcp | Engine::Mpi => Err(Error::usage("an engine is asked for, and one process has been started")
                .help("start several: `narthex run --ranks N` on this machine, or with mpirun, srun or torchrun's RANK and WORLD_SIZE")),
        }
    }

    /// Threads for this rank: all processors that it may use, or its share of them where nobody has bound it to some.
    pub fn threads(&self) -> usize {
        let available = available_parallelism().map_or(1, usize::from);
        let allowed = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count() as usize);
        let is_bound = allowed > 0 && allowed < processors();
        if is_bound { available } else { (available / self.local_size.unwrap_or(1).max(1)).max(1) }
    }
}

/// Processors of this host.
fn processors() -> usize {
    let lines = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    lines.lines().filter(|line| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '))).count()
}

/// The first host of a list as SLURM writes it: `node[003-007,010],other` begins with `node003`.
fn first_host(list: &str) -> String {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (before, rest) = list.split_at(end);
    match rest.strip_prefix('[') {
        None => before.to_string(),
        Some(numbers) => {
            let first = numbers.split([',', '-', ']']).next().unwrap_or_default();
            let after = numbers.split_once(']').map_or("", |(_, after)| after.split(',').next().unwrap_or_default());
            format!("{before}{first}{after}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn started(engine: Engine, set: &[(&str, &str)]) -> Result<Option<Started>> {
        let set: HashMap<&str, &str> = set.iter().copied().collect();
        Started::of(engine, &|name| set.get(name).map(|value| value.to_string()))
    }

    #[test]
    fn launchers_are_told_by_what_they_set() {
        let of = |set: &[(&str, &str)]| started(Engine::Auto, set).unwrap();
        let expect = |rank, size, local_size, how| Some(Started { rank, size, local_size, how });
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")]), None);
        let mpi = [
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_PROCID", "0"),
        ];
        assert_eq!(of(&mpi), expect(3, 4, Some(2), How::Mpi(MpiFamily::OpenMpi)));
        assert_eq!(of(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]), expect(1, 2, None, How::Mpi(MpiFamily::Mpich)));
        let torch = [("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "7")];
        assert_eq!(of(&torch), expect(1, 2, None, How::Tcp("a:7".into())));
        let job = [("WORLD_SIZE", "2"), ("JOB_COMPLETION_INDEX", "0"), ("MASTER_ADDR", "job-0.job")];
        assert_eq!(of(&job), expect(0, 2, None, How::Tcp("job-0.job:29400".into())));
        let slurm = [
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_PROCID", "5"),
            ("SLURM_JOB_NODELIST", "node[003-007,010],other"),
            ("SLURM_JOB_ID", "41234"),
        ];
        assert_eq!(of(&slurm), expect(5, 8, None, How::Tcp("node003:21234".into())));
        // A batch script alone is one process, whatever its job may start.
        assert_eq!(of(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]), None);
    }

    #[test]
    fn what_is_not_enough_is_refused() {
        let error = |engine, set: &[(&str, &str)]| started(engine, set).unwrap_err().to_string();
        assert!(error(Engine::Auto, &[("WORLD_SIZE", "2"), ("RANK", "0")]).contains("MASTER_ADDR is not set"));
        assert!(error(Engine::Auto, &[("WORLD_SIZE", "2")]).contains("RANK is not set"));
        assert!(error(Engine::Auto, &[("PMI_SIZE", "2"), ("PMI_RANK", "2")]).contains("counted from 0"));
        assert!(error(Engine::Auto, &[("PMI_SIZE", "two")]).contains("`two`, which is no number"));
        assert!(error(Engine::Mpi, &[]).contains("one process has been started"));
        let torch = [("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "a")];
        assert!(error(Engine::Mpi, &torch).contains("not started by an MPI launcher"));
        // MPI's launcher, without its library.
        let mpi = [("PMI_SIZE", "2"), ("PMI_RANK", "1"), ("MASTER_ADDR", "a")];
        assert_eq!(started(Engine::Tcp, &mpi).unwrap().unwrap().how, How::Tcp("a:29400".into()));
    }

    #[test]
    fn lists_of_hosts_have_a_first() {
        for (list, first) in
            [("a", "a"), ("a,b", "a"), ("n[1-3]", "n1"), ("n[08,10-12],m", "n08"), ("rack[2-3]-a,rack4-b", "rack2-a")]
        {
            assert_eq!(first_host(list), first, "{list}");
        }
    }
}
