//! `knowledge`: files -> passages with an index of their words, and vectors where there is an encoder.

use super::{Made, StepContext};
use crate::{material::instruction_set, source};
use narthex_base::{
    ArtifactKind, Component, Figure, Result,
    config::{KnowledgeStep, SplitUnit},
};
use narthex_knowledge::{
    Characters, Embed, Estimated, InProcess, Load, Making, Measure, Progress, Report, Source, build,
};
use narthex_ledger::Artifact;
use narthex_shelf::{KnowledgeEncoder, OpenedModel};
use std::{collections::BTreeMap, path::PathBuf};

pub(super) fn make(context: &StepContext, step: &KnowledgeStep) -> Result<Made> {
    let sources: Vec<Source> = context
        .inputs_as("from")
        .map(|(input, artifact)| files(context, &input.name, artifact))
        .collect::<Result<_>>()?;
    let encoder = match context.inputs_as("model").next() {
        Some((input, artifact)) => {
            let model = OpenedModel::of_step(&input.name, context.model_folder(input, artifact)?);
            Some(KnowledgeEncoder::load(&input.name, model, artifact.digest)?)
        }
        None => None,
    };
    let measure: &dyn Measure = match (step.split.unit, &encoder) {
        (SplitUnit::Characters, _) => &Characters,
        (SplitUnit::Tokens, Some(encoder)) => encoder,
        (SplitUnit::Tokens, None) => &Estimated,
    };
    // Passages and vectors of what has not changed since the last time are taken over.
    let before = context.project.ledger.last_step(&context.planned.name)?;
    // Vectors of another set of instructions have other bits.
    let before = before.filter(|record| record.material["isa"].as_str() == instruction_set(&context.planned.step));
    let before = before.and_then(|record| context.project.ledger.find(record.artifact).ok().flatten());
    let before = before.filter(|artifact| artifact.manifest.kind == ArtifactKind::Knowledge && artifact.is_complete());
    let making = Making {
        settings: step,
        sources: &sources,
        measure,
        embed: encoder.as_ref().map(|encoder| encoder as &dyn Embed),
        load: context.project.loader.as_ref().map_or(&InProcess as &dyn Load, |loader| loader),
        previous: before.as_ref().map(|artifact| artifact.folder.as_path()),
    };
    let observer = context.observer;
    let Report { card, files_known, embedded } = build(&making, context.files, &|progress| {
        observer.check()?;
        match progress {
            Progress::Files { done, total, passages } => {
                observer.progress(done, total, "files", format!("{passages} passages"));
            }
            Progress::Linked { done, total } => observer.progress(done, total, "vectors", "linked"),
            Progress::Warning(warning) => observer.warn(warning),
        }
        Ok(())
    })?;
    let figures = BTreeMap::from([
        (Figure::PASSAGES.name.to_string(), f64::from(card.passages)),
        (Figure::DOCUMENTS.name.into(), card.files.len() as f64),
        ("files_left_out".into(), card.left_out.len() as f64),
    ]);
    // What was taken over depends on what was there, so it belongs to the run, not to what was made.
    let measured = BTreeMap::from([
        ("files_taken_over".to_string(), files_known as f64),
        ("passages_embedded".into(), embedded as f64),
    ]);
    Ok(Made { measured, ..Made::new(ArtifactKind::Knowledge, components(context)?, figures) })
}

/// The files of a source with the terms that they stand under.
fn files(context: &StepContext, name: &str, artifact: &Artifact) -> Result<Source> {
    let root = &context.project.root;
    let files = match context.project.plan.sources.get(name) {
        Some(source) => source::files(context.project, name, source)?,
        None => artifact.manifest.files.iter().map(|file| root.join(&file.path)).collect(),
    };
    let cited = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        (path, name)
    };
    let component = artifact.manifest.components.first();
    Ok(Source {
        name: name.into(),
        files: files.into_iter().map(cited).collect(),
        license: artifact.manifest.license(),
        notices: component.map(|component| component.notices.iter().cloned().collect()).unwrap_or_default(),
        origin: component.and_then(|component| component.origin.clone()),
    })
}

/// Passages, and what was computed from them, keep the licence and the origin of the texts.
fn components(context: &StepContext) -> Result<Vec<Component>> {
    let paths = super::paths_below(context.files)?;
    let sources = context.inputs_as("from").flat_map(|(_, artifact)| &artifact.manifest.components);
    let own = sources.filter(|component| component.is_own());
    Ok(own.map(|component| Component { paths: paths.clone(), ..component.clone() }).collect())
}
