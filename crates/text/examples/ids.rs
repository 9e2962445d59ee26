//! Texts through tokenizers, for checks against transformers (`xtask/checks/tokenizer_check.py`).
//!
//! Each line of the standard input is `{"folder": …, "texts": [text, …]}`; each line of the output is
//! `{"ids": [[id, …], …], "notes": [key, …]}` or `{"error": …}`.

use narthex_base::{Error, Result};
use narthex_text::{Tokenizer, TokenizerConfig};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    path::PathBuf,
};

#[derive(Deserialize)]
struct Question {
    folder: PathBuf,
    texts: Vec<String>,
}

fn answer(line: &str) -> Result<Value> {
    let asked: Question = serde_json::from_str(line).map_err(|error| Error::input("not a question").cause(error))?;
    let tokenizer = Tokenizer::read(&asked.folder)?;
    let ids = asked.texts.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<Vec<_>>>()?;
    Ok(json!({"ids": ids, "notes": TokenizerConfig::read(&asked.folder)?.unread()}))
}

fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    let fail = |error| Error::io("cannot write", "stdout", error);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Error::io("cannot read", "stdin", error))?;
        let reply = answer(&line)
            .unwrap_or_else(|error| json!({"error": format!("{}: {}", error.what(), error.causes().join(": "))}));
        writeln!(out, "{reply}").and_then(|()| out.flush()).map_err(fail)?;
    }
    Ok(())
}
