//! What a step's key is made of, and how to say what changed since the last time.

use narthex_base::{Digest, Plan, config::Step, plan::PlannedStep};
use serde_json::{Value, json};

/// The version of the recipe for each kind of step: it rises when the same configuration and inputs give other bytes.
pub(crate) fn recipe_version(step: &Step) -> u32 {
    match step {
        Step::Data(_) => 1,
        Step::Tokenize(_) => 1,
        Step::Train(_) => 2,
        Step::Tune(_) => 2,
        Step::Eval(_) => 3,
        Step::Bundle(_) => 1,
    }
}

/// The step's resolved configuration.
pub(crate) fn config(planned: &PlannedStep) -> Value {
    serde_json::to_value(&planned.step).expect("our own types serialize")
}

/// Everything that decides the bytes of a step's artifact.
pub(crate) fn material(plan: &Plan, planned: &PlannedStep, inputs: &[(String, String, Digest)]) -> Value {
    let inputs: serde_json::Map<String, Value> =
        inputs.iter().map(|(role, name, digest)| (format!("{role} ({name})"), json!(digest))).collect();
    let mut material = json!({
        "kind": planned.step.kind(),
        "recipe_version": recipe_version(&planned.step),
        "config": config(planned),
        "inputs": inputs,
        "license": plan.project.license,
    });
    if matches!(planned.step, Step::Data(_) | Step::Train(_) | Step::Tune(_)) {
        material["seed"] = json!(plan.project.seed);
    }
    if matches!(planned.step, Step::Bundle(_)) {
        material["project"] = json!(plan.project.name);
    }
    material
}

/// The differences between two materials in words: `schedule.lr 0.001 -> 0.0003`.
pub(crate) fn changes(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (part, prefix) in [("config", ""), ("inputs", "input ")] {
        compare(prefix, &old[part], &new[part], &mut found);
    }
    for part in ["kind", "recipe_version", "seed", "license", "project"] {
        compare(part, &old[part], &new[part], &mut found);
    }
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let joint = if path.is_empty() || path.ends_with(' ') { "" } else { "." };
            let (old, new) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
            compare(&format!("{path}{joint}{key}"), old, new, found);
        }
        return;
    }
    let show = |value: &Value| match value {
        Value::Null => "unset".to_string(),
        Value::String(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            text[..12].to_string()
        }
        Value::String(text) if text.chars().count() > 40 || text.contains('\n') => {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{}…", line.chars().take(40).collect::<String>())
        }
        other => other.to_string(),
    };
    found.push(format!("{path} {} -> {}", show(old), show(new)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named() {
        let digest = |c: &str| c.repeat(64);
        let old = json!({"kind": "train", "config": {"schedule": {"lr": 0.001, "steps": 5}}, "inputs": {"data (tokens)": digest("a")}});
        let mut new = old.clone();
        assert!(changes(&old, &new).is_empty());
        new["config"]["schedule"]["lr"] = json!(0.0003);
        new["inputs"]["data (tokens)"] = json!(digest("b"));
        assert_eq!(
            changes(&old, &new),
            ["schedule.lr 0.001 -> 0.0003", "input data (tokens) aaaaaaaaaaaa -> bbbbbbbbbbbb"]
        );
    }
}
