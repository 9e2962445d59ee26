//! Loading in a process of its own: a parser that overruns its stack, hangs or takes all memory ends there, and the
//! file is left out like any other that cannot be read. Knows how bytes go to a program and a document comes back; not
//! which program.

use super::{Load, load_bytes};
use crate::{document::Document, kind::FileKind};
use narthex_base::{Error, Result, config::LoadLimits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Address space of the process: its program, the file, and what comes out of it several times over.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Milliseconds for the process to begin, beside those for the file.
const START_MS: u64 = 10_000;
/// Bytes that a document takes as JSON for each byte of text, at most, and what it takes beside.
const JSON_BYTES: (u64, u64) = (8, 1 << 20);

/// Loads what is risky in a process of its own, all else in this one.
#[derive(Clone, Debug)]
pub struct Apart {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// What comes back.
#[derive(Serialize, Deserialize)]
enum Loaded {
    Document(Document),
    Refused { what: String, causes: Vec<String>, help: Option<String> },
}

impl Apart {
    /// By a program that calls [`load_here`] with the kind and the limits that it finds behind these arguments.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// What the process writes, as far as it may write.
    fn told(&self, kind: FileKind, bytes: &[u8], limits: &LoadLimits) -> Result<Vec<u8>> {
        let gave_up = |why: String| Error::input(format!("the reader of {kind} gave up on the file")).cause(why);
        let kind = serde_json::to_string(&kind).expect("a kind is JSON");
        let limits_json = serde_json::to_string(limits).expect("limits are JSON");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args([kind, limits_json]).env_clear();
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| Error::io("cannot start", &self.program, error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let told_max = limits.expanded_bytes_max.saturating_mul(JSON_BYTES.0).saturating_add(JSON_BYTES.1);
        let (sender, receiver) = channel();
        let reader = thread::spawn(move || {
            let mut told = Vec::new();
            let read = stdout.map_or(Ok(0), |stdout| stdout.take(told_max).read_to_end(&mut told));
            _ = sender.send(read.map(|_| told));
        });
        let outcome = thread::scope(|scope| {
            scope.spawn(move || {
                // A process that ended early says why in what it told.
                _ = stdin.map(|mut stdin| stdin.write_all(bytes));
            });
            let told = receiver.recv_timeout(Duration::from_millis(limits.time_ms_max.saturating_add(START_MS)));
            // By now it has told all, or is not wanted any more; either way what feeds it comes to its end.
            _ = child.kill();
            told
        });
        let status = child.wait().map_err(|error| Error::io("cannot wait for", &self.program, error))?;
        _ = reader.join();
        match outcome {
            Ok(Ok(told)) if !told.is_empty() => Ok(told),
            Ok(Ok(_)) => Err(gave_up(format!("its process ended: {status}"))),
            Ok(Err(error)) => Err(gave_up(error.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("it took more than `limits.time_ms_max = {}` milliseconds", limits.time_ms_max);
                Err(gave_up(what).help("raise `limits.time_ms_max`, or leave the file out with `exclude`"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(gave_up("nothing came of it".into())),
        }
    }
}

impl Load for Apart {
    fn load(&self, kind: FileKind, bytes: &[u8], limits: &LoadLimits) -> Result<Document> {
        if !kind.is_risky() {
            return load_bytes(kind, bytes, limits);
        }
        let told = self.told(kind, bytes, limits)?;
        match serde_json::from_slice(&told) {
            Ok(Loaded::Document(document)) => Ok(document),
            Ok(Loaded::Refused { what, causes, help }) => {
                let error = causes.into_iter().fold(Error::input(what), |error, cause| error.cause(cause));
                Err(help.into_iter().fold(error, Error::help))
            }
            Err(error) => Err(Error::input(format!("the reader of {kind} gave up on the file")).cause(error)),
        }
    }
}

/// What the process does: reads the file from `from`, and writes to `to` what came of it. `kind` and `limits` are the
/// last two arguments that it was called with.
///
/// # Errors
/// If it was not called by [`Apart`], or the streams break.
pub fn load_here(kind: &str, limits: &str, from: impl Read, mut to: impl Write) -> Result<()> {
    let wrong = |error: serde_json::Error| Error::usage("this is for Narthex itself").cause(error);
    let kind: FileKind = serde_json::from_str(kind).map_err(wrong)?;
    let limits: LoadLimits = serde_json::from_str(limits).map_err(wrong)?;
    let mut bytes = Vec::new();
    let read = from.take(limits.file_bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Error::input("the file cannot be read").cause(error))?;
    bound(Resource::As, MEMORY_BYTES_MAX);
    bound(Resource::Cpu, (limits.time_ms_max + START_MS).div_ceil(1000));
    // It has no business with files any more.
    bound(Resource::Fsize, 0);
    let loaded = match load_bytes(kind, &bytes, &limits) {
        Ok(document) => Loaded::Document(document),
        Err(error) => Loaded::Refused {
            what: error.what().into(),
            causes: error.causes().iter().map(ToString::to_string).collect(),
            help: error.help_text().map(Into::into),
        },
    };
    let told = serde_json::to_vec(&loaded).map_err(|error| Error::internal("a document is JSON").cause(error))?;
    to.write_all(&told).map_err(|error| Error::input("the document cannot be told").cause(error))
}

/// Lowers a limit of this process, never beyond what it already has. A system that refuses leaves it as it was: the
/// limits within the readers hold all the same.
fn bound(resource: Resource, most: u64) {
    let Rlimit { maximum, .. } = getrlimit(resource);
    let most = maximum.map_or(most, |maximum| maximum.min(most));
    _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Apart {
        Apart::new("/bin/sh".into(), vec!["-c".into(), script.into(), "reader".into()])
    }

    #[test]
    fn a_process_that_fails_takes_the_file_alone_with_it() {
        let limits = LoadLimits { time_ms_max: 1, ..LoadLimits::default() };
        for (script, expected) in [
            ("kill -SEGV $$", "its process ended"),
            ("exit 3", "its process ended"),
            ("echo nonsense", "gave up"),
            ("cat > /dev/null; echo '{\"Refused\":{\"what\":\"no\",\"causes\":[\"page 3\"],\"help\":null}}'", "page 3"),
        ] {
            let error = shell(script).load(FileKind::Pdf, &[b'x'; 1 << 20], &limits).unwrap_err();
            let said =
                format!("{} {:?}", error.what(), error.causes().iter().map(ToString::to_string).collect::<Vec<_>>());
            assert!(said.contains(expected), "{script}: {said}");
        }
        let text = shell("exit 1").load(FileKind::Text, b"a text", &LoadLimits::default()).unwrap();
        assert_eq!(text.text, "a text", "what is not risky needs no process");
    }

    #[test]
    fn what_is_no_call_of_ours_is_refused() {
        assert!(load_here("pdf", "{}", &b""[..], Vec::new()).is_err());
        assert!(load_here("\"pdf\"", "nothing", &b""[..], Vec::new()).is_err());
    }
}
