//! The logits of a model folder for rows of token ids, as JSON: what other implementations are
//! compared with.
//!
//!     cargo run --release -p narthex-model --example logits -- MODEL_FOLDER '[[1, 2, 3], [4, 5, 6]]'

use burn::tensor::TensorData;
use narthex_model::{CausalContext, Decoder, Dropout, Int, Tensor, cpu};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, rows] = arguments.as_slice() else {
        return Err("usage: logits MODEL_FOLDER '[[TOKEN, …], …]' (rows of one length)".into());
    };
    let rows: Vec<Vec<i64>> = serde_json::from_str(rows)?;
    let len = rows.first().map_or(0, Vec::len);
    if len == 0 || rows.iter().any(|row| row.len() != len) {
        return Err("the rows must have one length, at least 1".into());
    }
    let model = Decoder::read(Path::new(folder), &cpu())?;
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(rows.concat(), [rows.len(), len]), &cpu());
    let positions: Vec<usize> = (0..len).collect();
    let places = model.positions(&[&positions], &cpu());
    let logits = model.forward(tokens, &places, &mut CausalContext::new(len), &mut Dropout::none());
    let values: Vec<f32> = logits.into_data().try_to_vec().map_err(|error| format!("{error:?}"))?;
    let rows: Vec<&[f32]> = values.chunks_exact(model.config().vocab_size).collect();
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
