//! An SPDX 3.0.1 document of an artifact, in the form of JSON-LD that its JSON schema describes: the artifact and the
//! models before it as AI packages, the data as dataset packages, files, licences and what ties them.
//!
//! It does not know when data or earlier models were made (the artifact's own time stands for them, with a comment that
//! says so), where anything that names no address can be fetched (its digest as `urn:narthex:DIGEST` stands there: a
//! name, not a place), and it gives no licence to the document itself. A concluded licence is the declared one: nothing
//! is concluded here.
//!
//! Source: SPDX specification 3.0.1, profiles Core, Software, SimpleLicensing, AI and Dataset.

use crate::subject::{
    Ancestor, Subject, component_key, custom_texts, extension, measures, media_type, notices, stated,
};
use narthex_base::{ArtifactKind, Component, ComponentKind, Digest, Evidence, FileEntry, License, Manifest};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const CONTEXT: &str = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld";
const CREATION: &str = "_:creation";
const NO_LICENSE: &str = "expandedlicensing_NoAssertionLicense";
const PROFILES: [&str; 5] = ["core", "software", "ai", "dataset", "simpleLicensing"];
const TIMES_UNKNOWN: &str =
    "When it was made and published is not known: both times are those of the artifact that this document is about.";

/// The SPDX 3.0.1 document of an artifact.
pub fn spdx(subject: &Subject) -> Value {
    let mut document = Document {
        subject,
        base: format!("urn:narthex:{}#", subject.digest()),
        elements: vec![],
        relationships: 0,
        agents: BTreeMap::new(),
        licenses: BTreeMap::new(),
    };
    let software = document.add("SoftwareAgent", "narthex", json!({"name": "narthex", "description": version()}));
    let supplier = document.agent(subject.project(), "Organization");
    let main = document.main(&supplier);
    document.files(&main, subject.manifest(), "file", "contains");
    if subject.is_model() {
        document.models(&main, &supplier);
    } else if subject.manifest().kind != ArtifactKind::Source {
        let made_from: Vec<&Component> = subject.datasets().collect();
        for component in made_from {
            let from = document.dataset(component, &supplier);
            document.relate(&from, "generates", vec![main.clone()]);
        }
    }
    document.finish(&software, &main)
}

fn version() -> String {
    format!("Narthex {}", env!("CARGO_PKG_VERSION"))
}

/// A document that grows element by element.
struct Document<'a> {
    subject: &'a Subject<'a>,
    /// What all identifiers begin with.
    base: String,
    elements: Vec<Value>,
    relationships: usize,
    /// Name -> identifier.
    agents: BTreeMap<String, String>,
    /// Expression and texts -> identifier.
    licenses: BTreeMap<(String, BTreeMap<String, String>), String>,
}

