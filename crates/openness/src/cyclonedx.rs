//! A CycloneDX 1.6 bill of materials of an artifact: the model with its card, the files in it, the models before it and
//! the data.
//!
//! It does not know what the format has no place for: the licence of a part that declares none is left out (a property
//! says so), and the texts of licences inside a compound expression stand as evidence beside it. The hash of a
//! component that has a manifest is that of the manifest.
//!
//! Source: CycloneDX specification 1.6 (ECMA-424), JSON.

use crate::subject::{
    Ancestor, Subject, component_key, custom_texts, is_model, measures, media_type, notices, split_measure, stated,
    uuid,
};
use narthex_base::{ArtifactKind, Component, Digest, FileEntry, License, Manifest, config::Kind, license::Term};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Licences that our licence list has and that of CycloneDX 1.6 has not: these go as expressions.
const NOT_LISTED: [&str; 19] = [
    "BSD-2-Clause-pos-unchanged",
    "BSD-3-Clause-OpenWebUI",
    "BSD-Source-Code-no-disclaimer",
    "BSD-Source-alt-GPL",
    "BSD-ask-to-endorse",
    "Brian-Gladman-3-Clause-no-conversion",
    "Bugroff",
    "CC-BY-NC-3.0-IGO",
    "FDK-MPEG-H",
    "GFDL-1.1-invariants",
    "GFDL-1.1-no-invariants",
    "GFDL-1.2-invariants",
    "GFDL-1.2-no-invariants",
    "GFDL-1.3-invariants",
    "GFDL-1.3-no-invariants",
    "Hippocratic-3.0-core",
    "Informatica",
    "MVT-1.1",
    "atc-game",
];

