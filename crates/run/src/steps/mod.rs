//! The list of steps. Each makes the files of one artifact and says what they are.

mod bundle;
mod data;
mod eval;
mod fit;
mod knowledge;
mod quantize;
mod tokenize;
mod train;
mod training;
mod tune;

use crate::project::Project;
pub(crate) use data::data_spec_of;
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Digest, Error, Maker, Manifest, Observer, Passed, Result,
    config::{Step, TuneMethod},
    plan::PlannedStep,
    plan::{Input, InputKind},
};
use narthex_ledger::Artifact;
use narthex_model::ModelConfig;
use narthex_text::Tokenizer;
use std::{collections::BTreeMap, path::Path};
use training::{Interval, Whole};

/// What a step may look at and where it writes.
pub(crate) struct StepContext<'a> {
    pub(crate) project: &'a Project,
    pub(crate) planned: &'a PlannedStep,
    pub(crate) inputs: &'a [(Input, Artifact)],
    pub(crate) key: Digest,
    /// The step's own folder: checkpoints live here until the step is done.
    pub(crate) stage: &'a Path,
    /// What becomes the artifact.
    pub(crate) files: &'a Path,
    /// The record of the run.
    pub(crate) run: &'a Path,
    pub(crate) observer: Observer<'a>,
}

/// What a step made.
pub(crate) struct Made {
    pub(crate) kind: ArtifactKind,
    /// The artifact's own components; inherited ones are added by the runner.
    pub(crate) components: Vec<Component>,
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) measured: BTreeMap<String, f64>,
    /// The states that training passed through.
    pub(crate) passed: Vec<Passed>,
}

impl Made {
    pub(crate) fn new(kind: ArtifactKind, components: Vec<Component>, figures: BTreeMap<String, f64>) -> Self {
        Self { kind, components, figures, measured: BTreeMap::new(), passed: vec![] }
    }
}

/// What a step inherits of an input. Of a measurement's data nothing is trained: what was data is data for evaluation.
pub(crate) fn as_inherited(planned: &PlannedStep, input: &Input, manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    if matches!(planned.step, Step::Eval(_)) && ["data", "task"].contains(&input.role.as_str()) {
        for component in manifest.components.iter_mut().filter(|c| c.kind == ComponentKind::Datasets) {
            component.kind = ComponentKind::EvaluationData;
        }
    }
    manifest
}

pub(crate) fn make(context: &StepContext) -> Result<Made> {
    match &context.planned.step {
        Step::Data(step) => data::make(context, step),
        Step::Tokenize(step) => tokenize::make(context, step),
        Step::Train(step) => train::make(context, step),
        Step::Tune(step) => tune::make(context, step),
        Step::Fit(step) => fit::make(context, step),
        Step::Quantize(step) => quantize::make(context, step),
        Step::Knowledge(step) => knowledge::make(context, step),
        Step::Eval(step) => eval::make(context, step),
        Step::Bundle(step) => bundle::make(context, step),
    }
}

/// Takes part in the training of a step whose rank 0 is another process.
pub(crate) fn take_part(context: &StepContext) -> Result<()> {
    match &context.planned.step {
        Step::Train(step) => train::with_training(context, step, Whole).map(drop),
        Step::Tune(step) => tune::with_training(context, step, Whole).map(drop),
        Step::Fit(step) => fit::with_training(context, step, Whole).map(drop),
        other => Err(Error::internal(format!("a {} step does not train", other.kind().name))),
    }
}

/// Whether a step of training has adapters alone trained; none for a step whose needs are not known ahead.
pub(crate) fn trains_adapters(step: &Step) -> Option<bool> {
    match step {
        Step::Train(_) => Some(false),
        Step::Tune(step) => Some(step.method == TuneMethod::Lora),
        _ => None,
    }
}

/// The values in the adapters that a step trains; none if it trains the model itself.
pub(crate) fn adapter_parameters(step: &Step, model: &ModelConfig) -> Option<u64> {
    let Step::Tune(step) = step else { return None };
    (step.method == TuneMethod::Lora).then(|| tune::adapter_parameters(&step.lora, model))
}

/// The model that a step makes from nothing, over a vocabulary of this size.
pub(crate) fn fresh_model(step: &Step, vocab_size: usize) -> Option<ModelConfig> {
    if let Step::Train(step) = step { Some(train::shape_of(step, vocab_size, vec![])) } else { None }
}

