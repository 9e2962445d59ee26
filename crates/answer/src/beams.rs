//! Beam search: of all continuations those that the model finds likeliest as a whole, as far as a beam of a given width
//! sees them (Graves, "Sequence transduction with recurrent neural networks", 2012). Knows no wire format.

use crate::{
    error::AnswerError,
    generation::{Ending, Generation, Reading, StoppedBy, Whole},
    model::TextModel,
};
use narthex_infer::{FinishReason, Request, Sampling};
use narthex_text::TextStream;

/// How wide a search is, and how its continuations are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamSearch {
    /// Continuations that are followed at once, and that come out in the end.
    pub width: usize,
    /// The sum of log-probabilities is divided by the number of tokens, the prompt's included, to this power: more than
    /// 1 prefers longer ones.
    pub length_penalty: f64,
}

#[derive(Clone)]
struct Beam {
    /// Without the token that ended it.
    ids: Vec<u32>,
    logprob: f64,
    stopped_by: Option<u32>,
}

impl BeamSearch {
    fn score(&self, beam: &Beam, prompt: usize) -> f64 {
        beam.logprob / ((prompt + beam.ids.len()).max(1) as f64).powf(self.length_penalty)
    }

    /// The best continuations of a request's prompt, the best first, and the tokens that were computed for them. Of the
    /// request, the stop tokens, the limit and the adapter count; nothing is drawn.
    ///
    /// # Errors
    /// If the engine does not take the sequences, or fails.
    pub async fn run(&self, model: &TextModel, request: &Request) -> Result<(Vec<Whole>, usize), AnswerError> {
        let prompt = request.prompt.len();
        let mut live = vec![Beam { ids: vec![], logprob: 0.0, stopped_by: None }];
        let (mut ended, mut tokens) = (Vec::<Beam>::new(), 0);
        for _ in 0..request.max_tokens {
            let step = live.iter().map(|beam| Request {
                prompt: request.prompt.iter().chain(&beam.ids).copied().collect(),
                max_tokens: 1,
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                stop_tokens: vec![],
                min_tokens: 0,
                logprobs: Some(2 * self.width),
                logprob_ids: vec![],
                prompt_logprobs: None,
                constraint: None,
                ..request.clone()
            });
            let wholes = Generation::start(model, step.collect(), &Reading::default(), ())?.wholes().await?;
            tokens += wholes.len();
            let mut next = vec![];
            for (beam, whole) in live.iter().zip(wholes) {
                let top = whole.scored.into_iter().next().map(|scored| scored.logprobs.top).unwrap_or_default();
                for (id, logprob) in top {
                    let mut longer = Beam { logprob: beam.logprob + f64::from(logprob), ..beam.clone() };
                    if request.stop_tokens.contains(&id) {
                        longer.stopped_by = Some(id);
                        ended.push(longer);
                    } else {
                        longer.ids.push(id);
                        next.push(longer);
                    }
                }
            }
            // All are of one length; of equals the first, so that the outcome depends on nothing else.
            next.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            next.truncate(self.width);
            live = next;
            if live.is_empty() {
                break;
            }
        }
        ended.extend(live);
        ended.sort_by(|a, b| self.score(b, prompt).total_cmp(&self.score(a, prompt)));
        ended.truncate(self.width);
        let wholes = ended.into_iter().map(|beam| whole(model, request, beam));
        Ok((wholes.collect::<Result<_, _>>()?, tokens))
    }
}

fn whole(model: &TextModel, request: &Request, beam: Beam) -> Result<Whole, AnswerError> {
    let mut stream = TextStream::new(&model.tokenizer, true).after(&request.prompt);
    let mut text = String::new();
    for id in &beam.ids {
        text += &stream.push(*id).map_err(AnswerError::Undecodable)?.unwrap_or_default();
    }
    text += &stream.finish().map_err(AnswerError::Undecodable)?;
    let reason = if beam.stopped_by.is_some() { FinishReason::Stop } else { FinishReason::Length };
    let ending = Ending { reason, stopped_by: beam.stopped_by.map(StoppedBy::Token) };
    let ids = beam.ids.into_iter().chain(beam.stopped_by).collect();
    Ok(Whole { prompt: vec![], text, scored: vec![], ids, ending })
}
