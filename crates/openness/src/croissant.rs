//! A Croissant 1.1 description of a data artifact: its files, and for Parquet files the column that a reader wants.
//!
//! It does not know columns of raw sources (their files are named, not described), and a file whose SHA-256 is not
//! known stands without one, which readers of Croissant complain about.
//!
//! Source: MLCommons Croissant format specification 1.1.

use crate::{
    card::license_address,
    subject::{Subject, extension, media_type, notices, stated},
};
use narthex_base::{ArtifactKind, Component, FileEntry};
use serde_json::{Value, json};

/// The Croissant 1.1 description of a data artifact.
pub fn croissant(subject: &Subject) -> Value {
    let manifest = subject.manifest();
    let made_at = subject.made_at();
    let mut made = json!({
        "@context": context(),
        "@type": "sc:Dataset",
        "name": subject.name,
        "description": description(subject),
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "url": address(subject),
        "version": version(subject),
        "datePublished": &made_at[..10],
        "citeAs": citation(subject, &made_at[..4]),
        "creator": {"@type": "sc:Organization", "name": subject.project()},
        "distribution": manifest.files.iter().map(|file| file_object(subject, file)).collect::<Vec<_>>(),
    });
    let licenses = licenses(subject);
    match licenses.as_slice() {
        [] => {}
        [one] => made["license"] = json!(one),
        many => made["license"] = json!(many),
    }
    let records: Vec<Value> = manifest.files.iter().filter_map(|file| record_set(subject, file)).collect();
    if !records.is_empty() {
        made["recordSet"] = json!(records);
    }
    made
}

/// What the names in the document mean, as the specification prints it.
fn context() -> Value {
    json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "citeAs": "cr:citeAs",
        "column": "cr:column",
        "conformsTo": "dct:conformsTo",
        "containedIn": "cr:containedIn",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "prov": "http://www.w3.org/ns/prov#",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "dct": "http://purl.org/dc/terms/",
        "equivalentProperty": "cr:equivalentProperty",
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "extract": "cr:extract",
        "field": "cr:field",
        "fileProperty": "cr:fileProperty",
        "fileObject": "cr:fileObject",
        "fileSet": "cr:fileSet",
        "format": "cr:format",
        "includes": "cr:includes",
        "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath",
        "key": "cr:key",
        "md5": "cr:md5",
        "parentField": "cr:parentField",
        "path": "cr:path",
        "recordSet": "cr:recordSet",
        "references": "cr:references",
        "regex": "cr:regex",
        "repeated": "cr:repeated",
        "replace": "cr:replace",
        "samplingRate": "cr:samplingRate",
        "sc": "https://schema.org/",
        "separator": "cr:separator",
        "source": "cr:source",
        "subField": "cr:subField",
        "transform": "cr:transform",
    })
}

/// The digest in the form of a version of three numbers, which readers of Croissant ask for. The numbers mean nothing.
fn version(subject: &Subject) -> String {
    format!("0.0.0+{}", subject.digest().short())
}

/// The components that the artifact's files come from.
fn parts<'s>(subject: &'s Subject) -> impl Iterator<Item = &'s Component> {
    subject.components().iter().filter(|component| component.is_own())
}

fn description(subject: &Subject) -> String {
    let kind = match subject.manifest().kind {
        ArtifactKind::Source => "Raw files",
        ArtifactKind::Documents => "Documents, one a row",
        ArtifactKind::Chat => "Conversations, one a row",
        ArtifactKind::Pairs => "Two answers to one prompt, one pair a row",
        ArtifactKind::Tokens => "A tokenizer and the tokens of documents",
        ArtifactKind::Rows => "Rows of named columns",
        ArtifactKind::Model | ArtifactKind::Predictor | ArtifactKind::Bundle => "A model",
        ArtifactKind::Knowledge => "Passages of files, with an index",
        ArtifactKind::Evaluation => "Figures of an evaluation",
    };
    let mut origins: Vec<String> =
        parts(subject).filter_map(|c| c.origin.as_ref().map(|origin| format!("{}: {origin}", c.name))).collect();
    origins.sort_unstable();
    origins.dedup();
    match origins.is_empty() {
        true => format!("{kind}."),
        false => format!("{kind}. Origin of {}.", origins.join("; ").trim_end_matches('.')),
    }
}

/// Where it comes from, if that is one place; else its digest: a name, not a place.
fn address(subject: &Subject) -> String {
    let mut addresses: Vec<&str> = parts(subject).filter_map(Component::url).collect();
    addresses.sort_unstable();
    addresses.dedup();
    match addresses.as_slice() {
        [one] if subject.manifest().kind == ArtifactKind::Source => one.to_string(),
        _ => format!("urn:narthex:{}", subject.digest()),
    }
}

/// Addresses of the licences; the expression itself where one of them has none. Absent if any part has none declared.
fn licenses(subject: &Subject) -> Vec<String> {
    let license = subject.license();
    let Some(license) = stated(license.as_ref()) else { return vec![] };
    let addresses: Option<Vec<String>> = license.ids().iter().map(|id| license_address(id)).collect();
    addresses.unwrap_or_else(|| vec![license.to_string()])
}

