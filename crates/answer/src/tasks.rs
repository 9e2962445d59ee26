//! Tasks: exact match of a greedy answer, and multiple choice by log-likelihood, counted as EleutherAI's
//! lm-evaluation-harness counts (Gao et al., 2021; `HFLM._encode_pair`, `multiple_choice` of version 0.4). Knows
//! rows, not where they come from.

use crate::{
    generation::{Generation, Piece, Reading},
    model::TextModel,
};
use narthex_base::{Figure, Observer, Result};
use narthex_infer::{Request, Sampling};
use narthex_text::Tokenizer;
use std::{collections::BTreeMap, ops::ControlFlow};

/// One row of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskItem {
    /// The answer must be the model's greedy continuation, white space at both ends aside.
    Exact {
        /// Rendered prompt.
        prompt: String,
        /// Expected answer.
        answer: String,
    },
    /// The likeliest choice must be the right one.
    Choice {
        /// Rendered prompt.
        prompt: String,
        /// The choices.
        choices: Vec<String>,
        /// The index of the right one.
        answer: usize,
    },
}

/// What a model scored on a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskScore {
    /// Rows that were right and rows in all, by the name of the figure.
    counts: BTreeMap<&'static str, (usize, usize)>,
    /// Rows that do not fit the model's context.
    pub skipped_rows: usize,
}

impl TaskScore {
    fn count(&mut self, figure: Figure, right: bool) {
        let (rights, rows) = self.counts.entry(figure.name).or_default();
        *rights += usize::from(right);
        *rows += 1;
    }

    /// As figures: the share of rows that were right, its standard error where there are two rows or more, and the
    /// rows.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        for (name, (right, rows)) in &self.counts {
            let (share, n) = (*right as f64 / *rows as f64, *rows as f64);
            figures.insert(name.to_string(), share);
            if *rows > 1 {
                // The standard deviation of the sample over the root of its size.
                figures.insert(format!("{name}_stderr"), (share * (1.0 - share) / (n - 1.0)).sqrt());
            }
            let kind = if *name == Figure::EXACT_MATCH.name { "exact_match_rows" } else { "choice_rows" };
            figures.insert(kind.into(), n);
        }
        if self.skipped_rows > 0 {
            figures.insert("skipped_rows".into(), self.skipped_rows as f64);
        }
        figures
    }
}

/// Scores a model on a task.
///
/// # Errors
/// If the tokenizer or the engine fails, or the work is interrupted.
pub fn score_task(
    model: &TextModel,
    items: &[TaskItem],
    answer_tokens_max: usize,
    observer: Observer,
) -> Result<TaskScore> {
    let mut score = TaskScore::default();
    for (done, item) in items.iter().enumerate() {
        observer.check()?;
        match item {
            TaskItem::Exact { prompt, answer } => {
                let prompt = model.tokenizer.encode_open(prompt)?;
                if prompt.is_empty() || prompt.len() + 1 > model.engine.context() {
                    score.skipped_rows += 1;
                    continue;
                }
                let told =
                    model.tell(model.request(prompt, answer_tokens_max, greedy()), |_| ControlFlow::Continue(()))?;
                score.count(Figure::EXACT_MATCH, told.text.trim() == answer.trim());
            }
            TaskItem::Choice { prompt, choices, answer } => match likelihoods(model, prompt, choices)? {
                Some(sums) => {
                    let over = |length: fn(&str) -> usize| -> Vec<f64> {
                        sums.iter().zip(choices).map(|(sum, choice)| sum / length(choice) as f64).collect()
                    };
                    score.count(Figure::ACC, highest(&sums) == *answer);
                    score.count(Figure::ACC_NORM, highest(&over(|choice| choice.chars().count())) == *answer);
                    score.count(Figure::ACC_BYTES, highest(&over(str::len)) == *answer);
                }
                None => score.skipped_rows += 1,
            },
        }
        observer.progress(done as u64 + 1, items.len() as u64, "rows", "");
    }
    Ok(score)
}

/// The first of the highest.
fn highest(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).fold(0, better)
}

/// The log-likelihood of each choice after the prompt, in nats; none if one does not fit.
fn likelihoods(model: &TextModel, prompt: &str, choices: &[String]) -> Result<Option<Vec<f64>>> {
    let mut sums = Vec::new();
    for choice in choices {
        let (ids, from) = pair(&model.tokenizer, prompt, choice, &model.stop_tokens)?;
        if ids.len() > model.engine.context() || from == 0 || from >= ids.len() {
            return Ok(None);
        }
        let request = Request { prompt_logprobs: Some(0), ..model.request(ids, 0, greedy()) };
        let mut generation = Generation::start(model, vec![request], &Reading::default(), ())?;
        let mut sum = 0.0;
        while let Some((_, piece)) = generation.next_blocking()? {
            if let Piece::Prompt(scores) = piece {
                sum = scores[from..].iter().flatten().map(|score| f64::from(score.logprob)).sum();
            }
        }
        sums.push(sum);
    }
    Ok(Some(sums))
}

/// The tokens of a prompt and a choice as one text, and where the choice begins: after as many tokens as the prompt has
/// alone. Spaces at the prompt's end belong to the choice, since most tokenizers join them to the word that follows.
/// What follows nothing follows the BOS token, or else an end of text.
fn pair(tokenizer: &Tokenizer, prompt: &str, choice: &str, ends: &[u32]) -> Result<(Vec<u32>, usize)> {
    let context = prompt.trim_end();
    let whole = tokenizer.encode_open(&format!("{prompt}{choice}"))?;
    if context.is_empty() && tokenizer.prefix()?.is_empty() {
        let before = ends.first().copied();
        let from = usize::from(before.is_some());
        return Ok((before.into_iter().chain(whole).collect(), from));
    }
    let from = tokenizer.encode_open(context)?.len();
    Ok((whole, from))
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}
