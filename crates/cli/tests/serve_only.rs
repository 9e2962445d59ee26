//! A build that only serves: what it does not have says so, and the rest works.
//!
//!     cargo test -p narthex --no-default-features --features serve --test all -- serve_only
#![cfg(not(feature = "run"))]

use crate::program::{fail, narthex, succeed};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

#[test]
fn what_is_absent_says_so_and_the_rest_works() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    for command in [
        "new hello",
        "run",
        "data",
        "tokenize",
        "train",
        "tune",
        "eval",
        "bundle",
        "reproduce x",
        "verify x",
        "quantize x --to int8",
        "bench train",
    ] {
        let error = fail(folder, &command.split(' ').collect::<Vec<_>>(), 2);
        let verb = if command == "bench train" { command } else { command.split(' ').next().unwrap() };
        assert!(error.contains(&format!("this build of narthex has no `{verb}`")), "{error}");
        assert!(error.contains("--features run"), "{error}");
    }
    let error = fail(folder, &["pull", "hf:datasets/org/name"], 2);
    assert!(error.contains("this build of narthex has no"), "{error}");

    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/llama.gguf");
    succeed(folder, &["import", gguf.to_str().unwrap(), "--name", "tiny"]);
    let said = succeed(folder, &["generate", "tiny", "--prompt", "the", "--max-tokens", "2", "--temperature", "0"]);
    assert!(said.starts_with("the"), "{said}");
    let mut server = narthex(folder, &["serve", "tiny", "--port", "0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.split_once("OpenAI API")?.1.trim().to_string())).unwrap();
    assert_eq!(ureq::get(format!("{address}/models")).call().unwrap().status(), 200);
    server.kill().unwrap();
    server.wait().unwrap();
}
