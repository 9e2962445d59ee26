//! Spot checks of training: some intervals between kept checkpoints are computed again and must end where they ended.
//! Whoever forges a part of the training does not know which parts will be looked at.

use crate::{
    project::Project,
    recipe,
    reproduce::{check_checkpoints, checkpoint_folder, require_machine, require_version},
    steps::{self, StepContext},
};
use narthex_base::{Checkpoint, Digest, Error, Manifest, Observer, Result, random::Stream};
use narthex_ledger::Artifact;
use narthex_model::{TensorMap, read_safetensors};
use narthex_shelf::{Reference, check_folder, open_ledger, whole_provenance};
use serde::Serialize;
use std::{path::Path, time::Instant};

/// A part of a training run between two states that were recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Interval {
    /// The train or tune step.
    pub step: String,
    /// Optimizer steps at its beginning.
    pub from: u64,
    /// Optimizer steps at its end.
    pub until: u64,
    /// Seconds that computing it again took.
    pub seconds: f64,
}

/// What a verification found in order.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// The intervals that were computed again, all as recorded.
    pub checked: Vec<Interval>,
    /// All intervals of the training.
    pub intervals: usize,
    /// Seconds of this verification.
    pub seconds: f64,
    /// Seconds that the training took, where that is known.
    pub training_seconds: f64,
    /// The probability that one forged interval would have been found.
    pub finds_one: f64,
    /// The probability that the forgery of a tenth of all intervals would have been found.
    pub finds_tenth: f64,
}

/// Computes `samples` randomly chosen intervals of the training of a model, and of those it was tuned from, again.
///
/// # Errors
/// If the reference has no recorded training, what is needed for it is not here, this machine cannot compute it, or an
/// interval ends in another state than recorded: it is named.
pub fn verify(project: &Path, reference: &str, samples: usize, seed: u64, observer: Observer) -> Result<Verified> {
    let begun = Instant::now();
    let provenance = whole_provenance(project, reference)?;
    if let Some(folder) = Reference::of(reference).folder() {
        check_folder(folder, &provenance.manifest)?;
    }
    require_machine(&provenance)?;
    require_version(&provenance)?;
    let ledger = open_ledger(project)?;
    let trained: Vec<&Manifest> =
        recipe::in_order(&provenance).into_iter().filter(|manifest| !manifest.checkpoints.is_empty()).collect();
    let all = intervals(&trained);
    if all.is_empty() {
        return Err(Error::input(format!("no training is recorded for `{reference}`"))
            .help("set `checkpoint_every` and `keep_checkpoints = true` in the schedule of its step, and run it"));
    }
    let root = if project.is_file() { project.parent().unwrap_or(Path::new(".")) } else { project };
    let again = recipe::open(&provenance, root, ledger, None)?;
    let chosen = choose(all.len(), samples, seed);
    let mut checked = Vec::new();
    for (done, index) in chosen.iter().enumerate() {
        let (manifest, from, until) = all[*index];
        let detail = format!("{} from step {from} to {until}", manifest.recipe.step);
        observer.progress(done as u64, chosen.len() as u64, "intervals", detail);
        observer.check()?;
        let start = Instant::now();
        check(&again, manifest, from, until, observer)?;
        let step = manifest.recipe.step.clone();
        checked.push(Interval { step, from, until, seconds: start.elapsed().as_secs_f64() });
    }
    let mut training_seconds = 0.0;
    for manifest in &trained {
        if let Some(artifact) = again.ledger.find(manifest.digest())? {
            again.ledger.verify(&artifact)?;
            ends_in_the_model(&artifact)?;
            training_seconds += artifact.run.measured.get("training_seconds").copied().unwrap_or(0.0);
        }
    }
    let (intervals, samples) = (all.len(), checked.len());
    Ok(Verified {
        checked,
        intervals,
        seconds: begun.elapsed().as_secs_f64(),
        training_seconds,
        finds_one: found_with(intervals, 1, samples),
        finds_tenth: found_with(intervals, intervals.div_ceil(10), samples),
    })
}

/// Every interval: the manifest of its step, and its ends.
fn intervals<'a>(trained: &[&'a Manifest]) -> Vec<(&'a Manifest, u64, u64)> {
    let mut all = Vec::new();
    for manifest in trained {
        let mut from = 0;
        for checkpoint in &manifest.checkpoints {
            all.push((*manifest, from, checkpoint.step));
            from = checkpoint.step;
        }
    }
    all
}

/// `samples` of `count`, each at most once, in order.
fn choose(count: usize, samples: usize, seed: u64) -> Vec<usize> {
    let stream = Stream::new(seed, "verify");
    let mut all: Vec<usize> = (0..count).collect();
    let samples = samples.min(count);
    for i in 0..samples {
        let other = i + stream.below(i as u64, (count - i) as u64) as usize;
        all.swap(i, other);
    }
    all.truncate(samples);
    all.sort_unstable();
    all
}

/// The probability that at least one of `forged` of `count` intervals is among `samples`: 1 - C(count-forged, samples)
/// / C(count, samples).
fn found_with(count: usize, forged: usize, samples: usize) -> f64 {
    let missed: f64 = (0..samples).map(|i| (count.saturating_sub(forged + i)) as f64 / (count - i) as f64).product();
    1.0 - missed
}

