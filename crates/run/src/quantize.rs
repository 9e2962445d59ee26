//! A step of kind `quantize` for a model at hand, whether or not a project file has one: the project that it is the one
//! step of.

use crate::project::{OpenOptions, Project};
use narthex_base::{
    ArtifactKind, Error, License, Plan, Result,
    config::{self, IntegerKind, OneOrMany, Policy, ProjectFile, QuantizeStep, Source, SourceFormat, Step, TextRows},
    plan::Layers,
};
use narthex_ledger::Ledger;
use narthex_shelf::{Reference, has_plan, help_for, is_model_folder, no_model, read_plan, root_of};
use std::{collections::BTreeMap, path::Path};

/// The source that holds text which calibrates.
const TEXT: &str = "calibration-text";

/// What to make of a model.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// What its weights become.
    pub to: IntegerKind,
    /// Weights that share a scale, with int4.
    pub group: usize,
    /// A file of plain text, or tokens in the ledger by name.
    pub calibrate: Option<String>,
    /// What the artifact is called; the model's name with the kind behind it otherwise.
    pub name: Option<String>,
}

/// A project with the step alone, and the step's name: running it makes the artifact, with all that its model's papers
/// say. Seed, licence and policy are those of the project file, if there is one.
///
/// # Errors
/// If the reference or the text is unknown, or the name is taken by a step of the project.
pub fn quantizing(
    project: &Path,
    reference: &str,
    options: &QuantizeOptions,
    open: &OpenOptions,
) -> Result<(Project, String)> {
    let root = root_of(project);
    let root = root.canonicalize().map_err(|error| Error::io("cannot read", &root, error))?;
    let plan = has_plan(project).then(|| read_plan(project, &open.plan)).transpose()?;
    let ledger = Ledger::open(&root.join(".narthex"))?;
    let mut sources = BTreeMap::new();
    let model = match Reference::of(reference) {
        Reference::Place(path) if !is_model_folder(path) => return Err(no_model(path)),
        Reference::Place(path) => {
            let path = path.canonicalize().map_err(|error| Error::io("cannot read", path, error))?;
            let name = name_of(&path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            sources.insert(name.clone(), source(&root, &path, SourceFormat::HuggingFace));
            name
        }
        Reference::Name(name) => {
            // An unknown one is named here, with its nearest.
            ledger.resolve(name).map_err(|error| match help_for(name) {
                Some(help) => error.help(help),
                None => error,
            })?;
            format!("ref:{name}")
        }
    };
    let calibrate = match &options.calibrate {
        None => None,
        Some(text) if Path::new(text).is_file() => {
            let path = Path::new(text).canonicalize().map_err(|error| Error::io("cannot read", text, error))?;
            sources.insert(TEXT.into(), source(&root, &path, SourceFormat::Text));
            Some(TEXT.to_string())
        }
        Some(text) => {
            let artifact = ledger.resolve(text).map_err(|error| {
                error.context(format!("there is no file `{text}`, and the ledger does not know it either"))
            })?;
            if artifact.manifest.kind != ArtifactKind::Tokens {
                return Err(Error::input(format!("`{text}` is no text but of kind {}", artifact.manifest.kind))
                    .help("name a file of plain text, or what a tokenize step made"));
            }
            Some(format!("ref:{text}"))
        }
    };
    let kind = match options.to {
        IntegerKind::Int8 => "int8",
        IntegerKind::Int4 => "int4",
    };
    let stem = model.strip_prefix("ref:").unwrap_or(&model).to_string();
    let name = options.name.clone().unwrap_or_else(|| format!("{}-{kind}", name_of(&stem)));
    if let Some(plan) = plan.as_ref().filter(|plan| plan.steps.iter().any(|step| step.name == name)) {
        return Err(Error::input(format!("`{name}` is a step of this project"))
            .at(&plan.file_name, None)
            .help(format!("run that with `narthex run --to {name}`, or choose another name with `--name NAME`")));
    }
    let step = QuantizeStep { model, to: options.to, group: options.group, calibrate };
    let file = ProjectFile {
        project: match &plan {
            Some(plan) => plan.project.clone(),
            None => config::Project { name: name_of(&stem), seed: 0, license: License::openmdw_1_1() },
        },
        sources,
        steps: BTreeMap::from([(name.clone(), Step::Quantize(step))]),
        policy: plan.map(|plan| plan.policy).unwrap_or_else(Policy::default),
    };
    let layers =
        Layers { file_name: format!("the recipe of `{name}`"), file: crate::recipe::text(&file)?, ..Layers::default() };
    let plan = Plan::resolve(&layers)?;
    Ok((Project::of(root, plan, ledger, open.source_code), name))
}

/// A file or folder as it is, of whose terms nothing is said but what lies beside it.
fn source(root: &Path, path: &Path, format: SourceFormat) -> Source {
    Source {
        quotes: None,
        path: OneOrMany::One(path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()),
        format,
        rows: TextRows::default(),
        columns: BTreeMap::new(),
        license: None,
        license_file: None,
        notice: None,
        origin: None,
    }
}

/// What a step can be called after this.
fn name_of(text: &str) -> String {
    let kept: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let kept = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if kept.is_empty() { "model".into() } else { kept.into() }
}
