//! Checkpoints that processes write together while they go on training: each writes its ranges, and once all have,
//! rank 0 makes a checkpoint of them. Knows neither networks nor optimizers.

use crate::{
    checkpoint::{self, Header, Snapshot},
    optimizer::Optimizer,
    world::World,
};
use narthex_base::{Error, Passed, Result};
use std::{path::Path, thread::JoinHandle};

/// The checkpoint that is being written, if there is one.
pub(crate) struct Saving<'a> {
    folder: Option<&'a Path>,
    world: &'a dyn World,
    /// What is written of it.
    header: Option<Header>,
    /// This process's ranges.
    own: Option<JoinHandle<Result<()>>>,
    /// Rank 0's last work on it, once all have written theirs.
    commit: Option<JoinHandle<Result<Vec<Passed>>>>,
    /// The states passed at the checkpoints that are written.
    pub(crate) passed: Vec<Passed>,
}

impl<'a> Saving<'a> {
    pub(crate) fn new(folder: Option<&'a Path>, world: &'a dyn World) -> Self {
        Self { folder, world, header: None, own: None, commit: None, passed: vec![] }
    }

    /// Begins to write. All processes call this together.
    pub(crate) fn begin(&mut self, header: Header, snapshot: Snapshot, optimizer: &Optimizer) -> Result<()> {
        let Some(folder) = self.folder else { return Ok(()) };
        let begun = match self.world.rank() {
            0 => checkpoint::begin(folder, header.step, optimizer).map(drop),
            _ => Ok(()),
        };
        self.together(begun)?;
        let temporary = checkpoint::temporary_of(folder, header.step);
        let place = (self.world.rank(), header.step);
        self.header = Some(header);
        // What is on the disk changes with the next step.
        let written = optimizer.scratch.as_ref().map(|scratch| snapshot.write(&temporary, Some(scratch), place));
        self.own = Some(std::thread::spawn(move || match written {
            Some(written) => written,
            None => snapshot.write(&temporary, None, place),
        }));
        Ok(())
    }

    /// Whether this process has written its ranges, and has not been told yet that all have.
    pub(crate) fn own_is_written(&self) -> bool {
        self.own.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// All have written their ranges. All processes call this together.
    pub(crate) fn all_are_written(&mut self) -> Result<()> {
        let Some(own) = self.own.take() else { return Ok(()) };
        let own = own.join().unwrap_or_else(|_| Err(Error::internal("writing a checkpoint panicked")));
        self.together(own)?;
        if let (0, Some(folder), Some(header)) = (self.world.rank(), self.folder, self.header.take()) {
            let folder = folder.to_path_buf();
            self.commit = Some(std::thread::spawn(move || checkpoint::commit(&folder, header)));
        }
        Ok(())
    }

    /// Waits until the last checkpoint is written. All processes call this together.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.all_are_written()?;
        let done = match self.commit.take().map(JoinHandle::join) {
            None => Ok(None),
            Some(Ok(outcome)) => outcome.map(Some),
            Some(Err(_)) => Err(Error::internal("writing a checkpoint panicked")),
        };
        let passed = done.as_ref().ok().cloned().flatten();
        self.together(done.map(drop))?;
        let words = self.world.tell(serde_json::to_vec(&passed).expect("our own types serialize"))?;
        let passed: Option<Vec<Passed>> = serde_json::from_slice(&words)
            .map_err(|error| Error::internal("rank 0 does not say which states were passed").cause(error))?;
        self.passed = passed.unwrap_or_else(|| std::mem::take(&mut self.passed));
        Ok(())
    }

    /// The outcome of all: one's own error, or that of another.
    fn together(&self, own: Result<()>) -> Result<()> {
        let words = |error: &Error| [&[error.what().to_string()], error.causes()].concat().join("\n");
        let words = own.as_ref().err().map(words).unwrap_or_default();
        let found = self.world.all(words.into_bytes())?;
        own?;
        match found.iter().enumerate().find(|(_, words)| !words.is_empty()) {
            Some((rank, words)) => {
                let error = Error::input(format!("rank {rank} has failed to write a checkpoint"));
                let error = String::from_utf8_lossy(words).lines().fold(error, Error::cause);
                Err(error.help("the checkpoint before is whole: free some space, and run the same command again"))
            }
            None => Ok(()),
        }
    }
}
