//! Tuning on pairs of answers, as a user meets it: from rows to a model that prefers what was chosen, checked and
//! refused.

use crate::program::{digest, fail, output, succeed};
use serde_json::Value;
use std::{fs, path::Path};

const PROJECT: &str = r#"[project]
name = "tastes"
seed = 3

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC-BY-4.0"

[sources.pairs]
path = "pairs.jsonl"
license = "CC0-1.0"

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
model = { hidden_size = 32, intermediate_size = 48, layers = 2, heads = 2, kv_heads = 1 }
schedule = { steps = 20, batch_size = 4, context = 96, lr = 1e-2, warmup = 5 }

[steps.preferences]
kind = "data"
from = "pairs"
output = "pairs"
validation = 0.25

[steps.preference-tokens]
kind = "tokenize"
from = "preferences"
tokenizer = "tokens"

[steps.preferred]
kind = "tune"
model = "base"
data = "preference-tokens"
objective = "dpo"
sample_prompt = "1 and 2"
preference = { beta = 0.2 }
lora = { rank = 4 }

[steps.preferred.schedule]
steps = 24
batch_size = 4
context = 64
lr = 1e-2
warmup = 2
checkpoint_every = 8
keep_checkpoints = true
eval_every = 12
sample_every = 12
"#;

fn project(folder: &Path, pairs: impl Iterator<Item = Value>) {
    let lines: Vec<String> = (0..120).map(|i| format!("{} and {} make {}", i % 12, i / 12, i % 12 + i / 12)).collect();
    let pairs: Vec<String> = pairs.map(|pair| pair.to_string()).collect();
    fs::write(folder.join("lines.txt"), lines.join("\n")).unwrap();
    fs::write(folder.join("pairs.jsonl"), pairs.join("\n")).unwrap();
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
}

/// The right sum is chosen, `none` is rejected; the last prompt fills the context.
fn sums() -> impl Iterator<Item = Value> {
    let say = |role: &str, text: String| serde_json::json!([{"role": role, "content": text}]);
    (0..40).map(move |i: usize| {
        let prompt = if i == 39 { "and ".repeat(64) } else { format!("{} and {}", i % 7, i / 7) };
        serde_json::json!({
            "prompt": say("user", prompt),
            "chosen": say("assistant", format!("make {}", i % 7 + i / 7)),
            "rejected": say("assistant", "none".into()),
        })
    })
}

fn figures(folder: &Path, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap();
    shown["manifest"]["figures"].clone()
}

#[test]
fn pairs_become_a_model_that_prefers() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder, sums());
    let run = output(folder, &["run"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    let found = figures(folder, "preferred");
    let figure = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
    assert!(figure("validation_rewards_accuracies") > 0.9, "{found}");
    assert!(figure("validation_preference_loss") < 0.5, "{found}");
    assert_eq!(figure("pairs"), 96.0, "{found}");
    let (usable, dropped) = (figure("usable_pairs"), figure("dropped_pairs"));
    let train = figures(folder, "preference-tokens")["train_documents"].as_f64().unwrap();
    assert!((usable + dropped - train / 2.0).abs() < 0.5 && dropped <= 1.0, "{found}");
    assert_eq!(dropped > 0.0, said.contains("pairs are left out"), "{said}");
    // A part of the training is computed again.
    let verified = succeed(folder, &["verify", "preferred", "--samples", "2"]);
    // Three of its own, and the one of the model it was tuned from.
    assert!(verified.contains("2 of 4"), "{verified}");
    // Nothing has changed, and a conversation's recipe knows nothing of pairs.
    let before = digest(folder, "preferred");
    let again = output(folder, &["run"]);
    assert!(again.status.success() && digest(folder, "preferred") == before);
    let shown = succeed(folder, &["show", "base", "--json"]);
    assert!(!shown.contains("objective") && !shown.contains("preference\""), "{shown}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder, sums());
    for (set, expected) in [
        ("preferred.objective=sft", "[preference] is for pairs"),
        ("preferred.preference.loss=hinge", "`hinge` is not one of: sigmoid"),
        ("preferred.preference.beta=0", "beta"),
        ("preferences.output=chat", "`messages`, or `user` and `assistant`"),
    ] {
        let error = fail(folder, &["run", "--set", set], 1);
        assert!(error.contains(expected), "{set}: {error}");
    }
    let without = PROJECT.replace("objective = \"dpo\"\n", "").replace("preference = { beta = 0.2 }\n", "");
    fs::write(folder.join("narthex.toml"), without).unwrap();
    let error = fail(folder, &["run"], 1);
    assert!(error.contains("pairs of answers, not conversations") && error.contains("dpo"), "{error}");
    // Every prompt fills the context.
    let long = |mut pair: Value| {
        pair["prompt"][0]["content"] = "and ".repeat(64).into();
        pair
    };
    project(folder, sums().map(long));
    let error = fail(folder, &["run", "--set", "preferences.deduplicate=false"], 1);
    assert!(error.contains("leaves room for an answer"), "{error}");
}
