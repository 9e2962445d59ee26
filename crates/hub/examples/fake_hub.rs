//! The tests' server of the Hub's API by itself, for `xtask/checks/hub_check.py`: prints its address and serves until
//! stdin ends.

#[path = "../src/fake.rs"]
mod fake;

use fake::{COMMIT, FakeHub, Faults, git, sha256};
use std::io::Read;

fn main() {
    let weights: Vec<u8> = (0..700_000).map(|i| (i * 7 % 251) as u8).collect();
    let card = b"---\nlicense: mit\n---\n".to_vec();
    println!("{COMMIT} {} {}", git(&card), sha256(&weights));
    let files = vec![
        ("README.md".into(), card, false),
        ("1_Pooling/config.json".into(), b"{}".to_vec(), false),
        ("model.safetensors".into(), weights, true),
    ];
    let hub = FakeHub::start("models/org/name", files, Faults::default());
    println!("{}", hub.url);
    let _ = std::io::stdin().read_to_end(&mut vec![]);
    hub.now(Faults { gated: true, ..Faults::default() });
    for request in hub.requests() {
        eprintln!("{} {} {:?} {:?}", request.host, request.path, request.range, request.authorization.is_some());
    }
}
