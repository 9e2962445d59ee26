//! Checkpoints: everything that a run needs to go on as if it had never stopped. The data cursor
//! and all random numbers are functions of (seed, step), so the step is all that is kept of them.
//!
//! A checkpoint is a folder `checkpoint-<step>` with `weights.safetensors`, `moments.safetensors`
//! and `state.json`, which holds the digests of the other two and those of the checkpoints before. It
//! appears under its name only when it is whole. Each process writes its ranges into the same two files, so that any
//! number of them can read them.

use crate::{
    fault,
    optimizer::Optimizer,
    stored::{Scratch, Stored},
    world::Part,
};
use narthex_base::{Digest, Error, Observer, Passed, Result, ShardDigests};
use narthex_model::TensorFile;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

/// Checkpoints that are kept: the newest, and the one before in case the newest is damaged.
const KEPT: usize = 2;

/// What a checkpoint's folder is called before the number of its step.
const PREFIX: &str = "checkpoint-";

/// What a checkpoint is, beside its weights and moments.
const STATE: &str = "state.json";

/// The files of values.
const FILES: [&str; 2] = ["weights", "moments"];

/// The names of a parameter's moments.
const MOMENTS: [&str; 2] = ["first", "second"];

/// What a checkpoint says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) step: u64,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
    /// What the run was started with; another run's checkpoint is never taken up.
    run: Digest,
    weights: ShardDigests,
    moments: ShardDigests,
    /// The loss of the last step, as the bits of the number: JSON has none for what is not finite.
    #[serde(default)]
    loss_bits: Option<u64>,
    /// The states that the run has passed through at its fixed intervals, first to last.
    #[serde(default)]
    pub(crate) passed: Vec<Passed>,
}

impl State {
    pub(crate) fn loss(&self) -> Option<f64> {
        self.loss_bits.map(f64::from_bits)
    }

    pub(crate) fn digests(&self) -> Passed {
        Passed { step: self.step, weights: self.weights.clone(), moments: self.moments.clone() }
    }
}

/// What is about to be saved, beside its values.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) run: Digest,
    pub(crate) step: u64,
    pub(crate) seconds: f64,
    /// The loss of the step before.
    pub(crate) loss: Option<f64>,
    /// The states before this one.
    pub(crate) passed: Vec<Passed>,
    /// Whether this is one of the states at fixed intervals.
    pub(crate) counts: bool,
    /// Keeps all of those; otherwise the newest checkpoints only.
    pub(crate) keep: bool,
}

/// One process's ranges of a run's state, to be written while the run goes on.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// For each file the names of tensors, where their ranges begin, and the values.
    pieces: [Vec<(String, usize, Stored)>; 2],
}

impl Snapshot {
    /// The state after `optimizer.steps` steps. `weights` are ranges of the trained weights, each of `ranges`.
    pub(crate) fn take(optimizer: &Optimizer, weights: Vec<Stored>, ranges: &[Range<usize>]) -> Self {
        let names = optimizer.slots.keys().zip(ranges);
        let weights = names.zip(weights).map(|((name, range), values)| (name.clone(), range.start, values)).collect();
        let mut moments = vec![];
        for (parameter, slot) in &optimizer.slots {
            for (name, values) in MOMENTS.iter().zip(&slot.moments) {
                moments.push((format!("{parameter}.{name}"), slot.range.start, values.clone()));
            }
        }
        Self { pieces: [weights, moments] }
    }

    /// Writes them into the files of a folder.
    pub(crate) fn write(&self, folder: &Path, scratch: Option<&Scratch>, (rank, step): (usize, u64)) -> Result<()> {
        for (file, pieces) in FILES.iter().zip(&self.pieces) {
            fault::point(file, rank, step);
            let file = TensorFile::open(&path_of(folder, file), true)?;
            for (name, start, values) in pieces {
                let values = values.values(scratch)?;
                if !values.is_empty() {
                    file.write(name, *start, &values)?;
                }
            }
            file.sync()?;
        }
        Ok(())
    }
}

/// Makes the files of a state in a folder, their values still to come.
pub(crate) fn create_files(folder: &Path, optimizer: &Optimizer) -> Result<()> {
    let weights = optimizer.slots.iter().map(|(name, slot)| (name.clone(), slot.shape.clone())).collect();
    let mut moments = BTreeMap::new();
    for (parameter, slot) in &optimizer.slots {
        for (name, _) in MOMENTS.iter().zip(&slot.moments) {
            moments.insert(format!("{parameter}.{name}"), slot.shape.clone());
        }
    }
    for (file, shapes) in FILES.iter().zip([weights, moments]) {
        TensorFile::create(&path_of(folder, file), &shapes)?;
    }
    Ok(())
}

/// The digests of a state whose files are written.
pub(crate) fn digests_of(folder: &Path, step: u64) -> Result<Passed> {
    let [weights, moments] = FILES.map(|file| digest(&path_of(folder, file)).map(ShardDigests::from));
    Ok(Passed { step, weights: weights?, moments: moments? })
}

/// Begins a checkpoint: the folder that all processes write into.
pub(crate) fn begin(folder: &Path, step: u64, optimizer: &Optimizer) -> Result<PathBuf> {
    let temporary = temporary_of(folder, step);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(|error| Error::io("cannot write", &temporary, error))?;
    }
    fs::create_dir_all(&temporary).map_err(|error| Error::io("cannot write", &temporary, error))?;
    create_files(&temporary, optimizer)?;
    Ok(temporary)
}

