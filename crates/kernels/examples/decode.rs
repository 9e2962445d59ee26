//! Decoding the shape of Qwen3-0.6B with weights in bf16, int8 and int4, by turns:
//!
//!     cargo run --release -p narthex-kernels --example decode -- [ROUNDS] [STEPS]

use narthex_kernels::{
    bench::{BenchDecoder, QWEN3_600M, STORAGES},
    probe::read_bytes_per_second,
    team::Team,
};

#[global_allocator]
static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;

fn main() {
    let number = |i: usize, other: usize| std::env::args().nth(i).and_then(|text| text.parse().ok()).unwrap_or(other);
    let (rounds, steps) = (number(1, 3), number(2, 20));
    let team = Team::new(0, false).expect("threads");
    team.enter(|| {
        println!("reading memory at {:.1} GB/s", read_bytes_per_second() / 1e9);
        let decoders = STORAGES.map(|storage| (storage.name, BenchDecoder::new(QWEN3_600M, storage, 8)));
        for round in 0..rounds {
            for (name, decoder) in &decoders {
                let one = decoder.decode_tokens_per_second(1, steps);
                let eight = decoder.decode_tokens_per_second(8, steps.div_ceil(2));
                let prompt = decoder.prefill_tokens_per_second(256, 1 + steps / 20);
                let read = one * decoder.bytes() as f64 / 1e9;
                println!(
                    "{round} {name:18} {:5.0} MB: 1 sequence {one:6.1} tokens/s ({read:.1} GB/s), 8: {eight:6.1}, prompt of 256: {prompt:6.0}",
                    decoder.bytes() as f64 / 1e6
                );
            }
        }
    });
}
