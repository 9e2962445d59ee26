//! What a model gives for token ids, for checks against the reference implementation (`xtask/checks`).
//!
//! Each line of the standard input is `{"folder": …, "tokens": [[…]], "adapter": …}`, the adapter optional; each line
//! of the output is `{"logits": [… rows × tokens × vocabulary …], "notes": […]}` or `{"error": …}`.

use burn::tensor::TensorData;
use narthex_base::{Error, Result};
use narthex_model::{CausalContext, Decoder, Dropout, Int, Tensor, cpu, load_adapter};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    path::PathBuf,
};

#[derive(Deserialize)]
struct Question {
    folder: PathBuf,
    tokens: Vec<Vec<i64>>,
    adapter: Option<PathBuf>,
}

fn answer(line: &str) -> Result<Value> {
    let asked: Question = serde_json::from_str(line).map_err(|error| Error::input("not a question").cause(error))?;
    let mut model = Decoder::read(&asked.folder, &cpu())?;
    if let Some(adapter) = &asked.adapter {
        model = load_adapter(model, adapter)?;
    }
    let (rows, len) = (asked.tokens.len(), asked.tokens.first().map_or(0, Vec::len));
    if len > model.config().context {
        return Err(Error::input(format!("the model's context holds {}", model.config().context)));
    }
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(asked.tokens.concat(), [rows, len]), &cpu());
    let positions: Vec<usize> = (0..len).collect();
    let places = model.positions(&[&positions], &cpu());
    let logits = model.forward(tokens, &places, &mut CausalContext::new(len), &mut Dropout::none());
    let logits: Vec<f32> = logits.into_data().try_to_vec().map_err(|error| Error::internal(format!("{error:?}")))?;
    Ok(json!({"logits": logits, "notes": model.config().design.notes}))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let reply = answer(&line?).unwrap_or_else(|error| json!({"error": error.to_string()}));
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}