/// The CycloneDX 1.6 bill of materials of an artifact.
pub fn cyclonedx(subject: &Subject) -> Value {
    let is_raw = subject.manifest().kind == ArtifactKind::Source;
    let data: Vec<&Component> = subject.datasets().filter(|_| !is_raw).collect();
    let components: Vec<Value> = data.iter().map(|component| dataset(subject, component)).collect();
    let references: Vec<String> = data.iter().map(|component| data_reference(component)).collect();
    let main = main_reference(subject);
    let leaves = references.iter().map(|reference| json!({"ref": reference}));
    let dependencies: Vec<Value> =
        std::iter::once(json!({"ref": main, "dependsOn": references})).chain(leaves).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(subject.digest())),
        "version": 1,
        "metadata": {
            "timestamp": subject.made_at(),
            "tools": {"components": [{"type": "application", "name": "narthex", "version": env!("CARGO_PKG_VERSION")}]},
            "component": main_component(subject),
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn main_reference(subject: &Subject) -> String {
    format!("artifact-{}", subject.digest().short())
}

fn data_reference(component: &Component) -> String {
    format!("data-{}", component_key(component))
}

/// The artifact itself, with its files, the models before it and its card.
fn main_component(subject: &Subject) -> Value {
    let manifest = subject.manifest();
    let reference = main_reference(subject);
    let kind = if subject.is_model() { "machine-learning-model" } else { "data" };
    let mut made = described(kind, &reference, subject.name, subject.digest());
    set(&mut made, "supplier", json!({"name": subject.project()}));
    set_rights(&mut made, manifest.components.iter().filter(|component| component.is_own()));
    let license = subject.license();
    set_license(&mut made, license.as_ref(), manifest.components.iter(), manifest);
    let files = manifest.files.iter().enumerate();
    let files: Vec<Value> = files.map(|(number, entry)| own_file(subject, entry, &reference, number)).collect();
    set(&mut made, "components", json!(files));
    let ancestors: Vec<Value> = subject.ancestor_models().iter().map(|ancestor| model_before(ancestor)).collect();
    if !ancestors.is_empty() {
        set(&mut made, "pedigree", json!({"ancestors": ancestors}));
    }
    if subject.is_model() {
        set(&mut made, "modelCard", model_card(subject));
    } else {
        set(&mut made, "data", json!([{"type": "dataset", "name": subject.name}]));
        let own = manifest.components.iter().filter(|component| component.is_own());
        let urls: Vec<&str> = own.filter_map(Component::url).collect();
        if let ([url], ArtifactKind::Source) = (urls.as_slice(), manifest.kind) {
            set(&mut made, "externalReferences", json!([{"type": "distribution", "url": url}]));
        }
    }
    add_property(&mut made, "narthex:digest", &subject.digest().to_string());
    add_property(&mut made, "narthex:kind", &manifest.kind.to_string());
    if let Some(class) = subject.class {
        add_property(&mut made, "narthex:mof-class", &class.to_string());
    }
    made
}

/// A component that is known by its manifest.
fn described(kind: &str, reference: &str, name: &str, digest: Digest) -> Value {
    json!({
        "type": kind,
        "bom-ref": reference,
        "name": name,
        "version": digest.short(),
        "hashes": [{"alg": "BLAKE3", "content": digest.to_string()}],
    })
}

fn file(subject: &Subject, entry: &FileEntry, owner: &str, number: usize) -> Value {
    let mut hashes = vec![json!({"alg": "BLAKE3", "content": entry.digest.to_string()})];
    hashes.extend((subject.sha256)(entry).map(|digits| json!({"alg": "SHA-256", "content": digits})));
    json!({
        "type": "file",
        "bom-ref": format!("{owner}/file-{}", number + 1),
        "name": entry.path,
        "mime-type": media_type(&entry.path),
        "hashes": hashes,
    })
}

/// A file of the artifact with the licence of the component that names it.
fn own_file(subject: &Subject, entry: &FileEntry, owner: &str, number: usize) -> Value {
    let mut made = file(subject, entry, owner, number);
    let naming: Vec<&Component> =
        subject.components().iter().filter(|component| component.paths.contains(&entry.path)).collect();
    // Where several components share the file, the artifact's licence says how.
    if let [component] = naming.as_slice() {
        set_license(&mut made, component.license.as_ref(), [*component], subject.manifest());
    }
    made
}

/// A model that the artifact descends from.
fn model_before(ancestor: &Ancestor) -> Value {
    let reference = format!("model-{}", ancestor.digest.short());
    let mut made = described("machine-learning-model", &reference, ancestor.name, ancestor.digest);
    if let Some(manifest) = ancestor.manifest {
        let own = || manifest.components.iter().filter(|component| component.is_own());
        set_rights(&mut made, own());
        set_license(&mut made, manifest.license().as_ref(), own(), manifest);
        if let Some(url) = own().find_map(Component::url) {
            set(&mut made, "externalReferences", json!([{"type": "distribution", "url": url}]));
        }
    }
    made
}

/// The data that a component stands for, with its files where they are known.
fn dataset(subject: &Subject, component: &Component) -> Value {
    let reference = data_reference(component);
    let sources = subject.sources_of(component);
    let mut made = json!({"type": "data", "bom-ref": reference, "name": component.name});
    if let Some(source) = sources.first() {
        made = described("data", &reference, &component.name, source.digest());
    }
    if let Some(origin) = &component.origin {
        set(&mut made, "description", json!(origin));
    }
    set_rights(&mut made, [component]);
    set_license(&mut made, component.license.as_ref(), [component], subject.manifest());
    let mut contents = json!({"properties": [{"name": "narthex:kind", "value": component.kind.slug()}]});
    if let Some(url) = component.url() {
        set(&mut made, "externalReferences", json!([{"type": "distribution", "url": url}]));
        set(&mut contents, "url", json!(url));
    }
    let content = json!({"type": "dataset", "bom-ref": format!("{reference}/contents"), "name": component.name, "contents": contents});
    set(&mut made, "data", json!([content]));
    let entries = sources.iter().flat_map(|source| &source.files).enumerate();
    let files: Vec<Value> = entries.map(|(number, entry)| file(subject, entry, &reference, number)).collect();
    if !files.is_empty() {
        set(&mut made, "components", json!(files));
    }
    made
}

/// What the format asks of a model: how it learned, from what, and how well.
fn model_card(subject: &Subject) -> Value {
    let references: Vec<Value> =
        subject.datasets().map(|component| json!({"ref": data_reference(component)})).collect();
    let mut parameters = json!({
        "task": subject.task().0,
        "architectureFamily": "transformer",
        "datasets": references,
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    });
    let trained = subject.trained();
    let learning = Kind::named(&trained.recipe.kind).and_then(|kind| kind.learning);
    if let Some(learning) = learning.filter(|_| is_model(trained)) {
        set(&mut parameters, "approach", json!({"type": learning.name()}));
    }
    let metrics: Vec<Value> = measures(&subject.manifest().figures).map(metric).collect();
    let mut card = json!({"bom-ref": format!("{}/card", main_reference(subject)), "modelParameters": parameters});
    if !metrics.is_empty() {
        set(&mut card, "quantitativeAnalysis", json!({"performanceMetrics": metrics}));
    }
    card
}

fn metric((name, value): (&str, f64)) -> Value {
    let (on, figure) = split_measure(name);
    let mut made = json!({"type": figure, "value": value.to_string()});
    if let Some(on) = on {
        set(&mut made, "slice", json!(on));
    }
    made
}

/// Sets the licence: an identifier, a name with its text, or an expression.
fn set_license<'m>(
    made: &mut Value,
    license: Option<&License>,
    components: impl IntoIterator<Item = &'m Component>,
    manifest: &'m Manifest,
) {
    let Some(license) = stated(license) else { return add_property(made, "narthex:license", "undeclared") };
    let texts = custom_texts(license, components, manifest);
    let expression = license.as_str();
    let is_one = license.ids() == [expression];
    let is_listed = !Term::Unknown.applies(expression) && !expression.ends_with('+');
    let choice = match texts.get(expression) {
        Some(text) if is_one => json!({"license": named(expression, text)}),
        None if is_one && is_listed && !NOT_LISTED.contains(&expression) => {
            json!({"license": {"id": expression, "acknowledgement": "declared"}})
        }
        _ => {
            if !texts.is_empty() {
                set(made, "evidence", json!({"licenses": evidence(&texts)}));
            }
            json!({"expression": expression, "acknowledgement": "declared"})
        }
    };
    set(made, "licenses", json!([choice]));
}

