//! The tools that only read: what there is, what it is made of, what may be done with it, what would run. Knows the verbs
//! that stand behind them.

use super::{
    desk::{Desk, named, with_set},
    papers,
    verb::{About, Watch, verb},
};
use crate::commands::{
    config,
    data_show::{Part, seen},
    look, open_options,
    openness::{Document, LicenseFormat},
    recheck::{seed_of_clock, verified},
    run::{reported, watched},
};
use narthex_agent::{Effect, Tool};
use narthex_base::{ArtifactKind, Error, Observer, Result};
use narthex_run::{Project, RunOptions, look::Range};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Artifacts of a list, unless the caller says.
const LISTED: usize = 100;

/// Rows that are shown at most.
const ROWS_MAX: usize = 100;

/// Rows that are shown unless the caller says.
const ROWS: usize = 5;

/// Intervals of a training that are computed again unless the caller says.
const SAMPLES: u32 = 3;

#[derive(Deserialize, JsonSchema)]
struct List {
    /// Only artifacts of this kind.
    #[schemars(extend("enum" = ArtifactKind::ALL.map(ArtifactKind::name)))]
    kind: Option<String>,
    /// Also what names pointed to earlier.
    #[serde(default)]
    all: bool,
    /// So many at most, the newest first; 100 by default.
    #[schemars(range(min = 1, max = 1000))]
    count: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// The artifact: a name, `name@digest-prefix` for an earlier version, or a digest, as `list_artifacts` gives them.
    reference: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Report,
    Spdx,
    Cyclonedx,
    Mof,
    ModelCard,
    DatasetCard,
    Croissant,
}

#[derive(Deserialize, JsonSchema)]
struct Licence {
    /// The artifact: a name, `name@digest-prefix`, or a digest.
    reference: String,
    /// `report` by default; or a bill of materials (spdx, cyclonedx), a file of the Model Openness Tool (mof), metadata of
    /// a card (model_card, dataset_card) or Croissant.
    format: Option<Format>,
}

