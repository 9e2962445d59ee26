//! `fit`: rows and a model -> a classifier of texts, with what it is worth on the rows that were held back.

use super::{
    Made, StepContext,
    training::{Course, Whole, training},
};
use narthex_base::{
    ArtifactKind, Component, ComponentKind, Error, Result,
    config::{FitStep, TextWeights, TuneMethod},
};
use narthex_data::{Record, read_records};
use narthex_model::{Classifier, EncoderInput, LoraSpec, cpu, encoder::SentenceConfig};
use narthex_text::{SequenceTokenizer, Tokenizer};
use narthex_train::{
    Fitted, Selection, Training,
    objective::{Classify, LabelledText},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

/// Texts put into tokens at a time.
const CHUNK: usize = 256;

/// What makes a tokenizer, and how a text is prepared for it, where the model's folder has it.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "chat_template.jinja",
    "added_tokens.json",
    "sentence_bert_config.json",
];

pub(super) fn make(context: &StepContext, step: &FitStep) -> Result<Made> {
    let prepared = Prepared::read(context, step)?;
    let Fitted { model, mut figures, measured, passed } = prepared.take(context, step, Whole)?;
    let classifier = model.merged();
    classifier.write(context.files)?;
    for name in TOKENIZER_FILES.into_iter().filter(|name| prepared.folder.join(name).is_file()) {
        context.copy(&prepared.folder.join(name), name)?;
    }
    figures.insert("texts_in_both_parts_removed".into(), prepared.removed as f64);
    let predictor = json!({
        "task": "text-classification",
        "text": step.text,
        "target": step.target,
        "labels": prepared.labels,
        "positive": prepared.labels[prepared.positive],
        "context": prepared.tokens_max,
    });
    context.write("predictor.json", serde_json::to_string_pretty(&predictor).expect("JSON serializes") + "\n")?;
    Ok(Made { measured, passed, ..Made::new(ArtifactKind::Predictor, components(context)?, figures) })
}

/// The classifier before it is fitted and all that fitting it takes, for `course`.
pub(super) fn with_training<C: Course>(
    context: &StepContext,
    step: &FitStep,
    course: C,
) -> Result<C::Outcome<Classifier>> {
    Prepared::read(context, step)?.take(context, step, course)
}

/// What is fitted, and to what.
struct Prepared {
    classifier: Classifier,
    /// The folder of the model that it began as.
    folder: PathBuf,
    labels: Vec<String>,
    /// The number of the label that single figures are of.
    positive: usize,
    train: Vec<LabelledText>,
    validation: Vec<LabelledText>,
    /// Texts that stood in both parts and were taken out of the training part.
    removed: usize,
    tokens_max: usize,
}

impl Prepared {
    fn read(context: &StepContext, step: &FitStep) -> Result<Self> {
        let (_, rows) = context.input("data")?;
        let validation = rows.path("validation.parquet");
        let validation = if validation.is_file() { examples(&validation, step)? } else { vec![] };
        let mut train = examples(&rows.path("train.parquet"), step)?;
        let both = in_both(&train, &validation);
        if let Some((text, _)) = both.first() {
            context.observer.warn(format!(
                "{} texts of the training part also stand in the validation part, such as \"{}\": they are left out of \
                 training",
                both.len(),
                shortened(text)
            ));
        }
        let both: HashSet<usize> = both.into_iter().map(|(_, place)| place).collect();
        let mut place = 0..;
        train.retain(|_| place.next().is_some_and(|place| !both.contains(&place)));
        let labels: Vec<String> =
            train.iter().map(|row| row.label.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let positive = positive(step, &train, &labels)?;
        let (input, base) = context.input("model")?;
        let folder = context.model_folder(input, base)?;
        let seed = context.project.plan.project.seed;
        let classifier =
            Classifier::read(&folder, Some(&labels), seed, &cpu())?.with_precision(step.schedule.machine.precision);
        let tokens_max = step.schedule.batches.context.min(classifier.context());
        let tokenizer = Tokenizer::read(&folder)?;
        let tokenizer = SequenceTokenizer::new(tokenizer, SentenceConfig::read(&folder)?.lower_case);
        let encode = |rows: &[Example]| encoded(context, &tokenizer, rows, &labels, tokens_max);
        let (train, validation) = (encode(&train)?, encode(&validation)?);
        let classifier = match step.method {
            TuneMethod::Full => classifier,
            TuneMethod::Lora => classifier.with_lora(&LoraSpec::from(&step.lora), seed),
        };
        Ok(Self { classifier, folder, labels, positive, train, validation, removed: both.len(), tokens_max })
    }

    fn take<C: Course>(&self, context: &StepContext, step: &FitStep, course: C) -> Result<C::Outcome<Classifier>> {
        let classifier = &self.classifier;
        let (rows, dropout) = (step.schedule.batches.batch_size, step.schedule.update.dropout);
        let objective =
            Classify::new(classifier, &self.train, &self.validation, rows, dropout)?.with_positive(self.positive);
        let objective = match step.weights {
            TextWeights::Equal => objective,
            TextWeights::Balanced => objective.balanced(),
        };
        let hidden: HashSet<String> = classifier.hidden_parameters().into_iter().collect();
        let selection = match step.method {
            TuneMethod::Full => Selection::all(classifier),
            TuneMethod::Lora => {
                let adapters = classifier.adapter_parameters().into_iter();
                let trained: HashSet<String> = adapters.chain(classifier.head_parameters()).collect();
                Selection::named(classifier, |name| trained.contains(name))
            }
        };
        let metrics = context.run.join("metrics.jsonl");
        let training = Training {
            selection: Some(selection.with_hidden(|name| hidden.contains(name))),
            ..training(context, &step.schedule, &metrics)?
        };
        course.take(classifier.clone(), &objective, &training)
    }
}

/// A text with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Example {
    text: String,
    label: String,
}

