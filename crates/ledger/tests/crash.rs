//! A process that is killed at any moment, and a disk that is full, leave a ledger that opens and
//! whose every artifact is whole.

use narthex_base::{ArtifactKind, Digest, Error, Manifest, Recipe};
use narthex_ledger::{Ledger, RunRecord};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Where the child works, and how the test tells it.
const CHILD_ROOT: &str = "NARTHEX_LEDGER_CHILD_ROOT";

/// A folder on a disk of about one megabyte, for the test of a full disk.
const SMALL_DISK: &str = "NARTHEX_SMALL_DISK";

fn manifest(step: &str) -> Manifest {
    Manifest::new(ArtifactKind::Model, Recipe::new(step, "test"))
}

/// One step: files, artifact, name, record.
fn step(ledger: &Ledger, number: u64) -> narthex_base::Result<Digest> {
    let work = ledger.stage("step")?;
    let files = work.join("files");
    fs::create_dir_all(files.join("deep")).map_err(|e| Error::io("cannot create", &files, e))?;
    for name in ["a", "deep/b"] {
        // The content depends on the number alone: a step that was killed half-way writes the same again.
        let text = format!("{name} {number}").repeat(100);
        fs::write(files.join(name), text).map_err(|e| Error::io("cannot write", &files, e))?;
    }
    let artifact = ledger.commit(manifest("step"), &files, None, RunRecord::default())?;
    ledger.set_ref("step", artifact.digest)?;
    ledger.remember_step("step", Digest::of(&number.to_le_bytes()), artifact.digest, &serde_json::json!(number))?;
    ledger.discard_stage("step")?;
    Ok(artifact.digest)
}

/// Goes on from the number in the last step's record, until killed.
#[test]
#[ignore = "the process that `survives_kill` starts and kills"]
fn child() {
    let root = std::env::var_os(CHILD_ROOT).expect("started by the test");
    let ledger = Ledger::open(Path::new(&root)).unwrap();
    let _lock = ledger.lock().unwrap();
    let mut number = ledger.last_step("step").unwrap().map_or(0, |last| last.material.as_u64().unwrap() + 1);
    loop {
        step(&ledger, number).unwrap();
        number += 1;
    }
}

#[test]
fn survives_kill() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(".narthex");
    let mut made = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child"])
            .env(CHILD_ROOT, &root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + round * 7));
        child.kill().unwrap();
        child.wait().unwrap();

        let ledger = Ledger::open(&root).unwrap();
        assert_eq!(ledger.take_warnings(), Vec::<String>::new());
        drop(ledger.lock().unwrap());
        let list = ledger.list().unwrap();
        for line in &list {
            assert!(line.complete, "{line:?}");
            ledger.verify(&ledger.get(line.digest).unwrap()).unwrap();
        }
        if let Some(last) = ledger.last_step("step").unwrap() {
            let known = ledger.known_step(last.key).unwrap().expect("its artifact is whole");
            assert_eq!(known.digest, last.artifact);
            // The name was set just before the step was remembered, and may be one step ahead.
            let number = last.material.as_u64().unwrap();
            let text = ledger.resolve("step").unwrap().read_text("a").unwrap();
            assert!((number..=number + 1).any(|n| text.starts_with(&format!("a {n}a"))), "{number}: {text:.20}");
        }
        assert!(list.len() >= made, "nothing is lost");
        made = list.len();
        // What goes is what no name leads to; what crashes left goes with it.
        let report = ledger.gc(true, true).unwrap();
        assert!(report.items.iter().all(|item| item.kind != narthex_ledger::GcKind::Artifact) || made > 0);
        made = ledger.list().unwrap().len();
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }
    assert!(made > 0, "the child got somewhere");
}

#[test]
#[ignore = "needs a disk of about one megabyte, named by NARTHEX_SMALL_DISK: `mount -t tmpfs -o size=1m none DIR`"]
fn survives_a_full_disk() {
    let disk = PathBuf::from(std::env::var_os(SMALL_DISK).expect("NARTHEX_SMALL_DISK names a folder"));
    let root = disk.join(".narthex");
    let ledger = Ledger::open(&root).unwrap();
    let mut made = Vec::new();
    let error = (0..10_000).find_map(|number| match step(&ledger, number) {
        Ok(digest) => {
            made.push(digest);
            None
        }
        Err(error) => Some(error),
    });
    let error = error.expect("the disk is full at some point");
    println!("after {} steps: {error}", made.len());
    assert!(error.help_text().unwrap().contains("free some space"), "{error}");
    drop(ledger);
    // To the last byte: even then the ledger opens, reads, and collects garbage.
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    let ledger = Ledger::open(&root).unwrap();
    println!("{}", ledger.take_warnings().join("\n"));
    for digest in &made {
        ledger.verify(&ledger.get(*digest).unwrap()).unwrap();
    }
    let current = ledger.resolve("step").unwrap().digest;
    assert!(step(&ledger, 9999).is_err());
    let report = ledger.gc(true, false).unwrap();
    assert!(report.items.len() >= made.len() - 1, "{report:?}");
    drop(ledger);
    // Then there is room again, nothing is lost, and work goes on.
    let ledger = Ledger::open(&root).unwrap();
    assert_eq!(ledger.take_warnings(), Vec::<String>::new());
    ledger.verify(&ledger.get(current).unwrap()).unwrap();
    step(&ledger, made.len() as u64).unwrap();
}
