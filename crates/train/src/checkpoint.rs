//! Checkpoints: everything that a run needs to go on as if it had never stopped. The data cursor
//! and all random numbers are functions of (seed, step), so the step is all that is kept of them.
//!
//! A checkpoint is a folder `checkpoint-<step>` with `weights.safetensors`, `moments.safetensors`
//! and `state.json`, which holds the digests of the other two and those of the checkpoints before. It
//! appears under its name only when it is whole.

use crate::{
    gradients::{flat_tensor, flat_values},
    optimizer::Optimizer,
};
use burn::module::Module;
use narthex_base::{Digest, Error, Observer, Passed, Result, ShardDigests};
use narthex_model::{TensorMap, named_parameters_of, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Checkpoints that are kept: the newest, and the one before in case the newest is damaged.
const KEPT: usize = 2;

/// What a checkpoint's folder is called before the number of its step.
const PREFIX: &str = "checkpoint-";

/// What a checkpoint is, beside its weights and moments.
const STATE: &str = "state.json";

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    /// Seconds of training so far.
    seconds: f64,
    /// What the run was started with; another run's checkpoint is never taken up.
    run: Digest,
    weights: ShardDigests,
    moments: ShardDigests,
    /// The loss of the last step, as the bits of the number: JSON has none for what is not finite.
    #[serde(default)]
    loss_bits: Option<u64>,
    /// The states that the run has passed through at its fixed intervals, first to last.
    #[serde(default)]
    passed: Vec<Passed>,
}

/// What a checkpoint gives back.
pub(crate) struct Restored {
    pub(crate) passed: Vec<Passed>,
    pub(crate) optimizer: Optimizer,
    /// The trained parameters.
    pub(crate) weights: TensorMap,
    pub(crate) seconds: f64,
    pub(crate) loss: Option<f64>,
}

/// A copy of a run's state, to be written while the run goes on.
pub(crate) struct Snapshot {
    run: Digest,
    step: u64,
    seconds: f64,
    weights: TensorMap,
    moments: TensorMap,
    /// The loss of the step before.
    pub(crate) loss: Option<f64>,
    /// The states before this one.
    pub(crate) passed: Vec<Passed>,
    /// Whether this is one of the states at fixed intervals.
    pub(crate) counts: bool,
    /// Keeps all of those; otherwise the newest checkpoints only.
    pub(crate) keep: bool,
}

/// The names of a parameter's moments.
const MOMENTS: [&str; 2] = ["first", "second"];

impl Snapshot {
    /// Copies the state after `optimizer.steps` steps.
    pub(crate) fn take(run: Digest, network: &impl Module, optimizer: &Optimizer, seconds: f64) -> Self {
        let weights = named_parameters_of(network, |name| optimizer.slots.contains_key(name)).into_iter();
        let weights = weights.map(|tensor| (tensor.name, (tensor.shape, tensor.values))).collect();
        let mut moments = TensorMap::new();
        for (parameter, slot) in &optimizer.slots {
            for (name, values) in MOMENTS.iter().zip(&slot.moments) {
                moments.insert(format!("{parameter}.{name}"), (slot.shape.clone(), flat_values(values)));
            }
        }
        let step = optimizer.steps;
        Self { run, step, seconds, weights, moments, loss: None, passed: vec![], counts: true, keep: false }
    }

    /// Writes the files into a folder and gives the state's digests.
    pub(crate) fn write(&self, folder: &Path) -> Result<Passed> {
        let file = |name: &str, tensors| {
            let path = folder.join(format!("{name}.safetensors"));
            write_safetensors(&path, tensors)?;
            sync(&path)?;
            Ok(ShardDigests::from(digest(&path)?))
        };
        let (weights, moments) = (file("weights", &self.weights)?, file("moments", &self.moments)?);
        Ok(Passed { step: self.step, weights, moments })
    }