/// A BibTeX entry with what must be kept when the data are passed on.
fn citation(subject: &Subject, year: &str) -> String {
    let plain = |text: &str| text.replace(['{', '}', '\\'], "").replace('\n', " ");
    let mut notes: Vec<String> = notices(parts(subject)).into_iter().map(plain).collect();
    let origins = parts(subject).filter_map(|component| component.origin.as_deref().map(plain));
    for origin in origins {
        if !notes.contains(&origin) {
            notes.push(origin);
        }
    }
    let mut fields = vec![format!("title = {{{}}}", plain(subject.name))];
    fields.push(format!("author = {{{}}}", plain(subject.project())));
    if subject.created_ms > 0 {
        fields.push(format!("year = {{{year}}}"));
    }
    fields.push(format!("version = {{{}}}", subject.digest().short()));
    if !notes.is_empty() {
        fields.push(format!("note = {{{}}}", notes.join("; ")));
    }
    format!("@misc{{narthex-{}, {}}}", subject.digest().short(), fields.join(", "))
}

fn file_object(subject: &Subject, file: &FileEntry) -> Value {
    let format = match extension(&file.path).as_str() {
        // The registered type is not the one that readers of Croissant know.
        "parquet" => "application/x-parquet",
        _ => media_type(&file.path),
    };
    let mut made = json!({
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": format!("{} B", file.bytes),
        "encodingFormat": format,
    });
    if let Some(digits) = (subject.sha256)(file) {
        made["sha256"] = json!(digits);
    }
    made
}

/// The rows of a Parquet file of documents or conversations.
fn record_set(subject: &Subject, file: &FileEntry) -> Option<Value> {
    let (column, told) = match subject.manifest().kind {
        ArtifactKind::Documents => ("text", "A document."),
        ArtifactKind::Chat => {
            ("messages", "The messages of a conversation, as JSON: a list of objects with `role` and `content`.")
        }
        ArtifactKind::Pairs => (
            "pair",
            "Two answers to one prompt, as JSON: an object with `prompt`, `chosen` and `rejected`, each a string or a list of messages.",
        ),
        ArtifactKind::Rows => ("record", "A row, as JSON: an object of its columns."),
        _ => return None,
    };
    let name = file.path.strip_suffix(".parquet")?;
    Some(json!({
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [{
            "@type": "cr:Field",
            "@id": format!("{name}/{column}"),
            "name": column,
            "description": told,
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": file.path}, "extract": {"column": column}},
        }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{self, values_of};

    #[test]
    fn documents_have_a_column_of_text() {
        let provenance = testing::documents_of_two();
        let subject = testing::subject("texts", &provenance);
        let made = croissant(&subject);
        assert_eq!(made, croissant(&subject));
        assert_eq!(made["conformsTo"], "http://mlcommons.org/croissant/1.1");
        assert_eq!(made["datePublished"], "2026-11-26");
        assert_eq!(made["version"], format!("0.0.0+{}", subject.digest().short()));
        assert_eq!(made["creator"]["name"], "Bard & friends");
        // A licence of somebody's own has no address.
        assert_eq!(made["license"], "(CC-BY-4.0) AND (LicenseRef-House AND CC-BY-4.0)");
        let cite = made["citeAs"].as_str().unwrap();
        let note =
            "note = {Cite us.; Copyright 2015 Some Body; https://example.org/plays.txt, the plays; found in an attic}";
        for part in ["@misc{narthex-", "author = {Bard & friends}", "year = {2026}", note] {
            assert!(cite.contains(part), "{cite}");
        }
        assert_eq!(made["distribution"].as_array().unwrap().len(), 2);
        for file in made["distribution"].as_array().unwrap() {
            assert_eq!(file["encodingFormat"], "application/x-parquet");
            assert_eq!(file["sha256"].as_str().map(str::len), Some(64));
            assert_eq!(file["contentUrl"], file["@id"]);
        }
        let field = &made["recordSet"][0]["field"][0];
        assert_eq!((&field["name"], &field["dataType"]), (&json!("text"), &json!("sc:Text")));
    }

    #[test]
    fn conversations_have_a_column_of_messages() {
        let provenance = testing::chat();
        let made = croissant(&testing::subject("talks", &provenance));
        let extracts: Vec<&Value> = values_of(&made["recordSet"], "extract");
        assert_eq!(extracts, [&json!({"column": "messages"}), &json!({"column": "messages"})]);
        let licenses = ["https://spdx.org/licenses/MIT", "https://spdx.org/licenses/Apache-2.0"];
        assert_eq!(made["license"], json!(licenses));
    }

    #[test]
    fn raw_sources_are_files_alone() {
        let provenance = testing::undeclared_source();
        let made = croissant(&testing::subject("questions", &provenance));
        assert!(made["recordSet"].is_null());
        assert!(made["license"].is_null());
        assert_eq!(made["distribution"][0]["encodingFormat"], "application/jsonl");
    }

    #[test]
    fn identifiers_are_met_where_they_are_named() {
        for (name, provenance) in testing::all() {
            let made = croissant(&testing::subject(name, &provenance));
            let files: Vec<&Value> = values_of(&made["distribution"], "@id");
            for file in values_of(&made["recordSet"], "fileObject") {
                assert!(files.contains(&&file["@id"]), "{name}: {file}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_sum() {
        let provenance = testing::chat();
        let unreadable = |_: &FileEntry| None;
        let subject = Subject { sha256: &unreadable, created_ms: 0, ..testing::subject("talks", &provenance) };
        let made = croissant(&subject);
        assert!(made["distribution"][0]["sha256"].is_null());
        assert_eq!(made["datePublished"], "1970-01-01");
    }
}
