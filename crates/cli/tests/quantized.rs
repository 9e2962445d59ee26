//! Models of small integers as artifacts: made by a step or by hand, tuned over, measured, passed on with their papers, and
//! made again.

use crate::program::{digest, fail, narthex, output, succeed};
use serde_json::Value;
use std::{fs, path::Path};

const PROJECT: &str = r#"[project]
name = "small"
seed = 3

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC-BY-4.0"
notice = "Lines by A. Counter"

[steps.documents]
kind = "data"
from = "lines"
validation = 0.2

[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 280

[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 64, intermediate_size = 96, layers = 2, heads = 2, kv_heads = 1 }
schedule = { steps = 60, batch_size = 4, context = 48, lr = 1e-2, warmup = 5 }

[steps.eighth]
kind = "quantize"
model = "base"
to = "int8"
calibrate = "tokens"

[steps.pairs]
kind = "data"
from = "lines"
output = "chat"
transform = "select text as user, lead(text) over (order by row) as assistant from source"
validation = 0.2

[steps.pair-tokens]
kind = "tokenize"
from = "pairs"
tokenizer = "tokens"

[steps.talker]
kind = "tune"
model = "eighth"
data = "pair-tokens"
lora = { rank = 4, use_dora = true }
sample_prompt = "1 and 2 make 3"
schedule = { steps = 30, batch_size = 2, context = 48, lr = 2e-2, warmup = 2, eval_every = 30, sample_every = 15 }

[steps.score]
kind = "eval"
model = "talker"
baseline = "eighth"
data = "pair-tokens"
"#;

fn project(folder: &Path) {
    let lines: Vec<String> = (0..240).map(|i| format!("{} and {} make {}", i % 12, i / 12, i % 12 + i / 12)).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("lines.txt"), lines.join("\n")).unwrap();
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
}

fn shown(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap()
}

#[test]
fn integers_are_made_tuned_over_and_passed_on() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("one");
    project(&folder);
    succeed(&folder, &["run"]);
    let figure = |name: &str, figure: &str| shown(&folder, name)["manifest"]["figures"][figure].as_f64().unwrap();
    let (before, after) = (figure("eighth", "baseline_nats_per_byte"), figure("eighth", "nats_per_byte"));
    assert!((after / before - 1.0).abs() < 0.02 && after != before, "{before} -> {after}");
    assert!(figure("eighth", "bytes") < 0.6 * figure("eighth", "baseline_bytes"));
    // The adapter learnt, over integers.
    let (before, after) = (figure("score", "baseline_nats_per_byte"), figure("score", "nats_per_byte"));
    assert!(after < 0.9 * before, "tuning: {before} -> {after}");
    let parts = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "model.safetensors"];
    let files = shown(&folder, "talker")["manifest"]["files"].to_string();
    assert!(parts.iter().all(|part| files.contains(part)), "{files}");

    // With another number of threads: the same bytes.
    let again = output(&folder, &["reproduce", "talker", "--threads", "1"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned() + &String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("is reproduced"), "{said}");

    // By hand, from text; then it is known.
    let made = output(&folder, &["quantize", "base", "--to", "int4", "--group", "32", "--calibrate", "lines.txt"]);
    let said = String::from_utf8_lossy(&made.stderr);
    assert_eq!(
        (String::from_utf8_lossy(&made.stdout).as_ref(), made.status.code()),
        ("base-int4\n", Some(0)),
        "{said}"
    );
    assert!(said.contains("nats per byte") && said.contains("serve base-int4"), "{said}");
    let again = ["quantize", "base", "--to", "int4", "--group", "32", "--calibrate", "lines.txt"];
    assert!(String::from_utf8_lossy(&output(&folder, &again).stderr).contains("unchanged"));
    let text = succeed(&folder, &["generate", "base-int4", "--prompt", "3 and ", "--max-tokens", "8"]);
    assert!(!text.trim().is_empty());
    papers(&folder, home.path());

    for (args, expected) in [
        (vec!["quantize", "eighth", "--to", "int4"], "quantized already"),
        (vec!["quantize", "bose", "--to", "int4"], "did you mean `base`"),
        (vec!["quantize", "tokens", "--to", "int8"], "is not a model"),
        (vec!["quantize", "base", "--to", "int8", "--name", "eighth"], "is a step of this project"),
        (vec!["quantize", "base", "--to", "int8", "--calibrate", "nothing"], "no file `nothing`"),
        (vec!["quantize", "base", "--to", "int8", "--calibrate", "documents"], "no text but of kind documents"),
    ] {
        let error = fail(&folder, &args, 1);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let error = fail(&folder, &["quantize", "base", "--to", "int4", "--group", "48"], 2);
    assert!(error.contains("[32, 64, 128]"), "{error}");
}

/// What a quantized model was made from goes with it, and it can be made again.
fn papers(folder: &Path, home: &Path) {
    let trace = succeed(folder, &["trace", "base-int4"]);
    for expected in ["base", "tokens", "documents", "lines.txt", "CC-BY-4.0"] {
        assert!(trace.contains(expected), "{expected} is missing in\n{trace}");
    }
    let exported = home.join("exported");
    succeed(folder, &["export", "base-int4", exported.to_str().unwrap()]);
    for file in ["narthex.json", "NOTICE", "LICENSES/CC-BY-4.0.txt", "model.safetensors", "tokenizer.json"] {
        assert!(exported.join(file).is_file(), "{file}");
    }
    assert!(fs::read_to_string(exported.join("NOTICE")).unwrap().contains("Lines by A. Counter"));
    let elsewhere = home.join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    succeed(&elsewhere, &["import", exported.to_str().unwrap(), "--name", "received"]);
    assert_eq!(digest(&elsewhere, "received"), digest(folder, "base-int4"));
    let again = narthex(folder, &["reproduce", "base-int4"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success() && said.contains("is reproduced"), "{said}");

    // A folder of somebody else's: its papers, or without any its licence text.
    let whole = home.join("whole");
    succeed(folder, &["export", "base", whole.to_str().unwrap()]);
    succeed(&elsewhere, &["quantize", whole.to_str().unwrap(), "--to", "int8"]);
    let known = shown(&elsewhere, "whole-int8").to_string();
    assert!(known.contains("CC-BY-4.0") && known.contains("Lines by A. Counter"), "{known}");
    fs::remove_file(whole.join("narthex.json")).unwrap();
    fs::write(whole.join("README.md"), "---\nlicense: cc-by-nc-4.0\n---\n").unwrap();
    fs::remove_file(whole.join("LICENSE")).unwrap();
    succeed(&elsewhere, &["quantize", whole.to_str().unwrap(), "--to", "int8", "--name", "bare"]);
    let license = shown(&elsewhere, "bare").to_string();
    assert!(license.contains("CC-BY-NC-4.0"), "{license}");
}
