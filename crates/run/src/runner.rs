//! The runner: walks the steps in order, skips what is known, makes what is not, and says why.

use crate::{
    estimate::Estimate,
    material::{changes, config, instruction_set, material},
    project::Project,
    source,
    steps::{self, Made, StepContext},
};
use narthex_base::{
    ArtifactKind, Digest, Error, Event, Figure, Manifest, Observer, Parent, Recipe, Result,
    config::{Kind, SourceFormat, Step},
    plan::{Input, InputKind, PlannedStep},
};
use narthex_ledger::{Artifact, RunRecord};
use narthex_shelf::require_model;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, time::Instant};

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Only this step and what it needs.
    pub to: Option<String>,
    /// Steps to run even if their result is known.
    pub force: Vec<String>,
    /// Only say what would run.
    pub dry_run: bool,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// Its result was known.
    Unchanged,
    /// It ran.
    Made,
    /// It would run.
    Planned,
}

/// One step of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The step's name.
    pub step: String,
    /// Its kind.
    pub kind: &'static str,
    /// What it yields.
    #[serde(skip)]
    pub yields: ArtifactKind,
    /// What became of it.
    pub state: RowState,
    /// Why it ran.
    pub reason: Option<String>,
    /// Seconds it took; for an unchanged step, when it ran.
    pub seconds: f64,
    /// The artifact.
    pub digest: Option<Digest>,
    /// The licence of the artifact's own components.
    pub license: Option<String>,
    /// The number that matters.
    pub figure: Option<(Figure, f64)>,
    /// All figures.
    pub figures: BTreeMap<String, f64>,
    /// Times and speeds.
    pub measured: BTreeMap<String, f64>,
    /// What it needs at least, of a step that would train.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Estimate>,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The steps in order.
    pub rows: Vec<Row>,
    /// Wall-clock seconds of this run.
    pub seconds: f64,
}

impl RunReport {
    /// The last step that yields a model, or else a bundle of one: what is served or talked to afterwards.
    pub fn model(&self) -> Option<&Row> {
        let last = |kind| self.rows.iter().rev().find(move |row| row.yields == kind);
        let kinds = [ArtifactKind::Model, ArtifactKind::Predictor, ArtifactKind::Bundle];
        kinds.into_iter().find_map(last)
    }
}

impl Project {
    /// Runs the plan.
    ///
    /// # Errors
    /// If a step fails or is interrupted; what was finished before stays, and a training step goes on from its
    /// checkpoint the next time.
    pub fn run(&self, options: &RunOptions, observer: Observer) -> Result<RunReport> {
        let start = Instant::now();
        for step in &options.force {
            self.plan.step(step)?;
        }
        let planned: Vec<&PlannedStep> = match &options.to {
            Some(goal) => self.plan.steps_to(goal)?,
            None => self.plan.steps.iter().collect(),
        };
        self.refuse_steps(&planned)?;
        let _lock = if options.dry_run { None } else { Some(self.ledger.lock()?) };
        // What cannot be is found before the first step runs, not after hours of others.
        let ahead = RunOptions { dry_run: true, ..options.clone() };
        let mut rows = self.walk(&planned, &ahead, observer)?;
        for (planned, row) in planned.iter().zip(&mut rows).filter(|(_, row)| row.state == RowState::Planned) {
            row.needs = self.estimate(planned);
            self.refuse_impossible(planned, row.needs.as_ref())?;
            if let Some(doubt) = row.needs.as_ref().and_then(|needs| self.doubt(needs)) {
                observer.for_step(&planned.name).warn(doubt);
            }
        }
        if !options.dry_run {
            let outcome = self.walk(&planned, options, observer);
            self.dismiss(&outcome)?;
            rows = outcome?;
        }
        for warning in self.ledger.take_warnings() {
            observer.warn(warning);
        }
        Ok(RunReport { rows, seconds: start.elapsed().as_secs_f64() })
    }

    /// All steps in order.
    fn walk(&self, planned: &[&PlannedStep], options: &RunOptions, observer: Observer) -> Result<Vec<Row>> {
        let mut done: BTreeMap<String, Option<Artifact>> = BTreeMap::new();
        let mut rows = Vec::new();
        for planned in planned {
            observer.check()?;
            let (row, artifact) = self.run_step(planned, &done, options, observer.for_step(&planned.name))?;
            done.insert(planned.name.clone(), artifact);
            rows.push(row);
        }
        Ok(rows)
    }