impl Document<'_> {
    /// Adds an element and returns its identifier.
    fn add(&mut self, kind: &str, id: &str, fields: Value) -> String {
        let id = format!("{}{id}", self.base);
        let mut element = json!({"type": kind, "spdxId": id, "creationInfo": CREATION});
        extend(&mut element, fields);
        self.elements.push(element);
        id
    }

    fn relate(&mut self, from: &str, kind: &str, to: Vec<String>) {
        if !to.is_empty() {
            self.relationships += 1;
            let id = format!("relationship-{}", self.relationships);
            self.add("Relationship", &id, json!({"from": from, "relationshipType": kind, "to": to}));
        }
    }

    fn agent(&mut self, name: &str, kind: &str) -> String {
        if let Some(id) = self.agents.get(name) {
            return id.clone();
        }
        let id = self.add(kind, &format!("agent-{}", self.agents.len() + 1), json!({"name": name}));
        self.agents.insert(name.into(), id.clone());
        id
    }

    /// Who a component comes from: the project, else whoever its copyright line names, else somebody unnamed.
    fn originator(&mut self, component: &Component, supplier: &str) -> String {
        if component.evidence == Evidence::Made {
            return supplier.into();
        }
        let line = component.notices.iter().find(|notice| notice.to_lowercase().starts_with("copyright"));
        match line {
            Some(line) => self.agent(line, "Agent"),
            None => self.agent(&format!("whoever made {} (not stated)", component.name), "Agent"),
        }
    }

    /// The package of the artifact itself.
    fn main(&mut self, supplier: &str) -> String {
        let subject = self.subject;
        let manifest = subject.manifest();
        let own: Vec<&Component> = manifest.components.iter().filter(|component| component.is_own()).collect();
        let is_ours = !is_elsewhere(manifest);
        let address = own.iter().find_map(|component| component.url()).filter(|_| !is_ours);
        let mut fields = self.package(subject.name, subject.digest(), supplier, address);
        let mut origins: Vec<String> = vec![];
        for component in &own {
            let origin = self.originator(component, supplier);
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        if !origins.is_empty() {
            extend(&mut fields, json!({"originatedBy": origins}));
        }
        extend(&mut fields, rights(own));
        let id = if subject.is_model() {
            extend(&mut fields, training(subject.trained(), &manifest.figures));
            if let Some(class) = subject.class {
                let class = format!("Model Openness Framework, class {class}");
                extend(&mut fields, json!({"ai_standardCompliance": [class]}));
            }
            self.add("ai_AIPackage", "artifact", fields)
        } else {
            extend(&mut fields, json!({"software_primaryPurpose": "data"}));
            extend(&mut fields, data_facts(&manifest.files.iter().collect::<Vec<_>>()));
            self.add("dataset_DatasetPackage", "artifact", fields)
        };
        let license = subject.license();
        let texts = license.as_ref().map(|license| custom_texts(license, &manifest.components, manifest));
        self.license(&id, stated(license.as_ref()), texts.unwrap_or_default());
        id
    }

    /// What every package says.
    fn package(&self, name: &str, digest: Digest, supplier: &str, address: Option<&str>) -> Value {
        let made_at = self.subject.made_at();
        json!({
            "name": name,
            "originatedBy": [supplier],
            "suppliedBy": supplier,
            "builtTime": made_at,
            "releaseTime": made_at,
            "verifiedUsing": [hash("blake3", &digest.to_string())],
            "software_packageVersion": digest.short(),
            "software_downloadLocation": address.map_or_else(|| format!("urn:narthex:{digest}"), String::from),
        })
    }

    /// Files of an artifact, with what ties them to a package.
    fn files(&mut self, package: &str, manifest: &Manifest, prefix: &str, kind: &str) {
        let files = manifest.files.iter().enumerate();
        let ids = files.map(|(number, file)| self.file(file, &format!("{prefix}-{}", number + 1))).collect();
        self.relate(package, kind, ids);
    }

    fn file(&mut self, file: &FileEntry, id: &str) -> String {
        let mut hashes = vec![hash("blake3", &file.digest.to_string())];
        hashes.extend((self.subject.sha256)(file).map(|digits| hash("sha256", &digits)));
        let purpose = match extension(&file.path).as_str() {
            "safetensors" => "model",
            "json" | "jinja" => "configuration",
            "md" => "documentation",
            "parquet" | "txt" | "csv" | "tsv" | "jsonl" | "tokens" => "data",
            _ => "file",
        };
        let fields = json!({
            "name": file.path,
            "verifiedUsing": hashes,
            "software_primaryPurpose": purpose,
            "software_fileKind": "file",
            "contentType": media_type(&file.path),
        });
        self.add("software_File", id, fields)
    }

    /// The models before the artifact, the data, and what ties them.
    fn models(&mut self, main: &str, supplier: &str) {
        let subject = self.subject;
        let mut data = BTreeMap::new();
        for component in subject.datasets() {
            data.insert(component_key(component), self.dataset(component, supplier));
        }
        let ancestors = subject.ancestor_models();
        let id_of = |digest: Digest| format!("urn:narthex:{}#model-{}", subject.digest(), digest.short());
        for ancestor in &ancestors {
            self.ancestor(ancestor, supplier);
        }
        let known = ancestors.iter().filter_map(|ancestor| Some((id_of(ancestor.digest), ancestor.manifest?)));
        let all: Vec<(String, &Manifest)> =
            std::iter::once((main.to_string(), subject.manifest())).chain(known).collect();
        for (id, manifest) in all {
            let parents = subject.parent_models(manifest);
            self.relate(&id, "descendantOf", parents.iter().map(|parent| id_of(parent.digest)).collect());
            for (kind, edge) in [(ComponentKind::Datasets, "trainedOn"), (ComponentKind::EvaluationData, "testedOn")] {
                let used = manifest.components.iter().filter(|component| component.kind == kind);
                let used = used.filter_map(|component| data.get(&component_key(component)).cloned()).collect();
                self.relate(&id, edge, used);
            }
        }
    }

    /// The package of a model that the artifact descends from.
    fn ancestor(&mut self, ancestor: &Ancestor, supplier: &str) {
        let own: Vec<&Component> =
            ancestor.manifest.iter().flat_map(|m| &m.components).filter(|component| component.is_own()).collect();
        let weights = own.iter().find(|component| component.kind == ComponentKind::ModelParameters).copied();
        let origin = weights.map_or_else(|| supplier.to_string(), |weights| self.originator(weights, supplier));
        let address = weights.and_then(Component::url);
        let mut fields = self.package(ancestor.name, ancestor.digest, &origin, address);
        extend(&mut fields, json!({"comment": TIMES_UNKNOWN}));
        extend(&mut fields, rights(own.iter().copied()));
        match ancestor.manifest {
            Some(manifest) => extend(&mut fields, training(manifest, &manifest.figures)),
            None => extend(&mut fields, json!({"software_primaryPurpose": "model"})),
        }
        let id = self.add("ai_AIPackage", &format!("model-{}", ancestor.digest.short()), fields);
        let license = ancestor.manifest.and_then(Manifest::license);
        let texts = match (&license, ancestor.manifest) {
            (Some(license), Some(manifest)) => custom_texts(license, own, manifest),
            _ => BTreeMap::new(),
        };
        self.license(&id, stated(license.as_ref()), texts);
    }

    /// The package of the data that a component stands for.
    fn dataset(&mut self, component: &Component, supplier: &str) -> String {
        let subject = self.subject;
        let key = component_key(component);
        let sources = subject.sources_of(component);
        let files: Vec<&FileEntry> = sources.iter().flat_map(|source| &source.files).collect();
        let origin = self.originator(component, supplier);
        let mut fields = match sources.first() {
            Some(source) => self.package(&component.name, source.digest(), &origin, component.url()),
            // Without its manifest, a source is known by the component alone, which is no digest of anything.
            None => {
                let name = format!("urn:narthex:component:{key}");
                let address = component.url().unwrap_or(&name);
                let mut fields = self.package(&component.name, subject.digest(), &origin, Some(address));
                remove(&mut fields, &["verifiedUsing", "software_packageVersion"]);
                fields
            }
        };
        extend(&mut fields, json!({"comment": TIMES_UNKNOWN, "software_primaryPurpose": "data"}));
        extend(&mut fields, rights([component]));
        if let Some(origin) = &component.origin {
            extend(&mut fields, json!({"software_sourceInfo": origin}));
        }
        extend(&mut fields, data_facts(&files));
        let id = self.add("dataset_DatasetPackage", &format!("data-{key}"), fields);
        let numbered = files.into_iter().enumerate();
        let ids = numbered.map(|(number, file)| self.file(file, &format!("data-{key}-file-{}", number + 1))).collect();
        self.relate(&id, "hasDataFile", ids);
        let license = stated(component.license.as_ref());
        let texts = license.map(|license| custom_texts(license, [component], subject.manifest()));
        self.license(&id, license, texts.unwrap_or_default());
        id
    }

    /// The declared and the concluded licence of a package.
    fn license(&mut self, package: &str, license: Option<&License>, texts: BTreeMap<String, &str>) {
        let id = match license {
            None => NO_LICENSE.to_string(),
            Some(license) => self.expression(license, texts),
        };
        self.relate(package, "hasDeclaredLicense", vec![id.clone()]);
        self.relate(package, "hasConcludedLicense", vec![id]);
    }

    /// The element of an expression, and those of the texts that it needs.
    fn expression(&mut self, license: &License, texts: BTreeMap<String, &str>) -> String {
        let texts: BTreeMap<String, String> = texts.into_iter().map(|(id, text)| (id, text.to_string())).collect();
        let key = (license.to_string(), texts.clone());
        if let Some(id) = self.licenses.get(&key) {
            return id.clone();
        }
        let mut fields = json!({"simplelicensing_licenseExpression": license.as_str()});
        let unknown: Vec<String> =
            license.ids().into_iter().filter(|id| id.contains("LicenseRef-") && !texts.contains_key(id)).collect();
        if !unknown.is_empty() {
            extend(&mut fields, json!({"comment": format!("The text of {} is not known.", unknown.join(", "))}));
        }
        let entries: Vec<Value> =
            texts.iter().map(|(id, text)| dictionary_entry(id, &self.license_text(id, text))).collect();
        if !entries.is_empty() {
            extend(&mut fields, json!({"simplelicensing_customIdToUri": entries}));
        }
        let number = self.licenses.len() + 1;
        let id = self.add("simplelicensing_LicenseExpression", &format!("license-{number}"), fields);
        self.licenses.insert(key, id.clone());
        id
    }

    /// The element of a licence's text; added once.
    fn license_text(&mut self, name: &str, text: &str) -> String {
        let id = format!("text-{}", Digest::of(text.as_bytes()).short());
        let full = format!("{}{id}", self.base);
        if self.elements.iter().any(|element| element["spdxId"] == full.as_str()) {
            return full;
        }
        self.add("simplelicensing_SimpleLicensingText", &id, json!({"name": name, "simplelicensing_licenseText": text}))
    }

    /// Puts what describes the document in front.
    fn finish(mut self, software: &str, main: &str) -> Value {
        let name = self.subject.name.to_string();
        let described: Vec<Value> = self.elements.iter().map(|element| element["spdxId"].clone()).collect();
        let kinds = json!({"name": format!("{name}: bill of materials"), "software_sbomType": ["build"],
            "profileConformance": PROFILES, "rootElement": [main], "element": described});
        let bill = self.add("software_Sbom", "bill", kinds);
        let all: Vec<Value> = self.elements.iter().map(|element| element["spdxId"].clone()).collect();
        let fields = json!({"name": format!("{name} {}", self.subject.digest().short()), "profileConformance": PROFILES,
            "rootElement": [bill], "element": all});
        self.add("SpdxDocument", "document", fields);
        let creation = json!({
            "type": "CreationInfo",
            "@id": CREATION,
            "specVersion": "3.0.1",
            "created": self.subject.made_at(),
            "createdBy": [software],
        });
        let graph: Vec<Value> = std::iter::once(creation).chain(self.elements).collect();
        json!({"@context": CONTEXT, "@graph": graph})
    }
}

