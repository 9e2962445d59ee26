//! The same loop on a graphics processor, through the operators' references: close to what the CPU computes.
//! `cargo test -p narthex-train --features vulkan --test all -- device` (or cuda, rocm, metal; `wgpu` takes any
//! driver for Vulkan, Metal or DirectX 12, a software one included).
#![cfg(any(feature = "cuda", feature = "rocm", feature = "vulkan", feature = "metal", feature = "wgpu"))]

use narthex_base::config::{Batching, LearningRate, Machine, Precision, Schedule, Update};
use narthex_model::{Decoder, Design, Device, ModelConfig, cpu, device};
use narthex_text::{ShardWriter, TokenShard};
use narthex_train::{
    Training, fit,
    objective::{DecoderPass, Pretrain, TokenData},
};
use std::path::Path;

const NAME: &str = if cfg!(feature = "cuda") {
    "cuda"
} else if cfg!(feature = "rocm") {
    "rocm"
} else if cfg!(feature = "metal") {
    "metal"
} else if cfg!(feature = "wgpu") {
    "wgpu"
} else {
    "vulkan"
};

fn shard(folder: &Path) -> TokenShard {
    let path = folder.join("data.tokens");
    let mut writer = ShardWriter::create(&path, 32, false).unwrap();
    for start in 0..20u32 {
        let ids: Vec<u32> = (0..30).map(|i| (start * 3 + i * (1 + start % 2)) % 32).collect();
        writer.push(&ids, None, 60).unwrap();
    }
    writer.finish().unwrap();
    TokenShard::open(&path).unwrap()
}

/// The losses of ten steps.
fn losses(device: Device, precision: Precision, activation_checkpointing: bool) -> Vec<f64> {
    let config = ModelConfig {
        vocab_size: 32,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_width: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tied_embeddings: true,
        context: 24,
        bos_token: None,
        eos_tokens: vec![],
        design: Design::default(),
    };
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path());
    let schedule = Schedule {
        batches: Batching { steps: 10, batch_size: 3, context: 24, ..Batching::default() },
        rate: LearningRate { lr: 3e-3, warmup: 2, ..LearningRate::default() },
        update: Update { dropout: 0.1, ..Update::default() },
        machine: Machine { precision, activation_checkpointing, ..Machine::default() },
        ..Schedule::default()
    };
    let metrics = folder.path().join("metrics.jsonl");
    let tokens = TokenData::new(&data, Some(&data), &schedule);
    let objective = Pretrain::new(tokens, true, DecoderPass::new(&schedule)).unwrap();
    let training = Training { seed: 5, device, metrics: Some(&metrics), schedule, ..Training::default() };
    fit(Decoder::random(&config, 1, &cpu()).with_precision(precision), &objective, &training).unwrap();
    let text = std::fs::read_to_string(metrics).unwrap();
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

#[test]
fn losses_are_those_of_the_cpu() {
    for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16, 3e-2)] {
        let there = match device(NAME, precision) {
            Ok(there) => there,
            // Not every device computes in bf16, and then says so.
            Err(error) if precision == Precision::Bf16 => {
                assert!(error.what().contains("cannot compute in bf16"), "{error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let expected = losses(cpu(), precision, false);
        for checkpointing in [false, true] {
            let found = losses(there.clone(), precision, checkpointing);
            assert_eq!(found.len(), 10);
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (found - expected).abs() < tolerance,
                    "{NAME}, {precision:?}, step {step}: {found}, not {expected}"
                );
            }
        }
    }
}
