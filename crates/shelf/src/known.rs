//! What is known of a reference before anything of it is loaded: enough to judge it, and to show it. Asks no policy.

use narthex_base::{Provenance, Result};
use narthex_ledger::{Artifact, Ledger};
use narthex_openness::Shown;

/// What is known of a reference: enough to judge it.
pub(crate) struct Known {
    /// What its papers say; without any, what its card does.
    pub(crate) papers: Provenance,
    /// What is shown of it.
    pub(crate) shown: Shown,
    /// What is missing of its lineage.
    pub(crate) gap: Option<String>,
    /// How to declare its terms, where nothing is known of them and it is no artifact.
    pub(crate) how_to_declare: Option<String>,
}

impl Known {
    /// What a ledger knows of an artifact.
    pub(crate) fn of_artifact(ledger: &Ledger, artifact: &Artifact) -> Result<Self> {
        let papers = ledger.provenance(artifact)?;
        let gap = gap(&papers);
        let shown = Shown::of(papers.clone(), ledger.lineage(artifact.digest)?);
        Ok(Self { papers, shown, gap, how_to_declare: None })
    }
}

/// What is missing of a lineage, in words.
pub(crate) fn gap(papers: &Provenance) -> Option<String> {
    let (child, parent) = papers.missing()?;
    let digest = parent.digest.short();
    Some(format!("`{}` was made from `{}` ({digest}), of which there is no record", child.recipe.step, parent.name))
}
