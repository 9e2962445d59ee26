//! What a typed project must also satisfy: names, inputs, what the kinds say of themselves, no cycles.

use super::{Input, InputKind, PlannedStep, layers::Merged};
use crate::{
    component::{ComponentKind, Content},
    config::{Accepts, Policy, ProjectFile, SourceForm, SourceFormat, Step, StepInput},
    error::{Error, Result, nearest},
    license::{License, Term},
};

/// Rules that can never apply, or say nothing, are mistakes.
fn policy(merged: &Merged, policy: &Policy) -> Result<()> {
    let kinds: Vec<String> = ComponentKind::ALL.iter().map(|kind| kind.slug()).collect();
    let contents = [Content::Code, Content::Data, Content::Document].map(Content::name);
    let terms = Term::ALL.map(Term::name);
    for (name, rule) in &policy.rules {
        let at = |report: Error, key: &str| Err(merged.place(report, merged.span_of(&["policy", "rules", name, key])));
        if !rule.licenses.is_empty() && !rule.only.is_empty() {
            return at(
                Error::input(format!("rule `{name}` has both `licenses` and `only`")).help("split it in two"),
                "only",
            );
        }
        for wanted in &rule.components {
            if !kinds.contains(wanted) && !contents.contains(&wanted.as_str()) {
                let known: Vec<&str> = kinds.iter().map(String::as_str).chain(contents).collect();
                let report = Error::input(format!("rule `{name}`: there is no component `{wanted}`"));
                let near = nearest(wanted, known.iter().copied());
                return at(
                    report.help(near.map_or_else(|| known.join(", "), |near| format!("did you mean `{near}`?"))),
                    "components",
                );
            }
        }
        for (key, wanted) in
            rule.licenses.iter().map(|id| ("licenses", id)).chain(rule.only.iter().map(|id| ("only", id)))
        {
            let known = terms.contains(&wanted.as_str()) || wanted == "undeclared" || wanted.ends_with('*');
            if !known && let Err(error) = License::parse(wanted) {
                let help = error.help_text().unwrap_or_default().to_string();
                let report = Error::input(format!("rule `{name}`: `{wanted}` is neither a licence nor a term"));
                return at(report.help(format!("{help}; terms: undeclared, {}", terms.join(", "))), key);
            }
        }
    }
    Ok(())
}

/// Resolves inputs and puts the steps in order.
pub(super) fn steps(merged: &Merged, file: &ProjectFile) -> Result<Vec<PlannedStep>> {
    let at = |report: Error, path: &[&str]| merged.place(report, merged.span_of(path));
    if file.project.name.trim().is_empty() {
        return Err(at(Error::input("the project's name is empty"), &["project", "name"]));
    }
    let source_names = file.sources.keys().map(|name| ("sources", name));
    for (table, name) in source_names.chain(file.steps.keys().map(|name| ("steps", name))) {
        let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !good {
            return Err(at(Error::input(format!("`{name}` cannot be a name")), &[table, name])
                .help("use letters, digits, `-`, `_` and `.`, beginning with a letter or digit"));
        }
        if table == "steps" && file.sources.contains_key(name) {
            return Err(at(Error::input(format!("`{name}` names both a source and a step")), &[table, name])
                .help("rename one of them"));
        }
    }
    policy(merged, &file.policy)?;
    let mut planned = Vec::new();
    for (name, _) in merged.children("steps") {
        let Some(step) = file.steps.get(name) else { continue };
        step.check().map_err(|found| {
            at(Error::input(format!("step `{name}`: {}", found.what)), &path_of(name, found.key)).help(found.help)
        })?;
        let inputs = step
            .inputs()
            .into_iter()
            .map(|input| resolve(file, step, &input).map_err(|report| at(report, &["steps", name, input.role])));
        planned.push(PlannedStep {
            name: name.to_string(),
            step: step.clone(),
            inputs: inputs.collect::<Result<_>>()?,
        });
    }
    order(planned).map_err(|(report, name)| at(report, &["steps", &name]))
}

