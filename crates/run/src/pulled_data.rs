//! A data set that was fetched from the Hugging Face Hub, on its way to be a source. Knows folders and manifests, no
//! network.

use narthex_base::{ArtifactKind, ComponentKind, License, Manifest, Recipe, Result};
use narthex_data::expand;
use narthex_ledger::{Artifact, Ledger, RunRecord};
use narthex_shelf::{HubCard, PulledFrom, pulled_component};
use serde_json::json;
use std::path::Path;

/// Records a fetched data set, which lies in `data` below the project's folder and stays there.
///
/// # Errors
/// If a file cannot be read, or its card and its licence say different things.
pub fn pulled_dataset(
    ledger: &Ledger,
    project: &Path,
    data: &str,
    name: &str,
    license: Option<License>,
    from: &PulledFrom,
) -> Result<Artifact> {
    let folder = project.join(data);
    let card = HubCard::read(&folder)?;
    let (mut component, texts) = pulled_component(&card, name, ComponentKind::Datasets, license, &folder, from)?;
    let mut files = Vec::new();
    for path in expand(project, &[data.to_string()])? {
        let mut entry = ledger.digest_file(&path)?;
        if let Ok(inside) = path.strip_prefix(project) {
            entry.path = inside.to_string_lossy().replace('\\', "/");
        }
        component.paths.push(entry.path.clone());
        files.push(entry);
    }
    let mut config = card.config();
    config["hub"] = from.config();
    // The rest as a source of the project file has it.
    for (key, value) in
        [("path", json!(data)), ("format", json!("auto")), ("rows", json!("file")), ("columns", json!({}))]
    {
        config[key] = value;
    }
    let recipe = Recipe { config, ..Recipe::new(name, "source") };
    let manifest =
        Manifest { files, components: vec![component], texts, ..Manifest::new(ArtifactKind::Source, recipe) };
    let _lock = ledger.lock()?;
    let artifact = ledger.commit_source(manifest, RunRecord::default())?;
    ledger.set_ref(name, artifact.digest)?;
    Ok(artifact)
}