/// What a package says of the model in it.
fn training(manifest: &Manifest, figures: &BTreeMap<String, f64>) -> Value {
    let recipe = &manifest.recipe;
    let mut told = format!(
        "Made by step `{}` ({}) of Narthex {} with seed {}; recipe version {}.",
        recipe.step, recipe.kind, recipe.narthex, recipe.seed, recipe.version
    );
    if let Some(isa) = &recipe.isa {
        told += &format!(" Computed with {isa}.");
    }
    if let Some(last) = manifest.checkpoints.last() {
        told += &format!(" {} checkpoints; the chain ends in {}.", manifest.checkpoints.len(), last.chain);
    }
    let mut leaves = vec![];
    collect_leaves("", &recipe.config, &mut leaves);
    let parameters: Vec<Value> = leaves.iter().map(|(key, value)| dictionary_entry(key, value)).collect();
    let metrics: Vec<Value> =
        measures(figures).map(|(name, value)| dictionary_entry(name, &value.to_string())).collect();
    let mut fields = json!({
        "software_primaryPurpose": "model",
        "ai_typeOfModel": ["transformer"],
        "ai_domain": ["text generation"],
        "ai_informationAboutTraining": told,
    });
    // Of a model made elsewhere, nothing but this is known.
    if is_elsewhere(manifest) {
        extend(&mut fields, json!({"ai_informationAboutTraining": "Trained elsewhere; how is not recorded."}));
        return fields;
    }
    if !parameters.is_empty() {
        extend(&mut fields, json!({"ai_hyperparameter": parameters}));
    }
    if !metrics.is_empty() {
        extend(&mut fields, json!({"ai_metric": metrics}));
    }
    fields
}

