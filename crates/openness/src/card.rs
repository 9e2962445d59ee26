//! The metadata on top of Hugging Face's model and dataset cards, as values that any YAML writer can print.
//!
//! It does not know languages, nor which repositories on the Hub hold what the artifact was made from, unless an origin
//! names an address there: other names are left out, for the Hub would link them to whatever bears them.
//!
//! Source: Hugging Face Hub documentation, "Model Cards", "Dataset Cards" and "Licenses".

use crate::subject::{Subject, measures, split_measure, stated};
use narthex_base::{ComponentKind, License, license};
use serde_json::{Value, json};

/// The single licences that the Hub knows by a name of its own or by SPDX's in lower case.
const HUB_LICENSES: [&str; 59] = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "bsl-1.0",
    "c-uda",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "cdla-sharing-1.0",
    "ecl-2.0",
    "epl-1.0",
    "epl-2.0",
    "etalab-2.0",
    "eupl-1.1",
    "eupl-1.2",
    "gfdl",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl-2.1",
    "lgpl-3.0",
    "lgpl-lr",
    "lppl-1.3c",
    "mit",
    "mpl-2.0",
    "ms-pl",
    "ncsa",
    "odbl",
    "odc-by",
    "ofl-1.1",
    "openmdw-1.0",
    "openmdw-1.1",
    "osl-3.0",
    "pddl",
    "postgresql",
    "unlicense",
    "wtfpl",
    "zlib",
    "llama2",
    "gemma",
];

/// The identifier that Hugging Face knows a licence by, or `other`.
pub fn hub_license(license: &License) -> String {
    let lower = license.as_str().to_lowercase();
    let name = match lower.as_str() {
        "licenseref-openmdw-1.1" => "openmdw-1.1",
        "c-uda-1.0" => "c-uda",
        "odbl-1.0" => "odbl",
        "odc-by-1.0" => "odc-by",
        "pddl-1.0" => "pddl",
        "lgpllr" => "lgpl-lr",
        lower if lower.starts_with("gfdl-1.") && !lower.contains(' ') => "gfdl",
        lower if lower.starts_with("licenseref-") => "other",
        // The Hub does not tell `only` from `or later`.
        lower => lower.trim_end_matches("-only").trim_end_matches("-or-later"),
    };
    if HUB_LICENSES.contains(&name) { name.into() } else { "other".into() }
}

/// The address of the text of a licence; absent for a text of somebody's own.
pub(crate) fn license_address(id: &str) -> Option<String> {
    match id {
        "LicenseRef-OpenMDW-1.1" => Some("https://openmdw.ai/license/1-1/".into()),
        _ if id.contains("LicenseRef-") || license::text_of(id).is_none() => None,
        _ => Some(format!("https://spdx.org/licenses/{id}")),
    }
}

/// The metadata of a model's card.
pub fn model_card_metadata(subject: &Subject) -> Value {
    let mut card = json!({});
    set_license(&mut card, subject);
    card["library_name"] = json!("transformers");
    let (task, _) = subject.task();
    card["pipeline_tag"] = json!(task);
    let mut tags: Vec<String> =
        subject.family.filter(|_| task == "text-generation").map(str::to_string).into_iter().collect();
    tags.push("narthex".into());
    tags.extend(subject.class.map(|class| format!("mof-class-{class}")));
    card["tags"] = json!(tags);
    let trained_on = subject.datasets().filter(|component| component.kind == ComponentKind::Datasets);
    let mut datasets: Vec<String> =
        trained_on.filter_map(|c| hub_name(c.url()?, "https://huggingface.co/datasets/")).collect();
    datasets.sort();
    datasets.dedup();
    if !datasets.is_empty() {
        card["datasets"] = json!(datasets);
    }
    if let Some(base) = base_model(subject) {
        card["base_model"] = json!(base);
        card["base_model_relation"] = json!("finetune");
    }
    let results = results(subject);
    if !results.is_empty() {
        card["model-index"] = json!([{"name": subject.name, "results": results}]);
    }
    card
}

