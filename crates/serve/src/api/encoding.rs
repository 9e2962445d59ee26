//! What the endpoints of encoders share: the texts, the length that they are cut to, and the run with its measures.
//! Knows no wire format of answers.

use super::{
    ability::Comparer,
    parameters::check_model,
    refusal::{engine_stopped, not_taken},
};
use crate::{Limits, Served, app::App, metrics::Metrics};
use narthex_answer::{Ended, Life, TextEncoder, encoder_inputs};
use narthex_http::{ApiError, Exchange, Fields, GenerationRecord};
use narthex_text::TokenSequence;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Reads the field `model`, which must name the model that is served if it is there.
pub(crate) fn read_model(fields: &mut Fields, model: &Served) -> Result<(), ApiError> {
    // Where there is one model, it need not be named.
    fields.string("model")?.map_or(Ok(()), |name| check_model(&name, model))
}

/// How long texts may be.
#[derive(Clone, Copy)]
pub(crate) struct Length {
    /// Longer ones are cut to this, if asked.
    pub tokens_max: usize,
    context: usize,
}

impl Length {
    /// Reads vLLM's `truncate_prompt_tokens`: a number of tokens, or -1 for what the model can hold.
    pub fn read(fields: &mut Fields, encoder: &TextEncoder) -> Result<Self, ApiError> {
        let context = encoder.engine.context();
        let asked = fields.integer("truncate_prompt_tokens", -1..=context as i64)?;
        if asked == Some(0) {
            let message = "`truncate_prompt_tokens` must be at least 1, or -1";
            return Err(ApiError::field("truncate_prompt_tokens", message));
        }
        let tokens_max = match asked {
            None => usize::MAX,
            Some(-1) => context,
            Some(tokens) => tokens as usize,
        };
        Ok(Self { tokens_max, context })
    }

    /// Refuses sequences that the model cannot hold.
    pub fn check(self, sequences: &[TokenSequence], field: &str) -> Result<(), ApiError> {
        let Some(longest) = sequences.iter().map(|sequence| sequence.ids.len()).max() else { return Ok(()) };
        if longest <= self.context {
            return Ok(());
        }
        let message = format!(
            "a text is too long: it has {longest} tokens, but the model's context holds {}; `\"truncate_prompt_tokens\": -1` \
             cuts texts to that",
            self.context
        );
        Err(ApiError::field(field, message).code("context_length_exceeded"))
    }
}