#[derive(Deserialize, JsonSchema)]
struct Ahead {
    /// Only this step and what it needs; all by default.
    to: Option<String>,
    /// Steps that would run even if their result is known.
    #[serde(default)]
    force: Vec<String>,
    /// Values that are set otherwise than in the project's file: `step.key=value`, such as `train.lr=3e-4`.
    #[serde(default)]
    set: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Memory {
    /// The step that trains.
    step: String,
    /// Processes on this machine; 1 by default.
    #[schemars(range(min = 1, max = 65_536))]
    ranks: Option<u32>,
    /// Values that are set otherwise than in the project's file.
    #[serde(default)]
    set: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PartOfData {
    Train,
    Validation,
}

#[derive(Deserialize, JsonSchema)]
struct Rows {
    /// A source of the project, or a `data` or `tokenize` step or artifact.
    reference: String,
    /// Documents in tokens, with what is learnt of them, of a `tokenize` step.
    #[serde(default)]
    tokens: bool,
    /// Which part of a step's data; `train` by default.
    part: Option<PartOfData>,
    /// The first row or document, counted from 1.
    #[schemars(range(min = 1))]
    first: Option<u64>,
    /// How many; 5 by default.
    #[schemars(range(min = 1, max = 100))]
    count: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Verify {
    /// A model or bundle: a name, `name@digest-prefix`, or a digest.
    reference: String,
    /// Intervals between checkpoints to compute again; 3 by default.
    #[schemars(range(min = 1, max = 1000))]
    samples: Option<u32>,
    /// Which intervals: a number that whoever trained could not know; the clock's by default.
    seed: Option<u64>,
}

/// The tools that only read.
pub fn tools(desk: &Arc<Desk>) -> Vec<Arc<dyn Tool>> {
    vec![
        verb(
            desk,
            About {
                name: "list_artifacts",
                description: "Lists the artifacts of this project's ledger (models, classifiers, data, tokens, \
                    evaluations, bundles, sources): name, kind, digest, size, licence, figures. Begin here to learn the names.",
                effect: Effect::Reads,
                gives: &[("artifacts", "array"), ("left_out", "integer")],
            },
            list,
        ),
        verb(
            desk,
            About {
                name: "show_artifact",
                description: "Shows one artifact: its manifest (files, parents, components, licences, recipe with all \
                    settings and the seed, figures such as the loss) and what its run measured.",
                effect: Effect::Reads,
                gives: &[("digest", "string"), ("manifest", "object"), ("run", "object")],
            },
            |desk, ask: Named, _| papers::artifact(desk, &ask.reference),
        ),
        verb(
            desk,
            About {
                name: "trace_lineage",
                description: "Shows what an artifact was made from, as a tree down to the raw files with their digests, \
                    origins and licences. Use it for where a model or its data comes from.",
                effect: Effect::Reads,
                gives: &[("name", "string"), ("kind", "string"), ("digest", "string"), ("parents", "array")],
            },
            |desk, ask: Named, _| papers::lineage(desk, &ask.reference),
        ),
        verb(
            desk,
            About {
                name: "license_report",
                description: "Says under which licences an artifact and everything in it stands, its class in the Model \
                    Openness Framework and what is missing for a better one, and what the project's policy says of \
                    training on it, passing it on and serving it. Also as SPDX, CycloneDX and other formats.",
                effect: Effect::Reads,
                gives: &[],
            },
            licence,
        ),
        verb(
            desk,
            About {
                name: "show_config",
                description: "Shows every value of the project's configuration with where it comes from (the file, a \
                    default, the environment). Fails with file, line and a fix if the project file is wrong: use it to \
                    check one after an edit.",
                effect: Effect::Reads,
                gives: &[("values", "array")],
            },
            |desk, _: Nothing, _| Ok(json!({"values": config::values(&desk.shelf().plan()?)})),
        ),
        verb(
            desk,
            About {
                name: "what_would_run",
                description: "Says which steps of the project would run and why, which are unchanged, and what those \
                    that train need at least in memory and time. Changes nothing. Use it before `run`.",
                effect: Effect::Reads,
                gives: &[("rows", "array"), ("seconds", "number")],
            },
            ahead,
        ),
        verb(
            desk,
            About {
                name: "plan_memory",
                description: "Says what memory the training of a step takes, for each way to spread it over processes \
                    and the disk, and which is the fastest that fits into this machine.",
                effect: Effect::Reads,
                gives: &[("step", "string"), ("settings", "array")],
            },
            memory,
        ),
        verb(
            desk,
            About {
                name: "show_data",
                description: "Shows rows of a source or of prepared data as they were understood, or documents in \
                    tokens with what is learnt of them. Of a source it also counts rows and names broken ones.",
                effect: Effect::Reads,
                gives: &[],
            },
            rows,
        ),
        verb(
            desk,
            About {
                name: "verify",
                description: "Computes randomly chosen parts of a model's training again and compares them with its \
                    checkpoints, byte for byte: whether the model is what its record says. Takes a share of the \
                    training's time.",
                effect: Effect::Reads,
                gives: &[("checked", "array"), ("intervals", "integer"), ("seed", "integer")],
            },
            verify,
        ),
    ]
}

fn list(desk: &Desk, ask: List, _: &Watch) -> Result<Value> {
    let mut listings = look::listings(desk.folder(), ask.kind.as_deref(), ask.all)?;
    let kept = listings.len().min(ask.count.unwrap_or(LISTED));
    let left_out = listings.split_off(kept).len();
    Ok(json!({"artifacts": listings, "left_out": left_out}))
}

fn licence(desk: &Desk, ask: Licence, _: &Watch) -> Result<Value> {
    let format = match ask.format.unwrap_or(Format::Report) {
        Format::Report => return papers::licence(desk, &ask.reference),
        Format::Spdx => LicenseFormat::Spdx,
        Format::Cyclonedx => LicenseFormat::Cyclonedx,
        Format::Mof => LicenseFormat::Mof,
        Format::ModelCard => LicenseFormat::ModelCard,
        Format::DatasetCard => LicenseFormat::DatasetCard,
        Format::Croissant => LicenseFormat::Croissant,
    };
    Ok(match papers::licence_document(desk, &ask.reference, format)? {
        Document::Json(value) => json!({"document": value}),
        Document::Yaml(text) => json!({"text": text}),
    })
}

fn ahead(desk: &Desk, ask: Ahead, watch: &Watch) -> Result<Value> {
    let project = Project::open(desk.folder(), &open_options(with_set(desk, &ask.set)?))?;
    let options = RunOptions { to: ask.to, force: ask.force, dry_run: true };
    let report = watched(&project, &options, None, &|event| watch.event(event, None), watch.interrupt())?;
    Ok(watch.with_warnings(reported(&report)))
}

fn memory(desk: &Desk, ask: Memory, _: &Watch) -> Result<Value> {
    let project = Project::open(desk.folder(), &open_options(with_set(desk, &ask.set)?))?;
    let plan = project.memory_plan(&ask.step, ask.ranks.unwrap_or(1) as usize)?;
    serde_json::to_value(plan).map_err(|error| Error::internal("no JSON").cause(error))
}

fn rows(desk: &Desk, ask: Rows, watch: &Watch) -> Result<Value> {
    let part = match ask.part.unwrap_or(PartOfData::Train) {
        PartOfData::Train => Part::Train,
        PartOfData::Validation => Part::Validation,
    };
    let first = usize::try_from(ask.first.unwrap_or(1).max(1) - 1).unwrap_or(usize::MAX);
    let range = Range { part: part.name(), first, count: ask.count.unwrap_or(ROWS).min(ROWS_MAX) };
    let seen = seen(desk.folder(), named(&ask.reference)?, ask.tokens, range, watch.interrupt())?;
    Ok(match seen {
        Value::Array(rows) if ask.tokens => json!({"documents": rows}),
        Value::Array(rows) => json!({"rows": rows}),
        source => source,
    })
}

fn verify(desk: &Desk, ask: Verify, watch: &Watch) -> Result<Value> {
    let (samples, seed) = (ask.samples.unwrap_or(SAMPLES), ask.seed.unwrap_or_else(seed_of_clock));
    let emit = |event| watch.event(event, None);
    let observer = Observer::new(&emit, watch.interrupt());
    let found = narthex_run::verify(desk.folder(), named(&ask.reference)?, samples as usize, seed, observer)?;
    Ok(watch.with_warnings(verified(&found, seed)?))
}
