//! `narthex pull` as a user meets it, against a local server that speaks the Hub's API.

#[path = "../../hub/src/fake.rs"]
mod fake;

use fake::{COMMIT, FakeFile, FakeHub, Faults};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A tiny checkpoint with a card, as repositories have them.
fn model(card: &str) -> Vec<FakeFile> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/llama-sharded-bf16");
    let mut files: Vec<FakeFile> = fs::read_dir(golden)
        .unwrap()
        .flatten()
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name != "golden.json")
        .map(|(name, bytes)| (name.clone(), bytes, name.ends_with(".safetensors")))
        .collect();
    files.push(("README.md".into(), card.as_bytes().to_vec(), false));
    files.push(("pytorch_model.bin".into(), b"never fetched".to_vec(), true));
    files
}

/// Runs `narthex` with the Hub at this server and all caches below the folder.
fn run(folder: &Path, hub: &FakeHub, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
    command.current_dir(folder).args(args).env("XDG_CONFIG_HOME", folder.join("no-config"));
    for name in
        ["NARTHEX_SET", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"]
    {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", &hub.url).env("HF_TOKEN", "hf_secret").env("XDG_CACHE_HOME", folder.join("cache"));
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

/// What it writes to stdout and stderr; it must end with this code.
fn check(folder: &Path, hub: &FakeHub, args: &[&str], variables: &[(&str, &str)], code: i32) -> (String, String) {
    let output = run(folder, hub, args, variables);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "narthex {args:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

const CARD: &str = "---\nlicense: llama3.1\nbase_model: org/base\nbase_model_relation: finetune\ndatasets:\n- org/letters\n---\n# Tuned\n";

#[test]
fn a_model_with_its_card_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let hub = FakeHub::start("models/org/tuned", model(CARD), Faults::default());
    let (stdout, stderr) = check(at, &hub, &["pull", "hf:org/tuned", "--dry-run"], &[], 0);
    holds(&stdout, &["model-00001-of-00003.safetensors", "18.1 kB"]);
    holds(&stderr, &["6 files", "not fetched: 1"]);
    assert!(!at.join(".narthex").exists() && !at.join("cache").exists(), "nothing is made");

    hub.now(Faults { cut: Some((5000, 1)), ..Faults::default() });
    let (stdout, stderr) = check(at, &hub, &["pull", "hf:org/tuned"], &[], 0);
    holds(&stdout, &["tuned = "]);
    holds(
        &stderr,
        &[
            &format!("hf:org/tuned@{COMMIT}"),
            "licence: LicenseRef-llama3.1",
            "base model hf:org/base (finetune), declared by its card and not verified",
            "data hf:datasets/org/letters, declared by its card and not verified",
            "serve tuned",
        ],
    );
    let storage: Vec<_> = hub.requests().into_iter().filter(|request| request.host == "storage").collect();
    assert!(storage.iter().all(|request| request.authorization.is_none()), "the token goes to the Hub alone");
    assert!(storage.iter().any(|request| request.range.as_deref() == Some("bytes=5000-")), "it is resumed");
    assert!(!storage.iter().any(|request| request.path.contains("pytorch_model")));

    let (shown, _) = check(at, &hub, &["show", "tuned", "--json"], &[], 0);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let component = &shown["manifest"]["components"][0];
    assert_eq!(component["origin"], format!("hf:org/tuned@{COMMIT}"));
    assert_eq!(
        (component["license"].as_str(), component["evidence"].as_str()),
        (Some("LicenseRef-llama3.1"), Some("declared"))
    );
    let files = &shown["manifest"]["recipe"]["config"]["hub"]["files"];
    assert!(files["config.json"].as_str().unwrap().starts_with("git-sha1:"), "{files}");
    assert!(files["model-00001-of-00003.safetensors"].as_str().unwrap().starts_with("sha256:"), "{files}");
    let (shown, _) = check(at, &hub, &["show", "tuned"], &[], 0);
    holds(&shown, &["declared", "base model hf:org/base (finetune)"]);
    let (traced, _) = check(at, &hub, &["trace", "tuned"], &[], 0);
    holds(&traced, &[&format!("origin: hf:org/tuned@{COMMIT}"), "base model hf:org/base (finetune), declared"]);
    let (license, _) = check(at, &hub, &["license", "tuned"], &[], 0);
    holds(&license, &["LicenseRef-llama3.1", "data hf:datasets/org/letters, declared"]);

    // Again: the ledger has it, under a second name without a byte from the network.
    let count = hub.requests().len();
    let (stdout, stderr) = check(at, &hub, &["pull", "hf:org/tuned@v1", "--as", "again", "--json"], &[], 0);
    let line: Value = serde_json::from_str(stdout.trim()).unwrap();
    assert_eq!((line["name"].as_str(), line["network_bytes"].as_u64()), (Some("again"), Some(0)));
    assert_eq!(hub.requests().len(), count + 1, "{stderr}");
}

#[test]
fn what_the_ledger_holds_becomes_an_ancestor() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let base = FakeHub::start("models/org/base", model("---\nlicense: cc-by-nc-4.0\n---\n"), Faults::default());
    check(at, &base, &["pull", "hf:org/base"], &[], 0);
    let data: Vec<FakeFile> = vec![
        ("README.md".into(), b"---\nlicense: cc-by-4.0\n---\n# Letters\n".to_vec(), false),
        ("data/train.jsonl".into(), b"{\"text\":\"dear\"}\n".to_vec(), true),
    ];
    let letters = FakeHub::start("datasets/org/letters", data, Faults::default());
    let (_, stderr) = check(at, &letters, &["pull", "hf:datasets/org/letters"], &[], 0);
    holds(&stderr, &["[sources.letters]", "path = \"data/letters\"", "license = \"CC-BY-4.0\""]);
    assert!(at.join("data/letters/data/train.jsonl").is_file());
    // It is there already, with the same files.
    check(at, &letters, &["pull", "hf:datasets/org/letters"], &[], 0);
    fs::write(at.join("data/letters/data/train.jsonl"), "{}").unwrap();
    let (_, stderr) = check(at, &letters, &["pull", "hf:datasets/org/letters"], &[], 1);
    holds(&stderr, &["is there already, with other files", "--as NAME"]);

    let hub = FakeHub::start("models/org/tuned", model(CARD), Faults::default());
    check(at, &hub, &["pull", "hf:org/tuned"], &[], 0);
    let (traced, _) = check(at, &hub, &["trace", "tuned"], &[], 0);
    holds(&traced, &["declared base model: base (model", "CC-BY-NC-4.0", "declared data: letters (source"]);
    let (license, _) = check(at, &hub, &["license", "tuned"], &[], 0);
    holds(&license, &["CC-BY-NC-4.0", "CC-BY-4.0"]);
    // A folder that is imported says the same, by its card.
    fs::create_dir(at.join("own")).unwrap();
    for (name, bytes, _) in model(CARD).into_iter().filter(|(name, ..)| !name.ends_with(".bin")) {
        fs::write(at.join("own").join(name), bytes).unwrap();
    }
    let (_, stderr) = check(at, &hub, &["import", "own"], &[], 0);
    holds(&stderr, &["licence: LicenseRef-llama3.1", "declared base model: base", "declared data: letters"]);
}

#[test]
fn what_goes_wrong_is_said_before_it_costs_anything() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let hub = FakeHub::start("models/org/tuned", model("# No metadata\n"), Faults::default());
    let fails = |args: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]| {
        let (stdout, stderr) = check(at, &hub, args, variables, code);
        assert!(stdout.is_empty() && !stderr.contains("hf_secret"), "{stdout}\n{stderr}");
        holds(&stderr, parts);
    };
    fails(&["pull", "org/tuned"], &[], 2, &["hf:ORG/NAME"]);
    fails(&["pull", "hf:org/tuned", "--as", "a/b"], &[], 1, &["cannot be a name"]);
    fails(&["pull", "hf:org/tuned", "--license", "MTI"], &[], 1, &["not an SPDX"]);
    fails(&["pull", "hf:org/tuned"], &[("HF_HUB_OFFLINE", "1")], 1, &["HF_HUB_OFFLINE is set"]);
    fails(&["pull", "hf:org/tuned"], &[("HF_ENDPOINT", "huggingface.co")], 1, &["HF_ENDPOINT is no address"]);
    assert!(hub.requests().is_empty());
    fails(&["pull", "hf:org/tunde"], &[], 1, &["did you mean `hf:org/tuned`?"]);
    hub.now(Faults { gated: true, ..Faults::default() });
    fails(&["pull", "hf:org/tuned"], &[("HF_TOKEN", "")], 1, &["is gated", "accept its licence at", "HF_TOKEN"]);
    hub.now(Faults { changed: Some("model-00002-of-00003.safetensors".into()), ..Faults::default() });
    fails(&["pull", "hf:org/tuned"], &[], 1, &["did not arrive as the Hub has it"]);
    hub.now(Faults::default());
    let (_, stderr) = check(at, &hub, &["pull", "hf:org/tuned"], &[], 0);
    holds(&stderr, &["names a licence that is known", "--license SPDX"]);
    // An architecture that is not supported is named before the weights are fetched.
    let mut other = model("");
    other
        .iter_mut()
        .filter(|(name, ..)| name == "config.json")
        .for_each(|(_, bytes, _)| *bytes = b"{\"model_type\": \"sundial\"}".to_vec());
    let other = FakeHub::start("models/org/other", other, Faults::default());
    let (_, stderr) = check(at, &other, &["pull", "hf:org/other"], &[], 1);
    holds(&stderr, &["hf:org/other is not fetched", "sundial"]);
    assert!(other.requests().iter().all(|request| request.host == "hub"));
}