/// A text or a list of texts.
pub(crate) fn read_texts(fields: &mut Fields, field: &'static str, count_max: usize) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field(field, format!("`{field}` must be a string or a list of strings"));
    let texts = match fields.take(field).ok_or_else(|| fields.missing(field))? {
        Value::String(text) => vec![text],
        Value::Array(list) => list.into_iter().map(|text| text_of(text).ok_or_else(wrong)).collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    check_count(&texts, field, count_max)?;
    Ok(texts)
}

fn text_of(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

/// Refuses none and too many.
pub(crate) fn check_count<T>(inputs: &[T], field: &str, count_max: usize) -> Result<(), ApiError> {
    match inputs.len() {
        0 => Err(ApiError::field(field, format!("`{field}` must not be empty"))),
        count if count > count_max => {
            Err(ApiError::field(field, format!("`{field}` has {count} entries; {count_max} at most")))
        }
        _ => Ok(()),
    }
}

/// The value of `input`: a string, a list of strings, token ids, or a list of lists of token ids; texts behind the
/// prompt.
pub(crate) fn read_input(
    value: Value,
    encoder: &TextEncoder,
    prompt: &str,
    length: Length,
    limits: &Limits,
) -> Result<Vec<TokenSequence>, ApiError> {
    let wrong = || {
        let message = "`input` must be a string, a list of strings, a list of token ids, or a list of such lists";
        ApiError::field("input", message)
    };
    let list = match value {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => vec![Value::Array(list)],
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    check_count(&list, "input", limits.inputs_max)?;
    if list[0].is_string() {
        let texts: Vec<&str> = list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)?;
        if texts.iter().any(|text| text.is_empty()) {
            return Err(ApiError::field("input", "a text in `input` must not be empty"));
        }
        let sequences = encoder.texts(prompt, &texts, length.tokens_max);
        let sequences = sequences.map_err(|error| ApiError::field("input", error.what()))?;
        length.check(&sequences, "input")?;
        return Ok(sequences);
    }
    let sequence = |ids: &Value| -> Result<TokenSequence, ApiError> {
        let ids = ids.as_array().ok_or_else(wrong)?;
        let ids = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
        let mut ids: Vec<u32> = ids.collect::<Option<_>>().ok_or_else(wrong)?;
        let cut = ids.len().saturating_sub(length.tokens_max);
        ids.truncate(length.tokens_max);
        Ok(TokenSequence { ids, types: vec![], cut })
    };
    let sequences: Vec<TokenSequence> = list.iter().map(sequence).collect::<Result<_, _>>()?;
    length.check(&sequences, "input")?;
    Ok(sequences)
}

/// Runs sequences and counts them as a request of this operation. Gives what they yield and how many tokens they had.
pub(crate) async fn run(
    app: &App,
    exchange: &Exchange,
    (operation, field): (&'static str, &str),
    encoder: &TextEncoder,
    sequences: Vec<TokenSequence>,
) -> Result<(Vec<Vec<f32>>, usize), ApiError> {
    let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    exchange.generates(GenerationRecord {
        operation,
        model: app.model.id.clone(),
        response_id: exchange.id.clone(),
        choices: sequences.len(),
        prompt_tokens: tokens,
        ..GenerationRecord::default()
    });
    let mut counted = Counted { metrics: app.serving.metrics(), started: Instant::now(), tokens, ended: Ended::Abort };
    let (sender, result) = tokio::sync::oneshot::channel();
    let submitted = encoder.engine.submit(encoder_inputs(sequences), Box::new(move |outcome| _ = sender.send(outcome)));
    // Dropped with this future, it tells the engine that nobody waits any more.
    let _ticket = submitted.map_err(|error| not_taken(&error, field))?;
    let outcome = result.await.map_err(|_| engine_stopped())?;
    let outputs = outcome.map_err(|why| ApiError::internal(format!("the engine failed: {why}")))?;
    counted.ended = Ended::Stop;
    exchange.update(|record| record.finish_reasons.push("stop"));
    Ok((outputs, tokens))
}

/// Counts a request when it is dropped.
struct Counted<'a> {
    metrics: &'a Metrics,
    started: Instant,
    tokens: usize,
    ended: Ended,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let whole = self.started.elapsed();
        let life = Life { whole, prefill: whole, queue: Duration::ZERO, prompt_tokens: self.tokens, ..Life::default() };
        self.metrics.ended(self.ended, &life);
    }
}

/// How alike two texts are: a cross-encoder's score of the pair, or the cosine of their vectors.
pub(crate) enum Likeness {
    Pairs(Vec<TokenSequence>),
    Vectors {
        sequences: Vec<TokenSequence>,
        /// Of the sequences, those that come first in their pairs: one, or as many as there are pairs.
        firsts: usize,
    },
}

impl Likeness {
    /// Pairs each second text with its first, or with the only one.
    pub fn read(
        comparer: Comparer<'_>,
        [first, second]: [(&[String], &str); 2],
        length: Length,
        [first_field, second_field]: [&str; 2],
    ) -> Result<Self, ApiError> {
        let firsts: Vec<&str> = first.0.iter().map(String::as_str).collect();
        let seconds: Vec<&str> = second.0.iter().map(String::as_str).collect();
        let wrong = |field: &str| {
            let field = field.to_string();
            move |error: narthex_base::Error| ApiError::field(field, error.what())
        };
        match comparer {
            Comparer::Pairs(encoder) => {
                let pairs = encoder.tokenizer.pairs(&firsts, &seconds, length.tokens_max);
                let pairs = pairs.map_err(wrong(second_field))?;
                length.check(&pairs, second_field)?;
                Ok(Likeness::Pairs(pairs))
            }
            Comparer::Vectors(encoder) => {
                let sequences = encoder.texts(first.1, &firsts, length.tokens_max);
                let mut sequences = sequences.map_err(wrong(first_field))?;
                length.check(&sequences, first_field)?;
                let others = encoder.texts(second.1, &seconds, length.tokens_max).map_err(wrong(second_field))?;
                length.check(&others, second_field)?;
                sequences.extend(others);
                Ok(Likeness::Vectors { sequences, firsts: firsts.len() })
            }
        }
    }

    /// A score for each pair, and how many tokens were read.
    pub async fn run(
        self,
        app: &App,
        exchange: &Exchange,
        (operation, field): (&'static str, &str),
        encoder: &TextEncoder,
    ) -> Result<(Vec<f32>, usize), ApiError> {
        match self {
            Likeness::Pairs(pairs) => {
                let (scores, tokens) = run(app, exchange, (operation, field), encoder, pairs).await?;
                Ok((scores.into_iter().map(|score| score[0]).collect(), tokens))
            }
            Likeness::Vectors { sequences, firsts } => {
                let (vectors, tokens) = run(app, exchange, (operation, field), encoder, sequences).await?;
                let (first, second) = vectors.split_at(firsts);
                let pairs = second.iter().enumerate();
                Ok((pairs.map(|(at, second)| cosine(&first[at % firsts], second)).collect(), tokens))
            }
        }
    }
}

/// The cosine of the angle between two vectors; 0 where one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}
