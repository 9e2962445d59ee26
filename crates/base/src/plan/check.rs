//! What a typed project must also satisfy: names, inputs, kinds, ranges, no cycles.

use super::{Input, InputKind, PlannedStep, layers::Merged};
use crate::{
    ComponentKind, Content, Error, License, Result,
    config::{Lora, ModelShape, Policy, ProjectFile, QuantizeStep, Schedule, SourceFormat, Step},
    error::nearest,
    license::Term,
};

/// What an input must be, in words and as kinds of steps.
struct Wanted {
    words: &'static str,
    steps: &'static [&'static str],
    sources: bool,
    refs: bool,
}

fn wanted(step: &Step, role: &str) -> Wanted {
    match (step, role) {
        (Step::Data(_), _) => Wanted { words: "a source or a data step", steps: &["data"], sources: true, refs: false },
        (Step::Tokenize(_), "from") => Wanted { words: "a data step", steps: &["data"], sources: false, refs: false },
        (Step::Tokenize(_), _) => Wanted {
            words: "a step or source with a tokenizer",
            steps: &["tokenize", "train", "tune", "quantize"],
            sources: true,
            refs: true,
        },
        (Step::Train(_), _) | (Step::Tune(_) | Step::Eval(_), "data") => {
            Wanted { words: "a tokenize step", steps: &["tokenize"], sources: false, refs: false }
        }
        (Step::Quantize(_), "model") => Wanted {
            words: "a train or tune step, a model folder as a source, or `ref:NAME`",
            steps: &["train", "tune"],
            sources: true,
            refs: true,
        },
        (Step::Quantize(_), _) => Wanted {
            words: "a tokenize step, a source of plain text, or `ref:NAME`",
            steps: &["tokenize"],
            sources: true,
            refs: true,
        },
        (Step::Eval(_), "task") => Wanted { words: "a JSONL source", steps: &[], sources: true, refs: false },
        (Step::Bundle(_), "evaluations") => {
            Wanted { words: "an eval step", steps: &["eval"], sources: false, refs: false }
        }
        (Step::Bundle(_), role) if role != "model" => {
            Wanted { words: "a source with the document", steps: &[], sources: true, refs: false }
        }
        _ => Wanted {
            words: "a train, tune or quantize step, a model folder as a source, or `ref:NAME`",
            steps: &["train", "tune", "quantize"],
            sources: true,
            refs: true,
        },
    }
}

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
        values(step).map_err(|(key, what, help)| {
            at(Error::input(format!("step `{name}`: {what}")), &path_of(name, key)).help(help)
        })?;
        let inputs = step.inputs().into_iter().map(|(role, input)| {
            resolve(file, step, role, &input).map_err(|report| at(report, &["steps", name, role]))
        });
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

