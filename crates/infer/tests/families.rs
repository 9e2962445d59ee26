//! Every family through the paged engine: greedy continuations are those of transformers (`xtask/goldens/families.py`), in one
//! batch and read in pieces.

use narthex_infer::{Engine, EngineOptions, Request, Sampling};
use narthex_model::{Decoder, Precision};
use std::path::Path;

#[test]
fn greedy_continuations_are_those_of_transformers() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    let (mut checked, mut failed) = (0, String::new());
    for folder in std::fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(folder.join("golden.json")) else { continue };
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let Ok(expected) = serde_json::from_value::<Vec<u32>>(golden["greedy"].clone()) else { continue };
        assert_eq!(expected.len(), 64);
        let prompt: Vec<u32> = serde_json::from_value(golden["tokens"][0].clone()).unwrap();
        let model = Decoder::read_packed(&folder, Some(Precision::F32)).unwrap();
        for chunk_tokens_max in [256, 5] {
            let options = EngineOptions { chunk_tokens_max, kv_cache_bytes: 1 << 24, ..EngineOptions::default() };
            let engine = Engine::start(model.clone(), options).unwrap();
            let request = |prompt: Vec<u32>, max_tokens: usize| Request {
                prompt,
                max_tokens,
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                ..Request::default()
            };
            // Another sequence in the batch, and a cache that knows the beginning the second time.
            let other = engine.submit(request(prompt[3..9].to_vec(), 40), Box::new(|_| true)).unwrap();
            for _ in 0..2 {
                let (tokens, _) = engine.generate(request(prompt.clone(), 64)).unwrap();
                if tokens != expected {
                    failed += &format!("{}: {tokens:?} instead of {expected:?}\n", folder.display());
                }
            }
            drop(other);
        }
        checked += 1;
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(checked >= 20, "only {checked} families have a continuation");
}
