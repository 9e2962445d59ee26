//! `narthex license`: components, licences and class; and what the policy says of them.

use super::{print_json, program, project_flag};
use crate::{
    commands::shelf,
    flags::{JsonFlag, LedgerFlag},
    style::table,
};
use clap::{Args, ValueEnum};
use narthex_base::{
    Component, Error, Result,
    config::{Use, Verdict},
};
use narthex_openness::{
    Finding, Openness, Subject, advice, class_name, croissant, cyclonedx, dataset_card_metadata, model_card_metadata,
    mof_yaml, openness, openness_by_tool, read_mof, spdx,
};
use narthex_shelf::{Reference, with_subject};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The arguments of `narthex license`.
#[derive(Args)]
pub struct License {
    /// A step's or source's name, `name@digest-prefix`, a digest, or an exported folder, as `./DIR`
    #[arg(value_name = "REF", required_unless_present = "mof")]
    pub reference: Option<String>,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    /// How to write it
    #[arg(long, value_enum, default_value = "table", conflicts_with = "json")]
    pub format: LicenseFormat,
    /// Give the class of a file of the Model Openness Tool instead, as that tool gives it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "format"])]
    pub mof: Option<PathBuf>,
    /// Say by which rule of the policy each component may be used, or not
    #[arg(long, conflicts_with = "mof")]
    pub explain: bool,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// What the policy is asked about.
pub const USES: [Use; 3] = [Use::Train, Use::Redistribute, Use::ServeCommercially];

/// How components and licences are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LicenseFormat {
    /// For people
    Table,
    /// As JSON
    Json,
    /// YAML for the Model Openness Tool
    Mof,
    /// SPDX 3.0 (JSON-LD) with the AI and Dataset profiles
    Spdx,
    /// CycloneDX 1.6 ML-BOM (JSON)
    Cyclonedx,
    /// Metadata of a Hugging Face model card (YAML)
    ModelCard,
    /// Metadata of a Hugging Face dataset card (YAML)
    DatasetCard,
    /// Croissant (JSON-LD), for documents, conversations, tokens and sources
    Croissant,
}

pub fn license(args: &License) -> Result<()> {
    if let Some(file) = &args.mof {
        let found = read_mof(file)?;
        if args.output.json {
            print_json(&found);
        } else {
            outln!("{}", class_line(&found));
            found.reasons.iter().for_each(|reason| outln!("  {reason}"));
            found.remarks.iter().for_each(|remark| outln!("  remark: {remark}"));
        }
        return Ok(());
    }
    let reference = args.reference.as_deref().ok_or_else(|| Error::usage("name an artifact"))?;
    if args.explain {
        for uses in USES {
            explain(&shelf(&args.ledger.project).judge(reference, uses)?);
        }
    }
    let format = if args.output.json { LicenseFormat::Json } else { args.format };
    with_subject(&args.ledger.project, reference, |subject| write(subject, format, args, reference))?
}

fn write(subject: &Subject, format: LicenseFormat, args: &License, reference: &str) -> Result<()> {
    match document(subject, format)? {
        None => print_table(subject, args, reference),
        Some(Document::Json(value)) => print_json(&value),
        Some(Document::Yaml(text)) => out!("{text}"),
    }
    Ok(())
}

/// What is said of an artifact, for programs.
pub enum Document {
    /// JSON, or JSON-LD.
    Json(Value),
    /// YAML.
    Yaml(String),
}

/// What is said of an artifact in a format; nothing in the one for people.
pub fn document(subject: &Subject, format: LicenseFormat) -> Result<Option<Document>> {
    Ok(Some(match format {
        LicenseFormat::Table => return Ok(None),
        LicenseFormat::Json => Document::Json(json_of(subject)),
        LicenseFormat::Mof => Document::Yaml(mof_yaml(subject)),
        LicenseFormat::Spdx => Document::Json(spdx(subject)),
        LicenseFormat::Cyclonedx => Document::Json(cyclonedx(subject)),
        LicenseFormat::Croissant => Document::Json(croissant(subject)),
        LicenseFormat::ModelCard => Document::Yaml(front_matter(&model_card_metadata(subject))?),
        LicenseFormat::DatasetCard => Document::Yaml(front_matter(&dataset_card_metadata(subject))?),
    }))
}

fn front_matter(value: &Value) -> Result<String> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| Error::internal("the metadata cannot be written").cause(error))?;
    Ok(format!("---\n{}\n---\n", text.trim_end()))
}

fn json_of(subject: &Subject) -> Value {
    let (ours, tools) = (openness(subject.manifest()), openness_by_tool(subject.manifest()));
    let next: Vec<Value> = advice(subject.manifest(), &ours)
        .into_iter()
        .map(|(missing, command)| json!({"missing": missing, "way": command}))
        .collect();
    json!({
        "digest": subject.digest(), "license": subject.license(), "class": ours.class, "class_name": ours.class_name,
        "class_by_tool": tools.class, "next": next, "openness": ours, "components": subject.components(),
        "declared": subject.manifest().declared(),
    })
}

fn class_line(openness: &Openness) -> String {
    openness.class.map_or("no class of the Model Openness Framework".into(), |class| class_name(class).to_string())
}

fn print_table(subject: &Subject, args: &License, reference: &str) {
    let manifest = subject.manifest();
    let mut rows = vec![["component", "kind", "licence", "known by", "files or origin"].map(String::from).to_vec()];
    rows.extend(manifest.components.iter().map(|component| {
        vec![
            component.name.clone(),
            component.kind.slug(),
            component.license_name().to_string(),
            component.evidence.to_string(),
            place(component),
        ]
    }));
    out!("{}", table(&rows));
    manifest.declared().iter().for_each(|origin| outln!("{origin}"));
    let (ours, tools) = (openness(manifest), openness_by_tool(manifest));
    outln!("\n{}", class_line(&ours));
    for (reason, way) in advice(manifest, &ours) {
        outln!("  {reason}\n    {way}");
    }
    ours.remarks.iter().for_each(|remark| outln!("  remark: {remark}"));
    if tools.class != ours.class {
        outln!("  remark: the Model Openness Tool says: {}", class_line(&tools));
        tools.reasons.iter().for_each(|reason| outln!("    {reason}"));
    }
    let flag = Reference::of(reference).folder().map_or_else(|| project_flag(&args.ledger.project), |_| String::new());
    noteln!("\nnext: {} license {reference} --format mof{flag}", program());
}

/// The files of an own component, the origin of an inherited one.
fn place(component: &Component) -> String {
    match component.paths.as_slice() {
        [] => component.origin.as_ref().map_or("no origin is stated".into(), |origin| format!("from {origin}")),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// What the policy says of each component, on stderr.
pub fn explain(findings: &[Finding]) {
    let mut rows = vec![["use", "component", "licence", "verdict", "rule", "it says"].map(String::from).to_vec()];
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Allow => "allow",
            Verdict::Ask => "ask",
            Verdict::Deny => "deny",
        };
        rows.push(vec![
            finding.uses.name().into(),
            finding.component.clone(),
            finding.license.as_ref().map_or("undeclared".into(), |license| license.to_string()),
            verdict.into(),
            finding.rule.clone().unwrap_or_else(|| "none".into()),
            finding.says.clone(),
        ]);
    }
    if !findings.is_empty() {
        note!("{}", table(&rows));
    }
    for finding in findings.iter().filter(|finding| finding.verdict != Verdict::Allow) {
        noteln!("  {}", finding.path);
    }
}
