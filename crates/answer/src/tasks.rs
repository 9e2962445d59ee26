//! Tasks: exact match of a greedy answer, and multiple choice by log-likelihood. Knows rows, not where they come from.

use crate::{
    generation::{Generation, Piece},
    model::TextModel,
};
use narthex_base::{Observer, Result};
use narthex_infer::{Request, Sampling};
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
    /// The choice with the highest log-likelihood per byte must be the right one.
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TaskScore {
    /// Rows answered exactly.
    pub exact: usize,
    /// Rows that ask for an exact answer.
    pub exact_rows: usize,
    /// Rows whose right choice was the likeliest (by log-likelihood per byte).
    pub choice: usize,
    /// Rows with choices.
    pub choice_rows: usize,
    /// Rows that do not fit the model's context.
    pub skipped_rows: usize,
}

impl TaskScore {
    /// As figures, with the share of rows that were right.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        for (name, right, rows) in
            [("exact_match", self.exact, self.exact_rows), ("choice_accuracy", self.choice, self.choice_rows)]
        {
            if rows > 0 {
                figures.insert(name.to_string(), right as f64 / rows as f64);
                figures.insert(format!("{name}_rows"), rows as f64);
            }
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
                score.exact_rows += 1;
                score.exact += usize::from(told.text.trim() == answer.trim());
            }
            TaskItem::Choice { prompt, choices, answer } => match likeliest(model, prompt, choices)? {
                Some(best) => {
                    score.choice_rows += 1;
                    score.choice += usize::from(best == *answer);
                }
                None => score.skipped_rows += 1,
            },
        }
        observer.progress(done as u64 + 1, items.len() as u64, "rows", "");
    }
    Ok(score)
}

/// The choice with the highest log-likelihood per byte after the prompt; none if one does not fit.
fn likeliest(model: &TextModel, prompt: &str, choices: &[String]) -> Result<Option<usize>> {
    let prompt_ids = model.tokenizer.encode_open(prompt)?;
    let mut best: Option<(usize, f64)> = None;
    for (i, choice) in choices.iter().enumerate() {
        // The prompt's tokens may change where the choice is glued on, so the choice is what follows the common part.
        let ids = model.tokenizer.encode_open(&format!("{prompt}{choice}"))?;
        let common = prompt_ids.iter().zip(&ids).take_while(|(a, b)| a == b).count().max(1);
        if ids.len() > model.engine.context() || common >= ids.len() {
            return Ok(None);
        }
        let request = Request { prompt_logprobs: true, ..model.request(ids, 0, greedy()) };
        let mut generation = Generation::start(model, vec![request], &[], ())?;
        let mut total = 0.0;
        while let Some((_, piece)) = generation.next_blocking()? {
            if let Piece::Prompt(scores) = piece {
                total = scores[common..].iter().flatten().map(|score| f64::from(score.logprob)).sum();
            }
        }
        let per_byte = total / choice.len().max(1) as f64;
        if best.is_none_or(|(_, score)| per_byte > score) {
            best = Some((i, per_byte));
        }
    }
    Ok(best.map(|(i, _)| i))
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}
