//! A classifier as a user meets it: fitted on rows, measured, served, made again, and refused where something is wrong.

use crate::program::{Server, digest, fail, output, post, succeed, tiny_encoder};
use serde_json::{Value, json};
use std::{fs, path::Path};

const PROJECT: &str = r#"[project]
name = "animals"
seed = 3
license = "CC0-1.0"

[sources.lines]
path = "lines.tsv"
license = "CC-BY-4.0"

[sources.tiny]
path = "tiny"
format = "huggingface"
license = "Apache-2.0"

[steps.rows]
kind = "data"
from = "lines"
output = "rows"
split = "position"
validation = 0.25
deduplicate = false

[steps.verbs]
kind = "fit"
model = "tiny"
data = "rows"
target = "verb"
text = "words"

[steps.verbs.schedule]
steps = 60
batch_size = 8
context = 12
lr = 3e-3
warmup = 5
checkpoint_every = 20
keep_checkpoints = true
eval_every = 30

[steps.release]
kind = "bundle"
model = "verbs"
"#;

/// Who sat or ran, with what was done as the label; the last rows are those that come first again.
fn project(folder: &Path) {
    tiny_encoder(&folder.join("tiny"));
    let words = |number: usize| {
        let rest = (0..4).map(|place| ["the", "cat", "dog"][number / 3usize.pow(place) % 3]);
        let verb = ["sat", "ran"][number % 2];
        let mut all: Vec<&str> = rest.collect();
        all.insert(number % 5, verb);
        (all.join(" "), ["sitting", "running"][number % 2])
    };
    let rows = (0..96).chain(0..4).map(words).map(|(words, verb)| format!("{words}\t{verb}"));
    let lines: Vec<String> = std::iter::once("words\tverb".to_string()).chain(rows).collect();
    fs::write(folder.join("lines.tsv"), lines.join("\n")).unwrap();
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
}

fn figures(folder: &Path, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap();
    shown["manifest"]["figures"].clone()
}

#[test]
fn rows_become_a_classifier() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    let run = output(folder, &["run"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    // What stands in both parts is named, and not trained on.
    assert!(said.contains("4 texts of the training part also stand in the validation part"), "{said}");
    assert!(said.contains("narthex serve verbs"), "{said}");
    let found = figures(folder, "verbs");
    let figure = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
    assert_eq!(figure("texts_in_both_parts_removed"), 4.0, "{found}");
    assert!(figure("validation_accuracy") > 0.9 && figure("validation_f1") > 0.9, "{found}");
    assert!(figure("validation_pr_auc") > 0.9 && figure("validation_nats_per_text") < 0.4, "{found}");

    // The same bytes when made again, in part and as a whole; nothing to do the second time.
    let verified = succeed(folder, &["verify", "verbs", "--samples", "2"]);
    assert!(verified.contains("2 of 3"), "{verified}");
    let before = digest(folder, "verbs");
    assert!(succeed(folder, &["reproduce", "verbs"]).contains(&before[..12]));
    assert!(output(folder, &["run"]).status.success() && digest(folder, "verbs") == before);

    // Its weights come from somebody else's, and so does their licence; the data's is told.
    let license = succeed(folder, &["license", "verbs"]);
    assert!(license.contains("Apache-2.0") && license.contains("CC-BY-4.0"), "{license}");
    let traced = succeed(folder, &["trace", "release"]);
    assert!(traced.contains("verbs (predictor") && traced.contains("rows (rows"), "{traced}");

    let exported = folder.join("exported");
    succeed(folder, &["export", "release", "exported"]);
    let card = fs::read_to_string(exported.join("README.md")).unwrap();
    for wanted in ["pipeline_tag: text-classification", "AutoModelForSequenceClassification", "running, sitting"] {
        assert!(card.contains(wanted), "{wanted}: {card}");
    }
    let config: Value = serde_json::from_str(&fs::read_to_string(exported.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "running", "1": "sitting"}));

    // From the project and from the bundle alone, the same answers.
    let mut answers = Vec::new();
    for reference in ["verbs", "./exported"] {
        let (_server, address) = Server::start(folder, reference);
        let body =
            json!({"model": reference.trim_start_matches("./"), "input": ["the dog sat the cat", "the cat ran"]});
        let answer = post(format!("{address}/classify"), &body);
        let labels: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|one| &one["label"]).collect();
        assert_eq!(labels, ["sitting", "running"], "{answer}");
        answers.push(answer["data"].clone());
    }
    assert_eq!(answers[0], answers[1]);
    let classified = succeed(folder, &["classify", "verbs", "the dog sat the cat", "the cat ran"]);
    let labels: Vec<&str> = classified.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(labels, ["sitting", "running"], "{classified}");
    let line = succeed(folder, &["classify", "./exported", "the cat ran", "--json"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["label"], &line["tokens"]), (&json!("running"), &json!(5)));
    assert_eq!(line["probs"]["running"], answers[0][1]["probs"][0], "{line}");
    for (args, expected) in [
        (vec!["classify", "./tiny", "x"], "gives vectors and tells no labels"),
        (vec!["generate", "verbs", "--prompt", "x"], "generates no text"),
        (vec!["embed", "verbs", "x"], "sorts texts into classes"),
    ] {
        let error = fail(folder, &args, 1);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn a_language_model_becomes_a_classifier_too() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    let steps = r#"
[steps.documents]
kind = "data"
from = "lines"
transform = "select words as text from source"

[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 270

[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 32, intermediate_size = 48, layers = 2, heads = 2, kv_heads = 1 }
schedule = { steps = 10, batch_size = 4, context = 48, lr = 1e-2, warmup = 5 }

[steps.verbs-of-base]
kind = "fit"
model = "base"
data = "rows"
target = "verb"
text = "words"
positive = "sitting"
weights = "balanced"
method = "lora"
lora = { rank = 8 }

[steps.verbs-of-base.schedule]
steps = 80
batch_size = 8
context = 48
lr = 1e-2
warmup = 5
"#;
    fs::write(folder.join("narthex.toml"), format!("{PROJECT}{steps}")).unwrap();
    succeed(folder, &["fit", "verbs-of-base"]);
    let found = figures(folder, "verbs-of-base");
    assert!(found["validation_accuracy"].as_f64().unwrap() > 0.9, "{found}");
    let (_server, address) = Server::start(folder, "verbs-of-base");
    let body = json!({"model": "verbs-of-base", "input": ["dog the dog sat the", "ran cat the cat dog"]});
    let answer = post(format!("{address}/classify"), &body);
    let labels: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|one| &one["label"]).collect();
    assert_eq!(labels, ["sitting", "running"], "{answer}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    for (set, expected) in [
        ("verbs.target=verbs", "did you mean `verb`?"),
        ("verbs.target=words", "`target` and `text` are the same column"),
        ("verbs.text=word", "did you mean `words`?"),
        ("verbs.positive=flying", "labels: running, sitting"),
        ("verbs.data=lines", "a data step with `output = \"rows\"`"),
        ("rows.output=documents", "a data step with `output = \"rows\"`"),
        ("verbs.schedule.activation_checkpointing=true", "is for language models"),
        ("verbs.lora={rank = 2}", "[lora] is for adapters"),
        ("rows.transform=select words, 1 as verb from source", "has 1 labels in the training part"),
        ("rows.transform=select null as words, verb from source", "nothing in the column `words`"),
        ("rows.transform=select words, case when row > 80 then 'x' else verb end as verb from source", "`x`"),
    ] {
        let error = fail(folder, &["run", "--set", set], 1);
        assert!(error.contains(expected), "{set}: {error}");
    }
}
