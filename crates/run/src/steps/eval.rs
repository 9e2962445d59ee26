//! `eval`: a model, and perhaps one to compare with -> figures.

use super::{Made, StepContext};
use crate::source;
use narthex_answer::{AnswerError, TaskItem, TextModel, score_task};
use narthex_base::{ArtifactKind, Component, ComponentKind, Error, Figure, Message, Result, Role, config::EvalStep};
use narthex_infer::{Engine, EngineOptions};
use narthex_shelf::{LoadedModel, OpenedModel, WeightForm};
use narthex_text::TokenShard;
use narthex_train::objective::{Chat, Pretrain};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

pub(super) fn make(context: &StepContext, step: &EvalStep) -> Result<Made> {
    let mut figures = BTreeMap::new();
    for (role, prefix) in [("model", ""), ("baseline", "baseline_")] {
        for (input, artifact) in context.inputs_as(role) {
            let model = OpenedModel::of_step(&input.name, context.model_folder(input, artifact)?);
            let model = model.generator(WeightForm::Full)?;
            model.notes.iter().for_each(|note| context.observer.warn(note.clone()));
            for (name, value) in measure(context, step, &model)? {
                figures.insert(format!("{prefix}{name}"), value);
            }
        }
    }
    let json = serde_json::to_string_pretty(&figures).expect("figures serialize");
    context.write("figures.json", json + "\n")?;
    let mut components = vec![context.own("evaluation", ComponentKind::EvaluationResults, &["figures.json"])];
    // What was measured on: the validation part of training data, or the rows of a task.
    for (_, artifact) in context.inputs_as("data").chain(context.inputs_as("task")) {
        let data = artifact.manifest.components.iter().filter(|c| c.kind == ComponentKind::Datasets && c.is_own());
        components.extend(data.map(|component| Component {
            kind: ComponentKind::EvaluationData,
            paths: vec![],
            ..component.clone()
        }));
    }
    Ok(Made::new(ArtifactKind::Evaluation, components, figures))
}

fn measure(context: &StepContext, step: &EvalStep, model: &LoadedModel) -> Result<BTreeMap<String, f64>> {
    let mut figures = BTreeMap::new();
    let observer = context.observer;
    if let Some((input, tokens)) = context.inputs_as("data").next() {
        let path = tokens.path("validation.tokens");
        if !path.is_file() {
            return Err(Error::input(format!("`{}` has no validation part to measure on", input.name))
                .help("set `validation = 0.1` in the data step before it"));
        }
        let shard = TokenShard::open(&path)?;
        if shard.vocab_size() != model.tokenizer.vocab_size() {
            return Err(Error::input(format!(
                "the tokens of `{}` are not those of the model `{}`",
                input.name, model.name
            ))
            .help("tokenize the data with the model's tokenizer: `tokenizer = \"MODEL\"`"));
        }
        if shard.has_pairs() {
            return Err(Error::input(format!("`{}` holds pairs of answers, which are no text to predict", input.name))
                .help("measure on documents or conversations"));
        }
        observer.progress(0, 1, "models", format!("{} on {}", model.name, input.name));
        let len = model.decoder.config().context;
        let found = match shard.has_mask() {
            true => Chat::measure(&model.decoder, &shard, len, usize::MAX, observer)?,
            false => Pretrain::measure(&model.decoder, &shard, false, len, usize::MAX, observer)?,
        };
        figures.insert(Figure::NATS_PER_BYTE.name.into(), found.nats_per_byte);
        figures.insert(Figure::NATS_PER_TOKEN.name.into(), found.nats_per_token);
        figures.insert("tokens".into(), found.tokens as f64);
    }
    if let Some((input, _)) = context.inputs_as("task").next() {
        let source = &context.project.plan.sources[&input.name];
        let answering = model.answering(Engine::start(model.decoder.clone(), EngineOptions::default())?);
        let mut items = Vec::new();
        for file in source::files(context.project, &input.name, source)? {
            read_task(&file, &source.columns, step, &answering, &mut items)?;
        }
        let score = score_task(&answering, &items, step.max_answer_tokens, observer)?;
        if score.skipped_rows > 0 {
            observer.warn(format!(
                "{} of {} rows do not fit into the context of `{}`",
                score.skipped_rows,
                items.len(),
                model.name
            ));
        }
        figures.extend(score.figures());
    }
    Ok(figures)
}

