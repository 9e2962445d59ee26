//! `narthex ls`, `show` and `trace`

use super::{print_json, program, project_flag, shelf};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    style::{bytes, figure, seconds, table},
};
use clap::{Args, builder::PossibleValuesParser};
use narthex_base::{ArtifactKind, LineageNode, Result};
use narthex_ledger::{Artifact, Listing};
use narthex_openness::{lineage_html, openness};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// The arguments of `narthex ls`.
#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    pub ledger: LedgerFlag,
    /// Only artifacts of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(ArtifactKind::ALL.map(ArtifactKind::name)))]
    pub kind: Option<String>,
    /// Also what names pointed to earlier
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// Which artifact to show.
#[derive(Args)]
pub struct Look {
    /// A step's or source's name, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// The arguments of `narthex trace`.
#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    pub look: Look,
    /// As an HTML page with a drawing, on stdout
    #[arg(long, conflicts_with = "json")]
    pub html: bool,
}

/// The artifacts of a project, newest first: those that names point to now, or all; of one kind, or of every kind.
pub fn listings(project: &Path, kind: Option<&str>, all: bool) -> Result<Vec<Listing>> {
    let mut listings = shelf(project).ledger()?.list()?;
    listings.retain(|listing| (all || listing.current) && kind.is_none_or(|kind| listing.kind.name() == kind));
    Ok(listings)
}

/// An artifact as `--json` shows it.
pub fn shown(artifact: &Artifact) -> Value {
    let Artifact { digest, folder, manifest, run, .. } = artifact;
    json!({"digest": digest, "folder": folder, "manifest": manifest, "run": run})
}

/// The tree of what an artifact was made from.
pub fn lineage(project: &Path, reference: &str) -> Result<(Artifact, LineageNode)> {
    let ledger = shelf(project).ledger()?;
    let artifact = ledger.resolve(reference)?;
    let lineage = ledger.lineage(artifact.digest)?;
    Ok((artifact, lineage))
}

pub fn ls(args: &Ls) -> Result<()> {
    let listings = listings(&args.ledger.project, args.kind.as_deref(), args.all)?;
    if args.output.json {
        print_json(&listings);
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut rows = vec![["name", "kind", "artifact", "size", "licence", "age"].map(String::from).to_vec()];
    for listing in &listings {
        rows.push(vec![
            listing.name.clone(),
            listing.kind.to_string(),
            listing.digest.short(),
            bytes(listing.bytes),
            listing.license.clone().unwrap_or_else(|| "undeclared".into()),
            age(now.saturating_sub(listing.created)),
        ]);
    }
    out!("{}", table(&rows));
    let flag = project_flag(&args.ledger.project);
    match listings.first() {
        Some(first) => noteln!("\nnext: {} show {}{flag}", program(), first.name),
        None => noteln!("\nnothing yet\nnext: {} run {}", program(), args.ledger.project.display()),
    }
    Ok(())
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => "now".into(),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub fn show(args: &Look) -> Result<()> {
    let artifact = shelf(&args.ledger.project).ledger()?.resolve(&args.reference)?;
    let manifest = &artifact.manifest;
    if args.output.json {
        print_json(&shown(&artifact));
        return Ok(());
    }
    outln!("{} ({})", artifact.name(), manifest.kind);
    outln!("  digest   {}", artifact.digest);
    outln!("  folder   {}", artifact.folder.display());
    outln!("  licence  {}", manifest.license().map_or("undeclared".into(), |license| license.to_string()));
    outln!(
        "  made     in {} by narthex {} with seed {}",
        seconds(artifact.run.seconds),
        manifest.recipe.narthex,
        manifest.recipe.seed
    );
    section("files", manifest.files.iter().map(|f| vec![f.path.clone(), bytes(f.bytes), f.digest.short()]));
    section(
        "made from",
        manifest.parents.iter().map(|p| vec![p.role.clone(), p.name.clone(), p.kind.to_string(), p.digest.short()]),
    );
    section(
        "components",
        manifest.components.iter().map(|c| {
            let license = c.license.as_ref().map_or("undeclared".into(), |license| license.to_string());
            let own = if c.paths.is_empty() { "inherited" } else { "" };
            vec![c.name.clone(), license, c.origin.clone().unwrap_or_default(), own.into()]
        }),
    );
    section("declared", manifest.declared().iter().map(|origin| vec![origin.to_string()]));
    section("figures", manifest.figures.iter().map(|(name, value)| vec![name.clone(), figure(*value)]));
    section("measured", artifact.run.measured.iter().map(|(name, value)| vec![name.clone(), figure(*value)]));
    outln!("recipe\n{}", indent(&serde_json::to_string_pretty(&manifest.recipe.config).expect("a recipe serializes")));
    noteln!("\nnext: {} trace {}{}", program(), args.reference, project_flag(&args.ledger.project));
    Ok(())
}

fn section(title: &str, rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        outln!("{title}\n{}", indent(table(&rows).trim_end()));
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

pub fn trace(args: &Trace) -> Result<()> {
    let (html, args) = (args.html, &args.look);
    let (artifact, lineage) = lineage(&args.ledger.project, &args.reference)?;
    if args.output.json {
        print_json(&lineage);
        return Ok(());
    }
    if html {
        let class = openness(&artifact.manifest).class_name.unwrap_or("no class of the Model Openness Framework");
        out!("{}", lineage_html(&args.reference, class, &lineage));
        return Ok(());
    }
    print_node(&lineage, "", "");
    noteln!("\nnext: {} export {} DIR{}", program(), args.reference, project_flag(&args.ledger.project));
    Ok(())
}

fn print_node(node: &LineageNode, lead: &str, below: &str) {
    let role = node.role.as_deref().map(|role| format!("{role}: ")).unwrap_or_default();
    let license = node.license.as_ref().map_or("undeclared".into(), |license| license.to_string());
    let again = if node.repeated { "  (see above)" } else { "" };
    outln!("{lead}{role}{} ({}, {})  {license}{again}", node.name, node.kind, node.digest.short());
    let files =
        node.files.iter().map(|file| format!("{}  {}  blake3 {}", file.path, bytes(file.bytes), file.digest.short()));
    // What a model was trained on tells where it comes from, except where it came in from elsewhere.
    let is_foreign = |origin: &&String| node.kind == ArtifactKind::Model && origin.starts_with("hf:");
    let told = node.origins.iter().filter(|origin| !node.files.is_empty() || is_foreign(origin));
    let origins = told.map(|origin| format!("origin: {origin}")).chain(node.declared.iter().map(ToString::to_string));
    let pipe = if node.parents.is_empty() { "    " } else { "│   " };
    files.chain(origins).for_each(|line| outln!("{below}{pipe}{line}"));
    for (i, parent) in node.parents.iter().enumerate() {
        let last = i + 1 == node.parents.len();
        let (branch, next) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        print_node(parent, &format!("{below}{branch}"), &format!("{below}{next}"));
    }
}
