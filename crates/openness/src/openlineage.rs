//! Events of OpenLineage: that a step began or ended, from what it worked, and what it made.
//!
//! It sends nothing anywhere and keeps no state. What a step yields is known only at its end, so an event of a
//! beginning has no output. Producer and the two facets of our own are named by URNs: there is no page behind them.
//!
//! Source: OpenLineage specification 2-0-2; standard facets in the versions of OpenLineage's Python client 1.54.

use narthex_base::{Digest, License, Manifest};
use serde_json::{Value, json};

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const PRODUCER: &str = concat!("urn:narthex:", env!("CARGO_PKG_VERSION"));

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// The run begins.
    Start,
    /// It has made its artifact.
    Complete,
    /// The run failed.
    Fail,
    /// Somebody stopped it.
    Abort,
}

impl RunState {
    /// The name in an event.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Start => "START",
            RunState::Complete => "COMPLETE",
            RunState::Fail => "FAIL",
            RunState::Abort => "ABORT",
        }
    }
}

/// An artifact that a step reads or writes.
#[derive(Clone, Copy, Debug)]
pub struct Dataset<'a> {
    /// The name it goes by.
    pub name: &'a str,
    /// What it is.
    pub manifest: &'a Manifest,
    /// The artifact's identity.
    pub digest: Digest,
}

/// One run of a step.
#[derive(Clone, Copy, Debug)]
pub struct RunOf<'a> {
    /// The same in all events of the run; see [`run_id`].
    pub run_id: &'a str,
    /// The project's name.
    pub project: &'a str,
    /// The step's name.
    pub step: &'a str,
    /// The step's kind.
    pub kind: &'a str,
    /// What it reads.
    pub inputs: &'a [Dataset<'a>],
    /// What it made, at the end.
    pub output: Option<Dataset<'a>>,
    /// Why it failed.
    pub error: Option<&'a str>,
}

/// A UUID of version 7 (RFC 9562) for a run: the time, then digits that depend on time and digest alone. What runs
/// later sorts later.
pub fn run_id(digest: Digest, at_ms: u64) -> String {
    let time = format!("{:012x}", at_ms & 0xffff_ffff_ffff);
    let rest = Digest::of_json(&(digest, at_ms)).to_string();
    // The variant is `10` in binary, in front of the 9th byte's other bits.
    let variant = u8::from_str_radix(&rest[3..4], 16).unwrap_or_default() & 3 | 8;
    format!("{}-{}-7{}-{variant:x}{}-{}", &time[..8], &time[8..], &rest[..3], &rest[4..7], &rest[7..19])
}

/// The event that a run has come this far, at a time in milliseconds since 1970.
pub fn openlineage_event(state: RunState, at_ms: u64, run: &RunOf) -> Value {
    let namespace = format!("narthex://{}", run.project);
    let time = i64::try_from(at_ms).ok().and_then(chrono::DateTime::from_timestamp_millis).unwrap_or_default();
    let inputs: Vec<Value> = run.inputs.iter().map(|input| dataset(&namespace, input)).collect();
    let outputs: Vec<Value> = run.output.iter().map(|output| written(&namespace, output)).collect();
    json!({
        "eventType": state.name(),
        // Milliseconds, for a step may begin and end within a second.
        "eventTime": time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": run.run_id, "facets": run_facets(run)},
        "job": {"namespace": namespace, "name": run.step, "facets": job_facets(run)},
        "inputs": inputs,
        "outputs": outputs,
    })
}

fn run_facets(run: &RunOf) -> Value {
    let engine = json!({"version": env!("CARGO_PKG_VERSION"), "name": "narthex"});
    let mut facets = json!({"processing_engine": standard("1-1-1", "ProcessingEngineRunFacet", engine)});
    if let Some(error) = run.error {
        let message = json!({"message": error, "programmingLanguage": "RUST"});
        facets["errorMessage"] = standard("1-0-1", "ErrorMessageRunFacet", message);
    }
    facets
}

fn job_facets(run: &RunOf) -> Value {
    let kind = json!({"processingType": "BATCH", "integration": "NARTHEX", "jobType": run.kind.to_uppercase()});
    let told = format!("Step `{}` of the project {}: {}.", run.step, run.project, run.kind);
    json!({
        "jobType": standard("2-0-4", "JobTypeJobFacet", kind),
        "documentation": standard("1-1-0", "DocumentationJobFacet", json!({"description": told})),
    })
}

fn dataset(namespace: &str, dataset: &Dataset) -> Value {
    let manifest = dataset.manifest;
    let version = json!({"datasetVersion": dataset.digest.to_string()});
    let told = format!("{} `{}`, {} files.", manifest.kind, dataset.name, manifest.files.len());
    let digest = json!({"algorithm": "blake3", "value": dataset.digest.to_string(), "kind": manifest.kind});
    json!({
        "namespace": namespace,
        "name": dataset.name,
        "facets": {
            "version": standard("1-0-1", "DatasetVersionDatasetFacet", version),
            "documentation": standard("1-1-0", "DocumentationDatasetFacet", json!({"description": told})),
            "narthex_digest": own("NarthexDigestDatasetFacet", digest),
            "narthex_license": own("NarthexLicenseDatasetFacet", license(manifest)),
        },
    })
}

fn written(namespace: &str, output: &Dataset) -> Value {
    let mut made = dataset(namespace, output);
    let manifest = output.manifest;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let mut counts = json!({"size": bytes, "fileCount": manifest.files.len()});
    if let Some(documents) = manifest.figures.get("documents") {
        counts["rowCount"] = json!(*documents as u64);
    }
    let facet = standard("1-0-2", "OutputStatisticsOutputDatasetFacet", counts);
    made["outputFacets"] = json!({"outputStatistics": facet});
    made
}

