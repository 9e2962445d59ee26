//! What is shown of something that has papers: its licence, its parts, its lineage and its class. It is written as
//! JSON, and decides nothing.

use crate::mof::{Openness, openness};
use narthex_base::{Component, License, LineageNode, Provenance};
use serde::Serialize;

/// What is shown of where something comes from, and under which terms.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The digest of its manifest; absent for a model folder without papers.
    pub digest: Option<String>,
    /// The licence of the weights.
    pub license: Option<License>,
    /// All components, own and inherited.
    pub components: Vec<Component>,
    /// The tree of what it was made from.
    pub lineage: Option<LineageNode>,
    /// The class of the Model Openness Framework that it qualifies for, and why no better one.
    pub openness: Option<Openness>,
    /// Its manifest and those of its ancestors, as `narthex.json` holds them; for download.
    #[serde(skip)]
    pub papers: Option<Provenance>,
}

impl Shown {
    /// What is known where there are no papers.
    pub fn unknown() -> Self {
        Self { digest: None, license: None, components: vec![], lineage: None, openness: None, papers: None }
    }

    /// What papers say.
    pub fn of(papers: Provenance, lineage: LineageNode) -> Self {
        let manifest = &papers.manifest;
        Self {
            digest: Some(manifest.digest().to_string()),
            license: manifest.model_license(),
            components: manifest.components.clone(),
            lineage: Some(lineage),
            openness: Some(openness(manifest)),
            papers: Some(papers),
        }
    }
}