/// The metadata of a dataset's card.
pub fn dataset_card_metadata(subject: &Subject) -> Value {
    let manifest = subject.manifest();
    let mut card = json!({});
    set_license(&mut card, subject);
    card["pretty_name"] = json!(subject.name);
    card["task_categories"] = json!([subject.task().0]);
    if let Some(documents) = manifest.figures.get("documents") {
        card["size_categories"] = json!([size_category(*documents)]);
    }
    card["tags"] = json!(["narthex"]);
    let splits = ["train", "validation"].into_iter().filter_map(|split| {
        let file = manifest.files.iter().find(|file| file_is_of_split(&file.path, split))?;
        Some(json!({"split": split, "path": file.path}))
    });
    let splits: Vec<Value> = splits.collect();
    if !splits.is_empty() {
        card["configs"] = json!([{"config_name": "default", "data_files": splits}]);
    }
    card
}

/// Whether a file is one that the Hub can show as the part of this name.
fn file_is_of_split(path: &str, split: &str) -> bool {
    ["parquet", "jsonl", "csv", "txt"].iter().any(|end| path == format!("{split}.{end}"))
}

/// The licence with its name and place where the Hub has no identifier for it.
fn set_license(card: &mut Value, subject: &Subject) {
    let license = subject.manifest().model_license();
    let Some(license) = stated(license.as_ref()) else {
        card["license"] = json!("unknown");
        return;
    };
    let name = hub_license(license);
    card["license"] = json!(name);
    if name == "other" {
        card["license_name"] = json!(license.as_str().to_lowercase().replace("licenseref-", ""));
        let has_file = subject.manifest().file("LICENSE").is_some();
        let address = license_address(license.as_str()).filter(|_| !has_file);
        card["license_link"] = json!(address.unwrap_or_else(|| "LICENSE".into()));
    }
}

/// `OWNER/NAME` of an address on the Hub below a prefix.
fn hub_name(url: &str, prefix: &str) -> Option<String> {
    let path = url.strip_prefix(prefix)?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (owner, name) = (parts.next()?, parts.next()?);
    let is_reserved = ["datasets", "spaces", "docs", "papers", "blog", "collections"].contains(&owner);
    (!is_reserved).then(|| format!("{owner}/{name}"))
}

/// The nearest model before this one that lies on the Hub.
fn base_model(subject: &Subject) -> Option<String> {
    subject.ancestor_models().iter().find_map(|ancestor| {
        let own = ancestor.manifest?.components.iter().filter(|component| component.is_own());
        own.filter_map(|component| component.url()).find_map(|url| hub_name(url, "https://huggingface.co/"))
    })
}

/// The figures that measure the model, each with what it was measured on.
fn results(subject: &Subject) -> Vec<Value> {
    let (task, words) = subject.task();
    let result = |(name, value): (&str, f64)| {
        let (on, figure) = split_measure(name);
        let on = on.unwrap_or("evaluation");
        json!({
            "task": {"type": task, "name": words},
            "dataset": {"type": on, "name": on},
            "metrics": [{"type": figure, "name": figure.replace('_', " "), "value": value}],
        })
    };
    measures(&subject.manifest().figures).map(result).collect()
}