/// Makes of what all have written a checkpoint, and gives the states passed so far, itself included where it counts.
pub(crate) fn commit(folder: &Path, header: Header) -> Result<Vec<Passed>> {
    let Header { run, step, seconds, loss, mut passed, counts, keep } = header;
    let temporary = temporary_of(folder, step);
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::io("cannot write", path, error)
    };
    let now = digests_of(&temporary, step)?;
    if counts {
        passed.push(now.clone());
    }
    let Passed { weights, moments, .. } = now;
    let state = State { step, seconds, run, weights, moments, loss_bits: loss.map(f64::to_bits), passed };
    let path = temporary.join(STATE);
    fs::write(&path, serde_json::to_vec(&state).expect("our own types serialize")).map_err(fail(&path))?;
    sync(&path)?;
    sync(&temporary)?;
    let target = folder_of(folder, step);
    if target.exists() {
        fs::remove_dir_all(&target).map_err(fail(&target))?;
    }
    fault::point("rename", 0, step);
    fs::rename(&temporary, &target).map_err(fail(&target))?;
    fault::point("renamed", 0, step);
    sync(folder)?;
    // Another run's are not ours to count, nor to remove.
    let own = found(folder).into_iter().filter(|(_, path)| state_in(path).is_ok_and(|state| state.run == run));
    for (old, path) in own.skip(KEPT) {
        if !keep || !state.passed.iter().any(|passed| passed.step == old) {
            fs::remove_dir_all(&path).map_err(fail(&path))?;
        }
    }
    Ok(state.passed)
}

/// The newest whole checkpoint of this run.
pub(crate) fn newest(folder: &Path, run: Digest, observer: Observer) -> Option<State> {
    found(folder).into_iter().find_map(|(step, path)| {
        let state = state_in(&path).and_then(|state| {
            if state.run == run {
                check(&path, &state.digests())?;
            }
            Ok(state)
        });
        match state {
            Ok(state) => (state.run == run).then_some(state),
            Err(error) => {
                observer.warn(format!("the checkpoint of step {step} is damaged and passed over: {}", error.what()));
                None
            }
        }
    })
}

fn state_in(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let bytes = fs::read(&file).map_err(|error| Error::io("cannot read", &file, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::input("state.json is not valid").cause(error))
}

/// That the state in a folder is the one with these digests.
pub(crate) fn check(path: &Path, state: &Passed) -> Result<()> {
    let Passed { step, weights, moments } = state;
    for (part, digests) in FILES.iter().zip([weights, moments]) {
        for (name, expected) in digests.files(part) {
            let file = path.join(&name);
            let found = digest(&file)?;
            if found != expected {
                return Err(Error::input(format!("{name} of step {step} is not what training wrote"))
                    .at(file.display(), None)
                    .cause(format!("its digest is {}, recorded is {}", found.short(), expected.short())));
            }
        }
    }
    Ok(())
}

/// Takes up the state in a folder: the optimizer's ranges of the moments, and of each trained parameter the values of a
/// range, which are given back.
pub(crate) fn load(
    path: &Path,
    step: u64,
    optimizer: &mut Optimizer,
    layout: &[Part],
    range: impl Fn(&Part) -> Range<usize>,
) -> Result<Vec<Vec<f32>>> {
    let [weights, moments] = FILES.map(|file| TensorFile::open(&path_of(path, file), false));
    let (weights, moments) = (weights?, moments?);
    let Optimizer { slots, scratch, .. } = optimizer;
    for (parameter, slot) in slots.iter_mut() {
        for (name, moment) in MOMENTS.iter().zip(&mut slot.moments) {
            let values = moments.read(&format!("{parameter}.{name}"), &slot.shape, slot.range.clone())?;
            moment.set_values(values, scratch.as_ref())?;
        }
    }
    optimizer.steps = step;
    let slots = &optimizer.slots;
    layout.iter().map(|part| weights.read(&part.name, &slots[&part.name].shape, range(part))).collect()
}

/// The folder of a checkpoint.
pub(crate) fn folder_of(work: &Path, step: u64) -> PathBuf {
    work.join(format!("{PREFIX}{step}"))
}

/// Where it is written before it is whole.
pub(crate) fn temporary_of(work: &Path, step: u64) -> PathBuf {
    work.join(format!("{PREFIX}{step}.tmp"))
}

fn path_of(folder: &Path, file: &str) -> PathBuf {
    folder.join(format!("{file}.safetensors"))
}

/// Whether a folder of a run's work has a checkpoint that is whole, and of this run where one is named.
pub fn has_checkpoint(work: &Path, run: Option<Digest>) -> bool {
    let fits = |state: State| run.is_none_or(|run| state.run == run);
    found(work).iter().any(|(_, path)| state_in(path).is_ok_and(fits))
}

/// Puts the state after `step` of a folder of a run's work into `to` as well, without when it was written and how fast;
/// does nothing if the state is not there. What is already in `to` goes.
///
/// # Errors
/// If a file cannot be written.
pub fn keep_state(work: &Path, step: u64, to: &Path) -> Result<()> {
    let from = folder_of(work, step);
    if !from.is_dir() {
        return Ok(());
    }
    let fail = |error| Error::io("cannot write", to, error);
    if to.exists() {
        fs::remove_dir_all(to).map_err(fail)?;
    }
    fs::create_dir_all(to).map_err(fail)?;
    for entry in fs::read_dir(&from).map_err(|error| Error::io("cannot read", &from, error))? {
        let entry = entry.map_err(|error| Error::io("cannot read", &from, error))?;
        let target = to.join(entry.file_name());
        // The same bytes under two names, where the file system can do that.
        if entry.file_name() != STATE && fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target).map_err(fail)?;
        }
    }
    Ok(())
}

/// The checkpoints of a folder, newest first.
fn found(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    found
}

fn digest(path: &Path) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|error| Error::io("cannot read", path, error))?;
    Ok(hasher.finalize().into())
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::io("cannot write", path, error))
}