/// The vocabulary that a step trains, at most.
pub(crate) fn vocab_size(step: &Step) -> Option<usize> {
    if let Step::Tokenize(step) = step { step.vocab_size.map(|size| size as usize) } else { None }
}

/// Takes the steps of a train, tune or fit step from one of its states to a later one again; the state that results.
pub(crate) fn replay(context: &StepContext, from: Option<(&Path, &Passed)>, until: u64) -> Result<Passed> {
    let again = Interval { from, until };
    match &context.planned.step {
        Step::Train(step) => train::with_training(context, step, again),
        Step::Tune(step) => tune::with_training(context, step, again),
        Step::Fit(step) => fit::with_training(context, step, again),
        other => Err(Error::internal(format!("a {} step has no states", other.kind().name))),
    }
}

impl StepContext<'_> {
    /// The inputs of a role.
    pub(crate) fn inputs_as(&self, role: &str) -> impl Iterator<Item = &(Input, Artifact)> {
        self.inputs.iter().filter(move |(input, _)| input.role == role)
    }

    /// The one input of a role.
    pub(crate) fn input(&self, role: &str) -> Result<&(Input, Artifact)> {
        self.inputs_as(role)
            .next()
            .ok_or_else(|| Error::internal(format!("step `{}` has no input `{role}`", self.planned.name)))
    }

    /// A component of this artifact under the project's licence.
    pub(crate) fn own(&self, name: &str, kind: ComponentKind, paths: &[&str]) -> Component {
        let license = Some(self.project.plan.project.license.clone());
        let maker = Maker { step: self.planned.name.clone(), project: self.project.plan.project.name.clone() };
        let paths = paths.iter().map(|path| path.to_string()).collect();
        Component { paths, ..Component::made(name, kind, license, &maker) }
    }

    /// The component of an input that covers files of this ending, for the same files here: what was made elsewhere
    /// keeps its licence and origin. Without such a component the file is ours.
    pub(crate) fn of_input(&self, (input, artifact): &(Input, Artifact), ending: &str, own: Component) -> Component {
        let covers = |component: &&Component| component.paths.iter().any(|path| path.ends_with(ending));
        let Some(theirs) = artifact.manifest.components.iter().find(covers) else { return own };
        // What came in by reference says so: a project elsewhere may have the same name as this one.
        let origin = match input.kind {
            InputKind::Ref => Some(format!("`{}`: {}", input.name, theirs.origin.as_deref().unwrap_or("not stated"))),
            InputKind::Step | InputKind::Source => theirs.origin.clone(),
        };
        Component { origin, name: own.name, kind: own.kind, paths: own.paths, ..theirs.clone() }
    }

    /// Whether a component was made by a step of this project.
    pub(crate) fn is_ours(&self, component: &Component) -> bool {
        component.maker().is_some_and(|maker| maker.project == self.project.plan.project.name)
    }

    /// The folder of a model input: its artifact, or for a source the folder it names.
    pub(crate) fn model_folder(&self, input: &Input, artifact: &Artifact) -> Result<std::path::PathBuf> {
        match self.project.plan.sources.get(&input.name) {
            Some(source) if artifact.manifest.kind == ArtifactKind::Source => {
                crate::source::model_folder(self.project, &input.name, source)
            }
            _ => Ok(artifact.folder.clone()),
        }
    }

    /// Refuses tokens of another tokenizer than the model's: they would mean something else to it.
    pub(crate) fn require_same_tokenizer(&self, model: &Path, tokens: &Path, role: &str) -> Result<()> {
        let read = |folder: &Path| Tokenizer::read(folder)?.to_json();
        if read(model)? == read(tokens)? {
            return Ok(());
        }
        let ((data, _), (model, _)) = (self.input(role)?, self.input("model")?);
        Err(Error::input(format!("the data `{}` and the model `{}` have different tokenizers", data.name, model.name))
            .help(format!("set `tokenizer = \"{}\"` in [steps.{}]", model.name, data.name)))
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        let path = self.files.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io("cannot write", folder, error))?;
        }
        std::fs::write(&path, text).map_err(|error| Error::io("cannot write", &path, error))
    }

    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let bytes = std::fs::read(from).map_err(|error| Error::io("cannot read", from, error))?;
        self.write(name, bytes)
    }
}

/// A chart of all files of a folder, by path.
pub(crate) fn paths_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).map_err(|error| Error::io("cannot read", &next, error))? {
            let path = entry.map_err(|error| Error::io("cannot read", &next, error))?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(inside) = path.strip_prefix(folder) {
                found.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}
