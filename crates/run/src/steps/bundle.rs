//! `bundle`: a model -> a folder anyone can use: weights in Hugging Face layout, model card,
//! licence, notices and licence texts.

use super::{Made, StepContext, paths_below};
use crate::{card, source};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, License, Plan, Result,
    config::BundleStep,
    plan::{Input, InputKind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The files that a bundle writes itself.
const PAPERS: [&str; 3] = ["README.md", "LICENSE", "NOTICE"];

pub(super) fn make(context: &StepContext, step: &BundleStep) -> Result<Made> {
    let (input, model) = context.input("model")?;
    refuse_undeclared(context, &input.name, &model.manifest.components)?;
    let license = step.license.clone().unwrap_or_else(|| context.project.plan.project.license.clone());
    let folder = context.model_folder(input, model)?;
    let files: Vec<String> = match model.manifest.kind {
        ArtifactKind::Source => {
            let names = source::model_files(&folder)?;
            names.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect()
        }
        _ => model.manifest.files.iter().map(|file| file.path.clone()).collect(),
    };
    for name in &files {
        // The papers of a model made elsewhere are kept, beside ours.
        let target = if PAPERS.contains(&name.as_str()) { format!("upstream/{name}") } else { name.clone() };
        context.copy(&folder.join(name), &target)?;
    }
    let mut components = own_components(context, input, model, &license);
    let inherited: Vec<Component> = model.manifest.components.iter().filter(|c| c.paths.is_empty()).cloned().collect();
    let card = card::Card {
        project: &context.project.plan.project.name,
        model: &input.name,
        description: &step.description,
        license: components.first().and_then(|c| c.license.as_ref()).unwrap_or(&license),
        manifest: &model.manifest,
        evaluations: context
            .inputs_as("evaluations")
            .map(|(input, artifact)| (input.name.as_str(), &artifact.manifest.figures))
            .collect(),
        inherited: &inherited,
        config: &folder.join("config.json"),
        lineage: &context.project.ledger.lineage(model.digest)?,
    };
    context.write("README.md", card::render(&card)?)?;
    let mut document = context.own("model card", ComponentKind::Document, &["README.md"]);
    document.license = Some(license.clone());
    components.push(document);
    let all: Vec<&Component> = components.iter().chain(&inherited).collect();
    write_licenses(context, &all)?;
    context.write("NOTICE", card::notice(&context.project.plan.project.name, &components, &inherited))?;
    let mut figures = model.manifest.figures.clone();
    let bytes: u64 = paths_below(context.files)?
        .iter()
        .filter_map(|path| Some(context.files.join(path).metadata().ok()?.len()))
        .sum();
    figures.insert("bytes".into(), bytes as f64);
    for (input, artifact) in context.inputs_as("evaluations") {
        figures
            .extend(artifact.manifest.figures.iter().map(|(name, value)| (format!("{}.{name}", input.name), *value)));
    }
    Ok(Made { kind: ArtifactKind::Bundle, components, figures, measured: BTreeMap::new() })
}

/// The model's own components in the bundle: under the bundle's licence if this project made them, else under their own.
fn own_components(
    context: &StepContext,
    input: &Input,
    model: &narthex_ledger::Artifact,
    license: &License,
) -> Vec<Component> {
    let own = model.manifest.components.iter().filter(|component| !component.paths.is_empty());
    let file_name = |path: &String| match model.manifest.kind {
        ArtifactKind::Source => {
            Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| path.clone())
        }
        _ => path.clone(),
    };
    own.map(|component| Component {
        license: if input.kind == InputKind::Step && context.is_ours(component) {
            Some(license.clone())
        } else {
            component.license.clone()
        },
        paths: component.paths.iter().map(file_name).collect(),
        ..component.clone()
    })
    .collect()
}

/// A bundle whose inputs have no declared licence is refused.
fn refuse_undeclared(context: &StepContext, model: &str, components: &[Component]) -> Result<()> {
    let Some(component) = components.iter().find(|component| component.license.is_none()) else { return Ok(()) };
    let plan = &context.project.plan;
    if plan.sources.contains_key(&component.name) {
        return Err(undeclared(plan, &context.planned.name, &component.name));
    }
    Err(Error::input(format!("`{model}` depends on `{}`, which has no declared licence", component.name))
        .cause(WHY)
        .help("import it again with `--license`, or train without it"))
}

const WHY: &str = "a bundle passes its parts on, and nobody may pass on what has no licence";

/// The refusal of a bundle whose lineage begins at a source without a licence.
pub(crate) fn undeclared(plan: &Plan, bundle: &str, source: &str) -> Error {
    let place = plan.origin(&format!("sources.{source}.path"));
    Error::input(format!("the bundle `{bundle}` depends on the source `{source}`, which has no declared licence"))
        .at(place, None)
        .cause(WHY)
        .help(format!("add `license = \"…\"` to [sources.{source}], or train without it"))
}

/// `LICENSE` for the whole, and every text that any part names under `LICENSES/`.
fn write_licenses(context: &StepContext, components: &[&Component]) -> Result<()> {
    let main = components
        .first()
        .and_then(|component| component.license.clone())
        .ok_or_else(|| Error::internal("the bundle has no weights"))?;
    let texts = main.texts();
    let license = match (texts.len(), main.ids().len()) {
        (1, 1) => texts.values().next().map(|text| text.to_string()).unwrap_or_default(),
        _ => format!("SPDX-License-Identifier: {main}\n\nThe texts of the licences named here are in LICENSES/.\n"),
    };
    context.write("LICENSE", license)?;
    let mut written = BTreeSet::new();
    for license in components.iter().filter_map(|component| component.license.as_ref()) {
        for (id, text) in license.texts() {
            if written.insert(id.clone()) {
                context.write(&format!("LICENSES/{id}.txt"), text)?;
            }
        }
        for id in license.ids() {
            if !written.contains(&id) {
                context.observer.warn(format!("the text of `{id}` is not known: add it to the bundle yourself"));
            }
        }
    }
    Ok(())
}
