//! Checkpoints: everything that a run needs to go on as if it had never stopped. The data cursor
//! and all random numbers are functions of (seed, step), so the step is all that is kept of them.
//!
//! A checkpoint is a folder `checkpoint-<step>` with `weights.safetensors`, `moments.safetensors`
//! and `state.json`, which holds the digests of the other two. It appears under its name only when
//! it is whole.

use crate::AdamW;
use narthex_base::{Digest, Error, Observer, Result};
use narthex_model::{TensorMap, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};
use std::{
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
    pub(crate) optimizer: AdamW,
    pub(crate) seconds: f64,
}

/// Writes the state after `optimizer.steps` steps.
pub(crate) fn save(folder: &Path, run: Digest, optimizer: &AdamW, seconds: f64) -> Result<()> {
    let step = optimizer.steps;
    let temporary = folder.join(format!("checkpoint-{step}.tmp"));
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::io("cannot write", path, error)
    };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(fail(&temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(fail(&temporary))?;
    let mut weights = TensorMap::new();
    let mut moments = TensorMap::new();
    for slot in &optimizer.slots {
        weights.insert(slot.name.clone(), (slot.shape.clone(), slot.weights.clone()));
        moments.insert(format!("{}.first", slot.name), (slot.shape.clone(), slot.first.clone()));
        moments.insert(format!("{}.second", slot.name), (slot.shape.clone(), slot.second.clone()));
    }
    let mut digests = Vec::new();
    for (name, tensors) in [("weights", &weights), ("moments", &moments)] {
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
pub(crate) fn restore(folder: &Path, run: Digest, optimizer: &AdamW, observer: Observer) -> Result<Option<Restored>> {
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

fn read(path: &Path, run: Digest, optimizer: &AdamW) -> Result<Option<Restored>> {
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
    let mut restored = AdamW { steps: state.step, ..AdamW::default() };
    for slot in &optimizer.slots {
        let mut slot = slot.clone();
        let parts = [
            (0, slot.name.clone(), &mut slot.weights),
            (1, format!("{}.first", slot.name), &mut slot.first),
            (1, format!("{}.second", slot.name), &mut slot.second),
        ];
        for (map, name, values) in parts {
            match maps[map].remove(&name) {
                Some((shape, found)) if shape == slot.shape => *values = found,
                _ => return Err(Error::input(format!("`{name}` is missing or has another shape"))),
            }
        }
        restored.slots.push(slot);
    }
    Ok(Some(Restored { optimizer: restored, seconds: state.seconds }))
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