fn check(project: &Project, manifest: &Manifest, from: u64, until: u64, observer: Observer) -> Result<()> {
    let name = &manifest.recipe.step;
    let planned = project.plan.step(name)?;
    let missing = |what: String| {
        Error::input(format!("{what} is not in this ledger")).help(format!("make it again: `narthex run --to {name}`"))
    };
    let artifact = project.ledger.find(manifest.digest())?.ok_or_else(|| missing(format!("`{name}`")))?;
    let mut inputs = Vec::new();
    for (input, parent) in planned.inputs.iter().zip(&manifest.parents) {
        let found = project.ledger.find(parent.digest)?.filter(Artifact::is_complete);
        let found = found.ok_or_else(|| missing(format!("`{}`, an input of `{name}`,", parent.name)))?;
        project.ledger.verify(&found)?;
        inputs.push((input.clone(), found));
    }
    let scratch = tempfile::tempdir_in(project.ledger.root())
        .map_err(|error| Error::io("cannot write into", project.ledger.root(), error))?;
    let context = StepContext {
        project,
        planned,
        inputs: &inputs,
        key: Digest::of(name.as_bytes()),
        stage: scratch.path(),
        files: scratch.path(),
        run: scratch.path(),
        observer: Observer::silent(),
    };
    observer.check()?;
    let states = &manifest.checkpoints;
    let start = states.iter().find(|state| state.step == from).map(Checkpoint::passed);
    let folder = checkpoint_folder(&artifact, from);
    if start.is_some() && !folder.is_dir() {
        return Err(Error::input(format!("the checkpoint of step {from} of `{name}` was not kept"))
            .help(format!("set `keep_checkpoints = true` in [steps.{name}.schedule] and run it again")));
    }
    let from_state = start.as_ref().map(|state| (folder.as_path(), state));
    let found = steps::replay(&context, from_state, until)?;
    let end = states.iter().find(|state| state.step == until);
    if end.is_none_or(|end| end.passed() != found) {
        let recorded = end.map(|end| end.weights.short()).unwrap_or_default();
        return Err(Error::input(format!("`{name}` did not come from step {from} to step {until} as its record says"))
            .cause(format!("the weights recorded are {recorded}, computed now are {}", found.weights.short()))
            .help("do not trust this model: its training is not the one that is claimed"));
    }
    // The end is recorded; if it was kept too, it must be what is recorded.
    check_checkpoints_at(&artifact, until)
}

/// Whether the model's weights are those that its training ended with, as far as the last state was kept and holds them
/// under the same names (adapters stand merged in the model).
fn ends_in_the_model(artifact: &Artifact) -> Result<()> {
    let Some(last) = artifact.manifest.checkpoints.last() else { return Ok(()) };
    let folder = checkpoint_folder(artifact, last.step);
    let states: Vec<_> = last.weights.files("weights").map(|(name, _)| folder.join(name)).collect();
    let model = artifact.path("model.safetensors");
    if !model.is_file() || !states.iter().all(|path| path.is_file()) {
        return Ok(());
    }
    check_checkpoints_at(artifact, last.step)?;
    let mut stored = read_safetensors(&model)?;
    let mut ended = TensorMap::new();
    for path in states {
        ended.extend(read_safetensors(&path)?);
    }
    for (name, values) in ended {
        if stored.remove(&name).is_some_and(|stored| stored != values) {
            return Err(Error::input(format!("`{name}` of `{}` is not what its training ended with", artifact.name()))
                .at(model.display(), None)
                .help("do not trust this model: its weights are not those of the training that is recorded"));
        }
    }
    Ok(())
}

fn check_checkpoints_at(artifact: &Artifact, step: u64) -> Result<()> {
    let mut one = artifact.clone();
    one.manifest.checkpoints.retain(|checkpoint| checkpoint.step == step);
    check_checkpoints(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_distinct_and_follow_the_seed() {
        for count in 1..40 {
            for samples in 0..count + 3 {
                let chosen = choose(count, samples, 7);
                assert_eq!(chosen.len(), samples.min(count));
                assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]) && chosen.iter().all(|index| *index < count));
            }
        }
        assert_ne!(choose(100, 3, 1), choose(100, 3, 2));
    }

    #[test]
    fn the_stated_probability_is_that_of_the_draw() {
        assert_eq!((found_with(10, 0, 3), found_with(3, 1, 3)), (0.0, 1.0));
        for (count, forged, samples) in [(25, 1, 3), (25, 3, 3), (40, 4, 5)] {
            let seeds = 20_000;
            let found =
                (0..seeds).filter(|seed| choose(count, samples, *seed).iter().any(|index| *index < forged)).count();
            let share = found as f64 / seeds as f64;
            let stated = found_with(count, forged, samples);
            // Four standard deviations of the share.
            let tolerance = 4.0 * (stated * (1.0 - stated) / seeds as f64).sqrt();
            assert!((share - stated).abs() < tolerance, "{share} {stated}");
        }
    }
}
