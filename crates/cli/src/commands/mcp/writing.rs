//! The tools that make something: run steps, make an artifact again, quantize a model, copy an artifact out. They are
//! offered only where whoever started the server said so. Knows the verbs that stand behind them.

use super::{
    desk::{Desk, named, with_set},
    resources::address_of,
    verb::{About, Watch, verb},
};
use crate::commands::{
    base_options, open_options,
    run::{reported, watched},
};
use narthex_agent::{Effect, Tool};
use narthex_base::{Error, Event, Observer, Result, config::IntegerKind};
use narthex_mcp::Change;
use narthex_run::{Project, QuantizeOptions, ReproduceOptions, RowState, RunOptions, RunReport, quantizing, reproduce};
use narthex_shelf::{Purpose, root_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Weights that share a scale unless the caller says.
const GROUP: usize = 64;

#[derive(Deserialize, JsonSchema)]
struct Run {
    /// Only this step and what it needs; all by default.
    to: Option<String>,
    /// Steps to run even if their result is known.
    #[serde(default)]
    force: Vec<String>,
    /// Values that are set otherwise than in the project's file, for this run: `step.key=value`, such as
    /// `train.lr=3e-4`.
    #[serde(default)]
    set: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Reproduce {
    /// The artifact: a name, `name@digest-prefix`, or a digest.
    reference: String,
    /// Follow the recipe even where narthex.toml says something else by now.
    #[serde(default)]
    ignore_project_file: bool,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Integers {
    Int8,
    Int4,
}

#[derive(Deserialize, JsonSchema)]
struct Quantize {
    /// A model: a name, `name@digest-prefix`, or a digest.
    reference: String,
    /// What weights become: 8 bits, or 4 bits in groups.
    to: Integers,
    /// Weights that share a scale, with int4; 64 by default.
    group: Option<usize>,
    /// A `tokenize` step or artifact with text like that which the model will meet: it shows where errors count most, and
    /// what they cost.
    calibrate: Option<String>,
    /// What the artifact is called; the reference and the kind by default.
    name: Option<String>,
    /// Make it even if it is there.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Export {
    /// The artifact: a name, `name@digest-prefix`, or a digest.
    reference: String,
    /// A folder below the project's that is new or empty, such as `exports/base`.
    #[schemars(length(min = 1))]
    folder: String,
}

/// The tools that make something.
pub fn tools(desk: &Arc<Desk>) -> Vec<Arc<dyn Tool>> {
    vec![
        verb(
            desk,
            About {
                name: "run",
                description: "Makes everything in the project that is not made yet, or one step and what it needs: \
                    prepares data, trains, tunes, evaluates, bundles. May take hours; tells how far it is. Cancelled, it \
                    saves its work, and the same call goes on from there. Ask `what_would_run` first.",
                effect: Effect::Writes,
                gives: &[("rows", "array"), ("seconds", "number")],
            },
            run,
        ),
        verb(
            desk,
            About {
                name: "reproduce",
                description: "Makes an artifact again from its recipe, in a folder of its own, and compares every byte: \
                    proves that the record of the artifact is true. Takes as long as making it did.",
                effect: Effect::Writes,
                gives: &[("steps", "array"), ("digest", "string")],
            },
            again,
        ),
        verb(
            desk,
            About {
                name: "quantize",
                description: "Makes a model of another with its weights in 8 or 4 bits, and says what that costs.",
                effect: Effect::Writes,
                gives: &[("name", "string"), ("rows", "array")],
            },
            quantize,
        ),
        verb(
            desk,
            About {
                name: "export",
                description: "Copies an artifact with its papers (manifest, lineage, licence texts) into a folder below \
                    the project's, in the layout that other programs read.",
                effect: Effect::Writes,
                gives: &[("folder", "string"), ("files", "array")],
            },
            export,
        ),
    ]
}

fn run(desk: &Desk, ask: Run, watch: &Watch) -> Result<Value> {
    let project = Project::open(desk.folder(), &open_options(with_set(desk, &ask.set)?))?;
    let options = RunOptions { to: ask.to, force: ask.force, dry_run: false };
    let report = go(desk, &project, &options, watch)?;
    Ok(watch.with_warnings(reported(&report)))
}

/// Runs steps, and tells clients of what is new, of a run that failed half-way too.
fn go(desk: &Desk, project: &Project, options: &RunOptions, watch: &Watch) -> Result<RunReport> {
    let steps = match &options.to {
        Some(goal) => project.plan.steps_to(goal)?.len(),
        None => project.plan.steps.len(),
    };
    let lineage = std::env::var("OPENLINEAGE_URL").ok().filter(|to| !to.is_empty());
    let tell = |event: Event| {
        let made = match &event {
            Event::StepFinished { step, .. } => Some(step.clone()),
            _ => None,
        };
        watch.event(event, Some(steps as f64));
        if let Some(step) = made {
            desk.changes.tell(Change::Resource(address_of(&step)));
            desk.changes.tell(Change::Resources);
        }
    };
    let report = watched(project, options, lineage.as_deref(), &tell, watch.interrupt())?;
    debug_assert!(report.rows.iter().all(|row| row.state != RowState::Planned));
    Ok(report)
}

fn again(desk: &Desk, ask: Reproduce, watch: &Watch) -> Result<Value> {
    let options = ReproduceOptions { work: None, ignore_project_file: ask.ignore_project_file };
    // Each step is asked for by itself; those before it are known by then.
    let emit = |event| {
        if !matches!(event, Event::StepUnchanged { .. }) {
            watch.event(event, None);
        }
    };
    let observer = Observer::new(&emit, watch.interrupt());
    let (reference, open) = (named(&ask.reference)?, open_options(base_options(&[])));
    let steps = reproduce(desk.folder(), reference, &options, &open, observer)?;
    let digest = desk.shelf().version(reference)?;
    Ok(watch.with_warnings(json!({"steps": steps, "digest": digest})))
}

fn quantize(desk: &Desk, ask: Quantize, watch: &Watch) -> Result<Value> {
    let to = match ask.to {
        Integers::Int8 => IntegerKind::Int8,
        Integers::Int4 => IntegerKind::Int4,
    };
    let calibrate = ask.calibrate.as_deref().map(named).transpose()?.map(String::from);
    let options = QuantizeOptions { to, group: ask.group.unwrap_or(GROUP), calibrate, name: ask.name };
    let open = open_options(base_options(&[]));
    let (project, name) = quantizing(desk.folder(), named(&ask.reference)?, &options, &open)?;
    let force = if ask.force { vec![name.clone()] } else { vec![] };
    let report = go(desk, &project, &RunOptions { to: Some(name.clone()), force, dry_run: false }, watch)?;
    Ok(watch.with_warnings(json!({"name": name, "rows": report.rows, "seconds": report.seconds})))
}

fn export(desk: &Desk, ask: Export, _: &Watch) -> Result<Value> {
    let folder = below(&root_of(desk.folder()), &ask.folder)?;
    let (ledger, artifact) = desk.shelf().artifact(named(&ask.reference)?, Purpose::Own)?.permitted()?;
    let files = ledger.export(&artifact, &folder)?;
    Ok(json!({"folder": folder, "files": files}))
}

/// A folder below the project's, without a way out of it, and not in its ledger.
///
/// # Errors
/// If it lies elsewhere, or a link leads out.
fn below(root: &Path, folder: &str) -> Result<PathBuf> {
    let wrong = |why: &str| {
        Error::input(format!("nothing is written to `{folder}`"))
            .cause(why)
            .help("name a folder such as `exports/base`")
    };
    let path = Path::new(folder);
    let mut parts = path.components();
    if !parts.clone().all(|part| matches!(part, Component::Normal(_))) || parts.clone().next().is_none() {
        return Err(wrong("it is no plain path below the project's folder"));
    }
    if parts.next().is_some_and(|part| part.as_os_str().to_string_lossy().starts_with('.')) {
        return Err(wrong("what begins with a dot is not for copies"));
    }
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| Error::io("cannot read", path, error));
    let (top, whole) = (real(root)?, root.join(path));
    // Of what is there already, no part may be a link to another place.
    let mut there = whole.as_path();
    while !there.exists() {
        if there.is_symlink() {
            return Err(wrong("a link stands in the way"));
        }
        let Some(parent) = there.parent() else { break };
        there = parent;
    }
    match real(there)?.starts_with(&top) {
        true => Ok(whole),
        false => Err(wrong("a link leads out of the project's folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_below_the_project() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("project");
        std::fs::create_dir_all(root.join("exports")).unwrap();
        std::os::unix::fs::symlink(home.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink(home.path().join("nowhere"), root.join("dangling")).unwrap();
        for (folder, is_good) in [
            ("exports/base", true),
            ("new", true),
            ("new/deep/er", true),
            ("", false),
            (".", false),
            ("..", false),
            ("../other", false),
            ("exports/../../other", false),
            ("/tmp/x", false),
            (".narthex/artifacts", false),
            ("out", false),
            ("out/x", false),
            ("dangling", false),
            ("dangling/x", false),
        ] {
            assert_eq!(below(&root, folder).is_ok(), is_good, "{folder}");
        }
    }
}