fn resolve(file: &ProjectFile, step: &Step, role: &str, name: &str) -> Result<Input> {
    let wanted = wanted(step, role);
    let found = |kind| Ok(Input { role: role.into(), name: name.into(), kind });
    let wrong = |is: String| {
        Err(Error::input(format!("`{role}` must be {}, but `{name}` is {is}", wanted.words))
            .help(format!("name {}", wanted.words)))
    };
    if let Some(reference) = name.strip_prefix("ref:") {
        if !wanted.refs {
            return wrong("a reference into the ledger".into());
        }
        return Ok(Input { role: role.into(), name: reference.into(), kind: InputKind::Ref });
    }
    if let Some(other) = file.steps.get(name) {
        if !wanted.steps.contains(&other.kind()) {
            return wrong(format!("a step of kind `{}`", other.kind()));
        }
        return found(InputKind::Step);
    }
    if let Some(source) = file.sources.get(name) {
        let is_folder = source.format == SourceFormat::HuggingFace;
        let wants_folder = matches!(role, "model" | "baseline" | "tokenizer");
        if !wanted.sources {
            return wrong("a source".into());
        }
        if is_folder != wants_folder {
            return wrong(if is_folder {
                "a model folder".into()
            } else {
                "a source of data (for a model folder set `format = \"huggingface\"`)".into()
            });
        }
        return found(InputKind::Source);
    }
    let mut names: Vec<&str> =
        file.steps.iter().filter(|(_, s)| wanted.steps.contains(&s.kind())).map(|(n, _)| n.as_str()).collect();
    if wanted.sources {
        names.extend(file.sources.keys().map(String::as_str));
    }
    let report = Error::input(format!("`{role}` names `{name}`, but there is no such step or source"));
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => report.help(format!("did you mean `{near}`?")),
        None if names.is_empty() => report.help(format!("add {}", wanted.words)),
        None => report.help(format!("name {}: {}", wanted.words, names.join(", "))),
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

type Complaint = (&'static str, String, &'static str);

fn require(
    good: bool,
    key: &'static str,
    what: impl Into<String>,
    help: &'static str,
) -> std::result::Result<(), Complaint> {
    if good { Ok(()) } else { Err((key, what.into(), help)) }
}

/// Ranges, by kind of step.
fn values(step: &Step) -> std::result::Result<(), Complaint> {
    match step {
        Step::Data(step) => {
            require(!step.from.to_vec().is_empty(), "from", "`from` is empty", "name a source")?;
            require(
                (0.0..=0.5).contains(&step.validation),
                "validation",
                format!("`validation` is {}, outside 0 to 0.5", step.validation),
                "0.1 keeps a tenth for validation",
            )
        }
        Step::Tokenize(step) => {
            require(
                step.vocab_size.is_some() != step.tokenizer.is_some(),
                "vocab_size",
                "give either `vocab_size` or `tokenizer`",
                "`vocab_size = 1024` trains a tokenizer; `tokenizer = \"STEP\"` takes one",
            )?;
            let size = step.vocab_size.unwrap_or(1024);
            require(
                (260..=1_000_000).contains(&size),
                "vocab_size",
                format!("`vocab_size` is {size}, outside 260 to 1,000,000"),
                "256 bytes and the special tokens come first",
            )
        }
        Step::Train(step) => {
            shape(&step.model)?;
            schedule(&step.schedule)
        }
        Step::Tune(step) => {
            lora(&step.lora)?;
            schedule(&step.schedule)
        }
        Step::Eval(step) => {
            require(
                step.data.is_some() || step.task.is_some(),
                "model",
                "nothing to measure",
                "add `data = \"TOKENIZE STEP\"` or `task = \"SOURCE\"`",
            )?;
            require(step.max_rows > 0, "max_rows", "`max_rows` is 0", "say how many rows to use")?;
            require(
                step.max_answer_tokens > 0,
                "max_answer_tokens",
                "`max_answer_tokens` is 0",
                "say how long an answer may be",
            )
        }
        Step::Quantize(step) => {
            let known = QuantizeStep::GROUPS;
            require(
                known.contains(&step.group),
                "group",
                format!("`group` is {}, but groups are of 32, 64 or 128", step.group),
                "64 is usual",
            )
        }
        Step::Bundle(_) => Ok(()),
    }
}

fn shape(shape: &ModelShape) -> std::result::Result<(), Complaint> {
    let ModelShape { hidden_size, intermediate_size, layers, heads, kv_heads, .. } = *shape;
    require(
        hidden_size > 0 && intermediate_size > 0 && layers > 0,
        "model",
        "a size is 0",
        "all sizes are at least 1",
    )?;
    require(
        heads > 0 && hidden_size.is_multiple_of(heads),
        "model.heads",
        format!("`heads` = {heads} does not divide `hidden_size` = {hidden_size}"),
        "choose a divisor",
    )?;
    require(
        (hidden_size / heads).is_multiple_of(2),
        "model.heads",
        format!("the head width {} is odd", hidden_size / heads),
        "rotary embeddings rotate pairs: choose an even head width",
    )?;
    require(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "model.kv_heads",
        format!("`kv_heads` = {kv_heads} does not divide `heads` = {heads}"),
        "choose a divisor",
    )?;
    require(shape.rope_theta > 0.0, "model.rope_theta", "`rope_theta` is not positive", "10000 is usual")
}

fn lora(lora: &Lora) -> std::result::Result<(), Complaint> {
    require(lora.rank > 0, "lora.rank", "`rank` is 0", "8 is usual")?;
    require(lora.alpha > 0.0, "lora.alpha", "`alpha` is not positive", "twice the rank is usual")?;
    require((0.0..1.0).contains(&lora.dropout), "lora.dropout", "`dropout` is outside 0 to 1", "0.05 is usual")?;
    require(!lora.targets.is_empty(), "lora.targets", "`targets` is empty", "name at least one projection")?;
    for target in &lora.targets {
        require(
            Lora::TARGETS.contains(&target.as_str()),
            "lora.targets",
            format!("`{target}` cannot have an adapter"),
            "targets: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        )?;
    }
    Ok(())
}

fn schedule(schedule: &Schedule) -> std::result::Result<(), Complaint> {
    let s = schedule;
    require(s.steps > 0, "schedule.steps", "`steps` is 0", "say how many optimizer steps to take")?;
    require(s.batch_size > 0, "schedule.batch_size", "`batch_size` is 0", "16 is a start")?;
    require(
        s.gradient_accumulation > 0,
        "schedule.gradient_accumulation",
        "`gradient_accumulation` is 0",
        "1 means none",
    )?;
    require(
        (2..=1 << 20).contains(&s.context),
        "schedule.context",
        format!("`context` is {}, outside 2 to 1,048,576", s.context),
        "128 is a start",
    )?;
    require(s.lr > 0.0 && s.lr.is_finite(), "schedule.lr", "`lr` is not positive", "1e-3 is a start for small models")?;
    require(
        (0.0..=1.0).contains(&s.lr_end),
        "schedule.lr_end",
        "`lr_end` is outside 0 to 1",
        "it is a fraction of `lr`",
    )?;
    require(
        s.warmup <= s.steps,
        "schedule.warmup",
        format!("`warmup` = {} is more than `steps` = {}", s.warmup, s.steps),
        "warm up for a tenth of the steps or less",
    )?;
    require(
        (0.0..=1.0).contains(&s.decay_fraction),
        "schedule.decay_fraction",
        "`decay_fraction` is outside 0 to 1",
        "0.2 is usual",
    )?;
    require(
        s.checkpoint_every > 0 || !s.keep_checkpoints,
        "schedule.keep_checkpoints",
        "`keep_checkpoints` without checkpoints",
        "set `checkpoint_every`, or leave it out",
    )?;
    require(
        Schedule::DEVICES.contains(&s.device.as_str()),
        "schedule.device",
        format!("there is no device `{}`", s.device),
        "one of: cpu, cuda, rocm, vulkan, metal, wgpu",
    )?;
    require((0.0..1.0).contains(&s.beta1), "schedule.beta1", "`beta1` is outside 0 to 1", "0.9 is usual")?;
    require((0.0..1.0).contains(&s.beta2), "schedule.beta2", "`beta2` is outside 0 to 1", "0.999 is usual")?;
    require(s.eps > 0.0, "schedule.eps", "`eps` is not positive", "1e-8 is usual")?;
    require(s.weight_decay >= 0.0, "schedule.weight_decay", "`weight_decay` is negative", "0.01 is usual")?;
    require(s.grad_clip >= 0.0, "schedule.grad_clip", "`grad_clip` is negative", "1.0 is usual, 0 turns it off")?;
    require((0.0..1.0).contains(&s.dropout), "schedule.dropout", "`dropout` is outside 0 to 1", "0 turns it off")
}