    fn run_step(
        &self,
        planned: &PlannedStep,
        done: &BTreeMap<String, Option<Artifact>>,
        options: &RunOptions,
        observer: Observer,
    ) -> Result<(Row, Option<Artifact>)> {
        let mut inputs = Vec::new();
        for input in &planned.inputs {
            match self.input(input, done, options.dry_run)? {
                Some(artifact) => inputs.push((input.clone(), artifact)),
                None => {
                    let again = if self.ledger.last_step(&input.name)?.is_some() { " again" } else { "" };
                    return Ok((row_planned(planned, format!("its input `{}` runs{again}", input.name)), None));
                }
            }
        }
        let digests: Vec<_> = inputs.iter().map(|(i, a)| (i.role.clone(), i.name.clone(), a.digest)).collect();
        let material = material(&self.plan, planned, &digests, self.source_code.as_ref());
        let key = Digest::of_json(&material);
        let forced = options.force.contains(&planned.name);
        if !forced && let Some(artifact) = self.ledger.known_step(key)? {
            if !options.dry_run {
                self.ledger.set_ref(&planned.name, artifact.digest)?;
                observer.emit(Event::StepUnchanged { step: planned.name.clone(), digest: artifact.digest });
            }
            return Ok((row(planned, &artifact, RowState::Unchanged, None), Some(artifact)));
        }
        let reason = match (forced, self.has_checkpoint(key)) {
            (true, _) => "forced".to_string(),
            (false, true) => "goes on from its checkpoint".to_string(),
            (false, false) => self.reason(planned, &material)?,
        };
        if options.dry_run {
            return Ok((row_planned(planned, reason), None));
        }
        observer.emit(Event::StepStarted {
            step: planned.name.clone(),
            kind: planned.step.kind().name.into(),
            reason: reason.clone(),
        });
        // What was damaged since it was made would spoil all that follows.
        for (_, artifact) in inputs.iter().filter(|(_, artifact)| artifact.manifest.kind != ArtifactKind::Source) {
            self.ledger.verify_files(artifact)?;
        }
        let artifact = self.make(planned, &inputs, key, &material, observer)?;
        observer.emit(Event::StepFinished {
            step: planned.name.clone(),
            digest: artifact.digest,
            seconds: artifact.run.seconds,
        });
        Ok((row(planned, &artifact, RowState::Made, Some(reason)), Some(artifact)))
    }

    /// The artifact behind an input; none in a dry run if it would have to be made first.
    fn input(
        &self,
        input: &Input,
        done: &BTreeMap<String, Option<Artifact>>,
        dry_run: bool,
    ) -> Result<Option<Artifact>> {
        match input.kind {
            InputKind::Step => Ok(done.get(&input.name).cloned().flatten()),
            InputKind::Ref => {
                let artifact = self.ledger.resolve(&input.name)?;
                if input.accepts.is_model() {
                    require_model(&artifact, &input.name)?;
                }
                Ok(Some(artifact))
            }
            InputKind::Source => {
                let source = &self.plan.sources[&input.name];
                if source.format == SourceFormat::HuggingFace {
                    source::model_folder(self, &input.name, source)?;
                }
                if !dry_run {
                    return Ok(Some(source::record(self, &input.name, source)?));
                }
                // Nothing is written in a dry run; the manifest alone gives the digest.
                let manifest = source::manifest(self, &input.name, source)?;
                let digest = manifest.digest();
                let folder = self.ledger.root().join("artifacts").join(digest.to_string());
                Ok(Some(Artifact { digest, manifest, folder, run: RunRecord::default() }))
            }
        }
    }

    /// Whether an interrupted attempt at this step has left a checkpoint.
    fn has_checkpoint(&self, key: Digest) -> bool {
        let stage = self.ledger.root().join("work").join(key.to_string());
        narthex_train::has_checkpoint(&stage, Some(key))
    }

    /// Why a step whose key is unknown must run.
    fn reason(&self, planned: &PlannedStep, material: &Value) -> Result<String> {
        let Some(last) = self.ledger.last_step(&planned.name)? else { return Ok("new".into()) };
        let changes = changes(&last.material, material);
        Ok(match changes.as_slice() {
            [] => "its artifact is gone or incomplete".into(),
            [one] => format!("changed: {one}"),
            [first, rest @ ..] => format!("changed: {first}, and {} more", rest.len()),
        })
    }

    fn make(
        &self,
        planned: &PlannedStep,
        inputs: &[(Input, Artifact)],
        key: Digest,
        material: &Value,
        observer: Observer,
    ) -> Result<Artifact> {
        let start = Instant::now();
        let stage = self.ledger.stage(&key.to_string())?;
        let (files, run) = (stage.join("files"), stage.join("run"));
        // What an interrupted attempt left is made again; only checkpoints and the record of the run are kept.
        clear(&files)?;
        std::fs::create_dir_all(&run).map_err(|error| Error::io("cannot write", &run, error))?;
        let context =
            StepContext { project: self, planned, inputs, key, stage: &stage, files: &files, run: &run, observer };
        self.call(planned, inputs, key, &stage)?;
        let Made { kind, components, figures, mut measured, passed } = steps::make(&context)?;
        if planned.step.schedule().is_some() && self.world.size() > 1 {
            measured.insert("ranks".into(), self.world.size() as f64);
        }
        let parents = inputs.iter().map(|(input, artifact)| parent(input, artifact)).collect();
        let mut manifest = Manifest { parents, components, figures, ..Manifest::new(kind, self.recipe(planned)) };
        for (input, artifact) in inputs {
            manifest.inherit(&steps::as_inherited(planned, input, &artifact.manifest));
        }
        manifest.checkpoints = manifest.chain(passed);
        keep_checkpoints(planned, &manifest, &stage, &run)?;
        let record = RunRecord { seconds: start.elapsed().as_secs_f64(), measured, ..RunRecord::default() };
        let artifact = self.ledger.commit(manifest, &files, Some(&run), record)?;
        self.ledger.remember_step(&planned.name, key, artifact.digest, material)?;
        self.ledger.set_ref(&planned.name, artifact.digest)?;
        self.ledger.discard_stage(&key.to_string())?;
        Ok(artifact)
    }
}

