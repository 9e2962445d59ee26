//! What becomes of the program when nobody reads its output, or a disk has no room for it.

use crate::program::{digest, fail, narthex, succeed};
use std::{
    fs,
    io::{PipeWriter, pipe},
    path::Path,
    process::Stdio,
};

/// A project that makes documents of three lines.
const PROJECT: &str = r#"[project]
name = "lines"

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"

[steps.documents]
kind = "data"
from = "lines"
"#;

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("narthex.toml"), PROJECT).unwrap();
    fs::write(folder.path().join("lines.txt"), "one\ntwo\nthree\n").unwrap();
    folder
}

/// The end of a pipe that nobody reads from any more.
fn unread() -> PipeWriter {
    pipe().unwrap().1
}

/// A file that has no room.
#[cfg(target_os = "linux")]
fn full() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

/// The exit code, and what stood on stderr where that is not given.
fn ended(folder: &Path, args: &[&str], stdout: impl Into<Stdio>, stderr: Option<Stdio>) -> (Option<i32>, String) {
    let mut command = narthex(folder, args);
    let output = command.stdout(stdout).stderr(stderr.unwrap_or_else(Stdio::piped)).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Commands that only read; some write more than a pipe holds.
const READING: [&[&str]; 8] = [
    &[],
    &["--help"],
    &["config", "schema"],
    &["config", "show"],
    &["ls", "--all", "--json"],
    &["show", "documents"],
    &["trace", "documents", "--html"],
    &["license", "documents", "--format", "spdx"],
];

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = project();
    succeed(folder.path(), &["run"]);
    for args in READING {
        let (code, stderr) = ended(folder.path(), args, unread(), None);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{args:?}: {stderr}");
        assert_eq!(ended(folder.path(), args, unread(), Some(unread().into())).0, Some(0), "{args:?}");
    }
    // What fails still fails.
    fail(folder.path(), &["show", "nothing"], 1);
    assert_eq!(ended(folder.path(), &["show", "nothing"], unread(), Some(unread().into())).0, Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let folder = project();
    succeed(folder.path(), &["run"]);
    // The parser prints its own help, and says nothing of its errors.
    for args in READING.into_iter().filter(|args| *args != ["--help"]) {
        let (code, stderr) = ended(folder.path(), args, full(), None);
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to stdout\ncause: No space left"), "{args:?}: {stderr}");
        assert_eq!(ended(folder.path(), args, full(), Some(full().into())).0, Some(1), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_without_an_audience() {
    let folder = project();
    let mut stdouts: [(fn() -> Stdio, i32); 2] = [(|| unread().into(), 0), (|| full().into(), 1)];
    for (stdout, expected) in &mut stdouts {
        for args in [&["run", "--force", "documents"][..], &["data", "--force", "--json"]] {
            let (code, _) = ended(folder.path(), args, stdout(), Some(stdout()));
            assert_eq!(code, Some(*expected), "{args:?}");
            assert!(!digest(folder.path(), "documents").is_empty());
            assert!(succeed(folder.path(), &["run"]).contains("unchanged"));
            fs::remove_dir_all(folder.path().join(".narthex")).unwrap();
        }
    }
}