/// The licence of an artifact's own components together, and that of each component, inherited ones too; `expression`
/// is absent where none is declared.
fn license(manifest: &Manifest) -> Value {
    let with = |mut made: Value, license: Option<&License>| {
        if let Some(license) = license {
            made["expression"] = json!(license);
        }
        made
    };
    let components = manifest.components.iter().map(|component| {
        let made = json!({"name": component.name, "kind": component.kind, "inherited": !component.is_own()});
        with(made, component.license.as_ref())
    });
    let components: Vec<Value> = components.collect();
    with(json!({"components": components}), manifest.license().as_ref())
}

/// A facet that OpenLineage defines.
fn standard(version: &str, name: &str, fields: Value) -> Value {
    facet(&format!("https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"), fields)
}

/// A facet of our own.
fn own(name: &str, fields: Value) -> Value {
    facet(&format!("urn:narthex:facets:1-0-0#/$defs/{name}"), fields)
}

fn facet(schema: &str, fields: Value) -> Value {
    let mut made = json!({"_producer": PRODUCER, "_schemaURL": schema});
    if let (Some(made), Value::Object(fields)) = (made.as_object_mut(), fields) {
        made.extend(fields);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{self, CREATED_MS, complaints, values_of};
    use narthex_base::Provenance;

    fn inputs(provenance: &Provenance) -> Vec<Dataset<'_>> {
        let known = |digest| provenance.find(digest).unwrap();
        let parents = provenance.manifest.parents.iter();
        parents.map(|p| Dataset { name: &p.name, manifest: known(p.digest), digest: p.digest }).collect()
    }

    fn event(state: RunState, provenance: &Provenance) -> Value {
        let digest = provenance.manifest.digest();
        let (run_id, inputs) = (run_id(digest, CREATED_MS), inputs(provenance));
        let output = Dataset { name: "out", manifest: &provenance.manifest, digest };
        let run = RunOf {
            run_id: &run_id,
            project: "Bard & friends",
            step: &provenance.manifest.recipe.step,
            kind: &provenance.manifest.recipe.kind,
            inputs: &inputs,
            output: (state == RunState::Complete).then_some(output),
            error: (state == RunState::Fail).then_some("the disk is full"),
        };
        openlineage_event(state, CREATED_MS, &run)
    }

    #[test]
    fn follows_the_schema() {
        let validator = testing::validator("OpenLineage-2-0-2.json", &[]);
        for (name, provenance) in testing::all() {
            for state in [RunState::Start, RunState::Complete, RunState::Fail, RunState::Abort] {
                let made = event(state, &provenance);
                assert_eq!(complaints(&validator, &made), Vec::<String>::new(), "{name} {state:?}");
                assert_eq!(made, event(state, &provenance));
            }
        }
    }

    #[test]
    fn the_schema_finds_what_is_broken() {
        let validator = testing::validator("OpenLineage-2-0-2.json", &[]);
        let made = event(RunState::Complete, &testing::bundle());
        let breaks: [(&str, Value); 6] = [
            ("/run/runId", json!("one")),
            ("/eventTime", json!("2026-11-26")),
            ("/producer", json!("no uri")),
            ("/eventType", json!("DONE")),
            ("/inputs/0/facets/narthex_license", json!({"expression": "MIT"})),
            ("/job", json!({"name": "x"})),
        ];
        for (place, value) in breaks {
            let mut broken = made.clone();
            *broken.pointer_mut(place).unwrap() = value;
            assert!(!complaints(&validator, &broken).is_empty(), "{place}");
        }
    }

    #[test]
    fn says_what_was_read_and_made() {
        let provenance = testing::bundle();
        let made = event(RunState::Complete, &provenance);
        assert_eq!(made["eventTime"], "2026-11-26T08:00:00.123Z");
        assert_eq!(made["job"]["namespace"], "narthex://Bard & friends");
        assert_eq!(made["job"]["facets"]["jobType"]["jobType"], "BUNDLE");
        let names: Vec<&Value> = made["inputs"].as_array().unwrap().iter().map(|input| &input["name"]).collect();
        assert_eq!(names, ["bard-chat", "quiz"]);
        let output = &made["outputs"][0];
        assert_eq!(output["facets"]["version"]["datasetVersion"], provenance.manifest.digest().to_string());
        assert_eq!(output["facets"]["narthex_digest"]["value"], provenance.manifest.digest().to_string());
        let license = &output["facets"]["narthex_license"];
        assert_eq!(license["expression"], "LicenseRef-OpenMDW-1.1");
        let undeclared = license["components"].as_array().unwrap().iter().find(|c| c["name"] == "questions").unwrap();
        assert_eq!(undeclared, &json!({"name": "questions", "kind": "evaluation-data", "inherited": true}));
        assert_eq!(output["outputFacets"]["outputStatistics"]["size"], 5000);
        assert_eq!(event(RunState::Start, &provenance)["outputs"], json!([]));
        assert!(values_of(&made, "errorMessage").is_empty());
        let failed = event(RunState::Fail, &provenance);
        assert_eq!(failed["run"]["facets"]["errorMessage"]["message"], "the disk is full");
    }

    #[test]
    fn runs_have_identifiers_in_order() {
        let digest = Digest::of(b"key");
        let first = run_id(digest, 0x0193_675a_7d5e);
        assert!(first.starts_with("0193675a-7d5e-7"), "{first}");
        assert_eq!(first.len(), 36);
        assert!("89ab".contains(&first[19..20]), "{first}");
        assert!(first < run_id(digest, 0x0193_675a_7d5f));
        assert_ne!(first, run_id(Digest::of(b"other"), 0x0193_675a_7d5e));
        assert_eq!(first, run_id(digest, 0x0193_675a_7d5e));
    }
}