fn named(id: &str, text: &str) -> Value {
    json!({"name": id, "acknowledgement": "declared", "text": {"contentType": "text/plain", "content": text}})
}

fn evidence(texts: &BTreeMap<String, &str>) -> Vec<Value> {
    texts.iter().map(|(id, text)| json!({"license": named(id, text)})).collect()
}

fn set_rights<'m>(made: &mut Value, components: impl IntoIterator<Item = &'m Component>) {
    let notices = notices(components);
    if !notices.is_empty() {
        set(made, "copyright", json!(notices.join("\n")));
    }
}

fn add_property(made: &mut Value, name: &str, value: &str) {
    let property = json!({"name": name, "value": value});
    match made.get_mut("properties").and_then(Value::as_array_mut) {
        Some(properties) => properties.push(property),
        None => set(made, "properties", json!([property])),
    }
}

/// Sets a field of an object.
fn set(object: &mut Value, key: &str, value: Value) {
    object[key] = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{self, complaints, values_of};
    use std::collections::BTreeSet;

    fn validator() -> testing::Validator {
        let referred = [
            ("http://cyclonedx.org/schema/spdx.schema.json", "spdx.schema.json"),
            ("http://cyclonedx.org/schema/jsf-0.82.schema.json", "jsf-0.82.schema.json"),
        ];
        testing::validator("bom-1.6.schema.json", &referred)
    }

    fn made(name: &str) -> Value {
        let (name, provenance) = testing::all().into_iter().find(|(known, _)| *known == name).unwrap();
        cyclonedx(&testing::subject(name, &provenance))
    }

    fn component<'v>(document: &'v Value, name: &str) -> &'v Value {
        document["components"].as_array().unwrap().iter().find(|component| component["name"] == name).unwrap()
    }

    #[test]
    fn follows_the_schema() {
        let validator = validator();
        for (name, provenance) in testing::all() {
            let document = cyclonedx(&testing::subject(name, &provenance));
            assert_eq!(complaints(&validator, &document), Vec::<String>::new(), "{name}");
            assert_eq!(document, cyclonedx(&testing::subject(name, &provenance)), "{name}");
        }
    }

    #[test]
    fn the_schema_finds_what_is_broken() {
        let validator = validator();
        let document = made("bard-release");
        let breaks: [(&str, Value); 5] = [
            ("/serialNumber", json!("urn:uuid:1")),
            ("/metadata/timestamp", json!("yesterday")),
            ("/metadata/component/licenses/0/license", json!({"id": "LicenseRef-OpenMDW-1.1"})),
            ("/metadata/component/modelCard/quantitativeAnalysis/performanceMetrics/0/value", json!(0.5)),
            ("/metadata/component/components/0/hashes/0/content", json!("12")),
        ];
        for (place, value) in breaks {
            let mut broken = document.clone();
            *broken.pointer_mut(place).unwrap() = value;
            assert!(!complaints(&validator, &broken).is_empty(), "{place}");
        }
    }

    #[test]
    fn no_reference_dangles() {
        for (name, _) in testing::all() {
            let document = made(name);
            let references: Vec<&str> = values_of(&document, "bom-ref").into_iter().filter_map(Value::as_str).collect();
            let unique: BTreeSet<&str> = references.iter().copied().collect();
            assert_eq!(references.len(), unique.len(), "{name}: a reference stands twice");
            for reference in values_of(&document, "ref") {
                assert!(unique.contains(reference.as_str().unwrap()), "{name}: {reference}");
            }
            for reference in values_of(&document, "dependsOn").into_iter().flat_map(|list| list.as_array().unwrap()) {
                assert!(unique.contains(reference.as_str().unwrap()), "{name}: {reference}");
            }
        }
    }

    #[test]
    fn licences_in_their_three_forms() {
        let document = made("bard-release");
        let main = &document["metadata"]["component"]["licenses"][0]["license"];
        assert_eq!(main["name"], "LicenseRef-OpenMDW-1.1");
        assert!(main["text"]["content"].as_str().unwrap().contains("OpenMDW"));
        assert_eq!(component(&document, "plays")["licenses"][0]["license"]["id"], "CC-BY-4.0");
        assert_eq!(component(&document, "plays")["copyright"], "Cite us.\nCopyright 2015 Some Body");
        assert_eq!(component(&document, "dialogues")["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let letters = component(&document, "letters");
        assert_eq!(letters["licenses"][0]["expression"], "LicenseRef-House AND CC-BY-4.0");
        assert_eq!(letters["evidence"]["licenses"][0]["license"]["text"]["content"], testing::HOUSE_TEXT);
        let questions = component(&document, "questions");
        assert!(questions["licenses"].is_null());
        assert_eq!(questions["properties"][0], json!({"name": "narthex:license", "value": "undeclared"}));
    }

    #[test]
    fn what_is_not_listed_goes_as_an_expression() {
        let validator = validator();
        let mut document = made("bard-release");
        for id in NOT_LISTED {
            document["components"][0]["licenses"] = json!([{"license": {"id": id}}]);
            assert!(!complaints(&validator, &document).is_empty(), "{id} is listed");
            let license = License::parse(id).unwrap();
            let mut component = json!({});
            set_license(&mut component, Some(&license), [], &testing::bundle().manifest);
            assert_eq!(component["licenses"][0]["expression"], id);
        }
        for id in ["OpenMDW-1.0", "GPL-2.0-or-later", "CC0-1.0", "ODC-By-1.0"] {
            document["components"][0]["licenses"] = json!([{"license": {"id": id}}]);
            assert_eq!(complaints(&validator, &document), Vec::<String>::new(), "{id}");
        }
    }

    #[test]
    fn the_model_and_those_before_it() {
        let document = made("bard-release");
        let main = &document["metadata"]["component"];
        assert_eq!(main["type"], "machine-learning-model");
        let ancestors: Vec<&Value> =
            main["pedigree"]["ancestors"].as_array().unwrap().iter().map(|ancestor| &ancestor["name"]).collect();
        assert_eq!(ancestors, ["bard-chat", "bard"]);
        assert_eq!(main["modelCard"]["modelParameters"]["datasets"].as_array().unwrap().len(), 4);
        assert_eq!(main["modelCard"]["modelParameters"]["approach"]["type"], "supervised");
        let metrics = &main["modelCard"]["quantitativeAnalysis"]["performanceMetrics"];
        assert_eq!(metrics[0], json!({"type": "exact_match", "value": "0.5", "slice": "quiz"}));
        assert_eq!(metrics[1], json!({"type": "nats_per_byte", "value": "1.25", "slice": "validation"}));
        assert_eq!(main["components"].as_array().unwrap().len(), 5);
        let algorithms: Vec<&Value> = values_of(&main["components"], "alg");
        assert_eq!(algorithms[..2], ["BLAKE3", "SHA-256"]);
        assert_eq!(component(&document, "dialogues")["components"].as_array().unwrap().len(), 2);
        assert_eq!(made("texts")["metadata"]["component"]["type"], "data");
        assert!(made("texts")["metadata"]["component"]["modelCard"].is_null());
    }
}
