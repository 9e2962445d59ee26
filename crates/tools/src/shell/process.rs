//! A child process within limits: its own session, bounded time, memory and output, and nothing of it left behind.
//! Knows neither tools nor sandboxes.

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process_group, pidfd_open, setrlimit, setsid,
};
use std::{
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    process::{Child, ChildStdin, Command},
};

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 16 << 10;
/// Open files of a process.
const OPEN_FILES_MAX: u64 = 1024;

/// What is run.
pub struct Program {
    /// The program, and its arguments.
    pub argv: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// Where it starts.
    pub folder: PathBuf,
    /// What it reads.
    pub stdin: String,
}

/// How much it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds until it is killed.
    pub wall_ms: u64,
    /// Seconds of processor time, for each of its processes.
    pub cpu_s: u64,
    /// Bytes of address space, for each of its processes.
    pub memory_bytes: u64,
    /// Bytes of a file that it writes.
    pub file_bytes: u64,
    /// Bytes that are kept of its output, and of its errors.
    pub output_bytes: usize,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Ran {
    /// How it ended; `None` if the time was over.
    pub status: Option<ExitStatus>,
    /// What it wrote.
    pub stdout: Kept,
    /// What it complained about.
    pub stderr: Kept,
}

/// The beginning of a stream.
#[derive(Debug, Default)]
pub struct Kept {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many more came.
    pub more: u64,
}

/// All processes of a session are killed when this goes, unless they have been already.
struct Session {
    leader: Option<Pid>,
}

impl Session {
    fn kill(&self) {
        if let Some(leader) = self.leader {
            // That nobody is left is the other good outcome.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program until it ends or the time is over. Whatever it started is killed then, and when this future is
/// dropped: all that is in its process group, and in a sandbox all there is.
///
/// # Errors
/// If it cannot be started.
pub async fn run(program: &Program, limits: Limits) -> io::Result<Ran> {
    let mut child = started(program, limits)?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut session = Session { leader };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut ran = Ran::default();
    let work = async {
        let fed = feed(stdin, program.stdin.as_bytes());
        let read = keep(stdout, limits.output_bytes, &mut ran.stdout);
        let complained = keep(stderr, limits.output_bytes, &mut ran.stderr);
        let (status, ..) = tokio::join!(ended(&mut child, &mut session), fed, read, complained);
        status
    };
    let outcome = tokio::time::timeout(Duration::from_millis(limits.wall_ms), work).await;
    ran.status = outcome.ok().transpose()?;
    Ok(ran)
}

fn started(program: &Program, limits: Limits) -> io::Result<Child> {
    let mut command = Command::new(&program.argv[0]);
    command
        .args(&program.argv[1..])
        .current_dir(&program.folder)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // SAFETY: between fork and exec only system calls are made here; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            // A session of its own: one signal reaches all of it, and no terminal of ours is within its reach.
            setsid()?;
            confine(limits)
        });
    }
    command.spawn()
}

/// Limits that hold for this process and all that it starts. Never more than there is already.
fn confine(limits: Limits) -> io::Result<()> {
    for (resource, soft, hard) in [
        (Resource::As, limits.memory_bytes, limits.memory_bytes),
        // The first second over is a signal that can be caught.
        (Resource::Cpu, limits.cpu_s, limits.cpu_s + 1),
        (Resource::Fsize, limits.file_bytes, limits.file_bytes),
        (Resource::Nofile, OPEN_FILES_MAX, OPEN_FILES_MAX),
        (Resource::Core, 0, 0),
    ] {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })?;
    }
    Ok(())
}

/// Waits for the first process, and kills what it left.
async fn ended(child: &mut Child, session: &mut Session) -> io::Result<ExitStatus> {
    if let Some(leader) = session.leader {
        // It has ended and is still there for us to wait for, so that nobody else can have its number yet.
        let process = pidfd_open(leader, PidfdFlags::empty())?;
        // SAFETY: the descriptor is owned by what waits on it, and stays open until that is dropped.
        let exit = unsafe { AsyncFd::register(process) }?;
        drop(exit.readable().await?);
        session.kill();
    }
    let status = child.wait().await;
    session.leader = None;
    status
}

async fn feed(stdin: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut stdin) = stdin {
        // It need not read what it is given.
        let _ = stdin.write_all(bytes).await;
    }
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, bytes_max: usize, kept: &mut Kept) {
    let Some(mut stream) = stream else { return };
    let mut block = vec![0; BLOCK_BYTES];
    // An error means that nobody writes any more. What is too much is read and forgotten, so that the writer goes on.
    while let Ok(read @ 1..) = stream.read(&mut block).await {
        let free = (bytes_max - kept.bytes.len()).min(read);
        kept.bytes.extend_from_slice(&block[..free]);
        kept.more += (read - free) as u64;
    }
}