fn examples(path: &Path, step: &FitStep) -> Result<Vec<Example>> {
    let at = |(place, record): (usize, Result<Record>)| {
        example(&record?, step).map_err(|error| error.at(path.display(), Some(place + 1)))
    };
    read_records(path)?.enumerate().map(at).collect()
}

/// The text and the label of a row.
fn example(record: &Record, step: &FitStep) -> Result<Example> {
    let column = |name: &String, key: &str| match record.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::Null | Value::String(_)) => Err(Error::input(format!("a row has nothing in the column `{name}`"))
            .help(format!("leave such rows out in the data step: `transform = \"… where trim({name}) <> ''\"`"))),
        Some(other) => Ok(other.to_string()),
        None => {
            let known: Vec<&str> = record.keys().map(String::as_str).collect();
            let near = narthex_base::error::nearest(name, known.iter().copied());
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            Err(Error::input(format!("`{key}` names the column `{name}`, which the rows do not have"))
                .help(format!("{near}columns: {}", known.join(", "))))
        }
    };
    Ok(Example { text: column(&step.text, "text")?, label: column(&step.target, "target")? })
}

/// The rows of the training part whose texts also stand in the validation part but for case and white space, with their
/// places.
fn in_both<'a>(train: &'a [Example], validation: &[Example]) -> Vec<(&'a str, usize)> {
    let folded = |row: &Example| row.text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let held: HashSet<String> = validation.iter().map(folded).collect();
    let places = train.iter().enumerate().filter(|(_, row)| held.contains(&folded(row)));
    places.map(|(place, row)| (row.text.as_str(), place)).collect()
}

/// A text's beginning.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut short: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

/// The number of the label that single figures are of: the one asked for, or the rarest; of equals the last.
fn positive(step: &FitStep, train: &[Example], labels: &[String]) -> Result<usize> {
    if labels.len() < 2 {
        return Err(Error::input(format!(
            "the column `{}` has {} labels in the training part",
            step.target,
            labels.len()
        ))
        .cause("a classifier tells at least two apart")
        .help("check `target`, and how the data step divides the rows"));
    }
    let Some(asked) = &step.positive else {
        let count = |label: &String| train.iter().filter(|row| row.label == *label).count();
        let rarest = (0..labels.len()).rev().min_by_key(|place| count(&labels[*place]));
        return Ok(rarest.unwrap_or_default());
    };
    labels.iter().position(|label| label == asked).ok_or_else(|| {
        Error::input(format!("`positive` is `{asked}`, which is no label of the training part"))
            .help(format!("labels: {}", labels.join(", ")))
    })
}

fn encoded(
    context: &StepContext,
    tokenizer: &SequenceTokenizer,
    rows: &[Example],
    labels: &[String],
    tokens_max: usize,
) -> Result<Vec<LabelledText>> {
    let mut made = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        context.observer.check()?;
        let texts: Vec<&str> = chunk.iter().map(|row| row.text.as_str()).collect();
        let sequences = tokenizer.texts(&texts, tokens_max)?;
        for (row, sequence) in chunk.iter().zip(sequences) {
            if sequence.ids.is_empty() {
                return Err(Error::input(format!("the text \"{}\" has no tokens", shortened(&row.text)))
                    .help("leave such rows out in the data step"));
            }
            let label = labels.binary_search(&row.label).map_err(|_| {
                Error::input(format!("the label `{}` stands in the validation part alone", row.label))
                    .help("add rows of it, or leave it out in the data step")
            })?;
            made.push(LabelledText { input: EncoderInput { ids: sequence.ids, types: sequence.types }, label });
        }
        context.observer.progress(made.len() as u64, rows.len() as u64, "texts", "");
    }
    Ok(made)
}

