//! What is known of a folder without papers: what its card and the text of a licence that lies there say, and, where
//! the ledger has what the card names as ancestors, their terms too. Knows no policy, and takes nobody's word for more
//! than it is.

use crate::{
    hub_card::{HubCard, link_declared},
    known::{Known, gap},
    model_folder::model_files,
    terms::Terms,
};
use narthex_base::{ArtifactKind, Component, ComponentKind, Error, FileEntry, Manifest, Provenance, Recipe, Result};
use narthex_ledger::Ledger;
use narthex_openness::Shown;
use std::path::Path;

/// Papers for a folder that has none. `part` is what is in it, and `files` what of it is known by digest, if that was
/// looked at.
///
/// # Errors
/// If the card cannot be read, or the card and the licence beside it say different things.
pub(crate) fn papers_by_card(
    folder: &Path,
    part: &str,
    paths: Vec<String>,
    files: Vec<FileEntry>,
    ledger: Option<&Ledger>,
) -> Result<Provenance> {
    let correct =
        |error: Error| error.help(format!("correct README.md or the text of the licence in {}", folder.display()));
    let card = HubCard::read(folder)?;
    let Terms { license, evidence, license_texts, texts, notices } = card.terms(None, folder).map_err(correct)?;
    let component = Component {
        name: part.into(),
        kind: ComponentKind::ModelParameters,
        license,
        license_texts,
        notices,
        origin: None,
        evidence,
        paths,
    };
    let recipe = Recipe { config: card.config(), ..Recipe::new(folder_name(folder), "source") };
    let manifest = Manifest::new(ArtifactKind::Source, recipe);
    let mut manifest = Manifest { files, components: vec![component], texts, ..manifest };
    let mut lineage = Vec::new();
    if let Some(ledger) = ledger {
        link_declared(ledger, &mut manifest)?;
        for parent in &manifest.parents {
            let Some(artifact) = ledger.find(parent.digest)? else { continue };
            let known = ledger.provenance(&artifact)?;
            lineage.extend(known.all().filter(|ancestor| !lineage.contains(*ancestor)).cloned().collect::<Vec<_>>());
        }
    }
    Ok(Provenance { manifest, lineage })
}

/// What is known of a model folder without papers. Its files are not hashed: it has no digest, and no class.
///
/// # Errors
/// As [`papers_by_card`].
pub(crate) fn known_by_card(folder: &Path, ledger: Option<&Ledger>) -> Result<Known> {
    let names = model_files(folder)?.into_iter();
    let names = names.filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect();
    let papers = papers_by_card(folder, "weights", names, vec![], ledger)?;
    let shown = Shown {
        license: papers.manifest.model_license(),
        components: papers.manifest.components.clone(),
        ..Shown::unknown()
    };
    let how_to_declare = shown.license.is_none().then(|| how_to_declare(folder));
    let gap = gap(&papers);
    Ok(Known { papers, shown, gap, how_to_declare })
}

/// How the terms of a folder are declared that stand in no project file.
pub(crate) fn how_to_declare(folder: &Path) -> String {
    let card = folder.join("README.md");
    format!("declare its terms on top of {}, as with `license: apache-2.0` between two lines `---`", card.display())
}

/// The folder's own name, wherever it is called from.
pub(crate) fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize().ok();
    let name = whole.as_deref().unwrap_or(folder).file_name();
    name.map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}