/// Reads a task file: one JSON object a line.
fn read_task(
    path: &Path,
    columns: &BTreeMap<String, String>,
    step: &EvalStep,
    model: &TextModel,
    items: &mut Vec<TaskItem>,
) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        if items.len() >= step.max_rows {
            return Ok(());
        }
        let line = line.map_err(|error| Error::io("cannot read", path, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let item = task_item(&line, columns).map_err(|error| error.at(path.display(), number + 1))?;
        items.push(if step.chat { through_template(item, model)? } else { item });
    }
    Ok(())
}

fn task_item(line: &str, columns: &BTreeMap<String, String>) -> Result<TaskItem> {
    let mut row: Value = serde_json::from_str(line)
        .map_err(|error| Error::input("this row of the task is not valid JSON").cause(error))?;
    let renamed: Vec<(&String, Value)> =
        columns.iter().map(|(name, from)| (name, row[from.as_str()].clone())).collect();
    if let Some(row) = row.as_object_mut() {
        row.extend(renamed.into_iter().map(|(name, value)| (name.clone(), value)));
    }
    let help = "a row is {\"prompt\": …, \"answer\": …}, or {\"prompt\": …, \"choices\": […], \"answer\": INDEX}";
    let wrong = |what: &str| Error::input(what.to_string()).help(help);
    let prompt = row["prompt"].as_str().ok_or_else(|| wrong("this row of the task has no `prompt`"))?.to_string();
    if row["choices"].is_null() {
        let answer = row["answer"].as_str().ok_or_else(|| wrong("this row of the task has no `answer`"))?.to_string();
        return Ok(TaskItem::Exact { prompt, answer });
    }
    let choices = row["choices"]
        .as_array()
        .and_then(|list| list.iter().map(|c| Some(c.as_str()?.to_string())).collect::<Option<Vec<_>>>())
        .filter(|choices| choices.len() >= 2 && choices.iter().all(|choice| !choice.is_empty()));
    let choices =
        choices.ok_or_else(|| wrong("`choices` is not a list of two or more strings with something in them"))?;
    let answer = row["answer"].as_u64().map(|i| i as usize).filter(|i| *i < choices.len());
    let answer = answer.ok_or_else(|| wrong("`answer` is not the index of a choice"))?;
    Ok(TaskItem::Choice { prompt, choices, answer })
}

fn through_template(item: TaskItem, model: &TextModel) -> Result<TaskItem> {
    let render = |prompt: &str| {
        model.render(&[Message::new(Role::User, prompt)], true).map_err(|error| match error {
            AnswerError::NoTemplate => Error::input(error.to_string()).help("set `chat = false` in the eval step"),
            other => other.into(),
        })
    };
    Ok(match item {
        TaskItem::Exact { prompt, answer } => TaskItem::Exact { prompt: render(&prompt)?, answer },
        TaskItem::Choice { prompt, choices, answer } => TaskItem::Choice { prompt: render(&prompt)?, choices, answer },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_task() {
        let exact = TaskItem::Exact { prompt: "p".into(), answer: "a".into() };
        let choice = TaskItem::Choice { prompt: "p".into(), choices: vec!["x".into(), "y".into()], answer: 1 };
        assert_eq!(task_item(r#"{"prompt": "p", "answer": "a"}"#, &BTreeMap::new()).unwrap(), exact);
        let renamed =
            [("prompt", "question"), ("answer", "solution")].map(|(name, from)| (name.to_string(), from.to_string()));
        assert_eq!(task_item(r#"{"question": "p", "solution": "a"}"#, &renamed.into()).unwrap(), exact);
        assert_eq!(
            task_item(r#"{"prompt": "p", "choices": ["x", "y"], "answer": 1}"#, &BTreeMap::new()).unwrap(),
            choice
        );
        for (row, expected) in [
            ("{", "not valid JSON"),
            (r#"{"answer": "a"}"#, "no `prompt`"),
            (r#"{"prompt": "p"}"#, "no `answer`"),
            (r#"{"prompt": "p", "choices": ["x"], "answer": 0}"#, "two or more"),
            (r#"{"prompt": "p", "choices": ["x", "y"], "answer": 2}"#, "index"),
        ] {
            assert!(task_item(row, &BTreeMap::new()).unwrap_err().what().contains(expected), "{row}");
        }
    }
}
