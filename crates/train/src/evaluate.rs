//! Tasks: exact match of a greedy answer, and multiple choice by log-likelihood.

use narthex_base::{Error, Observer, Result};
use narthex_infer::{Engine, Output, Request, Sampling};
use narthex_text::Tokenizer;
use std::{collections::BTreeMap, sync::mpsc::channel};

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

/// Scores a model on a task. `stop_tokens` end an answer.
///
/// # Errors
/// If the tokenizer or the engine fails, or the work is interrupted.
pub fn score_task(
    engine: &Engine,
    tokenizer: &Tokenizer,
    items: &[TaskItem],
    stop_tokens: &[u32],
    max_answer_tokens: usize,
    observer: Observer,
) -> Result<TaskScore> {
    let mut score = TaskScore::default();
    for (done, item) in items.iter().enumerate() {
        observer.check()?;
        match item {
            TaskItem::Exact { prompt, answer } => {
                let prompt = tokenizer.encode(prompt, false)?;
                if prompt.is_empty() || prompt.len() + 1 > engine.context() {
                    score.skipped_rows += 1;
                    continue;
                }
                let request = greedy(prompt, max_answer_tokens, stop_tokens);
                let (tokens, _) = engine.generate(request).map_err(refused)?;
                score.exact_rows += 1;
                score.exact += usize::from(tokenizer.decode(&tokens, true)?.trim() == answer.trim());
            }
            TaskItem::Choice { prompt, choices, answer } => match likeliest(engine, tokenizer, prompt, choices)? {
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
fn likeliest(engine: &Engine, tokenizer: &Tokenizer, prompt: &str, choices: &[String]) -> Result<Option<usize>> {
    let prompt_ids = tokenizer.encode(prompt, false)?;
    let mut best: Option<(usize, f64)> = None;
    for (i, choice) in choices.iter().enumerate() {
        // The prompt's tokens may change where the choice is glued on, so the choice is what follows the common part.
        let ids = tokenizer.encode(&format!("{prompt}{choice}"), false)?;
        let common = prompt_ids.iter().zip(&ids).take_while(|(a, b)| a == b).count().max(1);
        if ids.len() > engine.context() || common >= ids.len() {
            return Ok(None);
        }
        let (sender, outputs) = channel();
        let request = Request { prompt_logprobs: true, ..greedy(ids, 0, &[]) };
        let ticket = engine.submit(request, Box::new(move |output| sender.send(output).is_ok()));
        let _ticket = ticket.map_err(refused)?;
        let mut total = 0.0;
        for output in outputs {
            match output {
                Output::Prompt(scores) => {
                    total = scores[common..].iter().flatten().map(|score| f64::from(score.logprob)).sum()
                }
                Output::Failed(why) => return Err(Error::internal(why)),
                _ => {}
            }
        }
        let per_byte = total / choice.len().max(1) as f64;
        if best.is_none_or(|(_, score)| per_byte > score) {
            best = Some((i, per_byte));
        }
    }
    Ok(best.map(|(i, _)| i))
}

fn greedy(prompt: Vec<u32>, max_tokens: usize, stop_tokens: &[u32]) -> Request {
    Request {
        prompt,
        max_tokens,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop_tokens: stop_tokens.to_vec(),
        ..Request::default()
    }
}

fn refused(error: narthex_infer::SubmitError) -> Error {
    Error::input("the model cannot take this prompt").cause(error)
}
