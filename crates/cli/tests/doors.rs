//! Every door through which a model is opened: what the policy says of it, be it a name or a folder, and what a name
//! means.

use crate::program::{output, succeed};
use std::{
    fs,
    path::{Path, PathBuf},
};

const POLICY: &str = r#"[project]
name = "pol"

[policy]
commercial = true

[policy.rules.sold]
licenses = ["undeclared", "non-commercial"]
"#;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A model folder without papers; perhaps with a card that names a licence.
fn model_folder(from: &Path, at: &Path, license: Option<&str>) {
    fs::create_dir_all(at).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        if from.join(name).is_file() {
            fs::copy(from.join(name), at.join(name)).unwrap();
        }
    }
    card(at, license);
}

fn card(at: &Path, license: Option<&str>) {
    if let Some(license) = license {
        fs::write(at.join("README.md"), format!("---\nlicense: {license}\n---\n# A model\n")).unwrap();
    }
}

/// A folder with a project `pol`, whose ledger has `tiny`, beside model folders: `tiny` and `encoder` are not for
/// sale, of `bare` nothing is said, `open` is under MIT. `french` is an adapter that is not for sale.
fn rooms() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    fs::create_dir(at.join("pol")).unwrap();
    fs::write(at.join("pol/narthex.toml"), POLICY).unwrap();
    fs::copy(golden("formats/tests/golden/gguf/llama.gguf"), at.join("llama.gguf")).unwrap();
    succeed(at, &["import", "llama.gguf", "--name", "made", "--project", "made"]);
    succeed(at, &["export", "made", "whole", "--project", "made"]);
    for (name, license) in [("tiny", Some("cc-by-nc-4.0")), ("bare", None), ("open", Some("mit"))] {
        model_folder(&at.join("whole"), &at.join(name), license);
    }
    model_folder(&golden("model/tests/golden/encoder-bert"), &at.join("encoder"), Some("cc-by-nc-4.0"));
    let adapter = at.join("french");
    fs::create_dir(&adapter).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(golden("model/tests/golden/adapters/lora").join(name), adapter.join(name)).unwrap();
    }
    card(&adapter, Some("cc-by-nc-4.0"));
    fs::write(at.join("empty.jsonl"), "").unwrap();
    succeed(at, &["import", "./tiny", "--name", "tiny", "--project", "pol"]);
    fs::create_dir(at.join("elsewhere")).unwrap();
    home
}

/// Runs a command in a folder; it must end with this code, and say this.
fn check(at: &Path, command: &str, code: i32, expected: &[&str]) {
    let args: Vec<&str> = command.split(' ').collect();
    let output = output(at, &args);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "narthex {command}\n{said}");
    for part in expected {
        assert!(said.contains(part), "narthex {command}: {part}\n{said}");
    }
    assert!(code == 0 || !said.contains("ready after"), "nothing is loaded: narthex {command}\n{said}");
}

#[test]
fn the_policy_sees_whatever_is_served() {
    let home = rooms();
    let at = home.path();
    let refused = "does not allow to serve-commercially `weights`, under CC-BY-NC-4.0";
    let undeclared = "does not allow to serve-commercially `weights`, which has no declared licence";
    for (from, command, expected) in [
        // By its name, wherever that is typed: also where a folder of this name lies.
        ("elsewhere", "serve tiny --port 0 --project ../pol", [refused, "`tiny` is not served", "rule sold"]),
        (".", "serve tiny --port 0 --project pol", [refused, "`tiny` is not served", "rule sold"]),
        // As a folder: by its card, or as undeclared.
        (".", "serve ./tiny --port 0 --project pol", [refused, "`./tiny` is not served", "./tiny (weights)"]),
        ("elsewhere", "serve ../tiny/ --port 0 --project ../pol", [refused, "`../tiny/` is not served", "rule sold"]),
        (".", "serve ./bare --port 0 --project pol", [undeclared, "`./bare` is not served", "./bare/README.md"]),
        (".", "serve ./encoder --port 0 --project pol", [refused, "`./encoder` is not served", "rule sold"]),
        (".", "batch ./tiny empty.jsonl out.jsonl --project pol", [refused, "`./tiny` is not served", "rule sold"]),
        (".", "batch tiny empty.jsonl out.jsonl --project pol", [refused, "`tiny` is not served", "rule sold"]),
        (
            ".",
            r#"serve ./open --port 0 --project pol --speculative-config {"model":"./tiny","num_speculative_tokens":2}"#,
            [refused, "`./tiny` is not served", "rule sold"],
        ),
        (
            ".",
            "serve ./open --port 0 --project pol --lora-modules fr=./french",
            ["serve-commercially `french`, under CC-BY-NC-4.0", "the adapter `fr` is not served", "rule sold"],
        ),
    ] {
        check(&at.join(from), command, 1, &expected);
    }
    check(at, "push tiny oci:./layout --project pol", 1, &["to redistribute `weights`", "`tiny` is not pushed"]);
    // What may be served is, and where nobody forbids it anything is.
    check(at, "batch ./open empty.jsonl out.jsonl --project pol", 0, &["0 requests"]);
    check(at, "batch ./tiny empty.jsonl out.jsonl", 0, &["0 requests"]);
    // A card and a licence that say different things are no terms at all.
    fs::write(at.join("open/LICENSE"), include_str!("../../../LICENSE-APACHE")).unwrap();
    check(at, "serve ./open --port 0", 1, &["say different things", "correct README.md"]);
}

#[test]
fn own_use_goes_through_the_same_door_and_asks_no_policy() {
    let home = rooms();
    let at = home.path();
    for (command, expected) in [
        ("generate tiny --prompt the --max-tokens 2 --temperature 0 --project pol", "the"),
        ("generate ./tiny --prompt the --max-tokens 2 --temperature 0 --project pol", "the"),
        ("generate ./bare --prompt the --max-tokens 2 --temperature 0 --project pol", "the"),
        ("export tiny out --project pol", "serve ./out"),
    ] {
        check(at, command, 0, &[expected]);
    }
}

#[test]
fn a_name_is_a_name() {
    let home = rooms();
    let at = home.path();
    let help = "a name is looked up in the ledger; what lies here is written `./bare`";
    for (command, expected) in [
        ("serve bare --port 0 --project pol", ["there is no artifact `bare`", help]),
        ("serve bare --port 0", ["there is no ledger in .", help]),
        ("generate bare --prompt the --project pol", ["there is no artifact `bare`", help]),
        ("chat bare --project pol", ["there is no artifact `bare`", help]),
        ("embed bare text --project pol", ["there is no artifact `bare`", help]),
        ("quantize bare --to int8 --project pol", ["there is no artifact `bare`", help]),
        ("export bare out --project pol", ["there is no artifact `bare`", help]),
        ("license bare --project pol", ["there is no artifact `bare`", help]),
        ("serve ./open --port 0 --lora-modules fr=french", ["there is no adapter at `french`", "written `./french`"]),
        ("generate none.gguf --prompt the", ["cannot read", "none.gguf"]),
        ("embed ./llama.gguf the", ["generates text", "llama.gguf"]),
        ("generate org/model --prompt the", ["there is no model in org/model", "narthex pull hf:org/model"]),
    ] {
        check(at, command, 1, &expected);
    }
}
