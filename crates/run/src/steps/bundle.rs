//! `bundle`: a model -> a folder anyone can use: weights in Hugging Face layout, cards, licences, notices, the recipe,
//! and, where asked for, code, data and checkpoints.

use super::{Made, StepContext, paths_below};
use crate::{
    card, policy, recipe,
    reproduce::{check_checkpoints, checkpoint_folder},
};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Digest, Error, License, Manifest, Provenance, Result,
    config::{BundleStep, Use},
    papers,
    plan::{Input, InputKind},
};
use narthex_ledger::Artifact;
use narthex_openness::judge;
use narthex_shelf::model_files;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The files that a bundle writes itself.
const PAPERS: [&str; 5] = ["README.md", "DATA.md", "REPORT.md", "LICENSE", "NOTICE"];

pub(super) fn make(context: &StepContext, step: &BundleStep) -> Result<Made> {
    let mut bundle = Bundle::begin(context, step)?;
    bundle.model()?;
    bundle.evaluations()?;
    bundle.recipe()?;
    if step.code {
        bundle.code()?;
    }
    if step.data {
        bundle.data()?;
    }
    if step.checkpoints {
        bundle.checkpoints()?;
    }
    bundle.documents()?;
    bundle.finish()
}

struct Bundle<'a> {
    context: &'a StepContext<'a>,
    step: &'a BundleStep,
    input: &'a Input,
    model: &'a Artifact,
    license: License,
    /// What is in the bundle, then what the model was made from.
    components: Vec<Component>,
    figures: BTreeMap<String, f64>,
    provenance: Provenance,
    texts: BTreeMap<Digest, String>,
}

impl<'a> Bundle<'a> {
    fn begin(context: &'a StepContext, step: &'a BundleStep) -> Result<Self> {
        let (input, model) = context.input("model")?;
        let license = step.license.clone().unwrap_or_else(|| context.project.plan.project.license.clone());
        let mut texts = BTreeMap::new();
        for (_, artifact) in context.inputs {
            texts.extend(artifact.manifest.texts.clone());
        }
        let provenance = context.project.ledger.provenance(model)?;
        let figures = model.manifest.figures.clone();
        Ok(Self { context, step, input, model, license, components: vec![], figures, provenance, texts })
    }

    /// The model's files. The papers of a model made elsewhere are kept, beside ours.
    fn model(&mut self) -> Result<()> {
        let folder = self.context.model_folder(self.input, self.model)?;
        let files: Vec<String> = match self.model.manifest.kind {
            ArtifactKind::Source => {
                let names = model_files(&folder)?;
                names.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect()
            }
            _ => self.model.manifest.files.iter().map(|file| file.path.clone()).collect(),
        };
        for name in &files {
            let target = if PAPERS.contains(&name.as_str()) { format!("upstream/{name}") } else { name.clone() };
            self.context.copy(&folder.join(name), &target)?;
        }
        let is_source = self.model.manifest.kind == ArtifactKind::Source;
        for component in self.model.manifest.components.iter().filter(|component| component.is_own()) {
            let mut part = component.clone();
            if is_source {
                part.paths.iter_mut().for_each(|path| *path = file_name(path));
            }
            let is_ours = self.input.kind == InputKind::Step && self.context.is_ours(component);
            match &self.step.license {
                _ if is_ours => {
                    let new = Component::new("", part.kind, Some(self.license.clone()), part.evidence);
                    (part.license, part.license_texts) = (new.license, new.license_texts);
                }
                Some(asked) if Some(asked) != component.license.as_ref() => {
                    return Err(self.relicensing(asked, component));
                }
                _ => {}
            }
            self.components.push(part);
        }
        Ok(())
    }

    /// Others' material stays under their terms.
    fn relicensing(&self, asked: &License, component: &Component) -> Error {
        let name = &self.context.planned.name;
        let origin = component.origin.as_deref().unwrap_or("elsewhere");
        Error::input(format!(
            "the bundle `{name}` would put `{}` under {asked}, but it is under {}",
            component.name,
            component.license_name()
        ))
        .at(self.context.project.plan.origin(&format!("steps.{name}.license")), None)
        .cause(format!("it comes from {origin}, and what others have licensed cannot be put under other terms"))
        .help(format!("leave `license` out of [steps.{name}]: each part keeps its own"))
    }

    fn own(&self, name: &str, kind: ComponentKind, paths: &[&str]) -> Component {
        let ours = self.context.own(name, kind, paths);
        let licensed = Component::new("", kind, Some(self.license.clone()), ours.evidence);
        Component { license: licensed.license, license_texts: licensed.license_texts, ..ours }
    }