/// The Hub's name for a number of rows.
fn size_category(rows: f64) -> &'static str {
    const NAMES: [&str; 10] = [
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "100K<n<1M",
        "1M<n<10M",
        "10M<n<100M",
        "100M<n<1B",
        "1B<n<10B",
        "10B<n<100B",
        "100B<n<1T",
    ];
    let above = (0..NAMES.len() - 1).take_while(|power| rows >= 1e3 * 10f64.powi(*power as i32)).count();
    if rows >= 1e12 { "n>1T" } else { NAMES[above] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing;

    #[test]
    fn licences_as_the_hub_knows_them() {
        for (license, expected) in [
            ("OpenMDW-1.1", "openmdw-1.1"),
            ("OpenMDW-1.0", "openmdw-1.0"),
            ("MIT", "mit"),
            ("Apache-2.0 OR MIT", "other"),
            ("Zlib", "zlib"),
            ("GPL-3.0-or-later", "gpl-3.0"),
            ("LGPL-2.1-only", "lgpl-2.1"),
            ("GPL-1.0-only", "other"),
            ("ODbL-1.0", "odbl"),
            ("ODC-By-1.0", "odc-by"),
            ("GFDL-1.3-only", "gfdl"),
            ("LicenseRef-mit", "other"),
            ("Multics", "other"),
        ] {
            assert_eq!(hub_license(&License::parse(license).unwrap()), expected, "{license}");
        }
    }

    #[test]
    fn addresses_of_licences() {
        for (id, expected) in [
            ("CC-BY-4.0", Some("https://spdx.org/licenses/CC-BY-4.0")),
            ("LicenseRef-OpenMDW-1.1", Some("https://openmdw.ai/license/1-1/")),
            ("LicenseRef-House", None),
            ("MIT OR Apache-2.0", None),
        ] {
            assert_eq!(license_address(id).as_deref(), expected, "{id}");
        }
    }

    #[test]
    fn card_of_a_bundle() {
        let provenance = testing::bundle();
        let card = model_card_metadata(&testing::subject("bard-release", &provenance));
        assert_eq!(
            card,
            json!({
                "license": "openmdw-1.1",
                "library_name": "transformers",
                "pipeline_tag": "text-generation",
                "tags": ["llama", "narthex", "mof-class-2"],
                "datasets": ["example/dialogues"],
                "model-index": [{"name": "bard-release", "results": [
                    {
                        "task": {"type": "text-generation", "name": "Text generation"},
                        "dataset": {"type": "quiz", "name": "quiz"},
                        "metrics": [{"type": "exact_match", "name": "exact match", "value": 0.5}],
                    },
                    {
                        "task": {"type": "text-generation", "name": "Text generation"},
                        "dataset": {"type": "validation", "name": "validation"},
                        "metrics": [{"type": "nats_per_byte", "name": "nats per byte", "value": 1.25}],
                    },
                ]}],
            })
        );
    }

    #[test]
    fn card_of_a_model_tuned_from_an_imported_one() {
        let mut provenance = testing::tuned_import();
        let card = model_card_metadata(&testing::subject("elder-chat", &provenance));
        assert_eq!(card["base_model"], "example/elder");
        assert_eq!(card["base_model_relation"], "finetune");
        // Without an address on the Hub there is nothing to link to.
        provenance.lineage.iter_mut().for_each(|manifest| manifest.components[0].origin = Some("a friend".into()));
        assert!(model_card_metadata(&testing::subject("elder-chat", &provenance))["base_model"].is_null());
    }

    #[test]
    fn other_licences_have_a_name_and_a_place() {
        let mut provenance = testing::bundle();
        provenance.manifest.components.iter_mut().for_each(|c| c.license = Some(License::parse("Multics").unwrap()));
        let card = model_card_metadata(&testing::subject("bard-release", &provenance));
        assert_eq!((&card["license"], &card["license_name"]), (&json!("other"), &json!("multics")));
        assert_eq!(card["license_link"], "LICENSE");
        provenance.manifest.files.clear();
        let card = model_card_metadata(&testing::subject("bard-release", &provenance));
        assert_eq!(card["license_link"], "https://spdx.org/licenses/Multics");
        provenance.manifest.components.iter_mut().for_each(|c| c.license = None);
        assert_eq!(model_card_metadata(&testing::subject("bard-release", &provenance))["license"], "unknown");
    }

    #[test]
    fn card_of_documents() {
        let provenance = testing::documents_of_two();
        let card = dataset_card_metadata(&testing::subject("texts", &provenance));
        assert_eq!(card["license"], "other");
        assert_eq!(card["license_name"], "(cc-by-4.0) and (house and cc-by-4.0)");
        assert_eq!(card["pretty_name"], "texts");
        assert_eq!(card["task_categories"], json!(["text-generation"]));
        assert_eq!(card["size_categories"], json!(["1K<n<10K"]));
        let files =
            json!([{"split": "train", "path": "train.parquet"}, {"split": "validation", "path": "validation.parquet"}]);
        assert_eq!(card["configs"], json!([{"config_name": "default", "data_files": files}]));
    }

    #[test]
    fn sizes() {
        for (rows, expected) in [
            (0.0, "n<1K"),
            (999.0, "n<1K"),
            (1000.0, "1K<n<10K"),
            (99_999.0, "10K<n<100K"),
            (5e11, "100B<n<1T"),
            (1e12, "n>1T"),
        ] {
            assert_eq!(size_category(rows), expected, "{rows}");
        }
    }
}