/// Weights that were tuned from somebody else's stay under the terms of those, and so does their tokenizer.
fn components(context: &StepContext) -> Result<Vec<Component>> {
    let model = context.input("model")?;
    let names = super::paths_below(context.files)?;
    let (tokenizer, rest): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| TOKENIZER_FILES.contains(name));
    let (weights, configuration): (Vec<&str>, Vec<&str>) =
        rest.into_iter().partition(|name| name.ends_with(".safetensors"));
    let theirs =
        context.of_input(model, ".safetensors", context.own("weights", ComponentKind::ModelParameters, &weights));
    let own = context.own("weights", ComponentKind::ModelParameters, &weights);
    let weights = if context.is_ours(&theirs) { own } else { theirs };
    let configuration = context.own("configuration", ComponentKind::ModelMetadata, &configuration);
    let tokenizer = context.own("tokenizer", ComponentKind::ModelMetadata, &tokenizer);
    Ok(vec![weights, configuration, context.of_input(model, "tokenizer.json", tokenizer)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::{Plan, config::Step, plan::Layers};

    fn step(more: &str) -> FitStep {
        let file = format!(
            "[project]\nname = \"p\"\n[sources.m]\npath = \"m\"\nformat = \"huggingface\"\n[sources.s]\npath = \"s.tsv\"\n\
             [steps.rows]\nkind = \"data\"\nfrom = \"s\"\noutput = \"rows\"\n\
             [steps.spam]\nkind = \"fit\"\nmodel = \"m\"\ndata = \"rows\"\ntarget = \"label\"\n{more}"
        );
        let plan = Plan::resolve(&Layers { file_name: "narthex.toml".into(), file, ..Layers::default() }).unwrap();
        match &plan.step("spam").unwrap().step {
            Step::Fit(step) => step.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn record(json: Value) -> Record {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn rows_become_examples() {
        let found = example(&record(json!({"text": "a", "label": 1, "x": null})), &step("")).unwrap();
        assert_eq!(found, Example { text: "a".into(), label: "1".into() });
        for (row, expected, help) in [
            (json!({"txt": "a", "label": "x"}), "`text` names the column `text`", "did you mean `txt`?"),
            (json!({"text": null, "label": "x"}), "nothing in the column `text`", "where trim(text)"),
            (json!({"text": "a"}), "`target` names the column `label`", "columns: text"),
        ] {
            let error = example(&record(row.clone()), &step("")).unwrap_err();
            assert!(error.what().contains(expected) && error.help_text().unwrap().contains(help), "{row}: {error}");
        }
    }

    #[test]
    fn texts_in_both_parts_are_found_but_for_case_and_white_space() {
        let of = |texts: &[&str]| -> Vec<Example> {
            texts.iter().map(|text| Example { text: text.to_string(), label: "x".into() }).collect()
        };
        let (train, validation) = (of(&["Call  NOW ", "hello", "now", "call now"]), of(&["call now", "Hello!"]));
        assert_eq!(in_both(&train, &validation), [("Call  NOW ", 0), ("call now", 3)]);
        assert_eq!(in_both(&train, &[]), []);
    }

    #[test]
    fn the_positive_label_is_asked_for_or_the_rarest() {
        let of = |labels: &[&str]| -> Vec<Example> {
            labels.iter().map(|label| Example { text: String::new(), label: label.to_string() }).collect()
        };
        let labels = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        for (more, rows, expected) in [
            ("", &["ham", "ham", "spam"][..], Ok(1)),
            ("", &["ham", "spam"], Ok(1)),
            ("", &["ham", "spam", "spam"], Ok(0)),
            ("positive = \"ham\"\n", &["ham", "ham", "spam"], Ok(0)),
            ("positive = \"eggs\"\n", &["ham", "spam"], Err("no label of the training part")),
        ] {
            let found = positive(&step(more), &of(rows), &labels(&["ham", "spam"]));
            match expected {
                Ok(place) => assert_eq!(found.unwrap(), place, "{more}{rows:?}"),
                Err(what) => assert!(found.unwrap_err().what().contains(what), "{more}{rows:?}"),
            }
        }
        assert!(positive(&step(""), &of(&["ham"]), &labels(&["ham"])).unwrap_err().what().contains("1 labels"));
    }
}