impl Project {
    /// How a step's artifact can be made again.
    pub(crate) fn recipe(&self, planned: &PlannedStep) -> Recipe {
        Recipe {
            config: config(planned),
            seed: self.plan.project.seed,
            version: planned.step.kind().recipe_version,
            project: self.plan.project.name.clone(),
            license: Some(self.plan.project.license.clone()),
            isa: instruction_set(&planned.step).map(String::from),
            ..Recipe::new(&planned.name, planned.step.kind().name)
        }
    }
}

/// Puts the states that training passed through into the record of the run too, where the schedule asks for it: they go
/// from the stage once the artifact is there.
fn keep_checkpoints(planned: &PlannedStep, manifest: &Manifest, stage: &Path, run: &Path) -> Result<()> {
    if !planned.step.schedule().is_some_and(|schedule| schedule.checkpoints.keep_checkpoints) {
        return Ok(());
    }
    let folder = run.join("checkpoints");
    std::fs::create_dir_all(&folder).map_err(|error| Error::io("cannot write", &folder, error))?;
    for checkpoint in &manifest.checkpoints {
        narthex_train::keep_state(stage, checkpoint.step, &folder.join(format!("step-{}", checkpoint.step)))?;
    }
    Ok(())
}

fn clear(folder: &Path) -> Result<()> {
    let fail = |error| Error::io("cannot write", folder, error);
    std::fs::remove_dir_all(folder).map_err(fail)?;
    std::fs::create_dir_all(folder).map_err(fail)
}

fn parent(input: &Input, artifact: &Artifact) -> Parent {
    Parent { role: input.role.clone(), name: input.name.clone(), kind: artifact.manifest.kind, digest: artifact.digest }
}

fn row(planned: &PlannedStep, artifact: &Artifact, state: RowState, reason: Option<String>) -> Row {
    Row {
        step: planned.name.clone(),
        kind: planned.step.kind().name,
        yields: planned.step.yields(),
        state,
        reason,
        seconds: artifact.run.seconds,
        digest: Some(artifact.digest),
        license: artifact.manifest.license().map(|license| license.to_string()),
        figure: planned.step.kind().figure(&artifact.manifest.figures),
        figures: artifact.manifest.figures.clone(),
        measured: artifact.run.measured.clone(),
        needs: None,
    }
}

fn row_planned(planned: &PlannedStep, reason: String) -> Row {
    Row {
        step: planned.name.clone(),
        kind: planned.step.kind().name,
        yields: planned.step.yields(),
        state: RowState::Planned,
        reason: Some(reason),
        seconds: 0.0,
        digest: None,
        license: None,
        figure: None,
        figures: BTreeMap::new(),
        measured: BTreeMap::new(),
        needs: None,
    }
}

impl Project {
    /// The step that the verb of a kind means: the named one, or the last of that kind.
    ///
    /// # Errors
    /// If there is no step of this kind, or the named one is of another kind.
    pub fn step_of_kind(&self, kind: &Kind, name: Option<&str>) -> Result<&PlannedStep> {
        let kind = kind.name;
        let of_kind = |step: &&PlannedStep| step.step.kind().name == kind;
        match name {
            Some(name) => {
                let step = self.plan.step(name)?;
                if of_kind(&step) {
                    return Ok(step);
                }
                let its_own = step.step.kind().name;
                Err(Error::input(format!("step `{name}` is of kind `{its_own}`, not `{kind}`"))
                    .help(format!("run it with `narthex {its_own} {name}`")))
            }
            None => self.plan.steps.iter().rev().find(of_kind).ok_or_else(|| {
                let has = |kind: &&str| self.plan.steps.iter().any(|step| step.step.kind().name == *kind);
                let kinds: Vec<&str> = Step::kind_names().into_iter().filter(has).collect();
                Error::input(format!("this project has no step of kind `{kind}`"))
                    .at(&self.plan.file_name, None)
                    .help(format!("it has: {}", kinds.join(", ")))
            }),
        }
    }
}
