//! A server as a program of this machine: started with nothing of our environment, in a group of its own, killed with
//! all that it started when it is let go. Knows pipes, no messages.

use super::spec::Reach;
use narthex_base::{Error, Result};
use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use std::{
    collections::VecDeque,
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
};

/// Bytes of what a program complained about that are kept.
const COMPLAINTS_BYTES_MAX: usize = 4 << 10;

/// How long the last words of a program that ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program that runs, with its pipes.
pub(super) struct Child {
    pub input: ChildStdin,
    pub output: Lines<ChildStdout>,
    pub running: Running,
    pub complaints: Complaints,
    /// Ends once the program and all that it started closed standard error.
    pub reading: JoinHandle<()>,
}

impl Child {
    /// Ends the program and returns what it complained about.
    pub async fn last_words(running: Running, complaints: &Complaints, reading: JoinHandle<()>) -> Option<String> {
        drop(running);
        // What it wrote may still be in the pipe; a program that left its group may hold that open.
        let _ = tokio::time::timeout(LAST_WORDS, reading).await;
        complaints.text()
    }
}

/// Kills the program and all that it started, once it is dropped.
pub(super) struct Running(Option<Box<dyn ChildWrapper>>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // The group is signalled at once; waiting for it only keeps a dead one from staying in the table.
        let _ = child.start_kill();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(child.wait().await) });
        }
    }
}

/// The end of what a program wrote to standard error.
#[derive(Clone, Default)]
pub(super) struct Complaints(Arc<Mutex<VecDeque<u8>>>);

impl Complaints {
    /// What it wrote, if it wrote anything.
    pub fn text(&self) -> Option<String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous()).trim().to_string();
        (!text.is_empty()).then_some(text)
    }

    /// Reads until the program closes it: one that nobody reads would stop the program.
    async fn read(self, mut from: ChildStderr) {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&buffer[..bytes]);
            let excess = kept.len().saturating_sub(COMPLAINTS_BYTES_MAX);
            kept.drain(..excess);
        }
    }
}

/// Starts a program.
///
/// # Errors
/// If there is none, or it cannot be started.
pub(super) fn start(reach: &Reach, line_bytes_max: usize, too_long: watch::Sender<u64>) -> Result<Child> {
    let Reach::Stdio { program, arguments, environment, folder } = reach else {
        return Err(Error::internal("an address is no program"));
    };
    let mut command = Command::new(found(program)?);
    command.args(arguments).env_clear().envs(environment);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut wrapped = CommandWrap::from(command);
    wrapped.wrap(KillOnDrop).wrap(ProcessGroup::leader());
    let mut child = wrapped.spawn().map_err(|error| Error::io("cannot start", program, error))?;
    let (input, output, errors) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let running = Running(Some(child));
    let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
        return Err(Error::internal("a program was started without its pipes"));
    };
    let complaints = Complaints::default();
    let reading = tokio::spawn(complaints.clone().read(errors));
    let output = Lines { from: output, line_bytes: 0, line_bytes_max, too_long };
    Ok(Child { input, output, running, complaints, reading })
}

/// Where a program is. Its own environment need not have a `PATH`, so ours is looked through.
fn found(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::input(format!("there is no program `{program}` in PATH"))
            .help(format!("install it, or give its whole path; `command -v {program}` shows where it is"))
    })
}

/// Bytes as they come, and a word when a line is longer than anybody will read: what waits for it must not wait on.
pub(super) struct Lines<R> {
    from: R,
    line_bytes: usize,
    line_bytes_max: usize,
    too_long: watch::Sender<u64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.from).poll_read(context, buffer);
        for piece in buffer.filled()[before..].split_inclusive(|byte| *byte == b'\n') {
            let was_short = self.line_bytes <= self.line_bytes_max;
            self.line_bytes += piece.len();
            if was_short && self.line_bytes > self.line_bytes_max {
                self.too_long.send_modify(|times| *times += 1);
            }
            if piece.ends_with(b"\n") {
                self.line_bytes = 0;
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_lines_are_told_once() {
        for (text, expected) in [
            ("", 0),
            ("12345678\n", 0),
            ("123456789\n", 0),
            ("1234567890\n", 1),
            ("1234567890", 0),
            ("12345678901", 1),
            ("1234\n1234567890abcdef\n1234\n1234567890\n12", 2),
        ] {
            let (too_long, told) = watch::channel(0);
            let mut lines = Lines { from: text.as_bytes(), line_bytes: 0, line_bytes_max: 10, too_long };
            let mut read = String::new();
            lines.read_to_string(&mut read).await.unwrap();
            assert_eq!((read.as_str(), *told.borrow()), (text, expected), "{text}");
        }
    }
}