    fn evaluations(&mut self) -> Result<()> {
        let inputs: Vec<&(Input, Artifact)> = self.context.inputs_as("evaluations").collect();
        for (input, artifact) in inputs {
            let path = format!("evaluations/{}.json", input.name);
            self.context.copy(&artifact.path("figures.json"), &path)?;
            let part = self.own(&input.name, ComponentKind::EvaluationResults, &[&path]);
            self.components.push(part);
            let figures = &artifact.manifest.figures;
            self.figures.extend(figures.iter().map(|(name, value)| (format!("{}.{name}", input.name), *value)));
        }
        Ok(())
    }

    /// The project file that makes the model again.
    fn recipe(&mut self) -> Result<()> {
        let head = format!(
            "# Makes `{}` again: narthex {}, {}.\n",
            self.input.name,
            self.model.manifest.recipe.narthex,
            self.model.manifest.recipe.isa.as_deref().unwrap_or("any processor")
        );
        let Ok(file) = recipe::project_file(&self.provenance) else {
            self.context.observer.warn("the lineage holds two versions of a step: the bundle has no recipe");
            return Ok(());
        };
        self.context.write(recipe::RECIPE_FILE, head + &recipe::text(&file)?)?;
        let part = self.own("recipe", ComponentKind::ModelMetadata, &[recipe::RECIPE_FILE]);
        self.components.push(part);
        Ok(())
    }

    fn code(&mut self) -> Result<()> {
        let code = self.context.project.source_code.ok_or_else(|| {
            Error::input("this program was built without its source code").help("set `code = false` in the bundle step")
        })?;
        let path = format!("code/{}", code.name);
        self.context.write(&path, code.bytes)?;
        self.components.extend(policy::code_components(&path));
        Ok(())
    }

    /// The raw files, at the paths that the recipe names.
    fn data(&mut self) -> Result<()> {
        let (project, mut copied) = (self.context.project, BTreeSet::new());
        let mut manifests: Vec<Manifest> = self.provenance.lineage.clone();
        for (_, artifact) in self.context.inputs_as("evaluations") {
            manifests.extend(project.ledger.provenance(artifact)?.lineage);
        }
        for manifest in manifests.iter().filter(|manifest| manifest.kind == ArtifactKind::Source) {
            let mut paths = Vec::new();
            for file in &manifest.files {
                let inside = project.root.join(&file.path);
                let target = match is_inside(&file.path) {
                    true => format!("data/{}", file.path),
                    false => format!("data/{}/{}", manifest.recipe.step, file_name(&file.path)),
                };
                if copied.insert(target.clone()) {
                    if project.ledger.digest_file(&inside)?.digest != file.digest {
                        return Err(Error::input(format!("{} has changed since it was read", inside.display()))
                            .help("run the project again"));
                    }
                    self.context.copy(&inside, &target)?;
                }
                paths.push(target);
            }
            let license_file = manifest.recipe.config.get("license_file").and_then(|file| file.as_str());
            if let Some(file) = license_file.filter(|file| is_inside(file)) {
                let target = format!("data/{file}");
                if copied.insert(target.clone()) {
                    self.context.copy(&project.root.join(file), &target)?;
                }
                paths.push(target);
            }
            for component in manifest.components.iter().filter(|component| component.is_own()) {
                // The model was trained on what it inherits; on the rest it was measured alone.
                let is_trained = self.model.manifest.components.iter().any(|known| known.is_same(component));
                let kind = match component.kind {
                    ComponentKind::Datasets if !is_trained => ComponentKind::EvaluationData,
                    kind => kind,
                };
                self.components.push(Component { kind, paths: paths.clone(), ..component.clone() });
            }
        }
        // What was measured on is among the same files.
        let evaluated = self.context.inputs_as("evaluations").flat_map(|(_, artifact)| &artifact.manifest.components);
        for part in evaluated.filter(|part| part.kind == ComponentKind::EvaluationData) {
            let same = |known: &&Component| known.name == part.name && known.kind == ComponentKind::Datasets;
            if let Some(paths) = self.components.iter().find(same).map(|known| known.paths.clone()) {
                self.components.push(Component { paths, ..part.clone() });
            }
        }
        let mut distinct: Vec<Component> = Vec::new();
        for component in std::mem::take(&mut self.components) {
            if !distinct.iter().any(|known| known.is_same(&component)) {
                distinct.push(component);
            }
        }
        self.components = distinct;
        Ok(())
    }

    /// The states that training kept, of the model and of those it was tuned from.
    fn checkpoints(&mut self) -> Result<()> {
        let mut kept = 0;
        let manifests: Vec<Manifest> = self.provenance.all().cloned().collect();
        for manifest in &manifests {
            let Some(artifact) = self.context.project.ledger.find(manifest.digest())? else { continue };
            check_checkpoints(&artifact)?;
            for checkpoint in &manifest.checkpoints {
                let folder = checkpoint_folder(&artifact, checkpoint.step);
                for (name, _) in checkpoint.weights.files("weights").chain(checkpoint.moments.files("moments")) {
                    if folder.join(&name).is_file() {
                        let target = format!("checkpoints/{}/step-{}/{name}", artifact.name(), checkpoint.step);
                        self.context.copy(&folder.join(&name), &target)?;
                        kept += 1;
                    }
                }
            }
        }
        if kept == 0 {
            return Err(Error::input(format!("training kept no checkpoints of `{}`", self.input.name))
                .help("set `keep_checkpoints = true` in the schedule of its step, or `checkpoints = false` here"));
        }
        let part = self.own("checkpoints", ComponentKind::IntermediateParameters, &["checkpoints/**"]);
        self.components.push(part);
        Ok(())
    }