    /// Writes it as a checkpoint and gives the states passed so far, itself included where it counts.
    pub(crate) fn save(self, folder: &Path) -> Result<Vec<Passed>> {
        save(folder, self)
    }
}

fn save(folder: &Path, snapshot: Snapshot) -> Result<Vec<Passed>> {
    let Snapshot { run, step, seconds, loss, counts, keep, .. } = snapshot;
    let temporary = folder.join(format!("{PREFIX}{step}.tmp"));
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::io("cannot write", path, error)
    };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(fail(&temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(fail(&temporary))?;
    let now = snapshot.write(&temporary)?;
    let mut passed = snapshot.passed;
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
    fs::rename(&temporary, &target).map_err(fail(&target))?;
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

/// Takes up the newest whole checkpoint of this run. `optimizer` gives the names and shapes.
pub(crate) fn restore(
    folder: &Path,
    run: Digest,
    optimizer: &Optimizer,
    observer: Observer,
) -> Result<Option<Restored>> {
    for (step, path) in found(folder) {
        match read(&path, run, optimizer) {
            Ok(Some(restored)) => return Ok(Some(restored)),
            Ok(None) => {}
            Err(error) => {
                observer.warn(format!("the checkpoint of step {step} is damaged and passed over: {}", error.what()))
            }
        }
    }
    Ok(None)
}

fn read(path: &Path, run: Digest, optimizer: &Optimizer) -> Result<Option<Restored>> {
    let state = state_in(path)?;
    if state.run != run {
        return Ok(None);
    }
    let recorded = Passed { step: state.step, weights: state.weights, moments: state.moments };
    let (optimizer, weights) = load(path, &recorded, optimizer)?;
    let loss = state.loss_bits.map(f64::from_bits);
    Ok(Some(Restored { optimizer, weights, seconds: state.seconds, loss, passed: state.passed }))
}

fn state_in(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let bytes = fs::read(&file).map_err(|error| Error::io("cannot read", &file, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::input("state.json is not valid").cause(error))
}

/// Reads the state in a folder, which must be the one with these digests. `optimizer` gives the names and shapes.
pub(crate) fn load(path: &Path, state: &Passed, optimizer: &Optimizer) -> Result<(Optimizer, TensorMap)> {
    let Passed { step, weights, moments } = state;
    let read = |part: &str, digests: &ShardDigests| {
        let mut map = TensorMap::new();
        for (name, expected) in digests.files(part) {
            let file = path.join(&name);
            let found = digest(&file)?;
            if found != expected {
                return Err(Error::input(format!("{name} of step {step} is not what training wrote"))
                    .at(file.display(), None)
                    .cause(format!("its digest is {}, recorded is {}", found.short(), expected.short())));
            }
            map.extend(read_safetensors(&file)?);
        }
        Ok(map)
    };
    let (mut weights, mut moments) = (read("weights", weights)?, read("moments", moments)?);
    let take = |map: &mut TensorMap, name: &str, shape: &[usize]| match map.remove(name) {
        Some((found, values)) if found == shape => Ok(values),
        _ => Err(Error::input(format!("`{name}` is missing or has another shape"))),
    };
    let mut restored = Optimizer { slots: optimizer.slots.clone(), steps: *step };
    let mut trained = TensorMap::new();
    for (parameter, slot) in &mut restored.slots {
        for (name, moment) in MOMENTS.iter().zip(&mut slot.moments) {
            let values = take(&mut moments, &format!("{parameter}.{name}"), &slot.shape)?;
            *moment = flat_tensor(values, &moment.device());
        }
        trained.insert(parameter.clone(), (slot.shape.clone(), take(&mut weights, parameter, &slot.shape)?));
    }
    Ok((restored, trained))
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

fn folder_of(work: &Path, step: u64) -> PathBuf {
    work.join(format!("{PREFIX}{step}"))
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
    let bytes = fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
    Ok(Digest::of(&bytes))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::io("cannot write", path, error))
}
