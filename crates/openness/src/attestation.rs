//! What an in-toto statement says of an artifact's lineage and licences.

use crate::mof::openness;
use narthex_base::Provenance;
use serde_json::{Value, json};

/// The type of the predicate. It is a name, not an address.
pub const OPENNESS_PREDICATE: &str = "urn:narthex:openness:v1";

/// The predicate: the artifact's digest, its components with their licences, what it was made from, and its class.
pub fn openness_predicate(provenance: &Provenance) -> Value {
    let manifest = &provenance.manifest;
    let components: Vec<Value> = manifest
        .components
        .iter()
        .map(|component| {
            json!({
                "name": component.name, "kind": component.kind, "expression": component.license,
                "licenseTexts": component.license_texts, "notices": component.notices, "origin": component.origin,
                "evidence": component.evidence, "paths": component.paths,
            })
        })
        .collect();
    let inputs: Vec<Value> = provenance
        .lineage
        .iter()
        .map(|ancestor| {
            json!({
                "name": ancestor.recipe.step, "kind": ancestor.kind, "digest": { "blake3": ancestor.digest() },
                "license": ancestor.license(),
            })
        })
        .collect();
    let found = openness(manifest);
    json!({
        "artifact": { "name": manifest.recipe.step, "kind": manifest.kind, "digest": { "blake3": manifest.digest() } },
        "modelOpennessFramework": { "class": found.class, "reasons": found.reasons },
        "licenses": components,
        "inputs": inputs,
    })
}
