//! What rounding a model's weights costs, on a token shard, by way of rounding:
//!
//!     cargo run --release -p narthex-train --example quantized -- MODEL VALIDATION.tokens TRAIN.tokens [WINDOW] [WINDOWS]

use narthex_kernels::Quantization;
use narthex_model::{
    Decoder,
    calibrate::{Calibration, calibrate, compare},
    cpu,
    integer_folder::write_quantized,
};
use narthex_text::TokenShard;
use std::path::Path;

fn windows(path: &str, len: usize, count: usize) -> Vec<Vec<u32>> {
    let shard = TokenShard::open(Path::new(path)).expect("a shard");
    let step = (shard.len() / count).max(len);
    let window = |first: usize| (first..(first + len).min(shard.len())).map(|i| shard.get(i)).collect();
    (0..shard.len()).step_by(step).map(window).collect()
}

fn main() {
    let argument = |i: usize| std::env::args().nth(i);
    let (Some(folder), Some(validation), Some(train)) = (argument(1), argument(2), argument(3)) else {
        panic!("MODEL VALIDATION.tokens TRAIN.tokens [WINDOW] [WINDOWS]");
    };
    let number = |i: usize, other: usize| argument(i).and_then(|text| text.parse().ok()).unwrap_or(other);
    let (len, count) = (number(4, 256), number(5, 128));
    let original = Decoder::read(Path::new(&folder), &cpu()).expect("a model");
    let measured = windows(&validation, len, count);
    let plain = calibrate(&original, &windows(&train, len, 64)).expect("weights fit");
    for (name, kind) in [
        ("int8", Quantization::Int8),
        ("int4 in 32", Quantization::Int4 { group: 32 }),
        ("int4 in 64", Quantization::Int4 { group: 64 }),
        ("int4 in 128", Quantization::Int4 { group: 128 }),
    ] {
        let mut scaled = plain.clone();
        if let Quantization::Int4 { group } = kind {
            scaled.scale("llama", &original.tensors(), group);
        }
        for (way, calibration) in [("nearest", &Calibration::default()), ("weighted", &plain), ("scaled", &scaled)] {
            if kind == Quantization::Int8 && way != "nearest" {
                continue;
            }
            let to = tempfile::tempdir().expect("a folder");
            let written = write_quantized(Path::new(&folder), to.path(), kind, calibration).expect("written");
            let packed = Decoder::read_packed(to.path(), None).expect("read");
            let found = compare(&original, &packed, &measured);
            println!(
                "{name:12} {way:9} nats a token {:.4} -> {:.4} ({:+.2} %), same top {:.1} %, weights' error {:.4}, {} of {} bytes",
                found.nats / found.tokens as f64,
                found.other_nats / found.tokens as f64,
                100.0 * (found.other_nats / found.nats - 1.0),
                100.0 * found.same_top as f64 / found.tokens as f64,
                written.relative_error.sqrt(),
                written.bytes_after,
                written.bytes_before,
            );
        }
    }
    let head = original.pack_rounded(Quantization::Int4 { group: 64 });
    let found = compare(&original, &head, &measured);
    println!("int4 in 64, rounded as it is packed: {:+.2} %", 100.0 * (found.other_nats / found.nats - 1.0));
}
