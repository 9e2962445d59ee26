//! From manifests back to a project file: what it takes to make an artifact again.

use crate::project::{Project, SourceCode};
use narthex_base::{
    ArtifactKind, Error, License, Manifest, Plan, Provenance, Result,
    config::{OneOrMany, Policy, ProjectFile, Source, Step},
    plan::Layers,
};
use narthex_ledger::Ledger;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// The file in a bundle that makes it again.
pub(crate) const RECIPE_FILE: &str = "recipe/narthex.toml";

/// The project file that makes an artifact again, as far as its lineage goes.
///
/// # Errors
/// If the lineage holds two versions of one step, or a step that this version does not know.
pub(crate) fn project_file(provenance: &Provenance) -> Result<ProjectFile> {
    let recipe = &provenance.manifest.recipe;
    let license = recipe.license.clone().unwrap_or_else(License::openmdw_1_1);
    let mut file = ProjectFile {
        project: narthex_base::config::Project { name: recipe.project.clone(), seed: recipe.seed, license },
        sources: BTreeMap::new(),
        steps: BTreeMap::new(),
        policy: Policy::default(),
    };
    for manifest in made_here(provenance) {
        let (name, kind) = (&manifest.recipe.step, manifest.recipe.kind.as_str());
        let twice = match kind {
            "source" => file.sources.insert(name.clone(), source(manifest)?).is_some(),
            // What came in from elsewhere is taken from the ledger as it is.
            "import" => false,
            _ => file.steps.insert(name.clone(), step(manifest)?).is_some(),
        };
        if twice {
            return Err(Error::input(format!("the lineage holds two versions of `{name}`"))
                .cause("what was made of an older version of its own ancestors cannot be made again in one run")
                .help("run the project again, so that all of it is of one version"));
        }
    }
    Ok(file)
}

fn step(manifest: &Manifest) -> Result<Step> {
    serde_json::from_value(manifest.recipe.config.clone()).map_err(|error| {
        Error::input(format!("the recipe of `{}` cannot be followed by this version of Narthex", manifest.recipe.step))
            .cause(error)
            .help(format!("use the version that made it: {}", manifest.recipe.narthex))
    })
}

fn source(manifest: &Manifest) -> Result<Source> {
    let component = manifest.components.first();
    let config = &manifest.recipe.config;
    let part = |key: &str| config.get(key).cloned().unwrap_or(Value::Null);
    let wrong = |error: serde_json::Error| {
        Error::input(format!("the record of the source `{}` is damaged", manifest.recipe.step)).cause(error)
    };
    Ok(Source {
        path: serde_json::from_value(part("path")).map_err(wrong)?,
        format: serde_json::from_value(part("format")).map_err(wrong)?,
        rows: serde_json::from_value(part("rows")).map_err(wrong)?,
        quotes: serde_json::from_value(part("quotes")).map_err(wrong)?,
        columns: serde_json::from_value(part("columns")).map_err(wrong)?,
        license: component.and_then(|component| component.license.clone()),
        license_file: serde_json::from_value(part("license_file")).map_err(wrong)?,
        notice: component
            .filter(|component| !component.notices.is_empty())
            .map(|component| OneOrMany::Many(component.notices.iter().cloned().collect())),
        origin: component.and_then(|component| component.origin.clone()),
    })
}

/// As text.
pub(crate) fn text(file: &ProjectFile) -> Result<String> {
    toml::to_string(file).map_err(|error| Error::internal("a recipe cannot be written as TOML").cause(error))
}

/// The project that a recipe stands for: its files are looked for in `root`, and what it makes goes into `ledger`.
pub(crate) fn open(
    provenance: &Provenance,
    root: &Path,
    ledger: Ledger,
    source_code: Option<SourceCode>,
) -> Result<Project> {
    if provenance.manifest.recipe.kind == "import" {
        return Err(Error::input(format!("`{}` was imported: how it was made is not known", provenance.manifest.recipe.step))
            .help("what can be made again is what a step of a project made; `narthex verify-signature` checks a signed folder"));
    }
    let layers = Layers {
        file_name: format!("the recipe of `{}`", provenance.manifest.recipe.step),
        file: text(&project_file(provenance)?)?,
        ..Layers::default()
    };
    Ok(Project::of(root.to_path_buf(), Plan::resolve(&layers)?, ledger, source_code))
}

/// The manifests that it takes to make an artifact again: what a card says an import was made from is not among them.
pub(crate) fn made_here(provenance: &Provenance) -> Vec<&Manifest> {
    let (mut found, mut open) = (vec![&provenance.manifest], vec![&provenance.manifest]);
    while let Some(manifest) = open.pop() {
        if manifest.recipe.kind == "import" {
            continue;
        }
        for parent in manifest.parents.iter().filter_map(|parent| provenance.find(parent.digest)) {
            if !found.contains(&parent) {
                found.push(parent);
                open.push(parent);
            }
        }
    }
    provenance.all().filter(|manifest| found.contains(manifest)).collect()
}

/// The manifests in an order in which each comes after its parents.
pub(crate) fn in_order(provenance: &Provenance) -> Vec<&Manifest> {
    fn visit<'a>(manifest: &'a Manifest, provenance: &'a Provenance, done: &mut Vec<&'a Manifest>) {
        if done.contains(&manifest) {
            return;
        }
        for parent in &manifest.parents {
            if let Some(parent) = provenance.find(parent.digest) {
                visit(parent, provenance, done);
            }
        }
        done.push(manifest);
    }
    let mut done = Vec::new();
    visit(&provenance.manifest, provenance, &mut done);
    done
}

/// Whether an artifact is the result of a step.
pub(crate) fn is_step(manifest: &Manifest) -> bool {
    manifest.kind != ArtifactKind::Source && manifest.recipe.kind != "import"
}
