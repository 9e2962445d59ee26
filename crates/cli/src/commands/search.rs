//! `narthex search`: passages of knowledge that answer a question.

use super::{print_json, shelf};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    output,
};
use clap::{Args, ValueEnum};
use narthex_base::{Error, Result, config::SearchMode};
use narthex_knowledge::{Found, render};
use narthex_shelf::Purpose;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

/// Bytes of all passages that are shown to people.
const SHOWN_BYTES_MAX: usize = 1 << 20;

/// The arguments of `narthex search`.
#[derive(Args)]
pub struct Search {
    /// A step of kind `knowledge`, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The question, or words
    #[arg(allow_hyphen_values = true, required_unless_present = "file")]
    pub question: Option<String>,
    /// Answer each line of this file with a line of JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["question", "json"])]
    pub file: Option<PathBuf>,
    /// How many passages; what the step says by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// What is compared; what the step says by default
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Only in such files, as `docs/guide/**`; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub files: Vec<String>,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// What a question is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Words and vectors, put together by rank
    Hybrid,
    /// Words alone (BM25)
    Words,
    /// Vectors alone
    Vectors,
}

/// `narthex search`
pub fn run(args: &Search) -> Result<()> {
    let mode = args.mode.map(|mode| match mode {
        Mode::Hybrid => SearchMode::Hybrid,
        Mode::Words => SearchMode::Words,
        Mode::Vectors => SearchMode::Vectors,
    });
    let knowledge = shelf(&args.ledger.project).knowledge(&args.reference, Purpose::Own, mode)?;
    let mut settings = knowledge.settings();
    settings.mode = mode.unwrap_or(settings.mode);
    settings.limit = args.limit.unwrap_or(settings.limit);
    let search = |question: &str| {
        if question.trim().is_empty() {
            return Err(Error::usage("the question is empty").help("say what to look for"));
        }
        knowledge.search(question, settings.clone(), args.files.clone())
    };
    if let Some(path) = &args.file {
        let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
        for (line, question) in (1..).zip(BufReader::new(file).lines()) {
            let question = question.map_err(|error| Error::io("cannot read", path, error))?;
            let found = search(&question).map_err(|error| error.at(path.display(), line))?;
            outln!("{}", json!({"question": question, "found": shown(&found)}));
            if output::is_lost() {
                break;
            }
        }
        return Ok(());
    }
    let found = search(args.question.as_deref().unwrap_or_default())?;
    match args.output.json {
        true => print_json(&shown(&found)),
        false => out!("{}", render(&found, SHOWN_BYTES_MAX)),
    }
    Ok(())
}

/// What was found, for programs.
fn shown(found: &[Found]) -> Value {
    let shown = found.iter().map(|found| {
        json!({
            "source": found.passage.citation(),
            "score": found.score,
            "words_rank": found.bm25_rank,
            "vectors_rank": found.vector_rank,
            "passage": found.passage,
        })
    });
    Value::Array(shown.collect())
}
