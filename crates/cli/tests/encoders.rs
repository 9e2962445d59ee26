//! A text encoder as a user meets it: into the ledger with its licence, vectors of lines, and the same ones over HTTP.

use crate::program::{Server, digest, fail, narthex, post, succeed, tiny_encoder};
use serde_json::{Value, json};
use std::{fs, io::Write, path::Path, process::Stdio};

fn vectors(printed: &str) -> Vec<Vec<f64>> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_become_vectors_and_the_server_gives_the_same() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    tiny_encoder(&folder.join("tiny"));
    let printed = succeed(folder, &["import", "tiny"]);
    assert_eq!(printed, format!("tiny = {}\n", digest(folder, "tiny")));
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", "tiny", "--json"])).unwrap();
    assert_eq!(shown["manifest"]["components"][0]["license"], "Apache-2.0");

    let found = vectors(&succeed(folder, &["embed", "tiny", "the cat sat", "the dog ran"]));
    assert_eq!((found.len(), found[0].len()), (2, 16));
    assert!(found.iter().all(|vector| (vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5));
    assert_ne!(found[0], found[1]);
    // From the folder, from a file, in any company.
    fs::write(folder.join("lines.txt"), "the dog ran\ncat\n\nthe cat sat\r\n").unwrap();
    let lines = vectors(&succeed(folder, &["embed", "./tiny", "--file", "lines.txt", "--threads", "1"]));
    assert_eq!((lines.len(), &lines[0], &lines[3]), (4, &found[1], &found[0]));
    let mut piped = narthex(folder, &["embed", "tiny", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"the dog ran\n").unwrap();
    assert_eq!(vectors(&String::from_utf8(piped.wait_with_output().unwrap().stdout).unwrap()), [found[1].clone()]);
    // With a prompt, shortened, as objects.
    let prompted = vectors(&succeed(folder, &["embed", "tiny", "cat sat", "--prompt-name", "query"]));
    assert_eq!(prompted[0], found[0]);
    let short = succeed(folder, &["embed", "tiny", "the cat sat", "--dimensions", "4", "--json"]);
    let short: Value = serde_json::from_str(&short).unwrap();
    assert_eq!((&short["text"], &short["tokens"]), (&json!("the cat sat"), &json!(5)));
    let short: Vec<f64> = serde_json::from_value(short["embedding"].clone()).unwrap();
    let norm = found[0][..4].iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(short.iter().zip(&found[0]).all(|(short, long)| (short - long / norm).abs() < 1e-5), "{short:?}");

    for (args, code, expected) in [
        (vec!["embed", "tiny", "x", "--dimensions", "17"], 2, "more than the model's 16"),
        (vec!["embed", "tiny", "x", "--prompt-name", "passage"], 2, "no prompt of this name"),
        (vec!["embed", "tiny", "--file", "nothing.txt"], 1, "nothing.txt"),
        (vec!["generate", "tiny", "--prompt", "x"], 1, "generates no text"),
    ] {
        let error = fail(folder, &args, code);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let mut long = narthex(folder, &["embed", "tiny", "the cat sat the cat sat the cat sat the cat sat"]);
    let warned = String::from_utf8(long.output().unwrap().stderr).unwrap();
    assert!(warned.contains("1 texts were longer than the model's 12 tokens"), "{warned}");

    served(folder, &found);
}

fn served(folder: &Path, expected: &[Vec<f64>]) {
    let (_server, address) = Server::start(folder, "tiny");
    let texts = ["the cat sat", "the dog ran", "the", "cat ran", "dog", "sat the cat the dog ran"];
    let vectors_of = |body: Value| -> Vec<Vec<f64>> {
        let answer = post(format!("{address}/v1/embeddings"), &body);
        let data = answer["data"].as_array().unwrap();
        data.iter().map(|one| serde_json::from_value(one["embedding"].clone()).unwrap()).collect()
    };
    assert_eq!(vectors_of(json!({"model": "tiny", "input": &texts[..2]})), expected);
    // What is cut is the same bytes too, whichever way it comes.
    for dimensions in [1, 3, 8] {
        let count = dimensions.to_string();
        let printed = succeed(folder, &[&["embed", "tiny", "--dimensions", &count], &texts[..]].concat());
        let sent = vectors_of(json!({"model": "tiny", "input": texts, "dimensions": dimensions}));
        assert_eq!(vectors(&printed), sent, "{dimensions} values");
    }
}

/// An encoder that sorts texts into three classes, and what it gives for some.
fn sorter(folder: &Path) -> Value {
    tiny_encoder(folder);
    for name in ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/encoder-roberta-score");
    fs::copy(golden.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let read = |name: &str| serde_json::from_str::<Value>(&fs::read_to_string(golden.join(name)).unwrap()).unwrap();
    let mut config = read("config.json");
    config["id2label"] = json!({"0": "ham", "1": "spam", "2": "eggs"});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    read("golden.json")
}

#[test]
fn an_encoder_with_labels_sorts_texts() {
    let home = tempfile::tempdir().unwrap();
    let golden = sorter(&home.path().join("sorter"));
    let (_server, address) = Server::start(home.path(), "./sorter");
    let answer = post(format!("{address}/classify"), &json!({"model": "sorter", "input": golden["ids"]}));
    let logits: Vec<Vec<f64>> = serde_json::from_value(golden["outputs"].clone()).unwrap();
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &answer["object"]), (logits.len(), &json!("list")));
    for (class, logits) in data.iter().zip(logits) {
        let powers: Vec<f64> = logits.iter().map(|x| x.exp()).collect();
        let shares: Vec<f64> = powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect();
        let found: Vec<f64> = serde_json::from_value(class["probs"].clone()).unwrap();
        assert!(found.iter().zip(&shares).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} {shares:?}");
        let best = (0..3).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap();
        assert_eq!((&class["label"], &class["num_classes"]), (&json!(["ham", "spam", "eggs"][best]), &json!(3)));
    }
}

#[test]
fn several_models_stand_side_by_side_and_take_turns() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    tiny_encoder(&folder.join("tiny"));
    let golden = sorter(&folder.join("sorter"));
    fs::write(folder.join("models.toml"), "[models.sorts]\nmodel = \"./sorter\"\ndtype = \"float32\"\n").unwrap();
    let size = |name: &str| fs::metadata(folder.join(name).join("model.safetensors")).unwrap().len();
    let room = size("tiny").max(size("sorter")).to_string();
    for limits in [vec![], vec!["--models-memory-bytes", &room]] {
        let arguments = [&["a=./tiny", "b=./tiny", "--models", "models.toml"], &limits[..]].concat();
        let (_server, address) = Server::start_with(folder, &arguments);
        let models: Value = ureq::get(format!("{address}/v1/models")).call().unwrap().body_mut().read_json().unwrap();
        let seen = |field: &str| -> Vec<Value> {
            models["data"].as_array().unwrap().iter().map(|model| model.pointer(field).unwrap().clone()).collect()
        };
        assert_eq!(seen("/id"), ["a", "b", "sorts"]);
        assert_eq!(seen("/task"), ["embed", "embed", "classify"]);
        let others = if limits.is_empty() { "loaded" } else { "unloaded" };
        assert_eq!(seen("/status/value"), [others, others, "loaded"]);
        let vector = |name: &str| {
            let body = json!({"model": name, "input": "the cat sat"});
            post(format!("{address}/v1/embeddings"), &body)["data"][0]["embedding"].clone()
        };
        let sorted =
            || post(format!("{address}/classify"), &json!({"model": "sorts", "input": golden["ids"]}))["data"].clone();
        let first = (vector("a"), sorted());
        assert_eq!((vector("b"), sorted(), vector("a")), (first.0.clone(), first.1, first.0));
    }
    for (arguments, code, expected) in [
        (vec!["serve", "./tiny", "a=./tiny", "--served-model-name", "x"], 2, "there are several"),
        (vec!["serve", "a=./tiny", "a=./sorter", "--port", "0"], 2, "are called `a`"),
        (vec!["serve", "./tiny", "--models", "nothing.toml"], 1, "nothing.toml"),
        (vec!["serve", "./tiny", "--models-memory-bytes", "1K", "--port", "0"], 1, "raise `--models-memory-bytes`"),
        (vec!["serve"], 2, "<REF>"),
    ] {
        let error = fail(folder, &arguments, code);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}