/// Whether an artifact was taken in and not made here.
fn is_elsewhere(manifest: &Manifest) -> bool {
    manifest.kind == ArtifactKind::Source || manifest.recipe.kind == "import"
}

/// The values of a configuration by their paths; lists as JSON.
fn collect_leaves(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect_leaves(&path, below, leaves);
            }
        }
        Value::Null => {}
        Value::String(text) => leaves.push((path.into(), text.clone())),
        other => leaves.push((path.into(), other.to_string())),
    }
}

/// The kind and the size of data, as far as its files tell.
fn data_facts(files: &[&FileEntry]) -> Value {
    const TEXT: [&str; 8] = ["csv", "json", "jsonl", "md", "parquet", "tokens", "tsv", "txt"];
    let is_text = files.iter().any(|file| TEXT.contains(&extension(&file.path).as_str()));
    let kind = match (files.is_empty(), is_text) {
        (true, _) => "noAssertion",
        (false, true) => "text",
        (false, false) => "other",
    };
    let mut fields = json!({"dataset_datasetType": [kind]});
    if !files.is_empty() {
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        extend(&mut fields, json!({"dataset_datasetSize": bytes}));
    }
    fields
}

/// What must be kept when it is passed on.
fn rights<'m>(components: impl IntoIterator<Item = &'m Component>) -> Value {
    let notices = notices(components);
    if notices.is_empty() {
        return json!({});
    }
    json!({"software_copyrightText": notices.join("\n"), "software_attributionText": notices})
}

