//! Adapters in the engine: many in one batch over one base, each as if it were alone, and none in another's cache.

use narthex_infer::{Engine, EngineOptions, Request, Sampling};
use narthex_model::{Adapter, Decoder, Precision, cpu, load_adapter};
use std::{path::Path, sync::Arc};

fn request(prompt: &[u32], adapter: Option<&Arc<Adapter>>) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: 24,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        adapter: adapter.cloned(),
        ..Request::default()
    }
}

#[test]
fn many_adapters_in_one_batch_are_each_the_merged_model() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    for (base, name) in [("llama-untied", "lora"), ("qwen2", "dora"), ("phi4-partial", "fused")] {
        let (base, folder) = (goldens.join(base), goldens.join("adapters").join(name));
        let packed = Decoder::read_packed(&base, Some(Precision::F32)).unwrap();
        let engine =
            Engine::start(packed, EngineOptions { kv_cache_bytes: 1 << 24, ..EngineOptions::default() }).unwrap();
        let merged = load_adapter(Decoder::read(&base, &cpu()).unwrap(), &folder).unwrap().merged();
        let merged =
            Engine::start(merged, EngineOptions { kv_cache_bytes: 1 << 24, ..EngineOptions::default() }).unwrap();
        // The prompt fills a block, so that the cache has something to mix up.
        let prompt: Vec<u32> = (0..20).map(|i| 5 + i * 3 % 60).collect();
        let (with, _) = merged.generate(request(&prompt, None)).unwrap();
        let (without, _) = engine.generate(request(&prompt, None)).unwrap();
        assert_ne!(with, without, "{name}: the adapter does something");
        let adapters: Vec<Arc<Adapter>> = (0..6).map(|_| Arc::new(engine.adapter(&folder).unwrap())).collect();
        for _ in 0..2 {
            let (sender, outputs) = std::sync::mpsc::channel();
            let mut tickets = vec![];
            for i in 0..12 {
                let sender = sender.clone();
                let asked = request(&prompt, adapters.get(i / 2).filter(|_| i % 2 == 0));
                tickets.push(engine.submit(asked, Box::new(move |output| sender.send((i, output)).is_ok())).unwrap());
            }
            drop(sender);
            let mut found = vec![vec![]; 12];
            for (i, output) in outputs {
                if let narthex_infer::Output::Token { id, .. } = output {
                    found[i].push(id);
                }
            }
            for (i, tokens) in found.iter().enumerate() {
                assert_eq!(tokens, if i % 2 == 0 { &with } else { &without }, "{name}: sequence {i}");
            }
        }
    }
}
