//! `narthex data show`

use super::{base_options, open_options, print_json, program, project_flag, shelf};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    signals,
    style::{Style, table},
};
use clap::{Args, ValueEnum};
use narthex_base::{Error, Observer, Result};
use narthex_run::{
    Project,
    look::{Range, TokenRun, data_rows, source_preview, token_documents},
};
use narthex_shelf::has_plan;
use serde::Serialize;
use serde_json::{Value, json};
use std::{path::Path, sync::atomic::AtomicBool};

/// The arguments of `narthex data show`.
#[derive(Args)]
pub struct Show {
    /// A source of the project, or a `data` or `tokenize` step or artifact
    #[arg(value_name = "SOURCE|REF")]
    pub reference: String,
    /// Show documents in tokens, with what is learnt of them between ⟦ and ⟧
    #[arg(long)]
    pub tokens: bool,
    /// Which part of a step's data
    #[arg(long, value_enum, default_value = "train")]
    pub part: Part,
    /// The first row or document, counted from 1
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub first: u64,
    /// How many rows or documents
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub count: usize,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// Which part of a step's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What is trained on
    Train,
    /// What is held back
    Validation,
}

impl Part {
    /// As files are named by it.
    pub fn name(self) -> &'static str {
        if self == Part::Train { "train" } else { "validation" }
    }
}

/// Rows of a source or an artifact, or documents in tokens, as `--json` shows them.
#[cfg(feature = "agents")]
pub fn seen(project: &Path, reference: &str, tokens: bool, range: Range, interrupt: &AtomicBool) -> Result<Value> {
    if !tokens && let Some(project) = project_with_source(project, reference)? {
        return Ok(json!(understood(&project, reference, range, interrupt)?));
    }
    let artifact = shelf(project).ledger()?.resolve(reference)?;
    match tokens {
        true => Ok(json!(token_documents(&artifact, range)?.0)),
        false => Ok(json!(data_rows(&artifact, range)?)),
    }
}

/// The project, if a source of it has this name.
fn project_with_source(project: &Path, name: &str) -> Result<Option<Project>> {
    if !has_plan(project) {
        return Ok(None);
    }
    let project = Project::open(project, &open_options(base_options(&[])))?;
    Ok(project.plan.sources.contains_key(name).then_some(project))
}

/// A source as it was understood.
#[derive(Serialize)]
struct Understood {
    columns: Vec<Column>,
    rows: Vec<Value>,
    count: u64,
    bad: u64,
    bad_examples: Vec<String>,
}

/// A column of a source, and the type that a transform sees.
#[derive(Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Rows of a source from `first` on, counted from 0.
fn understood(project: &Project, name: &str, range: Range, interrupt: &AtomicBool) -> Result<Understood> {
    let found =
        source_preview(project, name, range.first.saturating_add(range.count), Observer::new(&|_| {}, interrupt))?;
    let columns = found.columns.into_iter().map(|(name, kind)| Column { name, kind });
    Ok(Understood {
        columns: columns.collect(),
        rows: found.rows.iter().skip(range.first).map(|row| json!(row)).collect(),
        count: found.count,
        bad: found.bad,
        bad_examples: found.bad_examples,
    })
}

pub fn run(args: &Show, style: Style) -> Result<()> {
    let part = args.part.name();
    let first = usize::try_from(args.first - 1).unwrap_or(usize::MAX);
    let range = Range { part, first, count: args.count };
    let project = &args.ledger.project;
    if !args.tokens
        && let Some(project) = project_with_source(project, &args.reference)?
    {
        return show_source(args, &project, range, style);
    }
    let artifact = shelf(project).ledger()?.resolve(&args.reference)?;
    if !args.tokens {
        return data_rows(&artifact, range).map(|rows| print_rows(&rows, args));
    }
    let (documents, total) = token_documents(&artifact, range)?;
    if args.output.json {
        print_json(&documents);
        return Ok(());
    }
    for (at, document) in documents.iter().enumerate() {
        let of =
            |learnt: bool| document.iter().filter(|run| run.learnt == learnt).map(|run| run.ids.len()).sum::<usize>();
        outln!("document {} of {total}: {} tokens, {} learnt", first + at + 1, of(true) + of(false), of(true));
        outln!("{}\n", marked(document));
    }
    if documents.is_empty() {
        return Err(Error::input(format!("the {part} part has {total} documents")).help("choose a lower `--first`"));
    }
    Ok(())
}

/// The text, with what is learnt in brackets.
fn marked(document: &[TokenRun]) -> String {
    document.iter().map(|run| if run.learnt { format!("⟦{}⟧", run.text) } else { run.text.clone() }).collect()
}

fn print_rows(rows: &[Value], args: &Show) {
    if args.output.json {
        print_json(&rows);
    } else {
        rows.iter().for_each(|row| outln!("{}", serde_json::to_string(row).expect("JSON serializes")));
    }
}

fn show_source(args: &Show, project: &Project, range: Range, style: Style) -> Result<()> {
    let interrupt = signals::interrupt_flag()?;
    let found = understood(project, &args.reference, range, &interrupt)?;
    if args.output.json {
        print_json(&found);
        return Ok(());
    }
    let head = vec!["column".to_string(), "type".into()];
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(found.columns.iter().map(|column| vec![column.name.clone(), column.kind.clone()]))
        .collect();
    outln!("{}", table(&rows));
    found.rows.iter().for_each(|row| outln!("{}", serde_json::to_string(row).expect("JSON serializes")));
    outln!("\n{} rows, {} broken", found.count, found.bad);
    found.bad_examples.iter().take(args.count).for_each(|example| style.warning(example));
    noteln!("next: {} data{}", program(), project_flag(&args.ledger.project));
    Ok(())
}
