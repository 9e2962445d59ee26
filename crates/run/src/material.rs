//! What a step's key is made of, and how to say what changed since the last time.

use crate::project::SourceCode;
use narthex_base::{
    Digest, Plan,
    config::{Precision, Step, Use},
    plan::PlannedStep,
};
use narthex_model::isa;
use serde_json::{Value, json};

/// The instruction set that decides a step's bytes, where one does. Single precision does not use those for bf16.
pub(crate) fn instruction_set(step: &Step) -> Option<&'static str> {
    Some(match step.computes_in()? {
        Precision::F32 => isa().in_single_precision().name(),
        Precision::Bf16 => isa().name(),
    })
}

/// The step's resolved configuration.
pub(crate) fn config(planned: &PlannedStep) -> Value {
    let mut config = serde_json::to_value(&planned.step).expect("our own types serialize");
    // How many processes train, and what each of them has, and where, changes no byte.
    if let Some(schedule) = config.pointer_mut("/schedule").and_then(Value::as_object_mut) {
        schedule.retain(|key, _| !["shard", "offload"].contains(&key.as_str()));
    }
    config
}

/// Everything that decides the bytes of a step's artifact. `code` is what a bundle may take along.
pub(crate) fn material(
    plan: &Plan,
    planned: &PlannedStep,
    inputs: &[(String, String, Digest)],
    code: Option<&SourceCode>,
) -> Value {
    let inputs: serde_json::Map<String, Value> =
        inputs.iter().map(|(role, name, digest)| (format!("{role} ({name})"), json!(digest))).collect();
    let kind = planned.step.kind();
    let mut material = json!({
        "kind": kind.name,
        "recipe_version": kind.recipe_version,
        "config": config(planned),
        "inputs": inputs,
        "license": plan.project.license,
    });
    if kind.uses_seed {
        material["seed"] = json!(plan.project.seed);
    }
    if let Some(set) = instruction_set(&planned.step) {
        material["isa"] = json!(set);
    }
    if kind.policy_use == Some(Use::Redistribute) {
        material["project"] = json!(plan.project.name);
        if planned.step.takes_code() {
            material["code"] = json!(code.map(|code| Digest::of(code.bytes)));
        }
    }
    material
}

/// The differences between two materials in words: `schedule.lr 0.001 -> 0.0003`.
pub(crate) fn changes(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (part, prefix) in [("config", ""), ("inputs", "input ")] {
        compare(prefix, &old[part], &new[part], &mut found);
    }
    for part in ["kind", "recipe_version", "seed", "license", "project", "isa", "code"] {
        compare(part, &old[part], &new[part], &mut found);
    }
    found
}

/// The differences between two configurations in words.
pub(crate) fn config_changes(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", old, new, &mut found);
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