fn path_of<'a>(step: &'a str, key: &'a str) -> Vec<&'a str> {
    ["steps", step].into_iter().chain(key.split('.')).collect()
}

/// Whether a step may be an input of another.
fn fits(accepts: &Accepts, step: &Step, other: &Step) -> bool {
    let is_own_kind = other.kind().name == step.kind().name;
    accepts.steps.contains(&other.yields()) && !(accepts.refuses_own_kind && is_own_kind)
}

fn resolve(file: &ProjectFile, step: &Step, input: &StepInput) -> Result<Input> {
    let StepInput { role, name, accepts } = input;
    let found = |kind| Ok(Input { role: role.to_string(), name: name.clone(), kind, accepts: *accepts });
    let wrong = |is: String| {
        Err(Error::input(format!("`{role}` must be {}, but `{name}` is {is}", accepts.words))
            .help(format!("name {}", accepts.words)))
    };
    if let Some(reference) = name.strip_prefix("ref:") {
        if !accepts.references {
            return wrong("a reference into the ledger".into());
        }
        return Ok(Input { role: role.to_string(), name: reference.into(), kind: InputKind::Ref, accepts: *accepts });
    }
    if let Some(other) = file.steps.get(name) {
        if !fits(accepts, step, other) {
            return wrong(format!("a step of kind `{}`", other.kind().name));
        }
        return found(InputKind::Step);
    }
    if let Some(source) = file.sources.get(name) {
        let is_folder = source.format == SourceFormat::HuggingFace;
        let Some(form) = accepts.source else { return wrong("a source".into()) };
        if is_folder != (form == SourceForm::Model) {
            return wrong(if is_folder {
                "a model folder".into()
            } else {
                "a source of data (for a model folder set `format = \"huggingface\"`)".into()
            });
        }
        return found(InputKind::Source);
    }
    let fitting = file.steps.iter().filter(|(_, other)| fits(accepts, step, other));
    let mut names: Vec<&str> = fitting.map(|(name, _)| name.as_str()).collect();
    if accepts.source.is_some() {
        names.extend(file.sources.keys().map(String::as_str));
    }
    let report = Error::input(format!("`{role}` names `{name}`, but there is no such step or source"));
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => report.help(format!("did you mean `{near}`?")),
        None if names.is_empty() => report.help(format!("add {}", accepts.words)),
        None => report.help(format!("name {}: {}", accepts.words, names.join(", "))),
    })
}

/// Each step after its inputs, otherwise as given. On a cycle, the report and the step it was found at.
fn order(steps: Vec<PlannedStep>) -> std::result::Result<Vec<PlannedStep>, (Error, String)> {
    fn visit(
        name: &str,
        steps: &[PlannedStep],
        done: &mut Vec<String>,
        path: &mut Vec<String>,
    ) -> std::result::Result<(), (Error, String)> {
        if done.iter().any(|d| d == name) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|p| p == name) {
            let cycle = path[start..]
                .iter()
                .chain([&path[start]])
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(" needs ");
            return Err((
                Error::input(format!("the steps form a cycle: {cycle}")).help("let one of them take another input"),
                name.into(),
            ));
        }
        path.push(name.to_string());
        let step = steps.iter().find(|s| s.name == name).expect("inputs of kind step name steps");
        for input in step.inputs.iter().filter(|i| i.kind == InputKind::Step) {
            visit(&input.name, steps, done, path)?;
        }
        path.pop();
        done.push(name.to_string());
        Ok(())
    }
    let mut done = Vec::new();
    for step in &steps {
        visit(&step.name, &steps, &mut done, &mut Vec::new())?;
    }
    let mut steps = steps;
    steps.sort_by_key(|step| done.iter().position(|name| *name == step.name));
    Ok(steps)
}