    /// Cards, report and paper: from sources where the step names them, else written from the ledger.
    fn documents(&mut self) -> Result<()> {
        for (role, kind, name) in self.step.documents() {
            let (_, artifact) = self.context.input(role)?;
            let mut paths = Vec::new();
            for file in &artifact.manifest.files {
                let target = match kind {
                    ComponentKind::DataCard if artifact.manifest.files.len() == 1 => "DATA.md".to_string(),
                    ComponentKind::TechnicalReport if artifact.manifest.files.len() == 1 => "REPORT.md".to_string(),
                    _ => format!("documents/{}", file_name(&file.path)),
                };
                let from = self.context.project.root.join(&file.path);
                if self.step.data && is_inside(&file.path) {
                    // Where the recipe looks for it.
                    let again = format!("data/{}", file.path);
                    self.context.copy(&from, &again)?;
                    paths.push(again);
                }
                self.context.copy(&from, &target)?;
                paths.push(target);
            }
            let theirs = artifact.manifest.components.first();
            let part = theirs.map(|theirs| Component { kind, paths, ..theirs.clone() });
            self.components.push(part.ok_or_else(|| Error::internal(format!("source `{name}` has no component")))?);
        }
        let has = |kind| self.components.iter().any(|component| component.kind == kind);
        let (wants_data, wants_report) = (!has(ComponentKind::DataCard), !has(ComponentKind::TechnicalReport));
        let mut parts = vec![self.own("model card", ComponentKind::ModelCard, &["README.md"])];
        if wants_data {
            parts.push(self.own("data card", ComponentKind::DataCard, &["DATA.md"]));
        }
        if wants_report {
            parts.push(self.own("technical report", ComponentKind::TechnicalReport, &["REPORT.md"]));
        }
        self.components.extend(parts);
        let draft = self.draft();
        let folder = self.context.model_folder(self.input, self.model)?;
        let card = card::Card {
            project: &self.context.project.plan.project.name,
            model: &self.input.name,
            description: &self.step.description,
            license: &self.license,
            provenance: &draft,
            made: &self.provenance,
            evaluations: self
                .context
                .inputs_as("evaluations")
                .map(|(input, artifact)| (input.name.as_str(), &artifact.manifest.figures))
                .collect(),
            folder: &folder,
        };
        self.context.write("README.md", card.model_card()?)?;
        if wants_data {
            self.context.write("DATA.md", card.data_card()?)?;
        }
        if wants_report {
            self.context.write("REPORT.md", card.report()?)?;
        }
        Ok(())
    }

    /// The bundle's manifest as far as it is known before its papers are written.
    fn draft(&self) -> Provenance {
        let mut manifest = Manifest::new(ArtifactKind::Bundle, self.context.project.recipe(self.context.planned));
        manifest.components = self.components.clone();
        manifest.figures = self.figures.clone();
        manifest.texts = self.texts.clone();
        self.context.inputs.iter().for_each(|(_, artifact)| manifest.inherit(&artifact.manifest));
        let mut lineage = vec![self.model.manifest.clone()];
        lineage.extend(self.provenance.lineage.clone());
        Provenance { manifest, lineage }
    }

    fn finish(mut self) -> Result<Made> {
        let Provenance { manifest, .. } = self.draft();
        let context = self.context;
        let mut tree = self.provenance.tree();
        tree.name = self.input.name.clone();
        let policy = &context.project.plan.policy;
        let what = format!("step `{}` cannot run", context.planned.name);
        context.project.permit(&what, &judge(policy, Use::Redistribute, &tree, &manifest.components))?;
        let papers = papers(&context.project.plan.project.name, &manifest.components, &manifest.texts);
        for (path, text) in papers.files {
            context.write(&path, text)?;
        }
        for id in papers.unknown {
            context
                .observer
                .warn(format!("the text of `{id}` is not known: name it with `license_file` in its source"));
        }
        let mut bytes = 0;
        for path in paths_below(context.files)? {
            let path = context.files.join(path);
            bytes += path.metadata().map_err(|error| Error::io("cannot read", &path, error))?.len();
        }
        self.figures.insert("bytes".into(), bytes as f64);
        Ok(Made::new(ArtifactKind::Bundle, self.components, self.figures))
    }
}

/// Whether a path stays in the project's folder.
fn is_inside(path: &str) -> bool {
    Path::new(path).is_relative() && !path.split('/').any(|part| part == "..")
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| path.into())
}
