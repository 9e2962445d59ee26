//! `data`: sources -> documents, conversations, pairs of answers or rows.

use super::{Made, StepContext};
use crate::{project::Project, source};
use narthex_base::{
    Component, Error, Result,
    config::{DataStep, Step, StepKind},
};
use narthex_data::{PrepareSpec, SourceSpec, Split, prepare};

pub(super) fn make(context: &StepContext, step: &DataStep) -> Result<Made> {
    let mut sources = Vec::new();
    for (input, artifact) in context.inputs {
        sources.push(match context.project.plan.sources.get(&input.name) {
            Some(source) => source::spec(context.project, &input.name, source)?,
            None => source::of_artifact(&input.name, artifact),
        });
    }
    let spec = data_spec(step, sources, context.project.plan.project.seed);
    let statistics = prepare(&spec, context.files, context.observer)?;
    for example in &statistics.bad_row_examples {
        context.observer.warn(format!("left out {example}"));
    }
    if statistics.documents == 0 {
        return Err(Error::input(format!("step `{}` yields no documents", context.planned.name))
            .help("check the source, the columns and the transform"));
    }
    let paths = super::paths_below(context.files)?;
    // What is cleaned keeps the licence and the origin of what it was made from.
    let mut components: Vec<Component> = Vec::new();
    for (_, artifact) in context.inputs {
        for component in artifact.manifest.components.iter().filter(|component| !component.paths.is_empty()) {
            components.push(Component { paths: paths.clone(), ..component.clone() });
        }
    }
    Ok(Made::new(step.yields(), components, statistics.figures()))
}

/// What is prepared of these sources.
fn data_spec(step: &DataStep, source: Vec<SourceSpec>, seed: u64) -> PrepareSpec {
    PrepareSpec {
        source,
        transform: step.transform.clone(),
        output: step.output,
        normalize: step.normalize,
        filters: step.filters.clone(),
        filter: step.filter.clone(),
        near_duplicates: step.near_duplicates.clone(),
        deduplicate: step.deduplicate,
        split: Split { by: step.split, validation_fraction: step.validation, seed },
        max_bad_rows: step.max_bad_rows,
    }
}

/// What a data step of the project file would prepare. Steps that it needs must be made.
pub(crate) fn data_spec_of(project: &Project, name: &str) -> Result<PrepareSpec> {
    let planned = project.plan.steps.iter().find(|planned| planned.name == name);
    let Some(Step::Data(step)) = planned.map(|planned| &planned.step) else {
        return Err(Error::input(format!("there is no data step `{name}` in narthex.toml"))
            .help("name one: `narthex ls` lists the steps"));
    };
    let spec = |name: String| match project.plan.sources.get(&name) {
        Some(found) => source::spec(project, &name, found),
        None => Ok(source::of_artifact(&name, &project.ledger.resolve(&name)?)),
    };
    let sources = step.from.to_vec().into_iter().map(spec).collect::<Result<_>>()?;
    Ok(data_spec(step, sources, project.plan.project.seed))
}