fn hash(algorithm: &str, digits: &str) -> Value {
    json!({"type": "Hash", "algorithm": algorithm, "hashValue": digits})
}

fn dictionary_entry(key: &str, value: &str) -> Value {
    json!({"type": "DictionaryEntry", "key": key, "value": value})
}

/// Sets fields of an object.
fn extend(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

fn remove(object: &mut Value, keys: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        let kept: Map<String, Value> =
            std::mem::take(object).into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect();
        *object = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{self, complaints, values_of};
    use std::collections::BTreeSet;

    fn made(name: &str) -> Value {
        let (name, provenance) = testing::all().into_iter().find(|(known, _)| *known == name).unwrap();
        spdx(&testing::subject(name, &provenance))
    }

    fn elements<'v>(document: &'v Value, kind: &str) -> Vec<&'v Value> {
        let graph = document["@graph"].as_array().unwrap();
        graph.iter().filter(|element| element["type"] == kind).collect()
    }

    /// The ends of all relationships of a kind: names from -> names to.
    fn edges(document: &Value, kind: &str) -> Vec<(String, Vec<String>)> {
        let graph = document["@graph"].as_array().unwrap();
        let name = |id: &Value| {
            let found = graph.iter().find(|element| element["spdxId"] == *id);
            let found = found.map(|element| {
                let expression = &element["simplelicensing_licenseExpression"];
                expression.as_str().or(element["name"].as_str()).unwrap().to_string()
            });
            found.unwrap_or_else(|| id.as_str().unwrap().to_string())
        };
        let relationships = elements(document, "Relationship").into_iter();
        let relationships = relationships.filter(|relationship| relationship["relationshipType"] == kind);
        relationships.map(|r| (name(&r["from"]), r["to"].as_array().unwrap().iter().map(name).collect())).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn follows_the_schema() {
        let validator = testing::validator("spdx-json-schema-3.0.1.json", &[]);
        for (name, provenance) in testing::all() {
            let document = spdx(&testing::subject(name, &provenance));
            assert_eq!(complaints(&validator, &document), Vec::<String>::new(), "{name}");
            assert_eq!(document, spdx(&testing::subject(name, &provenance)), "{name}");
        }
    }

    #[test]
    fn the_schema_finds_what_is_broken() {
        let validator = testing::validator("spdx-json-schema-3.0.1.json", &[]);
        let document = made("bard-release");
        let place = |kind: &str| {
            document["@graph"].as_array().unwrap().iter().position(|element| element["type"] == kind).unwrap()
        };
        let breaks: [(&str, &str, Value); 5] = [
            ("CreationInfo", "created", json!("2026-11-26T08:00:00.123Z")),
            ("dataset_DatasetPackage", "dataset_datasetType", json!(["novel"])),
            ("ai_AIPackage", "suppliedBy", json!(["urn:narthex:x"])),
            ("Relationship", "to", json!([])),
            ("software_File", "software_primaryPurpose", json!("weights")),
        ];
        for (kind, key, value) in breaks {
            let mut broken = document.clone();
            assert!(!broken["@graph"][place(kind)][key].is_null(), "{kind} has no {key}");
            broken["@graph"][place(kind)][key] = value;
            assert!(!complaints(&validator, &broken).is_empty(), "{kind} {key}");
        }
    }

    #[test]
    fn no_reference_dangles() {
        for (name, _) in testing::all() {
            let document = made(name);
            let ids: Vec<&str> = values_of(&document, "spdxId").into_iter().filter_map(Value::as_str).collect();
            let unique: BTreeSet<&str> = ids.iter().copied().collect();
            assert_eq!(ids.len(), unique.len(), "{name}: an identifier stands twice");
            let references = ["from", "to", "element", "rootElement", "suppliedBy", "originatedBy", "createdBy"];
            for key in references {
                for value in values_of(&document, key) {
                    let one = std::slice::from_ref(value);
                    for reference in value.as_array().map_or(one, Vec::as_slice) {
                        let reference = reference.as_str().unwrap();
                        assert!(unique.contains(reference) || reference == NO_LICENSE, "{name}: {key} {reference}");
                    }
                }
            }
            for entry in values_of(&document, "simplelicensing_customIdToUri") {
                let text = entry[0]["value"].as_str().unwrap();
                assert!(unique.contains(text), "{name}: {text}");
            }
        }
    }

    #[test]
    fn packages_say_what_the_profiles_ask() {
        for (name, _) in testing::all() {
            let document = made(name);
            let packages = |kind| elements(&document, kind);
            let asked = ["name", "suppliedBy", "builtTime", "releaseTime", "software_downloadLocation"];
            for package in packages("ai_AIPackage").into_iter().chain(packages("dataset_DatasetPackage")) {
                for key in asked.into_iter().chain(["software_primaryPurpose", "originatedBy"]) {
                    assert!(!package[key].is_null(), "{name}: {package} has no {key}");
                }
                for kind in ["hasDeclaredLicense", "hasConcludedLicense"] {
                    let relationships = elements(&document, "Relationship").into_iter();
                    let own = relationships.filter(|r| r["from"] == package["spdxId"] && r["relationshipType"] == kind);
                    let ends: Vec<usize> = own.map(|r| r["to"].as_array().unwrap().len()).collect();
                    assert_eq!(ends, [1], "{name}: {kind} of {}", package["name"]);
                }
            }
            for package in packages("ai_AIPackage") {
                assert_eq!(package["software_packageVersion"].as_str().map(str::len), Some(12));
            }
        }
    }

    #[test]
    fn edges_of_a_bundle() {
        let document = made("bard-release");
        let descent = [("bard-release", "bard-chat"), ("bard-chat", "bard")];
        assert_eq!(edges(&document, "descendantOf"), descent.map(|(from, to)| (from.to_string(), names(&[to]))));
        let trained: BTreeMap<String, Vec<String>> = edges(&document, "trainedOn").into_iter().collect();
        let sorted = |name: &str| {
            let mut found = trained[name].clone();
            found.sort();
            found
        };
        assert_eq!(sorted("bard"), names(&["letters", "plays"]));
        assert_eq!(sorted("bard-chat"), names(&["dialogues", "letters", "plays"]));
        assert_eq!(sorted("bard-release"), names(&["dialogues", "letters", "plays"]));
        assert_eq!(edges(&document, "testedOn"), [("bard-release".into(), names(&["questions"]))]);
        let files = edges(&document, "hasDataFile");
        assert!(files.contains(&("dialogues".into(), names(&["data/a.jsonl", "data/b.jsonl"]))), "{files:?}");
        assert_eq!(edges(&document, "contains")[0].1.len(), 5);
        let licenses = edges(&document, "hasDeclaredLicense");
        for (package, license) in [
            ("bard-release", "LicenseRef-OpenMDW-1.1"),
            ("plays", "CC-BY-4.0"),
            ("letters", "LicenseRef-House AND CC-BY-4.0"),
            ("dialogues", "MIT OR Apache-2.0"),
            ("questions", NO_LICENSE),
        ] {
            assert!(licenses.contains(&(package.into(), names(&[license]))), "{package}: {licenses:?}");
        }
    }

    #[test]
    fn contents_of_a_bundle() {
        let document = made("bard-release");
        let texts = elements(&document, "simplelicensing_SimpleLicensingText");
        let find = |name: &str| texts.iter().find(|text| text["name"] == name).unwrap();
        assert_eq!(find("LicenseRef-House")["simplelicensing_licenseText"], testing::HOUSE_TEXT);
        assert_eq!(texts.len(), 2);
        let package = elements(&document, "ai_AIPackage")[0];
        let entry = |key: &str, name: &str| {
            let entries = package[key].as_array().unwrap();
            entries.iter().find(|entry| entry["key"] == name).map(|entry| entry["value"].clone())
        };
        assert_eq!(entry("ai_hyperparameter", "model.layers"), Some(json!("4")));
        assert_eq!(entry("ai_hyperparameter", "betas"), Some(json!("[0.9,0.95]")));
        assert_eq!(entry("ai_metric", "quiz.exact_match"), Some(json!("0.5")));
        assert_eq!(entry("ai_metric", "parameters"), None);
        let plays = elements(&document, "dataset_DatasetPackage");
        let plays = plays.iter().find(|package| package["name"] == "plays").unwrap();
        assert_eq!(plays["software_downloadLocation"], "https://example.org/plays.txt");
        assert_eq!(plays["software_attributionText"], json!(["Cite us.", "Copyright 2015 Some Body"]));
        assert_eq!(elements(&document, "software_File")[0]["verifiedUsing"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn imported_models_and_data() {
        let document = made("elder-chat");
        assert_eq!(edges(&document, "descendantOf"), [("elder-chat".into(), names(&["elder"]))]);
        let elder = elements(&document, "ai_AIPackage")[1];
        assert_eq!(elder["software_downloadLocation"], "https://huggingface.co/example/elder");
        assert_eq!(elder["ai_informationAboutTraining"], "Trained elsewhere; how is not recorded.");
        let document = made("texts");
        assert!(elements(&document, "ai_AIPackage").is_empty());
        let generated: Vec<String> = edges(&document, "generates").into_iter().map(|(from, _)| from).collect();
        assert_eq!(generated, ["plays", "letters"]);
        let document = made("questions");
        let unknown = "whoever made questions (not stated)";
        assert_eq!(elements(&document, "Agent")[0]["name"], unknown);
        assert_eq!(
            elements(&document, "dataset_DatasetPackage")[0]["originatedBy"],
            json!([elements(&document, "Agent")[0]["spdxId"]])
        );
        assert_eq!(edges(&document, "hasDeclaredLicense"), [("questions".into(), names(&[NO_LICENSE]))]);
    }
}
