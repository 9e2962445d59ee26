//! Checkpoints: everything that a run needs to go on as if it had never stopped. The data cursor
//! and all random numbers are functions of (seed, step), so the step is all that is kept of them.
//!
//! A checkpoint is a folder `checkpoint-<step>` with `weights.safetensors`, `moments.safetensors`
//! and `state.json`, which holds the digests of the other two. It appears under its name only when
//! it is whole.

use crate::optimizer::{Optimizer, flat_tensor, flat_values};
use narthex_base::{Digest, Error, Observer, Result};
use narthex_model::{Decoder, TensorMap, named_parameters, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Checkpoints that are kept: the newest, and the one before in case the newest is damaged.
const KEPT: usize = 2;

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    /// Seconds of training so far.
    seconds: f64,
    /// What the run was started with; another run's checkpoint is never taken up.
    run: Digest,
    weights: Digest,
    moments: Digest,
}

/// What a checkpoint gives back.
pub(crate) struct Restored {
    pub(crate) optimizer: Optimizer,
    /// The trained parameters.
    pub(crate) weights: TensorMap,
    pub(crate) seconds: f64,
}

/// A copy of a run's state, to be written while the run goes on.
pub(crate) struct Snapshot {
    run: Digest,
    step: u64,
    seconds: f64,
    weights: TensorMap,
    moments: TensorMap,
}

/// The names of a parameter's moments.
const MOMENTS: [&str; 2] = ["first", "second"];

impl Snapshot {
    /// Copies the state after `optimizer.steps` steps.
    pub(crate) fn take(run: Digest, model: &Decoder, optimizer: &Optimizer, seconds: f64) -> Self {
        let trained: BTreeSet<&str> = optimizer.slots.iter().map(|slot| slot.name.as_str()).collect();
        let weights = named_parameters(model).into_iter().filter(|tensor| trained.contains(tensor.name.as_str()));
        let weights = weights.map(|tensor| (tensor.name, (tensor.shape, tensor.values))).collect();
        let mut moments = TensorMap::new();
        for slot in &optimizer.slots {
            for (name, values) in MOMENTS.iter().zip(&slot.moments) {
                moments.insert(format!("{}.{name}", slot.name), (slot.shape.clone(), flat_values(values)));
            }
        }
        Self { run, step: optimizer.steps, seconds, weights, moments }
    }

    /// Writes it.
    pub(crate) fn save(self, folder: &Path) -> Result<()> {
        let Self { run, step, seconds, weights, moments } = self;
        save(folder, run, step, seconds, &weights, &moments)
    }
}

fn save(folder: &Path, run: Digest, step: u64, seconds: f64, weights: &TensorMap, moments: &TensorMap) -> Result<()> {
    let temporary = folder.join(format!("checkpoint-{step}.tmp"));
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::io("cannot write", path, error)
    };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(fail(&temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(fail(&temporary))?;
    let mut digests = Vec::new();
    for (name, tensors) in [("weights", weights), ("moments", moments)] {
        let path = temporary.join(format!("{name}.safetensors"));
        write_safetensors(&path, tensors)?;
        sync(&path)?;
        digests.push(digest(&path)?);
    }
    let state = State { step, seconds, run, weights: digests[0], moments: digests[1] };
    let path = temporary.join("state.json");
    fs::write(&path, serde_json::to_vec(&state).expect("our own types serialize")).map_err(fail(&path))?;
    sync(&path)?;
    sync(&temporary)?;
    let target = folder.join(format!("checkpoint-{step}"));
    if target.exists() {
        fs::remove_dir_all(&target).map_err(fail(&target))?;
    }
    fs::rename(&temporary, &target).map_err(fail(&target))?;
    sync(folder)?;
    for (_, old) in found(folder).into_iter().skip(KEPT) {
        fs::remove_dir_all(&old).map_err(fail(&old))?;
    }
    Ok(())
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
    let file = path.join("state.json");
    let bytes = fs::read(&file).map_err(|error| Error::io("cannot read", &file, error))?;
    let state: State =
        serde_json::from_slice(&bytes).map_err(|error| Error::input("state.json is not valid").cause(error))?;
    if state.run != run {
        return Ok(None);
    }
    let mut maps = Vec::new();
    for (name, expected) in [("weights", state.weights), ("moments", state.moments)] {
        let file = path.join(format!("{name}.safetensors"));
        if digest(&file)? != expected {
            return Err(Error::input(format!("{name}.safetensors has another digest than when it was written")));
        }
        maps.push(read_safetensors(&file)?);
    }
    let [mut weights, mut moments]: [TensorMap; 2] = maps.try_into().expect("two files were read");
    let take = |map: &mut TensorMap, name: &str, shape: &[usize]| match map.remove(name) {
        Some((found, values)) if found == shape => Ok(values),
        _ => Err(Error::input(format!("`{name}` is missing or has another shape"))),
    };
    let mut restored = Optimizer { slots: optimizer.slots.clone(), steps: state.step };
    let mut trained = TensorMap::new();
    for slot in &mut restored.slots {
        for (name, moment) in MOMENTS.iter().zip(&mut slot.moments) {
            let values = take(&mut moments, &format!("{}.{name}", slot.name), &slot.shape)?;
            *moment = flat_tensor(values, &moment.device());
        }
        trained.insert(slot.name.clone(), (slot.shape.clone(), take(&mut weights, &slot.name, &slot.shape)?));
    }
    Ok(Some(Restored { optimizer: restored, weights: trained, seconds: state.seconds }))
}

/// The checkpoints of a folder, newest first.
fn found(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
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
