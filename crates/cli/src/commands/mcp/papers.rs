//! What is known of an artifact and of the project, as JSON: what tools, resources and prompts all give. Knows none of
//! them.

use super::desk::{Desk, named};
use crate::commands::{
    look,
    openness::{Document, LicenseFormat, USES, document},
};
use narthex_base::{Error, Result};
use narthex_ledger::Listing;
use narthex_shelf::{has_plan, root_of, with_subject};
use serde_json::{Value, json};

/// An artifact: its manifest, its files by name, the record of its run.
///
/// # Errors
/// If the ledger has none of this name.
pub fn artifact(desk: &Desk, reference: &str) -> Result<Value> {
    let artifact = desk.shelf().ledger()?.resolve(named(reference)?)?;
    Ok(look::shown(&artifact))
}

/// What an artifact was made from, down to the raw files.
///
/// # Errors
/// If the ledger has none of this name.
pub fn lineage(desk: &Desk, reference: &str) -> Result<Value> {
    let (_, lineage) = look::lineage(desk.folder(), named(reference)?)?;
    serde_json::to_value(lineage).map_err(|error| Error::internal("no JSON").cause(error))
}

/// The components of an artifact, their licences, its class of openness, and what the project's policy says of its uses.
///
/// # Errors
/// If the ledger has none of this name, or its record is not whole.
pub fn licence(desk: &Desk, reference: &str) -> Result<Value> {
    let reference = named(reference)?;
    let mut value = match licence_document(desk, reference, LicenseFormat::Json)? {
        Document::Json(value) => value,
        Document::Yaml(_) => return Err(Error::internal("the licence report is no JSON")),
    };
    let mut findings = vec![];
    for uses in USES {
        findings.extend(desk.shelf().judge(reference, uses)?);
    }
    value["policy"] = json!(findings);
    Ok(value)
}

/// The same in a format of others.
///
/// # Errors
/// As [`licence`].
pub fn licence_document(desk: &Desk, reference: &str, format: LicenseFormat) -> Result<Document> {
    let written = with_subject(desk.folder(), named(reference)?, |subject| document(subject, format))??;
    written.ok_or_else(|| Error::internal("this format is for people"))
}

/// The artifacts that names point to now; none where nothing has been made yet.
///
/// # Errors
/// If the ledger cannot be read.
pub fn current(desk: &Desk) -> Result<Vec<Listing>> {
    match has_ledger(desk) {
        true => look::listings(desk.folder(), None, false),
        false => Ok(vec![]),
    }
}

/// Every artifact and every name that it has or had.
///
/// # Errors
/// If the ledger cannot be read.
pub fn all(desk: &Desk) -> Result<Vec<Listing>> {
    match has_ledger(desk) {
        true => look::listings(desk.folder(), None, true),
        false => Ok(vec![]),
    }
}

fn has_ledger(desk: &Desk) -> bool {
    root_of(desk.folder()).join(".narthex").is_dir()
}

/// The text of the project's file; nothing where there is none.
///
/// # Errors
/// If it cannot be read.
pub fn project_file(desk: &Desk) -> Result<Option<String>> {
    if !has_plan(desk.folder()) {
        return Ok(None);
    }
    let layers = narthex_shelf::layers(desk.folder(), &crate::commands::base_options(&[]))?;
    Ok(Some(layers.file))
}
